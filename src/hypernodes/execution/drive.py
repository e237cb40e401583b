"""Carry a run through: do what is to be done here, send off the rest, feed results back.

run.ready() ─┬─ right here ──────────────▶ run.settle()
             └─ along a lane ─▶ future ─▶ completed (queue) ─▶ run.settle()
"""

from __future__ import annotations

from asyncio import wrap_future
from concurrent.futures import wait as wait_for
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol

from hypernodes.execution.batched import call_together
from hypernodes.execution.invoke import attempt, now
from hypernodes.execution.jobs import Awaited, Batch, Call, Probe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    from hypernodes.callbacks.event import Event
    from hypernodes.execution.invoke import InThread
    from hypernodes.execution.jobs import BatchOutcome, Job, Outcome
    from hypernodes.execution.run import Run

Completed = SimpleQueue["Future[Any] | None"]

_PATIENCE = 5.0  # seconds for cancelled coroutines to clean up after themselves


class Sender(Protocol):
    """Whoever takes jobs to where their lanes lead."""

    def send(self, job: Job) -> Future[Any]:
        """Submit a job."""

    def receive(self, job: Job, future: Future[Any]) -> Outcome | BatchOutcome:
        """Return what came of it."""

    def here(self, batch: Batch) -> BatchOutcome:
        """Carry out some items right here."""

    def wait(self, completed: Completed) -> Future[Any] | None:
        """Return what is done next, once it is."""

    def close(self) -> None:
        """Leave undone what is not done yet."""


class Stopped(BaseException):
    """Somebody who waited for a run does not wait any longer."""


def drive(
    run: Run,
    sender: Sender,
    announce: Callable[[list[Event]], object],
    completed: Completed | None = None,
) -> None:
    """Work until the run is over; see `proceed`."""
    for _ in proceed(run, sender, announce, completed):
        pass


async def drive_on_loop(run: Run, in_thread: InThread, sender: Sender) -> None:
    """Work until a run is over, on an event loop; plain functions are called in threads."""
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
                    run.settle(job, await in_thread(sender.here, job))
    finally:
        run.release()


def proceed(
    run: Run,
    sender: Sender,
    announce: Callable[[list[Event]], object],
    completed: Completed | None = None,
) -> Iterator[None]:
    """Work until the run is over, and stop each time when there is nothing to do but wait.

    Args:
        run: The run.
        sender: Takes jobs elsewhere.
        announce: Takes the events as they come, and empties the list.
        completed: Where futures arrive; putting ``None`` there ends the run from another thread.

    Raises:
        Stopped: ``None`` was put into the queue.
        BaseException: What interrupted it, such as KeyboardInterrupt; what had not started is cancelled.
    """
    completed = SimpleQueue() if completed is None else completed
    under_way: dict[Future[Any], Job | Awaited] = {}
    together: dict[tuple[Any, ...], list[Call]] = {}  # calls that are made at once, by node

    def settle() -> None:
        future = sender.wait(completed)
        if future is None:
            raise Stopped
        job = under_way.pop(future)
        if isinstance(job, Awaited):
            run.look_again(job)
            return
        try:
            outcome = sender.receive(job, future)
        except Exception as error:
            run.fail(job, error)
        else:
            run.settle(job, outcome)

    try:
        while not run.over:
            job = run.ready()
            if run.events:
                announce(run.events)  # that something starts is told before it does
            if job is None:
                if run.over:
                    break
                if together:
                    calls = together.pop(next(iter(together)))
                    for call, outcome in zip(calls, call_together(calls), strict=True):
                        run.settle(call, outcome)
                    continue
                yield
                if not run.agenda:
                    settle()
            elif isinstance(job, Probe):
                job.sweep.look_up(job)
            elif isinstance(job, Awaited):
                under_way[job.future] = job
                job.future.add_done_callback(completed.put)
            elif job.lane is None and isinstance(job, Batch):
                run.settle(job, sender.here(job))
            elif job.lane is None:
                assert isinstance(job, Call)  # noqa: S101
                if job.is_batched:
                    together.setdefault((job.frame.waiter.scene, job.step), []).append(job)
                    continue
                run.settle(job, now(attempt(job.step, job.arguments, job.frame.scope)))
            else:
                try:
                    future = sender.send(job)
                except Exception as error:
                    run.fail(job, error)
                else:
                    under_way[future] = job
                    future.add_done_callback(completed.put)
            while not run.over and not completed.empty():
                settle()
        if run.events:
            announce(run.events)
    finally:
        run.release()
        sender.close()
        # Only of a coroutine that was running is `cancel` true while it is not done yet.
        wait_for([f for f in under_way if f.cancel() and not f.done()], timeout=_PATIENCE)
