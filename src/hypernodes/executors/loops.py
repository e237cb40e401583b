"""Which event loop a coroutine runs on, and how to wait for it from plain code.

A coroutine runs on its *home* loop, so that what is bound to a loop (a client session, a lock)
serves in every node:

    the loop that code awaiting a pipeline runs on   (set for the time of ``arun`` and ``amap``)
    the loop that runs in the calling thread         (a notebook's; re-entered through nest_asyncio)
    else one background loop for the whole process   (also where a loop cannot be re-entered: uvloop)
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from contextvars import ContextVar, copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from hypernodes.executors.settled import Settled, raisable, settle

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator

T = TypeVar("T")


class Home:
    """The loop of code that awaits a pipeline, and how to end what is done for that code."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._stopped = False
        self._stops: list[Callable[[], object]] = []

    def on_stop(self, stop: Callable[[], object]) -> None:
        """Have something called when that code does not wait any longer; at once, if it has ceased to."""
        self._stops.append(stop)
        if self._stopped:
            stop()

    def forget(self, stop: Callable[[], object]) -> None:
        """Take back `on_stop`."""
        self._stops.remove(stop)

    def stop(self) -> None:
        """End what is being done."""
        self._stopped = True
        for stop in list(self._stops):
            stop()


HOME: ContextVar[Home | None] = ContextVar("hypernodes_home_loop", default=None)

_PATIENCE = 1.0  # seconds that a cancelled wait gives its work to end; a blocking call cannot be ended
_SLICE = 0.02  # seconds of values that are handed over at once
_SLAB = 256
_lock = threading.Lock()
_background: tuple[int, asyncio.AbstractEventLoop] | None = None


running_loop: Callable[[], asyncio.AbstractEventLoop | None] = asyncio._get_running_loop
"""Returns the loop that runs in this thread, if one does; asyncio's own, as it is asked for each call."""


def can_reenter(loop: asyncio.AbstractEventLoop) -> bool:
    """Make a running loop one that can be run again from inside; ``False`` where that cannot be done."""
    if getattr(loop, "_nest_patched", False):
        return True
    if not isinstance(loop, asyncio.BaseEventLoop):
        return False
    import nest_asyncio

    run = asyncio.run
    try:
        nest_asyncio.apply(loop)
    except ValueError:
        return False
    finally:
        asyncio.run = run  # its own one reuses a loop and leaves it open, which nobody here asked for
    return True


def home_loop() -> asyncio.AbstractEventLoop:
    """Return the loop on which coroutines that are started here belong."""
    home = HOME.get()
    if home is not None and home.loop.is_running():
        return home.loop
    here = running_loop()
    return here if here is not None and can_reenter(here) else background_loop()


def background_loop() -> asyncio.AbstractEventLoop:
    """Return the process's own loop, started in a daemon thread when it is first needed."""
    global _background  # noqa: PLW0603
    with _lock:
        # A forked child has the loop object but not the thread that ran it.
        if _background is None or _background[0] != os.getpid():
            loop = asyncio.new_event_loop()
            threading.Thread(target=_serve, args=(loop,), name="hypernodes-loop", daemon=True).start()
            _background = (os.getpid(), loop)
        return _background[1]


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()


def resolve(awaitable: Awaitable[T]) -> T:
    """Wait, from plain code, for something awaitable to run on its home loop."""
    loop = home_loop()
    if loop is running_loop():
        return loop.run_until_complete(_await(awaitable)).get()
    future = asyncio.run_coroutine_threadsafe(_await(awaitable), loop)
    home = HOME.get()
    if home is not None:
        home.on_stop(future.cancel)
    try:
        return future.result().get()
    except BaseException:
        future.cancel()  # Ctrl-C ends the wait; it shall end the coroutine as well
        raise
    finally:
        if home is not None:
            home.forget(future.cancel)
        del future  # The traceback of an error keeps this frame, which must not keep the error.


async def _await(awaitable: Awaitable[T]) -> Settled[T]:
    try:
        return Settled(await awaitable)
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        # As a value, since KeyboardInterrupt and SystemExit would end the loop, and not only this coroutine.
        return Settled(error=error)


async def iterated(values: Iterator[T]) -> AsyncGenerator[T, None]:
    """Walk through an iterator in threads of its own, whose coroutines run on this loop.

    It is advanced as its values are taken, a few at a time.
    """
    home, end = Home(asyncio.get_running_loop()), object()

    def some() -> list[Any]:
        found: list[Any] = []
        until = time.monotonic() + _SLICE
        while len(found) < _SLAB and (not found or time.monotonic() < until):
            try:
                found.append((next(values, end), None))
            except Exception as error:  # after those that came before
                found.append((end, error))
            if found[-1][0] is end:
                break
        return found

    try:
        while True:
            for value, error in await in_thread(some, home):
                if error is not None:
                    raise raisable(error, (StopIteration, StopAsyncIteration))
                if value is end:
                    return
                yield value
    finally:
        home.stop()
        # Nothing is awaited here: whoever drops a generator half-way may not be able to.
        close = getattr(values, "close", None)
        if close is not None:
            threading.Thread(target=close, name="hypernodes-close", daemon=True).start()


async def in_thread(work: Callable[[], T], home: Home | None = None) -> T:
    """Do plain work in a thread of its own, whose coroutines run on this loop.

    Cancelling the wait ends the work as soon as it can be ended.

    Raises:
        RuntimeError: The work raised StopIteration, which no coroutine can raise; `beside` can.
    """
    loop = asyncio.get_running_loop()
    home, context = Home(loop) if home is None else home, copy_context()
    context.run(HOME.set, home)
    done: asyncio.Future[Settled[T]] = loop.create_future()

    def tell(settled: Settled[T]) -> None:
        if not done.done():
            done.set_result(settled)

    def body() -> None:
        settled = settle(context.run, work)
        if not loop.is_closed():
            loop.call_soon_threadsafe(tell, settled)

    threading.Thread(target=body, name="hypernodes-run", daemon=True).start()
    try:
        settled = await asyncio.shield(done)
    except BaseException:
        home.stop()
        await asyncio.wait([done], timeout=_PATIENCE)
        raise
    if settled.error is not None:
        raise raisable(settled.error)
    return settled.get()


def beside(loop: asyncio.AbstractEventLoop, work: Callable[[], T], home: Home | None = None) -> T:
    """Do plain work in a thread of its own while the loop that runs in this thread goes on."""
    return loop.run_until_complete(in_thread(partial(settle, work), home)).get()
