"""AsyncExecutor: coroutines on an event loop and plain callables in threads, as futures.

submit ─▶ pending (deque) ─▶ at most max_concurrent at once ─┬─▶ a task on an event loop
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
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final, Never, ParamSpec, TypeVar

from hypernodes._compat.asyncio import running_loop
from hypernodes._compat.concurrent_futures import cancel_running, replace_wait_events
from hypernodes._compat.nest_asyncio import can_reenter
from hypernodes.arguments import initializer_arguments, unknown_option, whole_number
from hypernodes.executors.context import own_context
from hypernodes.executors.exit_hook import ExitHook
from hypernodes.executors.forks import call_after_fork
from hypernodes.executors.loops import coroutine_loop, until_ended
from hypernodes.executors.settled import ExecutorFuture, Settled, raisable, settle
from hypernodes.text import described

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextvars import Context

P = ParamSpec("P")
T = TypeVar("T")

LOOP_CHECK_INTERVAL_S: Final = 0.5
"""Seconds between checks, at shutdown, whether the loops of unfinished coroutines still run."""


class AsyncExecutor(ThreadPoolExecutor):
    """Run coroutine functions and plain callables, at most so many at a time.

    It is a `ThreadPoolExecutor` by its class, since asyncio and other libraries ask for that.

    Coroutines run on the caller's loop where one runs and can be re-entered (a notebook's), else on
    a loop in a background thread. Plain callables run in threads. ``cancel`` on the future of a
    running coroutine really cancels it.

    A coroutine that waits for another submission to the same executor keeps its slot while it
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
        **unknown: Never,
    ) -> None:
        if unknown:
            raise unknown_option("AsyncExecutor", unknown)
        max_concurrent = whole_number("max_concurrent", max_concurrent)
        if max_concurrent < 1:
            raise ValueError("max_concurrent must be greater than 0")
        initargs = initializer_arguments(initializer, initargs)
        self.max_concurrent = max_concurrent
        self._max_workers = max_concurrent  # by which other libraries ask how many workers there are
        self._initialize = functools.partial(initializer, *initargs) if initializer else None
        self._closed = False
        self._broken = False
        self._failure: BaseException | None = None  # of the initializer
        self._begin()
        call_after_fork(self._begin)

    def _begin(self) -> None:
        """Begin without any submission: a forked child has none of the threads."""
        self._thread_pool = ThreadPoolExecutor(
            self.max_concurrent, thread_name_prefix="hypernodes-async", initializer=self._initialize
        )
        self._coroutine_initializer = self._initialize
        self._lock = threading.Lock()
        self._pending: deque[_Submission] = deque()
        self._outstanding: set[AsyncFuture] = set()
        self._active = 0
        exit_hook.register(self)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[Any]:
        """Schedule ``fn(*args, **kwargs)`` and return its future.

        Raises:
            BrokenExecutor: The initializer failed.
            RuntimeError: The executor was shut down, or the interpreter is ending.
        """
        loop = coroutine_loop()
        future = AsyncFuture(loop)
        submission = _Submission(future, fn, args, kwargs, loop, own_context(), _is_async(fn))
        with self._lock:
            if self._failure is not None:
                raise BrokenExecutor(str(self._failure)) from self._failure
            if self._closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            exit_hook.check()
            self._outstanding.add(future)
            self._pending.append(submission)
        self._start_pending()
        return future

    async def in_thread(self, fn: Callable[..., T], /, *args: Any) -> T:
        """Run a plain callable in one of the threads, for a coroutine that occupies a slot already.

        It runs in a copy of the context of the coroutine.

        Raises:
            RuntimeError: The callable raised StopIteration, which a coroutine cannot raise.
        """
        future = self._thread_pool.submit(settle, own_context().run, fn, *args)
        settled: Settled[T] = await until_ended(asyncio.wrap_future(future))
        return settled.take(raisable)

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
            self._wait_for_outstanding()
            self._thread_pool.shutdown(wait=True)

    def _wait_for_outstanding(self) -> None:
        with self._lock:
            outstanding = set(self._outstanding)
        while outstanding:
            for future in outstanding:
                if future.is_stuck():  # It would never end.
                    future.set_cancelled()
            wait(outstanding, timeout=LOOP_CHECK_INTERVAL_S)
            outstanding = {future for future in outstanding if not future.done()}

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
                    self._initialize_coroutines()
                    self._start_task(submission, submission.call)
                else:
                    self._thread_pool.submit(self._call_in_thread, submission).add_done_callback(
                        functools.partial(self._on_thread_done, submission)
                    )
            except BaseException as error:
                self._finish(submission, error=error)

    def _initialize_coroutines(self) -> None:
        if self._coroutine_initializer is not None:
            initializer, self._coroutine_initializer = self._coroutine_initializer, None
            try:
                initializer()
            except BaseException as error:
                self._broken, self._failure = True, error
                raise BrokenExecutor(f"the initializer failed: {described(error)}") from error

    def _call_in_thread(self, submission: _Submission) -> None:
        try:
            value = submission.context.run(submission.call)
        except BaseException as error:
            self._finish(submission, error=error)
            return
        if inspect.isawaitable(value):
            self._start_task(submission, lambda: value)
        else:
            self._finish(submission, value)

    def _on_thread_done(self, submission: _Submission, thread_future: Future[None]) -> None:
        # `_call_in_thread` raises no error, so this is an error of the pool: its initializer failed.
        if (error := thread_future.exception()) is not None:
            self._broken, self._failure = True, error
            self._finish(submission, error=error)

    def _start_task(self, submission: _Submission, start: Callable[[], Awaitable[Any]]) -> None:
        def create_task() -> asyncio.Task[None]:
            coroutine = self._await_result(submission, start)
            task = submission.loop.create_task(coroutine, context=submission.context)
            task.add_done_callback(functools.partial(self._on_task_done, submission))
            return task

        submission.future.start_task(create_task)

    async def _await_result(self, submission: _Submission, start: Callable[[], Awaitable[Any]]) -> None:
        try:
            value = await start()
        except asyncio.CancelledError:
            self._cancel(submission)
        except BaseException as error:
            # KeyboardInterrupt and SystemExit would end the loop if they left the task.
            self._finish(submission, error=error)
        else:
            self._finish(submission, value)

    def _on_task_done(self, submission: _Submission, task: asyncio.Task[None]) -> None:
        # A task that is cancelled before its first step does not run `_await_result` at all.
        if task.cancelled() and not submission.future.done():
            self._cancel(submission)

    def _cancel(self, submission: _Submission) -> None:
        self._release(submission)
        submission.future.set_cancelled()
        self._start_pending()

    def _finish(self, submission: _Submission, value: Any = None, error: BaseException | None = None) -> None:
        # The slot is free before the future is done, so that a callback of the future can use it.
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
    """A submitted call, its future, and the loop and context to run it in."""

    future: AsyncFuture
    fn: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    loop: asyncio.AbstractEventLoop
    context: Context
    is_async: bool

    def call(self) -> Any:
        return self.fn(*self.args, **self.kwargs)


def _is_async(fn: Callable[..., Any]) -> bool:
    while isinstance(fn, functools.partial):
        fn = fn.func
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(type(fn), "__call__", None))  # noqa: B004


exit_hook: Final[ExitHook[AsyncExecutor]] = ExitHook(AsyncExecutor._wait_for_outstanding)


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
