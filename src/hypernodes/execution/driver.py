"""Carry a run through: do what is to be done here, have the rest executed elsewhere, feed outcomes back.

run.ready() ─┬─ here ───────────────────────────▶ run.settle()
             └─ session.submit() ─▶ future ─▶ completed (queue) ─▶ session.receive() ─▶ run.settle()
"""

from __future__ import annotations

from concurrent.futures import wait as wait_for
from contextlib import suppress
from dataclasses import replace
from itertools import zip_longest
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from hypernodes.exceptions import OtherCodeError
from hypernodes.execution.calls.batch import call_batch_of
from hypernodes.execution.calls.call import call_node
from hypernodes.execution.in_flight import CallsInFlight
from hypernodes.execution.jobs import (
    BatchCall,
    BatchOutcome,
    Call,
    CallGroup,
    Chunk,
    ChunkOutcome,
    Fetch,
    Fetched,
    GroupOutcome,
    LookUp,
    Outcome,
)
from hypernodes.execution.local_jobs import execute_compiled, look_up
from hypernodes.execution.pacing import Pacing
from hypernodes.execution.provenance import store
from hypernodes.executors.context import isolated
from hypernodes.executors.loops import ASYNC_CALLER, CANCEL_TIMEOUT_S, RunStopped
from hypernodes.serialization.remote import is_remote, resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future

    from hypernodes.callbacks.event import Event
    from hypernodes.execution.jobs import Job, JobKey, RemoteJob
    from hypernodes.execution.plan.model import CallStep
    from hypernodes.execution.plan.placement import TargetRef
    from hypernodes.execution.scheduler.run import Run
    from hypernodes.execution.target import ExecutionTarget, Session

MAX_WAIT_S: Final = 1.0
"""Seconds of one wait, at most: a signal that arrives just before a wait is handled by Python after it."""
CALLS: Final = (Call, BatchCall, CallGroup)
"""The jobs whose beginning is an event."""


class Completed:
    """The futures of a run that are done, in the order in which they were.

    A future keeps its callbacks, so a closed one lets go of the futures that are in it.
    """

    def __init__(self) -> None:
        self._queue: SimpleQueue[Future[Any] | None] | None = SimpleQueue()

    def put(self, future: Future[Any] | None) -> None:
        """Add a future; ``None`` ends the run from another thread."""
        if (queue := self._queue) is not None:
            queue.put(future)

    def get(self, timeout: float | None = None) -> Future[Any] | None:
        """Wait for a future, and take it; an `Empty` is raised after the timeout."""
        return None if self._queue is None else self._queue.get(timeout=timeout)

    def is_empty(self) -> bool:
        """Whether `get` would have to wait."""
        return self._queue is None or self._queue.empty()

    def close(self) -> None:
        """Let go of what has arrived, and of what will."""
        self._queue = None


def drive(run: Run, target_of: Callable[[TargetRef], ExecutionTarget]) -> None:
    """Work until the run is over, in a worker, and leave its events in it; see `proceed`."""
    for _ in proceed(run, target_of, lambda _: None, in_worker=True):
        pass


def proceed(
    run: Run,
    target_of: Callable[[TargetRef], ExecutionTarget],
    emit: Callable[[list[Event]], object],
    completed: Completed | None = None,
    *,
    put: Callable[[Event], object] | None = None,
    in_worker: bool = False,
) -> Iterator[None]:
    """Work until the run is over, and stop each time when there is nothing to do but wait.

    `emit` may empty the list of events; `put` emits one as it happens. ``None`` in `completed` ends the run
    from another thread, with a RunStopped. If anything interrupts the run, what had not started is cancelled.
    """
    driver = _Driver(run, target_of, completed or Completed(), put, in_worker=in_worker)
    caller = ASYNC_CALLER.get()
    try:
        while not run.is_over:
            if caller is not None and caller.is_cancelled:
                caller.stop()
            job = driver.due() or run.ready()
            if run.events:
                emit(run.events)  # that something starts is emitted before it does
            if job is None:
                if run.is_over:
                    break
                yield
                if not run.has_agenda:
                    driver.wait()
            else:
                if isinstance(job, Call) and job.step.is_paced:
                    job = driver.admit(job)
                if isinstance(job, CALLS):
                    job = driver.begin(job)
                    if run.events:
                        emit(run.events)
                if job is not None:
                    driver.do(job)
            if driver.under_way:
                driver.settle_completed()
        if run.events:
            emit(run.events)
    finally:
        driver.close(waits=caller is not None and caller.is_cancelled)


class _Driver:
    """What one run has under way."""

    def __init__(
        self,
        run: Run,
        target_of: Callable[[TargetRef], ExecutionTarget],
        completed: Completed,
        put: Callable[[Event], object] | None,
        *,
        in_worker: bool,
    ) -> None:
        self._run = run
        self._put = put
        self._target_of = target_of
        self._completed = completed
        self._sessions: dict[TargetRef, Session] = {}
        # The jobs that are executed elsewhere, or wait for an equal call.
        self.under_way: dict[Future[Any], tuple[RemoteJob, Session | None]] = {}
        self._in_flight = CallsInFlight()
        self._pacing = Pacing(target_of)
        self._admitted: set[JobKey] = set()  # paced calls that may begin
        self._call_node = isolated(call_node) if in_worker else call_node
        self._call_batch = isolated(call_batch_of) if in_worker else call_batch_of

    def due(self) -> Call | None:
        """Return a call that has waited for its time."""
        while (call := self._pacing.due()) is not None:
            self._run.note_retries(self._pacing.retries)
            if self._run.is_wanted(call.key):
                self._admitted.add(call.key)
                return call
            self._pacing.ended(call)
        return None

    def admit(self, call: Call) -> Call | None:
        """Return a call that may begin now; one that may not waits."""
        if call.key in self._admitted:
            self._admitted.remove(call.key)
            return call
        return self._pacing.admit(call)

    def begin(self, job: Call | BatchCall | CallGroup) -> Call | BatchCall | CallGroup | None:
        """Say that calls begin; those that are made elsewhere already are waited for, and left out."""
        if isinstance(job, Call):
            if job.step.attempt:  # it has begun already
                return job
            if job.entry is None:
                self._run.begin(job.key)
                return job
            if self._begins(job):
                return job
            self._pacing.ended(job)
            return None
        if isinstance(job, CallGroup):
            return self._begin_group(job) if job.entries else job
        calls = [call for call in job.calls if self._begins(call)]
        return replace(job, calls=calls) if calls else None

    def _begin_group(self, group: CallGroup) -> CallGroup | None:
        """Leave out the calls that are made elsewhere already, and those that take what they make."""
        left_out: list[CallStep] = []
        lacking: set[str | None] = set()
        for step in group.steps:
            entry = group.entries.get(step.index)
            if lacking.isdisjoint(name for _, name in step.arguments) and (
                entry is None
                or self._in_flight.join((group.key, step.index), entry, is_running=False) is None
            ):
                continue
            left_out.append(step)
            lacking.update(step.outputs)
        if not left_out:
            return group
        self._run.leave_out(group.key, left_out)
        steps = tuple(step for step in group.steps if step not in left_out)
        return replace(group, steps=steps) if steps else None

    def _begins(self, call: Call) -> bool:
        if call.entry is not None:
            future = self._in_flight.join(call.key, call.entry, is_running=call.target is None)
            if future is not None:
                self.under_way[future] = (call, None)
                future.add_done_callback(self._completed.put)
                return False
        self._run.begin(call.key)
        return True

    def do(self, job: Job) -> None:
        """Do a job here, or have it executed by its target."""
        match job:
            case Call() | CallGroup() | Chunk() if job.target is not None:
                self._submit(job, job.target)
            case Chunk():
                self._settle(job, execute_compiled(job, self._put))
            case Call():
                self._call(job)
            case BatchCall():
                self._settle_batch(job)
            case LookUp():
                self._run.settle(job.key, look_up(job))
            case Fetch():
                self._fetch(job)

    def _call(self, call: Call) -> None:
        arguments = call.arguments
        if self._run.has_remote_values:
            try:
                arguments = {name: resolve(value) for name, value in arguments.items()}
            except Exception as error:
                self._fail(call, error)
                return
        self._settle(call, self._call_node(call.step, arguments, call.scope))

    def _fetch(self, job: Fetch) -> None:
        try:
            fetched = Fetched(tuple(map(resolve, job.values)))
        except Exception as error:
            self._run.fail(job.key, error)
        else:
            self._run.settle(job.key, fetched)

    def _settle_batch(self, job: BatchCall) -> None:
        # No local variable holds the outcome: since Python 3.12, the traceback of an error keeps this frame.
        self._settle_calls(job, self._call_batch(job))

    def _settle_calls(self, job: BatchCall, made: BatchOutcome) -> None:
        self._run.events.extend(made.events)
        for call, outcome in zip(job.calls, made.outcomes, strict=True):
            self._settle(call, outcome)

    def _submit(self, job: RemoteJob, ref: TargetRef) -> None:
        if (session := self._sessions.get(ref)) is None:
            session = self._sessions[ref] = self._target_of(ref).open()
        try:
            if self._run.has_remote_values and not ref.capabilities.places_calls:
                job = with_local_values(job)
            future = session.submit_group(job) if isinstance(job, CallGroup) else session.submit(job)
        except Exception as error:
            self._fail(job, error)
        else:
            self.under_way[future] = (job, session)
            future.add_done_callback(self._completed.put)

    def wait(self) -> None:
        """Wait for something to be done, and feed its outcome back."""
        completed = self._completed
        while (
            completed.is_empty()
            and self._pacing.seconds_to_wait != 0
            and any(session.assist() for session in self._sessions.values())
        ):
            pass
        # No local variable holds the future: the traceback of its error refers to this frame.
        with suppress(Empty):  # A call that has waited is due.
            seconds = self._pacing.seconds_to_wait
            self._receive(completed.get(MAX_WAIT_S if seconds is None else min(seconds, MAX_WAIT_S)))

    def settle_completed(self) -> None:
        """Feed back what is done meanwhile."""
        while not self._run.is_over and not self._completed.is_empty():
            self._receive(self._completed.get())

    def _receive(self, future: Future[Any] | None) -> None:
        if future is None:
            raise RunStopped
        job, session = self.under_way.pop(future)
        if session is None:
            self._run.look_again(job.key)
            return
        try:
            outcome = session.receive(job, future)
        except OtherCodeError as error:
            del future  # the traceback of its error refers to this frame
            if job.target is not None and session.send_code_with(job):
                self._submit(job, job.target)
            else:
                self._fail(job, error)
        except Exception as error:
            del future  # the traceback of its error refers to this frame
            self._fail(job, error)
        else:
            self._settle(job, outcome)

    def _settle(self, job: RemoteJob, outcome: Outcome | GroupOutcome | ChunkOutcome) -> None:
        run = self._run
        if isinstance(job, Call) and job.step.is_paced and isinstance(outcome, Outcome):
            self._pacing.ended(job)
            if (event := self._pacing.retry(job, outcome)) is not None:
                run.events += (*outcome.events, event)
                run.note_retries(self._pacing.retries)
                return
        if job.target is not None and isinstance(outcome, Outcome) and any(map(is_remote, outcome.outputs)):
            run.note_remote_values()
        run.settle(job.key, outcome)
        if isinstance(job, Call) and job.entry is None:
            return
        for result in run.take_stores():
            store(result)
        if isinstance(outcome, Outcome):
            self._in_flight.leave(job.key, is_stored=outcome.error is None)
        elif isinstance(outcome, GroupOutcome):
            self._leave_group(job, outcome.outcomes)

    def _fail(self, job: RemoteJob, error: BaseException) -> None:
        if isinstance(job, Call):
            self._pacing.ended(job)
            self._in_flight.leave(job.key, is_stored=False)
        self._leave_group(job, ())
        self._run.fail(job.key, error)

    def _leave_group(self, job: RemoteJob, outcomes: Sequence[Outcome]) -> None:
        """Wake those who wait for cached calls of a group, of which some or all were made."""
        if isinstance(job, CallGroup) and job.entries:
            for step, outcome in zip_longest(job.steps, outcomes):
                is_stored = outcome is not None and outcome.error is None
                self._in_flight.leave((job.key, step.index), is_stored=is_stored)

    def close(self, *, waits: bool) -> None:
        """Give up what is under way."""
        self._in_flight.close()
        for session in self._sessions.values():
            session.close()
        self._completed.close()
        sessions = {future: session for future, (_, session) in self.under_way.items()}
        self.under_way = {}
        # Only for a coroutine that was running is `cancel` true while its future is not done yet.
        ending = [future for future in sessions if (future.cancel() or waits) and not future.done()]
        for future in wait_for(ending, timeout=CANCEL_TIMEOUT_S).not_done if ending else ():
            if (stuck := sessions[future]) is not None:
                stuck.kill(future)
        for future, of in sessions.items():
            if of is not None:
                future.add_done_callback(of.discard)


def with_local_values(job: RemoteJob) -> RemoteJob:
    """Return a job whose values are all here, for a target that cannot bring remote ones."""
    if isinstance(job, Call):
        return replace(job, arguments={name: resolve(value) for name, value in job.arguments.items()})
    if isinstance(job, CallGroup):
        return replace(job, values={name: resolve(value) for name, value in job.values.items()})
    context = job.context
    if not any(map(is_remote, context.fixed.values())):
        return job
    fixed = {name: resolve(value) for name, value in context.fixed.items()}
    return replace(job, context=replace(context, fixed=fixed, common={}))
