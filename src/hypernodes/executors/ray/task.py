"""The tasks of an executor, and how Ray tasks are made of them."""

from __future__ import annotations

import uuid
from concurrent.futures import CancelledError, Future
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from hypernodes.executors.ray.future import RayFuture
from hypernodes.executors.ray.objects import RayValue
from hypernodes.executors.ray.worker import (
    Dependency,
    PlainSerialized,
    run_task,
    serialize_plain,
)

if TYPE_CHECKING:
    from ray import ObjectRef

    from hypernodes.resources import Resources
    from hypernodes.serialization.pickling import Serialized

MAX_REMOTES: Final = 1000
"""How many kinds of remote functions are kept."""


class Task:
    """A call on its way to the cluster and back."""

    __slots__ = (
        *(
            "as_views",
            "call",
            "future",
            "is_ahead",
            "missing",
            "name",
            "ref",
            "resources",
            "retries",
            "returns",
            "size",
        ),
        "started",
    )

    def __init__(
        self,
        call: Serialized,
        resources: Resources,
        *,
        returns: int | None = None,
        retries: int = 0,
        as_views: bool = False,
        name: str = "",
    ) -> None:
        self.future = RayFuture()
        self.call: Serialized | None = call
        self.size = call.size
        self.resources = resources
        self.returns = returns  # how many separate results there may be; ``None`` for one result
        self.as_views = as_views  # whether arrays that it takes may be views of the object store
        self.name = name  # for people to read
        self.retries = retries  # how often Ray begins the call again if a worker dies during it
        self.ref: ObjectRef[Any] | None = None  # the Ray task's answer, while the task is running
        self.started = 0.0  # when there was room for the Ray task, on the monotonic clock
        self.is_ahead = False  # it is in Ray before there is room for it
        self.missing: set[Future[Any]] = {
            part for part in call.out_of_band if isinstance(part, Future) and not part.done()
        }

    @property
    def may_go_ahead(self) -> bool:
        """Whether it may be in Ray before it is running: then it can no longer be cancelled."""
        return self.returns is not None

    def release(self) -> None:
        """Drop what is no longer needed when the task has ended."""
        self.ref = self.call = None

    def begin(self) -> bool:
        """Say that the task is running, if that was not said; return whether it was not cancelled."""
        return self.future.running() or self.future.set_running_or_notify_cancel()

    def fail(self, error: BaseException) -> None:
        """Settle the future with an error, unless it was cancelled."""
        if self.begin():
            self.future.set_exception(error)

    def cancel(self) -> None:
        """Cancel a task that was not running."""
        self.future.cancel()
        self.future.set_running_or_notify_cancel()


class TaskSubmitter:
    """Submits tasks to Ray; if `runs_here`, to the host of this process, on CPUs that it holds already."""

    def __init__(
        self,
        initializer: bytes | None,
        runtime_env: dict[str, Any] | None,
        *,
        max_calls: int | None,
        runs_here: bool,
    ) -> None:
        import ray

        self._executor_id = uuid.uuid4().hex
        self._initializer = initializer
        self._options: dict[str, Any] = {"retry_exceptions": False}
        if runtime_env is not None:
            self._options["runtime_env"] = runtime_env
        self._placement: dict[str, Any] = {}
        if runs_here:
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

            host = ray.get_runtime_context().get_node_id()
            strategy = NodeAffinitySchedulingStrategy(host, soft=True)
            self._placement = {"num_cpus": 0, "scheduling_strategy": strategy}
        self._remote = (
            ray.remote(run_task) if max_calls is None else ray.remote(max_calls=max_calls)(run_task)
        )
        self._remotes: dict[tuple[Any, ...], Any] = {}  # by options, since making one takes a while

    def submit(self, task: Task, call: Serialized) -> tuple[ObjectRef[Any], tuple[ObjectRef[Any], ...]]:
        """Submit a task, and return the references of its answer and of its results."""
        out_of_band: list[Any] = []
        dependencies: list[Any] = []
        for part in call.out_of_band:
            if isinstance(part, Future | RayValue):
                out_of_band.append(Dependency(len(dependencies)))
                dependencies.append(_as_argument(part))
            else:
                out_of_band.append(part)
        returns = 1 if task.returns is None else task.returns
        payload = (
            self._executor_id,
            self._initializer,
            returns,
            task.resources.num_cpus or 0.0,
            task.as_views,
            (call.header, call.buffers, out_of_band),
        )
        task.started = monotonic()
        refs = self._remote_function(task, returns).remote(payload, *dependencies)
        answer, *results = refs if returns else [refs]
        return answer, tuple(results)

    def _remote_function(self, task: Task, returns: int) -> Any:
        key = (task.resources, returns, task.retries, task.name)
        if len(self._remotes) > MAX_REMOTES:
            self._remotes.clear()
        if key not in self._remotes:
            resources = task.resources
            options = {
                "num_cpus": resources.num_cpus,
                "num_gpus": resources.num_gpus,
                "memory": resources.memory,
                "resources": dict(resources.custom) or None,
                "num_returns": 1 + returns,
                "max_retries": task.retries,
                "name": f"hypernodes: {task.name}" if task.name else "hypernodes",
                **self._options,
                **self._placement,
            }
            given = {name: value for name, value in options.items() if value is not None}
            self._remotes[key] = self._remote.options(**given)
        return self._remotes[key]


def _as_argument(part: Future[Any] | RayValue) -> PlainSerialized | ObjectRef[Any]:
    """Return the value of a future or a remote value as an argument of a Ray task."""
    if isinstance(part, RayValue):
        return part.ref
    if part.cancelled():
        raise CancelledError("an argument is the result of a call that was cancelled")
    if (error := part.exception()) is not None:
        raise error
    return part.as_argument() if isinstance(part, RayFuture) else serialize_plain(part.result())
