"""A call that was submitted to `RayExecutor`."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from hypernodes.executors.ray.future import RayFuture
from hypernodes.resources import Resources
from hypernodes.serialization.pickling import Serialized

if TYPE_CHECKING:
    from ray import ObjectRef


class Task:
    """A call on its way to the cluster and back."""

    __slots__ = ("call", "future", "missing", "ref", "resources", "retries", "returns", "size", "started")

    def __init__(
        self, call: Serialized, resources: Resources, *, returns: int | None = None, retries: int = 0
    ) -> None:
        self.future = RayFuture()
        self.call: Serialized | None = call
        self.size = call.size
        self.resources = resources
        self.returns = returns  # how many separate results there may be; ``None`` for one result
        self.retries = retries  # how often Ray begins the call again if a worker dies during it
        self.ref: ObjectRef[Any] | None = None  # the Ray task's answer, while the task is running
        self.started = 0.0  # when the Ray task was submitted, on the monotonic clock
        self.missing: set[Future[Any]] = {
            part for part in call.out_of_band if isinstance(part, Future) and not part.done()
        }

    def release(self) -> None:
        """Drop what is no longer needed when the task has ended."""
        self.ref = self.call = None

    def fail(self, error: BaseException) -> None:
        """Settle the future of a task that was not running with an error, unless it was cancelled."""
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)

    def cancel(self) -> None:
        """Cancel a task that was not running."""
        self.future.cancel()
        self.future.set_running_or_notify_cancel()
