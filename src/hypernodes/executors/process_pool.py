"""A pool of worker processes: a process that dies fails the call that it was making, and no other call.

    submit ─▶ pending (deque) ─▶ a thread for each worker process ─▶ its pipe ─▶ the process
                                     │       ▲                                      │
                                     ▼       └────────────── its pipe ◀─────────────┘
                                  futures

Each thread sends its process one call at a time, so the pool knows which call a process was making when it
died. A call that had not begun goes to another process. The standard library's pool has one queue for all
processes, so that it must fail all calls when one process dies.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import threading
from collections import deque
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final

from hypernodes.exceptions import InitializerError, MainGuardError, UnpackError, WorkerDiedError
from hypernodes.executors.exit_hook import ExitHook
from hypernodes.executors.native_threads import native_threads
from hypernodes.executors.process_worker import (
    NO_GUARD_EXIT_CODE,
    Kind,
    Message,
    WorkerProcess,
    describe_exit,
    serialize_message,
)
from hypernodes.executors.settled import ExecutorFuture
from hypernodes.serialization.errors import deserialize_error
from hypernodes.text import described, short

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from multiprocessing.context import SpawnProcess

TERMINATE_TIMEOUT_S: Final = 2.0
"""Seconds between SIGTERM and SIGKILL, for a process that handles SIGTERM itself."""
TERMINATE_POLL_INTERVAL_S: Final = 0.01
"""Seconds between checks whether terminated processes have ended."""
MAX_FAILED_STARTS: Final = 3
"""How many processes in a row may be killed while they start; after that, the pool is broken."""

NO_GUARD_MESSAGE: Final = (
    "this script starts worker processes while one of them imports it, since its top level does so "
    "unconditionally. Put what it does under a guard:\n\n"
    '    if __name__ == "__main__":\n        main()\n'
)


@dataclass(frozen=True, slots=True, eq=False)
class _Breakage:
    """The reason why a pool takes no more calls, and the error that each call raises for it."""

    error_type: type[Exception]
    reason: str
    cause: BaseException | None

    def error(self) -> Exception:
        error = self.error_type(self.reason)
        error.__cause__ = self.cause
        return error


class ProcessPool:
    """A pool that starts worker processes when calls wait for them."""

    def __init__(
        self,
        max_workers: int,
        initializer: bytes | None,
        *,
        max_calls: int | None = None,
        is_closed: bool = False,
    ) -> None:
        self.pid = os.getpid()
        # It is made for the first broadcast value, and removed when the pool has no more calls. The processes
        # know its name from the beginning: they remove it if this process is killed.
        self.directory = Path(tempfile.gettempdir(), f"hypernodes-{self.pid}-{secrets.token_hex(8)}")
        self._max_workers = max_workers
        self._initializer = initializer
        self._max_calls = max_calls  # of a process, which is then replaced
        self._changed = threading.Condition()
        self._pending: deque[PoolCall] = deque()
        self._threads: set[threading.Thread] = set()
        self._workers: set[WorkerProcess] = set()
        self._running: dict[Future[Any], WorkerProcess] = {}  # which process makes a call
        self._idle = 0  # threads that wait for a call, or are about to
        self._starting = 0  # threads whose process is not ready yet
        self._failed_starts = 0
        self._is_terminated = False
        self.is_closed = is_closed
        self._breakage: _Breakage | None = None
        exit_hook.register(self)

    @property
    def is_broken(self) -> bool:
        """Whether the pool takes no more calls since its processes cannot start."""
        return self._breakage is not None

    @property
    def processes(self) -> dict[int, SpawnProcess]:
        """The processes by id."""
        with self._changed:
            return {worker.pid: worker.process for worker in self._workers}

    def submit(self, call: PoolCall) -> None:
        """Queue a call."""
        with self._changed:
            if self._breakage is not None:
                raise self._breakage.error()
            if self.is_closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            exit_hook.check()
            if len(self._pending) >= self._idle and len(self._threads) < self._max_workers:
                self._start_thread()
            self._pending.append(call)
            if self._idle:
                self._changed.notify()

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._serve, name="hypernodes-process", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # The system allows no further thread; those that run make the calls.
            if not self._threads:
                raise
        else:
            self._threads.add(thread)
            self._starting += 1

    def close(self, *, wait: bool, cancel_pending: bool) -> None:
        """Take no more calls; `cancel_pending` cancels those for which no process has been started."""
        if self.pid != os.getpid():  # A forked child has a copy of the pool, without the threads.
            return
        with self._changed:
            self.is_closed = True
            # As in the standard library's pool, a call for which a process has been started is made.
            keep = 0 if self._is_terminated else self._starting
            cancelled = self._take_pending(keep) if cancel_pending else []
            threads = list(self._threads)
            self._changed.notify_all()
        for call in cancelled:
            call.cancel()
        if wait:
            for thread in threads:
                if thread is not threading.current_thread():
                    thread.join()
        self._remove_directory()

    def kill(self, future: Future[Any]) -> bool:
        """Kill the process of a running call; ``False`` if there is none."""
        with self._changed:  # Meanwhile the process cannot begin another call.
            if (worker := self._running.get(future)) is not None:
                worker.kill()
        return worker is not None

    def terminate(self) -> None:
        """End the processes at once, cancel pending calls, and take no more."""
        with self._changed:
            self._is_terminated = self.is_closed = True
            workers = list(self._workers)
        for worker in workers:
            worker.terminate()
        deadline = monotonic() + TERMINATE_TIMEOUT_S
        while monotonic() < deadline and any(worker.is_alive() for worker in workers):
            sleep(TERMINATE_POLL_INTERVAL_S)
        for worker in workers:
            worker.kill()
        self.close(wait=True, cancel_pending=True)

    def _take_pending(self, keep: int = 0) -> list[PoolCall]:
        """Remove the pending calls but for the first few, and return them."""
        calls = list(self._pending)
        self._pending = deque(calls[:keep])
        return calls[keep:]

    def _remove_directory(self) -> None:
        with self._changed:
            if self._threads:
                return
        shutil.rmtree(self.directory, ignore_errors=True)

    # ------------------------------------------------------------------- a thread for each process

    def _serve(self) -> None:
        while True:
            worker = self._start_worker()
            with self._changed:
                self._starting -= 1
            if worker is not None:
                while (goes_on := self._make_next_call(worker)) and worker.calls != self._max_calls:
                    pass
                with self._changed:
                    self._idle -= goes_on  # The thread waits for no further call.
                    self._workers.discard(worker)
                worker.stop()
            with self._changed:
                # The process has ended. This thread starts another one if calls wait for it.
                if len(self._pending) <= self._idle + self._starting:
                    self._threads.discard(threading.current_thread())
                    break
                self._starting += 1
        if self.is_closed:
            self._remove_directory()

    def _start_worker(self) -> WorkerProcess | None:
        """Start a process, and return it when it is ready; ``None`` if it cannot start."""
        try:
            with native_threads(self._max_workers):
                worker = WorkerProcess(self._initializer, str(self.directory))
        except Exception as error:
            self._break_unless_working(described(error), error)
            return None
        with self._changed:
            self._workers.add(worker)
            if self._is_terminated:
                worker.kill()
        answer = worker.receive()
        with self._changed:
            if answer is not None and answer.kind is Kind.READY:
                self._failed_starts = 0
                self._idle += 1
                return worker
            self._workers.discard(worker)
        code = worker.stop()
        if answer is not None:
            failure = deserialize_error(answer.deserialize())
            reason = f"{type(failure).__name__}: {short(failure, 500)}"
            self._break(
                InitializerError, f"the initializer of the executor failed in a worker: {reason}", failure
            )
            return None
        with self._changed:
            self._failed_starts += 1
            was_killed = code is not None and code < 0
            can_retry = self._is_terminated or (was_killed and self._failed_starts < MAX_FAILED_STARTS)
        if code == NO_GUARD_EXIT_CODE:
            self._break(MainGuardError, NO_GUARD_MESSAGE, None)
        elif not can_retry:
            self._break_unless_working(describe_exit(code))
        return None

    def _make_next_call(self, worker: WorkerProcess) -> bool:
        """Have a process make the next call; ``False`` if there is no call, or the process has ended."""
        if (call := self._next()) is None:
            return False
        if not worker.is_alive():  # It has died while it was idle.
            self._requeue(call)
            return False
        if not call.begin():
            self._mark_idle()
            return True
        try:
            parts = call.serialize()
        except BaseException as error:
            self._mark_idle()
            call.future.set_exception(error)
            return True
        started = monotonic()
        self._running[call.future] = worker
        answer = worker.receive() if worker.send(parts) else None
        with self._changed:
            del self._running[call.future]
        del parts
        if answer is None and worker.has_unread and not call.was_requeued:
            call.was_requeued = True  # It is requeued only once: it may be too large to be received.
            self._requeue(call)
            return False
        if answer is None:
            call.future.set_exception(self._death_error(worker, monotonic() - started))
            return False
        # The process counts as idle before the future is done, so that a callback of the future can use it.
        self._mark_idle()
        call.settle(answer)
        return True

    def _next(self) -> PoolCall | None:
        with self._changed:
            while not self._pending and not self.is_closed and self._breakage is None:
                self._changed.wait()
            self._idle -= 1
            return self._pending.popleft() if self._pending else None

    def _mark_idle(self) -> None:
        with self._changed:
            self._idle += 1

    def _requeue(self, call: PoolCall) -> None:
        with self._changed:
            if not self._is_terminated and self._breakage is None:
                self._pending.appendleft(call)
                if self._idle:
                    self._changed.notify()
                return
        call.fail(WorkerDiedError("the worker process was ended before the call began"))

    def _death_error(self, worker: WorkerProcess, seconds: float) -> WorkerDiedError:
        code = worker.stop(TERMINATE_TIMEOUT_S, is_dead=True)
        reason = "it was terminated by its executor" if self._is_terminated else describe_exit(code)
        error = WorkerDiedError(f"a worker process died before its work was done: {reason}")
        error.seconds = seconds
        return error

    # ------------------------------------------------------------------------------- a broken pool

    def _break_unless_working(self, reason: str, cause: BaseException | None = None) -> None:
        with self._changed:
            if cause is not None and self._workers:  # No further process can start, but others work.
                return
        self._break(
            BrokenProcessPool,
            f"worker processes end while they start ({reason}). What they wrote to stderr says why; often "
            f"the script that started them cannot be imported by them.",
            cause,
        )

    def _break(self, error_type: type[Exception], reason: str, cause: BaseException | None) -> None:
        with self._changed:
            if self._breakage is None:
                self._breakage = _Breakage(error_type, reason, cause)
            breakage = self._breakage
            calls = self._take_pending()
            self._changed.notify_all()
        for call in calls:
            call.fail(breakage.error())


exit_hook: Final[ExitHook[ProcessPool]] = ExitHook(lambda pool: pool.close(wait=True, cancel_pending=False))


@dataclass(slots=True, eq=False)
class PoolCall:
    """A call that was submitted, and its future."""

    _fn: Callable[..., Any]
    _args: tuple[Any, ...]
    _kwargs: dict[str, Any]
    _is_running: bool = False
    future: ExecutorFuture = field(default_factory=ExecutorFuture)
    was_requeued: bool = False  # a process died before it had received the call

    def begin(self) -> bool:
        """Mark the future as running; ``False`` if it was cancelled."""
        self._is_running = self._is_running or self.future.set_running_or_notify_cancel()
        return self._is_running

    def serialize(self) -> list[Any]:
        """Return the message that has a worker process make the call."""
        return serialize_message(Kind.CALL, (self._fn, self._args, self._kwargs))

    def settle(self, answer: Message) -> None:
        """Set the result or the error of the future from the message of the worker process."""
        try:
            value = answer.deserialize()
        except BaseException as error:
            unreadable = UnpackError(
                f"a result came back from a worker process but cannot be unpickled here "
                f"({type(error).__name__}: {short(error)})"
            )
            unreadable.__cause__ = error
            self.future.set_exception(unreadable)
            return
        if answer.kind is Kind.RESULT:
            self.future.set_result(value)
        elif answer.kind is Kind.ERROR:
            self.future.set_exception(deserialize_error(value))
        else:
            self.future.set_exception(
                UnpackError(f"what was sent to a worker process cannot be unpickled there: {value}")
            )

    def fail(self, error: BaseException) -> None:
        """Set the error of the future, unless it was cancelled."""
        if self.begin():
            self.future.set_exception(error)

    def cancel(self) -> None:
        """Cancel the call, which no process is making."""
        if self._is_running:  # It was put back into the queue, and a running future cannot be cancelled.
            self.future.set_exception(
                WorkerDiedError("the worker process died, and the executor was shut down")
            )
        elif self.future.cancel():
            self.future.set_running_or_notify_cancel()
