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
import inspect
import os
import sys
import threading
import time
from concurrent.futures import Future, wait
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, TypeVar

from hypernodes._compat.asyncio import running_loop
from hypernodes._compat.nest_asyncio import can_reenter
from hypernodes.executors.context import own_context
from hypernodes.executors.settled import Settled, cancelled_inside, raisable, settle
from hypernodes.raw_errors import is_a

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator

T = TypeVar("T")

CANCEL_TIMEOUT_S: Final = 5.0
"""Seconds for what was cancelled to end: coroutines clean up, and functions in threads cannot be ended."""
SLICE_DURATION_S: Final = 0.02
"""Seconds for which a thread collects values, so that not every value costs a switch of threads."""
SLICE_MAX_ITEMS: Final = 256
"""How many values are handed over at once at most: so far does the iterator run ahead of its consumer."""


class RunStopped(BaseException):
    """Raised in a thread when the coroutine that awaits its work does not wait any longer."""


class AsyncCaller:
    """A coroutine that awaits work in another thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop  # the coroutines of the work run on it, too
        self.is_cancelled = False
        self._callbacks: list[Callable[[], object]] = []

    def on_cancel(self, callback: Callable[[], object]) -> None:
        """Have a function called when the coroutine stops waiting, or at once if it already has."""
        self._callbacks.append(callback)
        if self.is_cancelled:
            callback()

    def remove(self, callback: Callable[[], object]) -> None:
        """Remove a function that was given to `on_cancel`."""
        self._callbacks.remove(callback)

    def cancel(self) -> None:
        """Call the functions that end the work."""
        self.is_cancelled = True
        for callback in list(self._callbacks):
            callback()

    def stop(self) -> NoReturn:
        """End the work of this thread."""
        raise RunStopped


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
    while not loop.is_closed():
        # A coroutine may stop the loop, and a task that a node has left behind may end it, by SystemExit, for
        # example, which asyncio logs: all other coroutines go on.
        with suppress(BaseException):
            loop.run_forever()


def run_awaitable(awaitable: Awaitable[T]) -> T:
    """Run an awaitable on the loop for coroutines, and wait for its result in plain code."""
    if (loop := coroutine_loop()) is running_loop():
        return loop.run_until_complete(_settle(awaitable)).take()
    call = _LoopCall(awaitable, loop)
    if (caller := ASYNC_CALLER.get()) is not None:
        caller.on_cancel(call.cancel)
    try:
        return call.ended.result().take()
    except BaseException:
        if not call.ended.done():  # Ctrl-C ends the wait, and must end the coroutine as well.
            call.cancel()
            wait([call.ended], CANCEL_TIMEOUT_S)
        raise
    finally:
        if caller is not None:
            caller.remove(call.cancel)
        del call  # The traceback of an error keeps this frame, which must not keep the error.


class _LoopCall(Generic[T]):
    """An awaitable on a loop, and a future for plain code that waits for it.

    The future of `asyncio.run_coroutine_threadsafe` is done as soon as it is cancelled. This one is done when
    the coroutine has ended, after its ``finally`` blocks.
    """

    def __init__(self, awaitable: Awaitable[T], loop: asyncio.AbstractEventLoop) -> None:
        self.ended: Future[Settled[T]] = Future()
        self._loop = loop
        self._task: asyncio.Task[Settled[T]] | None = None
        self._awaitable = awaitable
        loop.call_soon_threadsafe(self._start)

    def cancel(self) -> None:
        """Cancel the coroutine."""
        self._loop.call_soon_threadsafe(self._cancel)

    def _start(self) -> None:
        self._task = self._loop.create_task(_settle(self._awaitable))
        self._task.add_done_callback(self._end)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _end(self, task: asyncio.Task[Settled[T]]) -> None:
        self._task = None
        if task.cancelled() and inspect.iscoroutine(self._awaitable):
            self._awaitable.close()  # Otherwise Python warns of a coroutine that has not begun.
        self.ended.set_result(Settled(error=asyncio.CancelledError()) if task.cancelled() else task.result())


async def _settle(awaitable: Awaitable[T]) -> Settled[T]:
    try:
        return Settled(await awaitable)
    except BaseException as error:
        error = cancelled_inside(error)
        if is_a(error, asyncio.CancelledError):
            raise
        # KeyboardInterrupt and SystemExit would end the loop if they left the coroutine.
        return Settled(error=error)


async def in_thread(function: Callable[..., T], /, *args: Any) -> T:
    """Call a plain function in a thread of the running loop, in a copy of this context."""
    caller, context = ASYNC_CALLER.get(), own_context()

    def call() -> T:
        if caller is not None and caller.is_cancelled:  # while the call waited for a thread
            caller.stop()
        return context.run(function, *args)

    return (await until_ended(asyncio.to_thread(settle, call))).take(raisable)


async def until_ended(call: Awaitable[T]) -> T:
    """Await a call in a thread. It cannot be cancelled: who is cancelled meanwhile waits for its end."""
    ending = asyncio.ensure_future(call)
    try:
        return await asyncio.shield(ending)
    except asyncio.CancelledError:
        await asyncio.wait([ending], timeout=CANCEL_TIMEOUT_S)
        raise


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

    can_await = True
    try:
        while True:
            for value, error in await run_in_thread(next_slice, caller):
                if error is not None:
                    raise raisable(error, (StopIteration, StopAsyncIteration))
                if value is end:
                    return
                yield value
    except GeneratorExit:
        can_await = awaits_at_end()
        raise
    finally:
        caller.cancel()
        if (close := getattr(values, "close", None)) is not None:
            if can_await:
                await run_in_thread(partial(settle, close))
            else:
                threading.Thread(target=settle, args=(close,), name="hypernodes-run", daemon=True).start()


def awaits_at_end() -> bool:
    """Whether an async generator that is closed can await in its ``finally`` block.

    A loop that nest_asyncio has patched does not close generators that nothing refers to: then Python closes
    them, without a loop, and so it does if the loop has ended.
    """
    return running_loop() is not None and sys.get_asyncgen_hooks().finalizer is not None


async def run_in_thread(work: Callable[[], T], caller: AsyncCaller | None = None) -> T:
    """Run plain code in a new thread; its coroutines run on this loop.

    If this coroutine, for which the caller stands, is cancelled, the work is ended as soon as it can be.
    """
    loop = asyncio.get_running_loop()
    caller, context = AsyncCaller(loop) if caller is None else caller, own_context()
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
    except GeneratorExit:  # The loop has ended: nothing can be awaited.
        caller.cancel()
        raise
    except BaseException:
        caller.cancel()
        # What ends the work waits itself for so long, and then needs a moment.
        await asyncio.wait([done], timeout=CANCEL_TIMEOUT_S + 1)
        raise
    return settled.take(raisable)


def run_in_thread_reentrant(
    loop: asyncio.AbstractEventLoop, work: Callable[[], T], caller: AsyncCaller | None = None
) -> T:
    """Run plain code in a new thread, and the re-entered loop of this thread until that is done."""
    return loop.run_until_complete(run_in_thread(partial(settle, work), caller)).take()
