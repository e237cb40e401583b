"""What the executors rely on in `concurrent.futures`, of Python 3.11 to 3.13, beyond its documentation."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor, Future


def run_before_exit(function: Callable[[], None]) -> None:
    """Have the interpreter call a function when the main thread ends, before it joins the other threads.

    Why: the executors of the standard library do so to finish submitted work before the program ends. A
    function that is registered by `atexit` runs later, when no thread can be started any longer, and after
    Ray has disconnected.
    When ``threading._register_atexit`` is gone: see what ``concurrent/futures/thread.py`` calls instead.
    """
    threading._register_atexit(function)  # type: ignore[attr-defined]


def cancel_running(future: Future[Any]) -> None:
    """Cancel a future that is running; do nothing if it is done.

    Why: a coroutine can be cancelled while it runs, but `Future.cancel` refuses to cancel a running future.
    When ``Future._state`` or ``Future._condition`` is gone: set a CancelledError as the exception of the
    future. `Future.cancelled` is ``False`` then.
    """
    with future._condition:
        if future.done():
            return
        future._state = "PENDING"
    future.cancel()
    future.set_running_or_notify_cancel()


def replace_wait_events(future: Future[Any], replacement: Callable[[threading.Event], Any]) -> None:
    """Replace the event that `wait` and `as_completed` wait for whenever they wait for a future.

    Why: code on an event loop must run that loop while it waits, and code in a Ray task must wait in Ray, so
    that the task gives its CPUs back. Both functions add an object that has the event to the list
    ``Future._waiters``.
    When ``Future._waiters`` is gone: see what ``concurrent/futures/_base.py`` has instead. Without it,
    `Future.result` works, but `wait` and `as_completed` block the loop, or hold CPUs.
    """
    future._waiters = _WaiterList(replacement)


class _WaiterList(list[Any]):
    def __init__(self, replacement: Callable[[threading.Event], Any]) -> None:
        super().__init__()
        self._replacement = replacement

    def append(self, waiter: Any) -> None:
        waiter.event = self._replacement(waiter.event)
        super().append(waiter)


def is_broken(executor: Executor | None) -> bool:
    """Whether an executor takes no more work since its workers have failed.

    Why: the executors of the standard library have no public attribute for it. Those of hypernodes have the
    same private one.
    When ``_broken`` is gone: a broken executor is used until a submission raises `BrokenExecutor`.
    """
    return bool(getattr(executor, "_broken", False))


def has_workers_in_this_process(executor: Executor) -> bool:
    """Whether a pool of the standard library has threads in this process, which a forked child lacks.

    Why: such a pool waits forever in a forked child, and no public attribute shows whether it has threads.
    When ``_threads`` or ``_executor_manager_thread`` is gone: the pool hangs in a forked child, as it does by
    itself.
    """
    if isinstance(executor, ThreadPoolExecutor):
        return bool(getattr(executor, "_threads", ()))
    return getattr(executor, "_executor_manager_thread", None) is not None


def worker_count(executor: Executor) -> int | None:
    """Return how many submissions run at once on an executor, or ``None`` if it does not tell.

    Why: the executors of the standard library have no public attribute for it.
    When ``_max_workers`` is gone: look for a public attribute; without one, the number of cores is assumed.
    """
    for name in ("max_concurrent", "max_workers", "_max_workers"):
        if isinstance(count := getattr(executor, name, None), int):
            return count
    return None
