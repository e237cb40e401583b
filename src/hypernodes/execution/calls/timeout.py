"""How a call is ended that takes longer than its timeout.

on an event loop          its coroutine is cancelled
in a main thread          a signal interrupts it, also while it sleeps or reads
in another thread         it is interrupted where Python code goes on
in a process of its own   the process is ended, if the interrupt has not ended the call (`watchdog`)

A call that takes no notice (``except BaseException: pass``, or C code) goes on. It has timed out all the
same, whatever it returns or raises in the end.
"""

from __future__ import annotations

import asyncio
import ctypes
import signal
import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar

from hypernodes.exceptions import NodeTimeoutError
from hypernodes.execution.calls.watchdog import GRACE_S
from hypernodes.executors.settled import Settled, settle
from hypernodes.raw_errors import is_a

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hypernodes.exceptions import WorkerDiedError

T = TypeVar("T")


class _Interrupt(BaseException):
    """Raised in a call that takes too long. ``except Exception`` does not swallow it."""


def call_with_timeout(seconds: float, function: Callable[..., T], *args: Any) -> T:
    """Call a function and return its value."""
    is_main = threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer")
    started = time.monotonic()
    settled = (_by_signal if is_main else _by_exception)(seconds, function, args)
    return _in_time(settled, seconds, started).take()


async def await_with_timeout(seconds: float, awaitable: Awaitable[T]) -> T:
    """Await something and return its value."""
    started = time.monotonic()
    settled: Settled[T] | None
    try:
        async with asyncio.timeout(seconds) as deadline:
            settled = Settled(await awaitable)
    except Exception as error:
        is_late = is_a(error, TimeoutError) and deadline.expired()
        settled = None if is_late else Settled(error=error)
    del deadline  # It refers to the task, and an error to this frame.
    return _in_time(settled, seconds, started).take()


def _in_time(settled: Settled[T] | None, seconds: float, started: float) -> Settled[T]:
    """Return what came of a call; the timeout if nothing did, or too late."""
    late = _error(seconds)
    if settled is not None:
        is_late = time.monotonic() - started >= seconds
        if not is_late or not isinstance(settled.error, Exception | None):
            return settled
        late.__cause__ = settled.error
    return Settled(error=late)


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


def _by_signal(seconds: float, function: Callable[..., T], args: tuple[Any, ...]) -> Settled[T] | None:
    interrupt, is_over = _Interrupt(), False

    def expire(_number: int, _frame: Any) -> None:
        if not is_over:
            raise interrupt

    settled: Settled[T] | None = None
    started, left = time.monotonic(), signal.getitimer(signal.ITIMER_REAL)[0]
    outer_handler = signal.signal(signal.SIGALRM, expire)
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            settled = settle(function, *args)
        finally:
            is_over = True
    except _Interrupt:  # It has arrived before the call had begun, or when it had just ended.
        settled = None
    finally:
        # The timer of a call around this one goes on.
        remaining = max(left - (time.monotonic() - started), 1e-6) if left else 0.0
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, outer_handler)
        signal.setitimer(signal.ITIMER_REAL, remaining)
    return None if settled is None or settled.error is interrupt else settled


def _by_exception(seconds: float, function: Callable[..., T], args: tuple[Any, ...]) -> Settled[T] | None:
    lock, thread = threading.Lock(), ctypes.c_ulong(threading.get_ident())
    interrupt: type[_Interrupt] = type(
        "_Interrupt", (_Interrupt,), {}
    )  # that of a call around this one is another one
    is_over = False

    def expire() -> None:
        with lock:
            if not is_over:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(interrupt))

    timer = threading.Timer(seconds, expire)
    timer.daemon = True
    settled: Settled[T] | None
    try:
        try:
            timer.start()
            settled = settle(function, *args)
        finally:
            timer.cancel()
            with lock:
                is_over = True
            ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, None)  # one that has not arrived yet
    except interrupt:  # It has arrived before the call had begun, or when it had just ended.
        settled = None
    return None if settled is None or isinstance(settled.error, interrupt) else settled
