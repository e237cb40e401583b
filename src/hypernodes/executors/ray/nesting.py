"""Waits without holding CPUs, for executors that are used in a Ray worker.

A Ray task gives its CPUs back only while its own thread waits in Ray, so a future is waited for in Ray. An
actor keeps its CPUs for as long as it lives, so it lends them to the tasks that it waits for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from hypernodes._compat.concurrent_futures import replace_wait_events
from hypernodes._compat.ray import is_worker_process
from hypernodes.executors.ray.worker import state

if TYPE_CHECKING:
    from ray import ObjectRef

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
