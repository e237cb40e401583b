"""AsyncExecutor: coroutines on an event loop and plain callables in threads, as futures.

submit ─▶ pending (deque) ─▶ at most max_concurrent at once ─┬─▶ a task on the home loop
               ▲                                             └─▶ a thread
               └───────────── a finished one starts the next ◀──┘
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import threading
import weakref
from collections import deque
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, TypeVar

from hypernodes.executors.loops import can_reenter, home_loop, running_loop
from hypernodes.executors.settled import ExecutorFuture, raisable, settle

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

P = ParamSpec("P")
T = TypeVar("T")

_LOOK_AGAIN = 0.5  # seconds between looks whether the loops that are waited for still run


class AsyncExecutor(Executor):
    """Run coroutine functions and plain callables, at most so many at a time.

    Coroutines run on the caller's loop where one runs and can be re-entered (a notebook's), else on
    a loop in a background thread. Plain callables run in threads. ``cancel`` on the future of a
    running coroutine really cancels it.

    A coroutine that waits for another submission to the same executor keeps its place while it
    waits, so ``max_concurrent`` must exceed the depth of such waiting.

    Args:
        max_concurrent: How many submissions run at once.
        initializer: Called with `initargs` at the start of each thread, and once before the first
            coroutine.
        initargs: Its arguments.

    Raises:
        ValueError: ``max_concurrent`` below 1.

    Example:
        >>> async def double(x):
        ...     return 2 * x
        >>> with AsyncExecutor(max_concurrent=2) as executor:
        ...     executor.submit(double, 4).result(), list(executor.map(abs, [-1, 2]))
        (8, [1, 2])
    """

    runs_coroutines: ClassVar[bool] = True

    def __init__(
        self,
        max_concurrent: int = 10,
        *,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> None:
        if max_concurrent < 1:
            raise ValueError("max_concurrent must be greater than 0")
        self.max_concurrent = max_concurrent
        self._threads = ThreadPoolExecutor(
            max_concurrent, thread_name_prefix="hypernodes-async", initializer=initializer, initargs=initargs
        )
        self._before_coroutines = functools.partial(initializer, *initargs) if initializer else None
        self._lock = threading.Lock()
        self._pending: deque[_Submission] = deque()
        self._outstanding: set[_AsyncFuture] = set()
        self._active = 0
        self._closed = False
        self._broken: BaseException | None = None
        _alive.add(self)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[Any]:
        """Schedule ``fn(*args, **kwargs)`` and return its future.

        Raises:
            BrokenExecutor: The initializer failed.
            RuntimeError: The executor was shut down, or the interpreter is ending.
        """
        future = _AsyncFuture()
        submission = _Submission(future, fn, args, kwargs, home_loop(), copy_context(), _is_async(fn))
        future._loop = submission.loop
        with self._lock:
            if self._broken is not None:
                raise BrokenExecutor(str(self._broken)) from self._broken
            if self._closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            if _exiting:
                raise RuntimeError("cannot schedule new futures after interpreter shutdown")
            self._outstanding.add(future)
            self._pending.append(submission)
        self._start_pending()
        return future

    async def in_thread(self, fn: Callable[..., T], /, *args: Any) -> T:
        """Run a plain callable in one of the threads, on behalf of a coroutine that has a place already.

        Raises:
            RuntimeError: It raised StopIteration, which no coroutine can raise; `settle` takes that along.
        """
        settled = await asyncio.wrap_future(self._threads.submit(settle, fn, *args))
        if settled.error is not None:
            raise raisable(settled.error)
        return settled.get()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002
        """Take no more work; see `concurrent.futures.Executor.shutdown`."""
        with self._lock:
            self._closed = True
            cancelled = list(self._pending) if cancel_futures else []
            if cancel_futures:
                self._pending.clear()
            self._outstanding -= {submission.future for submission in cancelled}
        for submission in cancelled:
            submission.future.cancel()
            submission.future.set_running_or_notify_cancel()
        if wait:
            with self._lock:
                outstanding = list(self._outstanding)
            _wait_for_all(outstanding)
            self._threads.shutdown(wait=True)

    def _start_pending(self) -> None:
        while True:
            with self._lock:
                if not self._pending or self._active >= self.max_concurrent:
                    return
                submission = self._pending.popleft()
                self._active += 1
            if not submission.future.set_running_or_notify_cancel():
                self._release(submission)
                continue
            try:
                if submission.is_async:
                    self._run_before_coroutines()
                    self._on_loop(submission, submission.call)
                else:
                    self._threads.submit(self._in_thread, submission).add_done_callback(
                        functools.partial(self._thread_refused, submission)
                    )
            except BaseException as error:
                self._finish(submission, error=error)

    def _run_before_coroutines(self) -> None:
        if self._before_coroutines is not None:
            initializer, self._before_coroutines = self._before_coroutines, None
            try:
                initializer()
            except BaseException as error:
                self._broken = error
                raise BrokenExecutor(f"the initializer failed: {error!r}") from error

    def _in_thread(self, submission: _Submission) -> None:
        try:
            value = submission.context.run(submission.call)
        except BaseException as error:
            self._finish(submission, error=error)
            return
        if inspect.isawaitable(value):
            self._on_loop(submission, lambda: value)
        else:
            self._finish(submission, value)

    def _thread_refused(self, submission: _Submission, thread_future: Future[None]) -> None:
        # `_in_thread` raises nothing, so this is the pool's own word: its initializer failed.
        if (error := thread_future.exception()) is not None:
            self._broken = error
            self._finish(submission, error=error)

    def _on_loop(self, submission: _Submission, start: Callable[[], Awaitable[Any]]) -> None:
        submission.future._needs_loop = True
        if running_loop() is submission.loop:
            self._create_task(submission, start)
        else:
            submission.loop.call_soon_threadsafe(self._create_task, submission, start)

    def _create_task(self, submission: _Submission, start: Callable[[], Awaitable[Any]]) -> None:
        task = submission.loop.create_task(self._carry_out(submission, start), context=submission.context)
        submission.future._task = task
        if submission.future._cancel_asked:
            task.cancel()
        task.add_done_callback(functools.partial(self._never_began, submission))

    async def _carry_out(self, submission: _Submission, start: Callable[[], Awaitable[Any]]) -> None:
        try:
            value = await start()
        except asyncio.CancelledError:
            self._release(submission)
            submission.future._was_cancelled()
            self._start_pending()
        except BaseException as error:
            # KeyboardInterrupt and SystemExit would end the loop and not only this coroutine.
            self._finish(submission, error=error)
        else:
            self._finish(submission, value)

    def _never_began(self, submission: _Submission, task: asyncio.Task[None]) -> None:
        # A task that is cancelled before its first step carries out nothing at all.
        if task.cancelled() and not submission.future.done():
            self._release(submission)
            submission.future._was_cancelled()
            self._start_pending()

    def _finish(self, submission: _Submission, value: Any = None, error: BaseException | None = None) -> None:
        # The place is free before the future tells, so that whoever waits for it may submit at once.
        self._release(submission)
        if error is not None:
            submission.future.set_exception(error)
        else:
            submission.future.set_result(value)
        self._start_pending()

    def _release(self, submission: _Submission) -> None:
        with self._lock:
            self._active -= 1
            self._outstanding.discard(submission.future)


@dataclass(frozen=True, slots=True, eq=False)
class _Submission:
    """One submitted call: what to call, where, and the future that tells."""

    future: _AsyncFuture
    fn: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    loop: asyncio.AbstractEventLoop
    context: Context
    is_async: bool

    def call(self) -> Any:
        return self.fn(*self.args, **self.kwargs)


class _AsyncFuture(ExecutorFuture):
    """A future that keeps its loop turning while that loop's own thread waits for it."""

    _loop: asyncio.AbstractEventLoop | None = None
    _task: asyncio.Task[Any] | None = None
    _cancel_asked = False
    _needs_loop = False

    def __init__(self) -> None:
        super().__init__()
        self._waiters = _Waiters(self)

    def cancel(self) -> bool:
        """Cancel what has not started, and a coroutine also while it runs."""
        if super().cancel():
            return True
        task = self._task
        if task is None or self._loop is None or self.done():
            return False
        self._cancel_asked = True
        if running_loop() is self._loop:
            task.cancel()
        else:
            self._loop.call_soon_threadsafe(task.cancel)
        return True

    def exception(self, timeout: float | None = None) -> BaseException | None:
        self._turn_loop(timeout)
        return super().exception(timeout)

    def _turn_loop(self, timeout: float | None) -> None:
        if not self.done() and self._loop is not None and running_loop() is self._loop:
            wait_for([self], timeout)

    def _was_cancelled(self) -> None:
        # The standard library knows no way from RUNNING to CANCELLED: step back, then cancel.
        with self._condition:
            if self.done():
                return
            self._state = "PENDING"
        super().cancel()
        self.set_running_or_notify_cancel()


class _Waiters(list[Any]):
    """The waiters of one future; each is made to wait by turning the loop, where it must."""

    def __init__(self, future: _AsyncFuture) -> None:
        super().__init__()
        self._future = weakref.ref(future)

    def append(self, waiter: Any) -> None:
        future, here = self._future(), running_loop()
        must_turn = future is not None and here is not None and future._loop is here and can_reenter(here)
        if must_turn and here is not None and not isinstance(waiter.event, _LoopEvent):
            waiter.event = _LoopEvent(here)
        super().append(waiter)


class _LoopEvent(threading.Event):
    """An event whose ``wait``, called on a loop's own thread, runs that loop until the event is set."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop
        self._turned: asyncio.Event | None = None

    def set(self) -> None:
        super().set()
        if (turned := self._turned) is not None:
            self._loop.call_soon_threadsafe(turned.set)

    def wait(self, timeout: float | None = None) -> bool:
        if running_loop() is not self._loop:
            return super().wait(timeout)
        self._turned = asyncio.Event()
        if not self.is_set():
            with contextlib.suppress(TimeoutError):
                self._loop.run_until_complete(asyncio.wait_for(self._turned.wait(), timeout))
        return self.is_set()


def _is_async(fn: Callable[..., Any]) -> bool:
    while isinstance(fn, functools.partial):
        fn = fn.func
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(type(fn), "__call__", None))  # noqa: B004


_alive: weakref.WeakSet[AsyncExecutor] = weakref.WeakSet()
_exiting = False


def _finish_at_exit() -> None:
    global _exiting  # noqa: PLW0603
    _exiting = True
    for executor in list(_alive):
        _wait_for_all(list(executor._outstanding))


def _wait_for_all(futures: list[_AsyncFuture]) -> None:
    """Wait, but not for coroutines of a loop that has stopped: they never end, so they are cancelled."""
    left = set(futures)
    while left:
        for future in left:
            if future._needs_loop and future._loop is not None and not future._loop.is_running():
                future._was_cancelled()
        wait_for(left, timeout=_LOOK_AGAIN)
        left = {future for future in left if not future.done()}


# As ThreadPoolExecutor does: work that was submitted is done before the interpreter ends.
threading._register_atexit(_finish_at_exit)  # type: ignore[attr-defined]
