"""Chooses the event loop that a coroutine runs on, and lets plain code wait for it.

A coroutine runs on one of these loops, so that an object that is bound to a loop (a client session, a lock)
can be used by all nodes:

    the loop of the coroutine that awaits a pipeline  (during ``arun``, ``amap`` and ``aimap``)
    the loop that runs in the calling thread          (a notebook's; re-entered through nest_asyncio)
    else one background loop for the whole process    (also where a loop cannot be re-entered: uvloop)
"""

from __future__ import annotations

import asyncio
import functools
import os
import threading
import time
from contextvars import ContextVar, copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from hypernodes._compat.asyncio import running_loop
from hypernodes._compat.nest_asyncio import can_reenter
from hypernodes.executors.settled import Settled, cancelled_inside, raisable, settle

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator

T = TypeVar("T")

CANCEL_TIMEOUT_S: Final = 1.0
"""Seconds that a cancelled `run_in_thread` waits for its work to end; a blocking call cannot be ended."""
SLICE_DURATION_S: Final = 0.02
"""Seconds for which a thread collects values, so that not every value costs a switch of threads."""
SLICE_MAX_ITEMS: Final = 256
"""How many values are handed over at once at most: so far does the iterator run ahead of its consumer."""


class AsyncCaller:
    """A coroutine that awaits work in another thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop  # the coroutines of the work run on it, too
        self._is_cancelled = False
        self._callbacks: list[Callable[[], object]] = []

    def on_cancel(self, callback: Callable[[], object]) -> None:
        """Have a function called when the coroutine stops waiting, or at once if it already has."""
        self._callbacks.append(callback)
        if self._is_cancelled:
            callback()

    def remove(self, callback: Callable[[], object]) -> None:
        """Remove a function that was given to `on_cancel`."""
        self._callbacks.remove(callback)

    def cancel(self) -> None:
        """Call the functions that end the work."""
        self._is_cancelled = True
        for callback in list(self._callbacks):
            callback()


ASYNC_CALLER: ContextVar[AsyncCaller | None] = ContextVar("hypernodes_async_caller", default=None)
"""The coroutine that awaits what this thread does, if there is one."""

_background_lock = threading.Lock()


def coroutine_loop() -> asyncio.AbstractEventLoop:
    """Return the loop for coroutines that this thread starts."""
    if (caller := ASYNC_CALLER.get()) is not None and caller.loop.is_running():
        return caller.loop
    loop = running_loop()
    return loop if loop is not None and can_reenter(loop) else background_loop()


def background_loop() -> asyncio.AbstractEventLoop:
    """Return the background loop of this process, which a daemon thread runs from the first use on."""
    with _background_lock:
        return _background_loop(os.getpid())


@functools.lru_cache(maxsize=1)
def _background_loop(pid: int) -> asyncio.AbstractEventLoop:
    # The id is the key of the cache: a forked child has a copy of the loop, but not the thread that runs it.
    del pid
    loop = asyncio.new_event_loop()
    threading.Thread(target=_run_forever, args=(loop,), name="hypernodes-loop", daemon=True).start()
    return loop


def _run_forever(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()


def run_awaitable(awaitable: Awaitable[T]) -> T:
    """Run an awaitable on the loop for coroutines, and wait for its result in plain code."""
    if (loop := coroutine_loop()) is running_loop():
        return loop.run_until_complete(_settle(awaitable)).get()
    future = asyncio.run_coroutine_threadsafe(_settle(awaitable), loop)
    if (caller := ASYNC_CALLER.get()) is not None:
        caller.on_cancel(future.cancel)
    try:
        return future.result().get()
    except BaseException:
        future.cancel()  # Ctrl-C ends the wait, and must end the coroutine as well.
        raise
    finally:
        if caller is not None:
            caller.remove(future.cancel)
        del future  # The traceback of an error keeps this frame, which must not keep the error.


async def _settle(awaitable: Awaitable[T]) -> Settled[T]:
    try:
        return Settled(await awaitable)
    except BaseException as raised:
        error = cancelled_inside(raised)
        if isinstance(error, asyncio.CancelledError):
            raise
        # KeyboardInterrupt and SystemExit would end the loop if they left the coroutine.
        return Settled(error=error)


async def iterate_in_thread(values: Iterator[T]) -> AsyncGenerator[T, None]:
    """Yield the values of an iterator that is advanced in threads; its coroutines run on this loop.

    The iterator is advanced as its values are taken, a few at a time.
    """
    caller, end = AsyncCaller(asyncio.get_running_loop()), object()

    def next_slice() -> list[Any]:
        found: list[Any] = []
        deadline = time.monotonic() + SLICE_DURATION_S
        while len(found) < SLICE_MAX_ITEMS and (not found or time.monotonic() < deadline):
            try:
                found.append((next(values, end), None))
            except Exception as error:  # It is raised after the values before it were yielded.
                found.append((end, error))
            if found[-1][0] is end:
                break
        return found

    try:
        while True:
            for value, error in await run_in_thread(next_slice, caller):
                if error is not None:
                    raise raisable(error, (StopIteration, StopAsyncIteration))
                if value is end:
                    return
                yield value
    finally:
        caller.cancel()
        # A generator that is garbage-collected half-way cannot await anything here.
        if (close := getattr(values, "close", None)) is not None:
            threading.Thread(target=close, name="hypernodes-close", daemon=True).start()


async def run_in_thread(work: Callable[[], T], caller: AsyncCaller | None = None) -> T:
    """Run plain code in a new thread; its coroutines run on this loop.

    If this coroutine, for which the caller stands, is cancelled, the work is ended as soon as it can be.
    """
    loop = asyncio.get_running_loop()
    caller, context = AsyncCaller(loop) if caller is None else caller, copy_context()
    context.run(ASYNC_CALLER.set, caller)
    done: asyncio.Future[Settled[T]] = loop.create_future()

    def set_done(settled: Settled[T]) -> None:
        if not done.done():
            done.set_result(settled)

    def run() -> None:
        settled = settle(context.run, work)
        if not loop.is_closed():
            loop.call_soon_threadsafe(set_done, settled)

    threading.Thread(target=run, name="hypernodes-run", daemon=True).start()
    try:
        settled = await asyncio.shield(done)
    except BaseException:
        caller.cancel()
        await asyncio.wait([done], timeout=CANCEL_TIMEOUT_S)
        raise
    if settled.error is not None:
        raise raisable(settled.error)
    return settled.get()


def run_in_thread_reentrant(
    loop: asyncio.AbstractEventLoop, work: Callable[[], T], caller: AsyncCaller | None = None
) -> T:
    """Run plain code in a new thread, and the re-entered loop of this thread until that is done."""
    return loop.run_until_complete(run_in_thread(partial(settle, work), caller)).get()
