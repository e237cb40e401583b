"""Workers in other processes, behind any executor that follows the standard protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypernodes.execution.calls.watchdog import MAY_END_PROCESS
from hypernodes.execution.current import OTHER_PROCESS
from hypernodes.execution.execute import execute_isolated
from hypernodes.execution.jobs import Call, Chunk
from hypernodes.execution.target import Session
from hypernodes.execution.targets.executor import ExecutorTarget
from hypernodes.execution.targets.in_process import target_in_worker
from hypernodes.execution.targets.serialize import (
    JobSerializer,
    SerializedChunkOutcome,
    SerializedJob,
    SerializedOutcome,
    deserialize_chunk_outcome,
    deserialize_job,
    deserialize_outcome,
    serialize_chunk_outcome,
    serialize_outcome,
)
from hypernodes.executors import process_worker
from hypernodes.executors.settled import result_of
from hypernodes.serialization.broadcast import InlineValue
from hypernodes.serialization.warning_filters import warning_filters

if TYPE_CHECKING:
    from concurrent.futures import Future

    from hypernodes.execution.jobs import ChunkOutcome, Outcome
    from hypernodes.serialization.broadcast import PlacedValue
    from hypernodes.serialization.pickling import Serialized


class PickledTarget(ExecutorTarget):
    """An executor whose workers are other processes."""

    def open(self) -> Session:
        """Return the target for one run, in which each shared part is serialized once."""
        return PickledSession(self)

    def submit(self, job: Call | Chunk) -> Future[Any]:
        """Have a job executed, outside of any run."""
        return self.open().submit(job)

    def place(self, serialized: Serialized) -> PlacedValue:
        """Place a value where all workers find it, if the executor knows how."""
        place = getattr(self.executor, "place", None)
        placed: PlacedValue = InlineValue(serialized) if place is None else place(serialized)
        return placed


class PickledSession(Session):
    """An executor whose workers are other processes, as one run uses it."""

    def __init__(self, target: PickledTarget) -> None:
        self._target = target
        self._serializer = JobSerializer(target.place)

    def submit(self, job: Call | Chunk) -> Future[Any]:
        """Serialize a job, and have it executed."""
        if isinstance(job, Chunk):
            job.context.plan.flush()  # other processes find only what is stored
        serialized = self._serializer.serialize(job)
        future: Future[Any] = self._target.executor.submit(execute_serialized, serialized)
        return future

    def send_code_with(self, job: Call | Chunk) -> bool:
        """Send the user's modules along from now on; ``False`` if they went with this job already."""
        return self._serializer.send_code_with(job)

    def receive(self, job: Call | Chunk, future: Future[Any]) -> Outcome | ChunkOutcome:
        """Return the outcome of a job."""
        del job
        try:
            serialized = result_of(future)
        finally:
            del future  # the traceback of its error refers to this frame
        if isinstance(serialized, SerializedChunkOutcome):
            return deserialize_chunk_outcome(serialized)
        return deserialize_outcome(serialized)

    def kill(self, future: Future[Any]) -> None:
        """End the process of a job, if the executor knows how."""
        if (kill := getattr(self._target.executor, "kill", None)) is not None:
            kill(future)


def execute_serialized(serialized: SerializedJob) -> SerializedOutcome | SerializedChunkOutcome:
    """Execute a job, in a worker process."""
    job = deserialize_job(serialized)
    MAY_END_PROCESS.set(process_worker.IS_POOL_WORKER.is_set())
    if isinstance(job, Call):
        return serialize_outcome(job, execute_here(job, serialized))
    return execute_chunk_here(job, serialized)


def execute_here(job: Any, serialized: SerializedJob) -> Any:
    """Execute a job in this process, which nested engines must not multiply."""
    with warning_filters(serialized.filters):
        return execute_isolated(job, OTHER_PROCESS, target_in_worker)


def execute_chunk_here(job: Chunk, serialized: SerializedJob) -> SerializedChunkOutcome:
    """Execute a chunk in this process, and serialize its outcome."""
    outcome = execute_here(job, serialized)
    # Before the driver hears that the items are done, and before the process may end.
    job.context.plan.flush()
    return serialize_chunk_outcome(job, outcome, serialized.payload.size)
