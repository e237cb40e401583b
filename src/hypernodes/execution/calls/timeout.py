"""How a call is ended that takes longer than its timeout.

on an event loop          its coroutine is cancelled
in a main thread          a signal interrupts it, also while it sleeps or reads
in another thread         it is interrupted where Python code goes on
in a process of its own   (Ray's workers) the process is ended, if the signal has not ended the call
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

GRACE_S: Final = 2.0
"""Seconds after its timeout in which a call may end by itself, before its process is ended."""


def call_with_timeout(seconds: float, function: Callable[..., T], *args: Any) -> T:
    """Call a function and return its value.

    Raises:
        NodeTimeoutError: It takes longer.
    """
    if threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer"):
        return _by_signal(seconds, function, args)
    return _by_exception(seconds, function, args)


async def await_with_timeout(seconds: float, awaitable: Awaitable[T]) -> T:
    """Await something and return its value.

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
        f"it timed out after {seconds:g} s. Give it more time, @node(timeout=...), or less to do."
    )


def overdue(error: WorkerDiedError, timeout: float | None) -> NodeTimeoutError | None:
    """Return the timeout behind the death of a worker, if it was ended because a call took too long."""
    if timeout is None or error.seconds is None or error.seconds < timeout + GRACE_S:
        return None
    late = _error(timeout)
    late.__cause__ = error
    return late


def _by_signal(seconds: float, function: Callable[..., T], args: tuple[Any, ...]) -> T:
    def expire(_number: int, _frame: Any) -> None:
        raise _error(seconds)

    outer_handler = signal.signal(signal.SIGALRM, expire)
    started, left = time.monotonic(), signal.setitimer(signal.ITIMER_REAL, seconds)[0]
    ends_process = MAY_END_PROCESS.get()
    if ends_process:
        faulthandler.dump_traceback_later(seconds + GRACE_S, exit=True)
    try:
        return function(*args)
    finally:
        if ends_process:
            faulthandler.cancel_dump_traceback_later()
        # The timer of a call around this one goes on.
        remaining = max(left - (time.monotonic() - started), 1e-6) if left else 0.0
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, outer_handler)
        signal.setitimer(signal.ITIMER_REAL, remaining)


class _ExpiredError(NodeTimeoutError):
    """Raised in a thread by the timer's thread."""


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
        if state["expired"]:  # the error arrives at one of the next instructions
            time.sleep(0.1)
    except _ExpiredError:
        raise _error(seconds) from None
    return value
