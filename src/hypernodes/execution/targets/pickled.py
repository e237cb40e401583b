"""Workers in other processes, behind any executor that follows the standard protocol."""

from __future__ import annotations

from collections import Counter
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from hypernodes.execution.calls.watchdog import MAY_END_PROCESS
from hypernodes.execution.current import OTHER_PROCESS
from hypernodes.execution.execute import execute_isolated
from hypernodes.execution.jobs import Call, CallGroup, Chunk
from hypernodes.execution.target import Session
from hypernodes.execution.targets.executor import ExecutorTarget
from hypernodes.execution.targets.in_process import target_in_worker
from hypernodes.execution.targets.serialize_jobs import JobSerializer, SerializedJob, deserialize_job
from hypernodes.execution.targets.serialize_outcomes import (
    SerializedChunkOutcome,
    SerializedGroupOutcome,
    SerializedOutcome,
    deserialize_any_outcome,
    serialize_chunk_outcome,
    serialize_outcome,
)
from hypernodes.executors import process_worker
from hypernodes.executors.settled import result_of
from hypernodes.serialization.broadcast import InlineValue
from hypernodes.serialization.pickling import serialize
from hypernodes.serialization.warning_filters import warning_filters

if TYPE_CHECKING:
    from concurrent.futures import Future

    from hypernodes.execution.jobs import ChunkOutcome, GroupOutcome, Outcome, RemoteJob
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
        return self._send(job)

    def submit_group(self, group: CallGroup) -> Future[Any]:
        """Serialize a group of calls, and have it executed."""
        return self._send(group)

    def _send(self, job: RemoteJob) -> Future[Any]:
        serialized = self._serializer.serialize(job)
        future: Future[Any] = self._target.executor.submit(execute_serialized, serialized)
        return future

    def send_code_with(self, job: RemoteJob) -> bool:
        """Send the user's modules along from now on; ``False`` if they went with this job already."""
        return self._serializer.send_code_with(job)

    def receive(self, job: RemoteJob, future: Future[Any]) -> Outcome | GroupOutcome | ChunkOutcome:
        """Return the outcome of a job."""
        del job
        try:
            serialized = result_of(future)
        finally:
            del future  # the traceback of its error refers to this frame
        return deserialize_any_outcome(serialized)

    def kill(self, future: Future[Any]) -> None:
        """End the process of a job, if the executor knows how."""
        if (kill := getattr(self._target.executor, "kill", None)) is not None:
            kill(future)


def execute_serialized(
    serialized: SerializedJob,
) -> SerializedOutcome | SerializedGroupOutcome | SerializedChunkOutcome:
    """Execute a job, in a worker process."""
    job = deserialize_job(serialized)
    MAY_END_PROCESS.set(process_worker.IS_POOL_WORKER.is_set())
    if isinstance(job, Call):
        return serialize_outcome(job, execute_here(job, serialized))
    if isinstance(job, CallGroup):
        return execute_group_here(job, serialized)
    return execute_chunk_here(job, serialized)


GROUP_MAX_S: Final = 0.05
"""Seconds after which no further call of a group begins: its calls are not as short as they were."""


def execute_group_here(group: CallGroup, serialized: SerializedJob) -> SerializedGroupOutcome:
    """Make the calls of a group in this process, until one fails or the time is over.

    Each call is given values of its own, as if it were made by itself: what one changes, no other sees.
    """
    uses = Counter(name for step in group.steps for _, name in step.arguments)
    own = [name for name in group.values if uses[name] > 1 and name not in group.common]
    # The outputs, by name, in which a value is, and its position there.
    kept = {name: (serialize((group.values[name],)), 0) for name in own}
    outcomes: list[SerializedOutcome] = []
    started = perf_counter()
    for step in group.steps:
        arguments = {}
        for parameter, name in step.arguments:
            if name in kept:
                outputs, position = kept[name]
                arguments[parameter] = outputs.deserialize()[position]
            else:
                arguments[parameter] = group.values[name]
        call = Call(0, step, arguments, group.scope)
        outcome = serialize_outcome(call, execute_here(call, serialized))
        outcomes.append(outcome)
        if outcome.outputs is None or perf_counter() - started > GROUP_MAX_S:
            break
        kept |= {name: (outcome.outputs, at) for at, name in enumerate(step.outputs) if name is not None}
    return SerializedGroupOutcome(tuple(outcomes))


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
