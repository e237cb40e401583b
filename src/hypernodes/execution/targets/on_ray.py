"""Workers of a Ray cluster: calls are placed by resources, and large results stay where they were made."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hypernodes.callbacks.event import Event
from hypernodes.exceptions import TransportError, WorkerDiedError
from hypernodes.execution.calls.watchdog import MAY_END_PROCESS
from hypernodes.execution.jobs import Call, CallGroup, Chunk, Outcome, Store
from hypernodes.execution.plan.model import change_nothing
from hypernodes.execution.provenance import store
from hypernodes.execution.target import Session
from hypernodes.execution.targets.diagnose import unsent_job
from hypernodes.execution.targets.pickled import (
    PickledTarget,
    execute_chunk_here,
    execute_group_here,
    execute_here,
)
from hypernodes.execution.targets.serialize_jobs import JobSerializer, SerializedJob, deserialize_job
from hypernodes.execution.targets.serialize_outcomes import (
    SerializedOutcome,
    deserialize_any_outcome,
    deserialize_outcome,
    portable_outcome,
    unreturned_outputs,
)
from hypernodes.executors.settled import result_of
from hypernodes.resources import Resources
from hypernodes.serialization.pickling import serialize
from hypernodes.serialization.remote import REMOTE_MIN_BYTES, SeparateResults, resolve

if TYPE_CHECKING:
    from concurrent.futures import Future

    from hypernodes.execution.jobs import ChunkOutcome, GroupOutcome, RemoteJob


class RayTarget(PickledTarget):
    """An executor that places calls by their resources, and keeps large results where they were made."""

    def open(self) -> Session:
        """Return the target for one run, in which each shared part is serialized once."""
        return RaySession(self)

    def assist(self) -> bool:
        """Wait a moment without holding the CPUs of this task, if this is a Ray task."""
        executor = self._executor
        return executor is not None and bool(executor.wait_without_cpus())


class RaySession(Session):
    """A Ray cluster, as one run uses it."""

    def __init__(self, target: RayTarget) -> None:
        self._target = target
        self._serializer = JobSerializer(target.place, places_calls=True)
        self._is_used = False

    def submit(self, job: Call | Chunk) -> Future[Any]:
        """Serialize a job, and have it executed where there is room for it."""
        if isinstance(job, Chunk):
            job.context.plan.flush()  # other processes find only what is stored
        return self._send(job)

    def submit_group(self, group: CallGroup) -> Future[Any]:
        """Serialize a group of calls, and have it executed where there is room for it."""
        return self._send(group)

    def _send(self, job: RemoteJob) -> Future[Any]:
        serialized = self._serializer.serialize(job)
        self._is_used = True
        try:
            future: Future[Any] = self._target.executor.submit_separate(
                execute_on_ray, serialized, **_options(job)
            )
        except TransportError as error:
            raise unsent_job(job, error) from error
        return future

    def send_code_with(self, job: RemoteJob) -> bool:
        """Send the user's modules along from now on; ``False`` if they went with this job already."""
        return self._serializer.send_code_with(job)

    def receive(self, job: RemoteJob, future: Future[Any]) -> Outcome | GroupOutcome | ChunkOutcome:
        """Return the outcome of a job; outputs that have stayed with their worker are not brought here."""
        deaths = getattr(future, "attempts", 1) - 1
        try:
            first, *outputs = result_of(future)
        finally:
            del future  # the traceback of its error refers to this frame
        serialized = resolve(first)
        if not isinstance(serialized, SerializedOutcome):
            return deserialize_any_outcome(serialized)
        outcome = deserialize_outcome(serialized, tuple(outputs))
        if deaths > 0 and isinstance(job, Call):
            retries = [
                Event.now(
                    "on_node_retry",
                    (job.step.name, attempt, WorkerDiedError("a worker ended before its work was done")),
                    job.scope,
                )
                for attempt in range(1, deaths + 1)
            ]
            outcome = replace(outcome, events=(*retries, *outcome.events))
        return outcome

    def kill(self, future: Future[Any]) -> None:
        """End the process of a job."""
        self._target.executor.kill(future)

    def assist(self) -> bool:
        """Wait a moment without holding the CPUs of this task, if this is a Ray task."""
        return self._is_used and self._target.assist()


def _options(job: RemoteJob) -> dict[str, Any]:
    """Return what the executor must know of a job."""
    if isinstance(job, Call):
        node = job.step.options
        name = "/".join((*job.scope.path, job.step.name))
        options = {
            "returns": len(job.step.outputs),
            "resources": node.resources,
            "as_views": node.readonly,
            "name": name,
        }
        # A process that is ended since its call took too long has had its time: it is not tried again.
        return options if node.timeout is None else {**options, "retries": 0}
    if isinstance(job, CallGroup):  # Calls that have cost a worker its life are made one by one.
        as_views = change_nothing(job.steps)
        name = f"{'/'.join(job.scope.path)}: {len(job.steps)} short calls"
        return {"retries": 0, "as_views": as_views, "name": name}
    resources = Resources()
    for step in job.context.plan.calls():
        resources = resources.maximum(step.options.resources)
    # A chunk that has cost a worker its life is divided by the driver, before its parts are tried again.
    as_views = change_nothing(job.context.plan.calls())
    return {"resources": resources, "retries": 0, "as_views": as_views, "name": job.context.plan.label}


def execute_on_ray(serialized: SerializedJob) -> Any:
    """Execute a job, in a Ray worker; outputs are results of their own."""
    MAY_END_PROCESS.set(True)
    job = deserialize_job(serialized)
    if isinstance(job, Chunk):
        return execute_chunk_here(job, serialized)
    if isinstance(job, CallGroup):
        return execute_group_here(job, serialized)
    outcome: Outcome = execute_here(job, serialized)
    if outcome.error is not None:
        return portable_outcome(outcome, None, outcome.error)
    try:
        outputs = tuple(map(serialize, outcome.outputs))
    except Exception as failure:
        return portable_outcome(outcome, None, unreturned_outputs(job, outcome.outputs, failure))
    if job.entry is not None and any(output.size >= REMOTE_MIN_BYTES for output in outputs):
        store(Store(job.entry, job.step, outcome.outputs, job.takes or {}, outcome.seconds))
        job.entry.cache.write_delayed()
        outcome = replace(outcome, is_stored=True)
    kinds = tuple(type(value).__qualname__ for value in outcome.outputs)
    return SeparateResults((portable_outcome(outcome, None, None), *outputs), ("", *kinds))
