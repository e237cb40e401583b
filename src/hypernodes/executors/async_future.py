"""The future of `AsyncExecutor`, which runs its event loop while code on that loop waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import wait
from functools import partial
from typing import Any

from hypernodes._compat.asyncio import running_loop
from hypernodes._compat.concurrent_futures import cancel_running, replace_wait_events
from hypernodes._compat.nest_asyncio import can_reenter
from hypernodes.executors.settled import ExecutorFuture


class AsyncFuture(ExecutorFuture):
    """A future whose call may run as a task on an event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.needs_loop = False  # the call is a task on the loop, so that it ends only if the loop runs
        self._loop = loop
        self._task: asyncio.Task[Any] | None = None
        self._cancel_requested = False
        replace_wait_events(self, partial(_wait_event, weakref.ref(self)))

    def start_task(self, create_task: Callable[[], asyncio.Task[None]]) -> None:
        """Have a task created on the loop, whose cancellation is that of the future."""
        self.needs_loop = True
        if running_loop() is self._loop:
            self._start_task(create_task)
        else:
            self._loop.call_soon_threadsafe(self._start_task, create_task)

    def cancel(self) -> bool:
        """Cancel a call that has not started, or whose task is running."""
        if super().cancel():
            return True
        if (task := self._task) is None or self.done():
            return False
        self._cancel_requested = True
        if running_loop() is self._loop:
            task.cancel()
        else:
            self._loop.call_soon_threadsafe(task.cancel)
        return True

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the error, if there is one; see `concurrent.futures.Future.exception`."""
        if not self.done() and running_loop() is self._loop:
            wait([self], timeout)
        return super().exception(timeout)

    def set_cancelled(self) -> None:
        """Mark the future as cancelled, also if it is running."""
        cancel_running(self)

    def is_stuck(self) -> bool:
        """Whether the call cannot end, since its loop does not run."""
        return self.needs_loop and not self._loop.is_running()

    def wait_event(self, event: threading.Event) -> threading.Event:
        """Return the event that the code of this thread waits for in place of another one."""
        if isinstance(event, _LoopEvent) or running_loop() is not self._loop or not can_reenter(self._loop):
            return event
        return _LoopEvent(self._loop)

    def _start_task(self, create_task: Callable[[], asyncio.Task[None]]) -> None:
        self._task = create_task()
        if self._cancel_requested:
            self._task.cancel()


def _wait_event(reference: weakref.ref[AsyncFuture], event: threading.Event) -> threading.Event:
    future = reference()
    return event if future is None else future.wait_event(event)


class _LoopEvent(threading.Event):
    """An event whose ``wait``, called on the thread of a loop, runs that loop until the event is set."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop
        self._loop_event: asyncio.Event | None = None

    def set(self) -> None:
        super().set()
        if (loop_event := self._loop_event) is not None:
            self._loop.call_soon_threadsafe(loop_event.set)

    def wait(self, timeout: float | None = None) -> bool:
        if running_loop() is not self._loop:
            return super().wait(timeout)
        self._loop_event = asyncio.Event()
        if not self.is_set():
            with contextlib.suppress(TimeoutError):
                self._loop.run_until_complete(asyncio.wait_for(self._loop_event.wait(), timeout))
        return self.is_set()
