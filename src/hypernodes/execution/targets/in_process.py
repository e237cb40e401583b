"""Workers that share memory with the driver: threads, an event loop. Jobs go there as they are."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from hypernodes.execution.current import OCCUPIED
from hypernodes.execution.execute import execute_in_worker, execute_on_loop, is_async
from hypernodes.execution.plan.placement import Capabilities
from hypernodes.execution.targets.executor import ExecutorTarget
from hypernodes.executors.context import own_context
from hypernodes.executors.settled import Settled, result_of, settle

if TYPE_CHECKING:
    from concurrent.futures import Future

    from hypernodes.execution.calls.call import InThread
    from hypernodes.execution.jobs import Call, Chunk, ChunkOutcome, GroupOutcome, Outcome, RemoteJob
    from hypernodes.execution.plan.placement import TargetRef

THREADS: Final = Capabilities(serializes=False, worker_alias="threaded")
LOOP: Final = Capabilities(serializes=False, runs_coroutines=True, worker_alias="async")


class InProcessTarget(ExecutorTarget):
    """An executor whose workers share memory with the driver.

    An outcome travels in a `Settled` object, which is emptied when the outcome is received or discarded.
    """

    def submit(self, job: Call | Chunk) -> Future[Any]:
        """Have a job executed: on the executor's event loop if it awaits, else in a thread."""
        executor = self.executor
        if self.capabilities.runs_coroutines and is_async(job):
            on_loop: Future[Any] = executor.submit(_execute_on_loop, job, self.ref.id, executor.in_thread)
            return on_loop
        future: Future[Any] = executor.submit(settle, own_context().run, execute_in_worker, job, self.ref)
        return future

    def receive(self, job: RemoteJob, future: Future[Any]) -> Outcome | GroupOutcome | ChunkOutcome:
        """Return the outcome of a job."""
        del job
        try:
            settled: Settled[Outcome | ChunkOutcome] = result_of(future)
        finally:
            del future  # the traceback of its error refers to this frame
        return settled.take()

    def discard(self, future: Future[Any]) -> None:
        """Drop an outcome that no run receives."""
        if not future.cancelled() and future.exception() is None:
            future.result().clear()


async def _execute_on_loop(
    job: Call | Chunk, target: int, in_thread: InThread
) -> Settled[Outcome | ChunkOutcome]:
    OCCUPIED.set(OCCUPIED.get() | {target})  # in the context of this task, which ends with it
    return Settled(await execute_on_loop(job, in_thread))


_of_worker: dict[tuple[int, str], InProcessTarget] = {}


def target_in_worker(ref: TargetRef) -> InProcessTarget:
    """Return this process's own target, which it keeps, for one that another process names."""
    if not (alias := ref.capabilities.worker_alias):
        raise LookupError(f"the target {ref.label!r} stays in the process that made it")
    return _of_worker.setdefault((os.getpid(), alias), InProcessTarget(alias, ref.capabilities))
