"""The other end of a lane: what a worker does with a job, and how jobs and outcomes travel.

In a worker that shares memory with the driver, a job is carried out as it is. To any other it goes as
one pickle, of which the parts that many jobs have in common (a plan, a node's function, the fixed
inputs of a map) are parcels that each worker process unpacks once.
"""

from __future__ import annotations

import hashlib
import secrets
from asyncio import wrap_future
from collections import OrderedDict
from dataclasses import dataclass, replace
from itertools import count
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from hypernodes.callbacks.base import Event, NotSent, Scope
from hypernodes.exceptions import TransportError
from hypernodes.execution.drive import drive
from hypernodes.execution.invoke import attempt, locate, now, straight, straight_on_loop
from hypernodes.execution.jobs import Awaited, Batch, BatchOutcome, Call, Failure, OnError, Outcome, Probe
from hypernodes.execution.lane import A_PROCESS, BUSY
from hypernodes.execution.run import Run
from hypernodes.execution.steps import CallStep
from hypernodes.portable import Inline, PackedError, dumps, loads, pack_error, unpack_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from concurrent.futures import Future

    from hypernodes.execution.invoke import InThread
    from hypernodes.execution.jobs import Job
    from hypernodes.execution.lane import Lane
    from hypernodes.execution.signature import Codes
    from hypernodes.execution.steps import Plan
    from hypernodes.portable import Shared

_PARCELS_KEPT: Final = 32


@dataclass(frozen=True, slots=True)
class _CallTask:
    """A call without its frame: all that a worker needs."""

    step: CallStep
    arguments: dict[str, Any]
    scope: Scope

    @property
    def is_async(self) -> bool:
        return self.step.is_async

    async def carry_out(self, in_thread: InThread | None) -> Outcome | BatchOutcome:
        return await attempt(self.step, self.arguments, self.scope, in_thread)


@dataclass(frozen=True, slots=True)
class _Sweeping:
    """What the batches of one map have in common."""

    plan: Plan
    codes: Codes
    fixed: dict[str, Any]
    identities: dict[str, bytes | None]
    scope: Scope
    on_error: OnError


@dataclass(frozen=True, slots=True)
class _BatchTask:
    """A batch without its sweep."""

    sweeping: _Sweeping
    numbers: Sequence[int]
    items: Sequence[Mapping[str, Any]]

    @property
    def is_async(self) -> bool:
        return self.sweeping.plan.awaits

    async def carry_out(self, in_thread: InThread | None) -> Outcome | BatchOutcome:
        """Run the items one after the other."""
        common, started = self.sweeping, perf_counter()
        compute = straight(common.plan) if in_thread is None else straight_on_loop(common.plan)
        if compute is not None:
            rows = await self._straight(compute, on_loop=in_thread is not None)
            return BatchOutcome(rows, [], perf_counter() - started)
        events: list[Event] = []
        run = Run.over_batch(
            common.plan,
            common.scope,
            self.items,
            numbers=self.numbers,
            fixed=common.fixed,
            identities=common.identities,
            codes=common.codes,
            on_error=common.on_error,
        )
        if in_thread is None:
            drive(run, Dispatch(), _keep_in(events))
        else:
            await _on_loop(run, in_thread)
        events += run.events
        return BatchOutcome(_rows(run), events, perf_counter() - started)

    async def _straight(self, compute: Callable[..., Any], *, on_loop: bool) -> list[Any]:
        common = self.sweeping
        rows: list[Any] = []
        for index, item in zip(self.numbers, self.items, strict=True):
            values = {**common.fixed, **item}
            try:
                row = compute(values, (*common.scope.items, index))
                rows.append(await row if on_loop else row)
            except Exception as error:
                rows.append(Failure(error))
                if common.on_error == "raise":
                    break
        return rows


async def _on_loop(run: Run, in_thread: InThread) -> None:
    """Work until a run is over, on an event loop."""
    try:
        while (job := run.ready()) is not None:
            match job:
                case Probe():
                    job.sweep.look_up(job)
                case Awaited():
                    await wrap_future(job.future)
                    run.look_again(job)
                case Call():
                    run.settle(job, await attempt(job.step, job.arguments, job.frame.scope, in_thread))
                case Batch():
                    raise AssertionError("in a worker maps run item by item")
    finally:
        run.release()


def _rows(run: Run) -> list[Any]:
    if run.error is None:
        rows: list[Any] = run.result
        return rows
    return [Failure(run.error)]


_Task: TypeAlias = _CallTask | _BatchTask


def _sweeping(batch: Batch) -> _Sweeping:
    sweep = batch.sweep
    assert sweep.plan.shipped is not None  # noqa: S101
    return _Sweeping(
        plan=sweep.plan.shipped,
        codes=sweep.run.codes,
        fixed={name: value for name, value in sweep.fixed.items() if name in sweep.plan.inputs},
        identities=dict(sweep.identities),
        scope=sweep.scope,
        on_error=sweep.on_error,
    )


def _keep_in(kept: list[Event]) -> Callable[[list[Event]], None]:
    def keep(events: list[Event]) -> None:
        kept.extend(events)
        events.clear()

    return keep


class Dispatch:
    """Sends the jobs of one run along their lanes."""

    def __init__(self) -> None:
        # dask takes submissions with equal arguments for one, and hands out its result again.
        self._numbers = count(secrets.randbits(62))
        self._parcels: dict[tuple[int, int], tuple[object, _Parcel]] = {}
        self._tasks: dict[int, tuple[Batch, _Sweeping]] = {}

    def send(self, job: Job) -> Future[Any]:
        """Submit a job to the executor of its lane.

        Raises:
            TransportError: A part of it cannot be pickled.
        """
        lane = job.lane
        assert lane is not None  # noqa: S101
        if lane.is_remote:
            if isinstance(job, Batch):
                job.sweep.plan.flush()  # other processes find only what is stored
            parcel, payload = self._pickle(job, lane)
            return lane.submit(work_on_pickle, parcel, payload)
        task, executor = self._local(job), lane.executor
        if lane.runs_coroutines and task.is_async:
            return lane.submit(_work_on_loop, task, id(executor), _threads_of(executor))
        return lane.submit(_work_here, task, id(executor))

    def receive(self, future: Future[Any]) -> Outcome | BatchOutcome:
        """Return what came of a job that was sent."""
        value = future.result()
        outcome: Outcome | BatchOutcome = loads(value) if isinstance(value, bytes) else value
        if not isinstance(value, bytes):
            return outcome
        if isinstance(outcome, Outcome):
            error = outcome.error
            return outcome if error is None else replace(outcome, error=unpack_error(error))
        rows = [Failure(unpack_error(row)) if isinstance(row, PackedError) else row for row in outcome.rows]
        return replace(outcome, rows=rows)

    def _local(self, job: Job) -> _Task:
        if isinstance(job, Call):
            return _CallTask(job.step, job.arguments, job.frame.scope)
        return _BatchTask(self._common(job), job.numbers, job.items)

    def _common(self, batch: Batch) -> _Sweeping:
        key = id(batch.sweep)
        if key not in self._tasks:
            self._tasks[key] = (batch, _sweeping(batch))  # the batch keeps the sweep, and so its id, alive
        return self._tasks[key][1]

    def _pickle(self, job: Job, lane: Lane) -> tuple[_Parcel, bytes]:
        shared: Any = job.step if isinstance(job, Call) else self._common(job)
        number = next(self._numbers)
        try:
            parcel = self._parcel(shared, lane)
            if isinstance(job, Call):
                return parcel, dumps((number, job.arguments, job.frame.scope))
            return parcel, dumps((number, job.numbers, job.items))
        except Exception as error:
            raise _culprit(job, error) from error

    def _parcel(self, value: object, lane: Lane) -> _Parcel:
        key = (id(value), id(lane))
        if key not in self._parcels:
            blob = dumps(value)
            digest = hashlib.blake2b(blob, digest_size=16).digest()
            self._parcels[key] = (value, _Parcel(digest, lane.share(blob) or Inline(blob)))
        return self._parcels[key][1]


def _threads_of(executor: Any) -> InThread:
    in_thread: InThread = executor.in_thread
    return in_thread


def _work_here(task: _Task, executor: int) -> Outcome | BatchOutcome:
    token = BUSY.set(BUSY.get() | {executor})
    try:
        return now(task.carry_out(None))
    finally:
        BUSY.reset(token)


async def _work_on_loop(task: _Task, executor: int, in_thread: InThread) -> Outcome | BatchOutcome:
    BUSY.set(BUSY.get() | {executor})  # in a task's own context, which ends with it
    return await task.carry_out(in_thread)


# ------------------------------------------------------------------------------ in another process


@dataclass(frozen=True, slots=True)
class _Parcel:
    """A part that many jobs have in common; pickled once here, unpickled once in each worker process."""

    digest: bytes
    shared: Shared

    def unpack(self) -> Any:
        if self.digest in _unpacked:
            _unpacked.move_to_end(self.digest)
            return _unpacked[self.digest]
        value = _unpacked[self.digest] = loads(self.shared.load())
        while len(_unpacked) > _PARCELS_KEPT:
            _unpacked.popitem(last=False)
        return value


_unpacked: OrderedDict[bytes, Any] = OrderedDict()


def work_on_pickle(parcel: _Parcel, payload: bytes) -> bytes:
    """Carry out a pickled job, in a worker process, and return its pickled outcome.

    The parcel is an argument of its own, so that Ray sees the reference in it and keeps the object.
    """
    _, *rest = loads(payload)
    common = parcel.unpack()
    task: _Task = _BatchTask(common, *rest) if isinstance(common, _Sweeping) else _CallTask(common, *rest)
    outcome = _work_here(task, A_PROCESS)
    if isinstance(task, _BatchTask):  # before anybody is told that it is done, and before the process may end
        task.sweeping.plan.flush()
    events = tuple(map(_portable, outcome.events))
    if isinstance(outcome, BatchOutcome):
        assert isinstance(task, _BatchTask)  # noqa: S101
        rows = [pack_error(row.error) if isinstance(row, Failure) else row for row in outcome.rows]
        outcome = BatchOutcome(rows, list(events), outcome.seconds)
        try:
            return dumps(outcome)
        except Exception:
            return dumps(replace(outcome, rows=_checked(task, rows)))
    assert isinstance(task, _CallTask)  # noqa: S101
    error = None if outcome.error is None else pack_error(outcome.error)
    outcome = replace(outcome, error=error, events=events)
    try:
        return dumps(outcome)
    except Exception as failure:
        unsent = _not_returned(dict(zip(task.step.outputs, outcome.outputs, strict=True)), failure)
        locate(unsent, task.step.name, task.scope.path, task.scope.items, task.arguments)
        return dumps(replace(outcome, outputs=(), error=pack_error(unsent)))


def _checked(task: _BatchTask, rows: list[Any]) -> list[Any]:
    """Put an error in the place of each row that does not pickle."""
    checked: list[Any] = []
    plan, scope = task.sweeping.plan, task.sweeping.scope
    for index, row in zip(task.numbers, rows, strict=False):
        try:
            dumps(row)
            checked.append(row)
        except Exception as failure:
            error = _not_returned(row, failure)
            name = next((name for name in row if not _pickles(row[name])), plan.outputs[0])
            step = plan.producers.get(name)
            locate(error, step.name if step else name, scope.path, (*scope.items, index), {})
            checked.append(pack_error(error))
            if task.sweeping.on_error == "raise":
                break
    return checked


def _not_returned(values: dict[Any, Any], failure: Exception) -> TransportError:
    names = [name for name in values if not _pickles(values[name])]
    kinds = ", ".join(f"{name!r}, a {type(values[name]).__qualname__}," for name in names)
    return TransportError(
        f"the result {kinds} cannot be pickled on its way back from a worker process: {failure}. Return "
        f"something that pickles, or run this node in this process (executor 'sequential' or 'threaded')."
    )


def _pickles(value: object) -> bool:
    try:
        dumps(value)
    except Exception:
        return False
    return True


def _culprit(job: Job, failure: Exception) -> TransportError:
    """Say which part of a job does not pickle, and whose it is."""
    if isinstance(job, Call):
        scope, steps, values = job.frame.scope, [job.step], dict(job.arguments)
    else:
        scope, sweep = job.sweep.scope, job.sweep
        every = (step for plan in sweep.plan.tree() for step in plan.steps)
        steps = [step for step in every if isinstance(step, CallStep)]
        values = dict(sweep.fixed)
        for index, item in zip(job.numbers, job.items, strict=True):
            values |= {f"{name}[{index}]": value for name, value in item.items()}
    parts = [f"the function of node {step.name!r}" for step in steps if not _pickles(step.function)]
    parts += [
        f"input {name!r} (a {type(value).__qualname__})"
        for name, value in values.items()
        if not _pickles(value)
    ]
    what = ", ".join(parts) or "its work"
    names = " or ".join(repr(step.name) for step in steps)
    at = f", item {job.numbers[0]}" if isinstance(job, Batch) else ""
    return TransportError(
        f"{what} cannot be pickled on its way to a worker process: {failure}. It belongs to node {names} of "
        f"pipeline {'/'.join(scope.path)!r}{at}. Make it in "
        f"the node itself, or run the node in this process (executor 'sequential' or 'threaded')."
    )


def _portable(event: Event) -> Event:
    """Return an event whose values stay behind."""
    arguments = tuple(
        {name: NotSent(type(value).__qualname__) for name, value in part.items()}
        if isinstance(part, dict)
        else part
        for part in event.arguments
    )
    arguments = tuple(
        _EventError(pack_error(part)) if isinstance(part, BaseException) else part for part in arguments
    )
    return replace(event, arguments=arguments)


class _EventError:
    """An error in an event on its way; unpickling gives the error."""

    __slots__ = ("packed",)

    def __init__(self, packed: PackedError) -> None:
        self.packed = packed

    def __reduce__(self) -> tuple[Any, ...]:
        return unpack_error, (self.packed,)
