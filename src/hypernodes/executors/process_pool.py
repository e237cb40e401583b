"""A pool of worker processes in which a process that dies costs the call that it was making, and no other.

    submit ─▶ pending (deque) ─▶ a thread for each worker process ─▶ its pipe ─▶ the process
                                     │       ▲                                      │
                                     ▼       └────────────── its pipe ◀─────────────┘
                                  futures

Each thread gives its process one call at a time, so it is known what a process was doing when it died. A
call that had not begun goes to another process. The standard library's pool has one queue for all
processes, so that it must give up all calls where one process dies.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import weakref
from collections import deque
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection as mp_connection
from multiprocessing import get_context
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final

from hypernodes.exceptions import InitializerError, UnpackError, WorkerDiedError
from hypernodes.executors.process_worker import Kind, pickled, receive, run_worker, send
from hypernodes.executors.settled import ExecutorFuture
from hypernodes.serialization.errors import deserialize_error
from hypernodes.text import short

if TYPE_CHECKING:
    import tempfile
    from collections.abc import Callable, Iterable
    from multiprocessing.context import SpawnProcess

    from hypernodes.executors.process_worker import Message

TERMINATE_GRACE_S: Final = 2.0  # for a process that handles SIGTERM itself; then it is killed
MAX_FAILED_STARTS: Final = 3  # processes in a row that were killed while they started

_context = get_context("spawn")


class Call:
    """A submitted call.

    Attributes:
        is_running: Whether its future has been told so.
        was_sent: Whether a process has died before it had received it.
    """

    __slots__ = ("args", "fn", "future", "is_running", "kwargs", "was_sent")

    def __init__(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.fn = fn
        self.args = args
        self.kwargs = kwargs
        self.future = ExecutorFuture()
        self.is_running = False
        self.was_sent = False

    def begin(self) -> bool:
        """Tell its future that it runs; ``False`` if it was cancelled."""
        self.is_running = self.is_running or self.future.set_running_or_notify_cancel()
        return self.is_running

    def settle(self, answer: Message) -> None:
        """Tell its future what came of it."""
        try:
            value = answer.unpickle()
        except BaseException as error:
            self.future.set_exception(_unreadable("a result came back from a worker process but", error))
            return
        if answer.kind is Kind.RESULT:
            self.future.set_result(value)
        elif answer.kind is Kind.ERROR:
            self.future.set_exception(deserialize_error(value))
        else:
            self.future.set_exception(
                UnpackError(f"what was sent to a worker process cannot be unpickled there: {value}")
            )


def _unreadable(what: str, error: BaseException) -> UnpackError:
    unreadable = UnpackError(f"{what} cannot be unpickled here ({type(error).__name__}: {short(error)})")
    unreadable.__cause__ = error
    return unreadable


class ProcessPool:
    """Worker processes, which are started when there is work for them.

    Args:
        max_workers: How many there are at most.
        initializer: What each process calls first, pickled.
        is_closed: Whether no calls are taken.
    """

    def __init__(self, max_workers: int, initializer: bytes | None, *, is_closed: bool = False) -> None:
        self.pid = os.getpid()
        self.shared: tempfile.TemporaryDirectory[str] | None = None
        self._max_workers = max_workers
        self._initializer = initializer
        self._changed = threading.Condition()
        self._pending: deque[Call] = deque()
        self._threads: set[threading.Thread] = set()
        self._workers: set[Worker] = set()
        self._idle = 0  # threads that are about to take a call, or wait for one
        self._starting = 0  # threads whose process does not wait for calls yet
        self._failed_starts = 0
        self._terminated = False
        self.is_closed = is_closed
        self._why_broken: tuple[type[Exception], str, BaseException | None] | None = None
        alive.add(self)

    @property
    def broken(self) -> str | None:
        """Why it takes no more calls, if that is not because it was closed."""
        return None if self._why_broken is None else self._why_broken[1]

    @property
    def processes(self) -> dict[int, SpawnProcess]:
        """The processes by their ids."""
        with self._changed:
            return {worker.pid: worker.process for worker in self._workers}

    def submit(self, call: Call) -> None:
        """Take a call.

        Raises:
            BrokenExecutor: No worker process can be started, or the initializer has raised.
            RuntimeError: No more calls are taken.
        """
        with self._changed:
            if self._why_broken is not None:
                raise self._broken_error()
            if self.is_closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            if _exiting:
                raise RuntimeError("cannot schedule new futures after interpreter shutdown")
            if len(self._pending) >= self._idle and len(self._threads) < self._max_workers:
                self._start_thread()
            self._pending.append(call)
            if self._idle:
                self._changed.notify()

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._serve, name="hypernodes-process", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # There are as many threads as there can be.
            if not self._threads:
                raise
        else:
            self._threads.add(thread)
            self._starting += 1

    def close(self, *, wait: bool, cancel_pending: bool) -> None:
        """Take no more calls."""
        if self.pid != os.getpid():  # A forked child has a copy, with none of the threads.
            return
        with self._changed:
            self.is_closed = True
            # As in the standard library's pool, calls for which processes have been started are made.
            begun = 0 if self._terminated else self._starting
            cancelled = self._drained(begun) if cancel_pending else []
            threads = list(self._threads)
            self._changed.notify_all()
        _cancel(cancelled)
        if wait:
            for thread in threads:
                if thread is not threading.current_thread():
                    thread.join()
        self._clean_up()

    def terminate(self) -> None:
        """End the processes at once, running calls included, and take no more."""
        with self._changed:
            self._terminated = self.is_closed = True
            workers = list(self._workers)
        for worker in workers:
            worker.terminate()
        deadline = monotonic() + TERMINATE_GRACE_S
        while monotonic() < deadline and any(worker.is_alive() for worker in workers):
            sleep(0.01)
        for worker in workers:
            worker.kill()
        self.close(wait=True, cancel_pending=True)

    def _drained(self, but: int = 0) -> list[Call]:
        calls = list(self._pending)
        self._pending = deque(calls[:but])
        return calls[but:]

    def _clean_up(self) -> None:
        """Remove what calls have in common, once there are none."""
        with self._changed:
            shared = None if self._threads else self.shared
            if shared is not None:
                self.shared = None
        if shared is not None:
            shared.cleanup()

    # ------------------------------------------------------------------- a thread for each process

    def _serve(self) -> None:
        while True:
            worker = self._started()
            with self._changed:
                self._starting -= 1
            if worker is not None:
                while self._make_a_call(worker):
                    pass
                with self._changed:
                    self._workers.discard(worker)
                worker.end()
            with self._changed:
                # A process has died. Another one takes its place if there is work for it.
                if len(self._pending) <= self._idle:
                    self._threads.discard(threading.current_thread())
                    break
                self._starting += 1
        if self.is_closed:
            self._clean_up()

    def _started(self) -> Worker | None:
        """Return a process that waits for calls."""
        try:
            worker = Worker(self._initializer)
        except Exception as error:
            self._could_not_start(f"{type(error).__name__}: {error}", error)
            return None
        with self._changed:
            self._workers.add(worker)
            if self._terminated:
                worker.kill()
        said = worker.receive()
        with self._changed:
            if said is not None and said.kind is Kind.READY:
                self._failed_starts = 0
                self._idle += 1
                return worker
            self._workers.discard(worker)
        if said is not None:
            worker.end()
            self._initializer_raised(deserialize_error(said.unpickle()))
            return None
        code = worker.end()
        with self._changed:
            self._failed_starts += 1
            was_killed = code is not None and code < 0
            again = self._terminated or (was_killed and self._failed_starts < MAX_FAILED_STARTS)
        if not again:
            self._could_not_start(how_it_ended(code))
        return None

    def _make_a_call(self, worker: Worker) -> bool:
        """Have a process make the next call; ``False`` if there is none, or the process has ended."""
        call = self._next()
        if call is None:
            return False
        if not worker.is_alive():  # It has died while it had nothing to do.
            self._put_back(call)
            return False
        if not call.begin():
            self._free()
            return True
        try:
            parts = pickled(Kind.CALL, (call.fn, call.args, call.kwargs))
        except BaseException as error:
            self._free()
            call.future.set_exception(error)
            return True
        started = monotonic()
        answer = worker.receive() if worker.send(parts) else None
        del parts
        if answer is None and worker.has_unread and not call.was_sent:
            call.was_sent = True  # Once only: it may be too large to be received.
            self._put_back(call)
            return False
        if answer is None:
            call.future.set_exception(self._death_of(worker, monotonic() - started))
            return False
        # The process is free before the future tells, so that whoever waits for it may submit at once.
        self._free()
        call.settle(answer)
        return True

    def _next(self) -> Call | None:
        with self._changed:
            while not self._pending and not self.is_closed and self._why_broken is None:
                self._changed.wait()
            self._idle -= 1
            return self._pending.popleft() if self._pending else None

    def _free(self) -> None:
        with self._changed:
            self._idle += 1

    def _put_back(self, call: Call) -> None:
        with self._changed:
            if not self._terminated and self._why_broken is None:
                self._pending.appendleft(call)
                if self._idle:
                    self._changed.notify()
                return
        if call.begin():
            call.future.set_exception(WorkerDiedError("the worker process was ended before the call began"))

    def _death_of(self, worker: Worker, seconds: float) -> WorkerDiedError:
        code = worker.end(TERMINATE_GRACE_S)
        how = "it was ended from here" if self._terminated else how_it_ended(code)
        error = WorkerDiedError(f"a worker process died before its work was done: {how}")
        error.seconds = seconds
        return error

    # ------------------------------------------------------------------------- what ends it for good

    def _could_not_start(self, why: str, cause: BaseException | None = None) -> None:
        with self._changed:
            if cause is not None and self._workers:  # Those that there are go on.
                return
        self._break(
            BrokenProcessPool,
            f"worker processes end while they start ({why}). What they wrote to stderr says why; often the "
            f"script that started them cannot be imported by them.",
            cause,
        )

    def _initializer_raised(self, error: BaseException) -> None:
        why = (
            f"the initializer of the executor failed in a worker: {type(error).__name__}: {short(error, 500)}"
        )
        self._break(InitializerError, why, error)

    def _break(self, kind: type[Exception], why: str, cause: BaseException | None) -> None:
        with self._changed:
            self._why_broken = self._why_broken or (kind, why, cause)
            calls = self._drained()
            self._changed.notify_all()
        for call in calls:
            if call.begin():
                call.future.set_exception(self._broken_error())

    def _broken_error(self) -> Exception:
        assert self._why_broken is not None
        kind, why, cause = self._why_broken
        error = kind(why)
        error.__cause__ = cause
        return error


class Worker:
    """A worker process, as the driver sees it.

    Attributes:
        has_unread: Whether it has died before it had read all that was sent to it.

    Raises:
        OSError: It cannot be started.
    """

    def __init__(self, initializer: bytes | None) -> None:
        self._pipe, theirs = _context.Pipe()
        try:
            self.process: SpawnProcess = _context.Process(target=run_worker, args=(theirs, initializer))
            self.process.start()
        except BaseException:
            self._pipe.close()
            raise
        finally:
            theirs.close()
        assert self.process.pid is not None
        self.pid: int = self.process.pid
        self._lock = threading.Lock()
        self._code: int | None = None
        self._has_ended = False
        self.has_unread = False
        self._pidfd = _pidfd(self.pid)
        self._poll = _poll((self._pipe.fileno(), self._death))

    @property
    def _death(self) -> int:
        # A child that the process has forked keeps the sentinel open, but not the pidfd.
        return self.process.sentinel if self._pidfd is None else self._pidfd

    def send(self, parts: list[Any]) -> bool:
        """Send a message; ``False`` if the process has ended."""
        try:
            send(self._pipe, parts)
        except OSError:
            self.has_unread = True
            return False
        return True

    def receive(self) -> Message | None:
        """Wait for a message; ``None`` if the process has ended without one."""
        try:
            if self._poll is None:
                mp_connection.wait([self._pipe, self._death])
            else:
                self._poll.poll()
            return receive(self._pipe) if self._pipe.poll() else None
        except ConnectionResetError:  # Linux says so where the other end was closed with something unread.
            self.has_unread = True
            return None
        except (EOFError, OSError):
            return None

    def is_alive(self) -> bool:
        """Whether the process has not ended."""
        with self._lock:
            return not self._has_ended and self.process.exitcode is None

    def terminate(self) -> None:
        """Tell the process to end."""
        with self._lock:
            if not self._has_ended:
                self.process.terminate()

    def kill(self) -> None:
        """End the process."""
        with self._lock:
            if not self._has_ended:
                self.process.kill()

    def end(self, timeout: float | None = None) -> int | None:
        """Wait for the process to end, which has nothing more to do.

        Args:
            timeout: Seconds until it is killed, if it has closed the pipe and goes on.

        Returns:
            Its exit code, if that is known.
        """
        if self._has_ended:
            return self._code
        with contextlib.suppress(OSError):
            send(self._pipe, pickled(Kind.STOP))
        self._pipe.close()
        if not self._wait(timeout):
            self.kill()
            self._wait(None)
        with self._lock:
            self._code, self._has_ended = self.process.exitcode, True
            with contextlib.suppress(ValueError):  # Somebody else has waited for it.
                self.process.close()
            if self._pidfd is not None:
                os.close(self._pidfd)
        return self._code

    def _wait(self, timeout: float | None) -> bool:
        if self._pidfd is not None:
            return bool(mp_connection.wait([self._pidfd], timeout))
        self.process.join(timeout)
        return self.process.exitcode is not None


def _pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):  # not on Linux, or forbidden there
        return None


def _poll(files: Iterable[int]) -> Any:
    """Return what waits for any of some files; ``None`` where that is not known to be possible."""
    if not hasattr(select, "poll"):
        return None
    poll = select.poll()
    for file in files:
        poll.register(file, select.POLLIN)
    return poll


def how_it_ended(code: int | None) -> str:
    """Return what the exit code of a process says.

    >>> how_it_ended(-9), how_it_ended(1)
    ('killed by SIGKILL: out of memory?', 'exit code 1')
    """
    if code is None:
        return "its exit code is not known"
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"killed by {name}" + (": out of memory?" if name == "SIGKILL" else "")


def _cancel(calls: Iterable[Call]) -> None:
    for call in calls:
        if call.is_running:  # It was put back.
            call.future.set_exception(
                WorkerDiedError("the worker process died, and the executor was shut down")
            )
        elif call.future.cancel():
            call.future.set_running_or_notify_cancel()


alive: weakref.WeakSet[ProcessPool] = weakref.WeakSet()
"""All pools that may still have work."""

_exiting = False


def _finish_at_exit() -> None:
    global _exiting  # noqa: PLW0603
    _exiting = True
    for pool in list(alive):
        pool.close(wait=True, cancel_pending=False)


# As ProcessPoolExecutor does: work that was submitted is done before the interpreter ends.
threading._register_atexit(_finish_at_exit)  # type: ignore[attr-defined]
