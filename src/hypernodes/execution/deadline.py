"""How a call is ended that takes longer than it may.

on an event loop          its coroutine is cancelled
in a main thread          a signal interrupts it, also while it sleeps or reads
in another thread         it is interrupted where Python code goes on
in a process of its own   (Ray's workers) the process is ended, if nothing else has helped
"""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import signal
import threading
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, TypeVar

from hypernodes.exceptions import NodeTimeoutError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hypernodes.exceptions import WorkerDiedError

T = TypeVar("T")

MAY_END_PROCESS: ContextVar[bool] = ContextVar("hypernodes_may_end_process", default=False)
"""Whether this process runs one call at a time, and is replaced when it ends."""

GRACE: Final = 2.0  # seconds after its time in which a call may end by itself


def within(seconds: float, function: Callable[..., T], *args: Any) -> T:
    """Return what a function returns.

    Raises:
        NodeTimeoutError: It takes longer.
    """
    if threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer"):
        return _by_signal(seconds, function, args)
    return _by_exception(seconds, function, args)


async def awaited(seconds: float, awaitable: Awaitable[T]) -> T:
    """Return what something awaitable gives.

    Raises:
        NodeTimeoutError: It takes longer.
    """
    try:
        async with asyncio.timeout(seconds) as deadline:
            return await awaitable
    except TimeoutError:
        if deadline.expired():
            raise _error(seconds) from None
        raise


def _error(seconds: float) -> NodeTimeoutError:
    return NodeTimeoutError(
        f"it took longer than its timeout of {seconds:g} s. Give it more, @node(timeout=...), or less to do."
    )


def overdue(error: WorkerDiedError, timeout: float | None) -> NodeTimeoutError | None:
    """Return what the death of a worker means, if it was ended since a call took too long."""
    if timeout is None or error.seconds is None or error.seconds < timeout + GRACE:
        return None
    late = _error(timeout)
    late.__cause__ = error
    return late


def _by_signal(seconds: float, function: Callable[..., T], args: tuple[Any, ...]) -> T:
    def expire(_number: int, _frame: Any) -> None:
        raise _error(seconds)

    around = signal.signal(signal.SIGALRM, expire)
    started, left = time.monotonic(), signal.setitimer(signal.ITIMER_REAL, seconds)[0]
    ends_process = MAY_END_PROCESS.get()
    if ends_process:
        faulthandler.dump_traceback_later(seconds + GRACE, exit=True)
    try:
        return function(*args)
    finally:
        if ends_process:
            faulthandler.cancel_dump_traceback_later()
        # The time of a call around this one goes on.
        remaining = max(left - (time.monotonic() - started), 1e-6) if left else 0.0
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, around)
        signal.setitimer(signal.ITIMER_REAL, remaining)


class _ExpiredError(NodeTimeoutError):
    """Raised within a thread, from outside."""


def _by_exception(seconds: float, function: Callable[..., T], args: tuple[Any, ...]) -> T:
    lock, thread = threading.Lock(), threading.get_ident()
    state = {"done": False, "expired": False}

    def expire() -> None:
        with lock:
            if not state["done"]:
                state["expired"] = True
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(thread), ctypes.py_object(_ExpiredError)
                )

    timer = threading.Timer(seconds, expire)
    timer.daemon = True
    timer.start()
    try:
        try:
            value = function(*args)
        finally:
            timer.cancel()
            with lock:
                state["done"] = True
        if state["expired"]:  # and about to be told so
            time.sleep(0.1)
    except _ExpiredError:
        raise _error(seconds) from None
    return value
