"""Futures whose results stay in the cluster until they are asked for, and waits that hold no CPUs.

A Ray task gives its CPUs back only while its own thread waits in Ray, so a future is waited for in Ray. An
actor keeps its CPUs for as long as it lives, so it lends them to the tasks that it waits for.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from hypernodes._compat.concurrent_futures import replace_wait_events
from hypernodes._compat.ray import is_worker_process
from hypernodes.executors.ray.objects import RayValue, deserialize_result
from hypernodes.executors.ray.worker import (
    InlineResult,
    PlainSerialized,
    StoredResult,
    serialize_plain,
    state,
)
from hypernodes.executors.settled import ExecutorFuture, Settled
from hypernodes.serialization.pickling import OutOfBand

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from ray import ObjectRef


@dataclass(frozen=True, slots=True)
class PendingResult:
    """The results of a task that have not been unpickled yet."""

    results: tuple[InlineResult | StoredResult, ...]
    refs: tuple[ObjectRef[Any], ...]
    are_separate: bool  # the future has one value for each result, and a large one stays in the store

    @property
    def is_inline(self) -> bool:
        """Whether all results are in this process."""
        return all(isinstance(result, InlineResult) for result in self.results)

    def resolve(self) -> Any:
        """Return the result, or the tuple of separate results."""
        values = [
            deserialize_result(result.value) if isinstance(result, InlineResult) else RayValue(ref, result)
            for result, ref in zip(self.results, self.refs, strict=True)
        ]
        if self.are_separate:
            return tuple(values)
        return values[0].get() if isinstance(values[0], RayValue) else values[0]

    def as_argument(self) -> PlainSerialized | ObjectRef[Any]:
        """Return the result as an argument of a Ray task."""
        (result,), (ref,) = self.results, self.refs
        return result.value if isinstance(result, InlineResult) else ref


class RayFuture(ExecutorFuture, OutOfBand):
    """A future that fetches its result when it is asked for, and not before.

    As an argument of another submission it stands for its value, which goes from worker to worker.
    """

    def __init__(self) -> None:
        super().__init__()
        self.attempts = 0  # how often the call was begun; more than once if a worker has died during it
        self._pending: PendingResult | None = None
        self._resolved: Settled[Any] | None = None
        self._resolving = threading.Lock()
        self._wait_in_ray: Callable[[float | None], None] | None = None

    def wait_by(self, wait: Callable[[float | None], None]) -> None:
        """Have the thread of a Ray task wait for this future by a function that gives its CPUs back."""
        self._wait_in_ray = wait
        wait_in_ray_for(self, wait)

    def result(self, timeout: float | None = None) -> Any:
        """Return the result, or raise the error; see `concurrent.futures.Future.result`."""
        if self._wait(timeout) is None and (resolved := self._resolve()) is not None:
            return resolved.get()
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the error, if there is one; see `concurrent.futures.Future.exception`."""
        error = self._wait(timeout)
        pending = self._pending
        if error is None and pending is not None and pending.is_inline:
            self._resolve()  # A large result is not fetched only to see whether it can be unpickled.
        return error if self._resolved is None else self._resolved.error

    def set_pending(self, pending: PendingResult) -> None:
        """Settle the future with results that are fetched when they are asked for."""
        self._pending = pending
        self.set_result(None)

    def as_argument(self) -> PlainSerialized | ObjectRef[Any]:
        """Return the result of this future, which is done, as an argument of a Ray task."""
        if (pending := self._pending) is not None and not pending.are_separate:
            return pending.as_argument()
        return serialize_plain(self.result())

    def _wait(self, timeout: float | None) -> BaseException | None:
        if self._wait_in_ray is not None and not self.done() and is_task_thread():
            wait_until(self.done, self._wait_in_ray, timeout)
            timeout = 0
        return super().exception(timeout)

    def _resolve(self) -> Settled[Any] | None:
        with self._resolving:
            pending = self._pending
            if self._resolved is None and pending is not None:
                try:
                    self._resolved = Settled(pending.resolve())
                except Exception as error:
                    self._resolved = Settled(error=error)
                if pending.is_inline:  # A stored result may still become an argument of another task.
                    self._pending = None
            return self._resolved


MAX_WAIT_S: Final = 0.5
"""Seconds of one wait in Ray, after which the future is checked: a future may be done without a Ray task."""
MIN_WAIT_S: Final = 0.001
"""Seconds of a wait without tasks to wait for, or for the dispatcher to settle a future."""


def is_task_thread() -> bool:
    """Whether this is the thread of a Ray task, which gives its CPUs back while it waits in Ray."""
    import ray

    if threading.current_thread() is not threading.main_thread() or not ray.is_initialized():
        return False
    return is_worker_process() and ray.get_runtime_context().get_actor_id() is None


def lent_cpus() -> float:
    """Return how many CPUs this process can only lend to tasks: those of an actor, or lent ones."""
    import ray

    if not is_worker_process():
        return 0.0
    context = ray.get_runtime_context()
    assigned = float(context.get_assigned_resources().get("CPU", 0.0))
    if context.get_actor_id() is not None:
        return assigned
    return 0.0 if assigned else state.held_cpus or 0.0


def wait_in_ray(refs: list[ObjectRef[Any]], timeout: float | None) -> None:
    """Wait until one of the objects exists, at most `MAX_WAIT_S`, without holding this task's CPUs."""
    import ray

    longest = MAX_WAIT_S if timeout is None else min(timeout, MAX_WAIT_S)
    if not refs:
        threading.Event().wait(min(longest, MIN_WAIT_S))
        return
    done, _ = ray.wait(refs, num_returns=1, timeout=longest, fetch_local=False)
    if done:  # The dispatcher is about to settle the future.
        threading.Event().wait(MIN_WAIT_S)


def wait_until(
    is_done: Callable[[], bool], wait: Callable[[float | None], None], timeout: float | None
) -> bool:
    """Wait until something is done, by a function that waits for a while; ``False`` if it is not in time."""
    deadline = None if timeout is None else monotonic() + timeout
    while not is_done():
        remaining = None if deadline is None else deadline - monotonic()
        if remaining is not None and remaining <= 0:
            return False
        wait(remaining)
    return True


def wait_in_ray_for(future: Future[Any], wait: Callable[[float | None], None]) -> None:
    """Have `concurrent.futures.wait` and `as_completed` wait for a future in Ray, in the thread of a task."""
    replace_wait_events(
        future, lambda event: event if isinstance(event, _RayEvent) else _RayEvent(event, wait)
    )


class _RayEvent:
    """An event that the thread of a Ray task waits for without holding CPUs."""

    def __init__(self, event: threading.Event, wait: Callable[[float | None], None]) -> None:
        self._event = event
        self._wait = wait

    def __getattr__(self, name: str) -> Any:
        return getattr(self._event, name)

    def wait(self, timeout: float | None = None) -> bool:
        if not is_task_thread():
            return self._event.wait(timeout)
        return wait_until(self._event.is_set, self._wait, timeout)
