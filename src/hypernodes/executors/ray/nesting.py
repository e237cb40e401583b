"""What changes where the code that submits runs in a Ray worker itself, and holds CPUs while it waits.

A task gives its CPUs back while its own thread waits in Ray, and only then: so waiting for a future, there,
is done in Ray. An actor keeps its CPUs for as long as it lives, so it lends them to what it waits for.
"""

from __future__ import annotations

import threading
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from hypernodes.executors.ray import worker

if TYPE_CHECKING:
    from collections.abc import Callable

_LONGEST: Final = 0.5  # seconds in Ray before the future itself is looked at again
_SHORTEST: Final = 0.001


def in_task() -> bool:
    """Whether this thread is that of a Ray task, which gives its CPUs back while it waits in Ray."""
    import ray

    if threading.current_thread() is not threading.main_thread() or not ray.is_initialized():
        return False
    context = ray.get_runtime_context()
    return context.worker.mode == ray.WORKER_MODE and context.get_actor_id() is None


def lent_cpus() -> float:
    """Return how many CPUs the code that runs here can only lend: those of an actor, or lent ones."""
    import ray

    context = ray.get_runtime_context()
    if context.worker.mode != ray.WORKER_MODE:
        return 0.0
    assigned = float(context.get_assigned_resources().get("CPU", 0.0))
    if context.get_actor_id() is not None:
        return assigned
    return 0.0 if assigned else worker.held_cpus or 0.0


def wait_in_ray(refs: list[Any], timeout: float | None) -> None:
    """Give this task's CPUs back until one of these is done, or for a moment."""
    import ray

    longest = _LONGEST if timeout is None else min(timeout, _LONGEST)
    if not refs:
        threading.Event().wait(min(longest, _SHORTEST))
        return
    done, _ = ray.wait(refs, num_returns=1, timeout=longest, fetch_local=False)
    if done:  # the dispatcher is about to settle its future
        threading.Event().wait(_SHORTEST)


class Waiters(list[Any]):
    """The list in which the standard library's `wait` and `as_completed` leave who waits for a future."""

    def __init__(self, give_way: Callable[[float | None], None]) -> None:
        super().__init__()
        self._give_way = give_way

    def append(self, waiter: Any) -> None:
        """Have one wait in Ray."""
        if not isinstance(waiter.event, _EventInRay):
            waiter.event = _EventInRay(waiter.event, self._give_way)
        super().append(waiter)


class _EventInRay:
    """An event for which a Ray task waits without holding its CPUs."""

    def __init__(self, event: threading.Event, give_way: Callable[[float | None], None]) -> None:
        self._event = event
        self._give_way = give_way

    def __getattr__(self, name: str) -> Any:
        return getattr(self._event, name)

    def wait(self, timeout: float | None = None) -> bool:
        if not in_task():
            return self._event.wait(timeout)
        return until(self._event.is_set, self._give_way, timeout)


def until(
    is_done: Callable[[], bool], give_way: Callable[[float | None], None], timeout: float | None
) -> bool:
    """Wait in Ray until something is done; tell whether it is."""
    ends = None if timeout is None else monotonic() + timeout
    while not is_done():
        left = None if ends is None else ends - monotonic()
        if left is not None and left <= 0:
            return False
        give_way(left)
    return True
