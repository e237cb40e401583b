"""A worker process of `ParallelExecutor`: its main function, its messages, and its handle in the driver.

driver                           worker process
                   ◀── READY ──  or FAILED, if the initializer raised
CALL  ── fn, args, kwargs ──▶
                   ◀── RESULT ── or ERROR, or UNREADABLE if the call could not be unpickled
STOP  ──────────────────────▶    ends

A message is a pickle and, beside it, the memory of large arrays, which is not copied into the pickle.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import select
import shutil
import signal
import threading
from enum import IntEnum, auto
from multiprocessing import connection as mp_connection
from multiprocessing import current_process, get_context, parent_process
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hypernodes._compat.multiprocessing import (
    forget_processes_of_parent,
    is_importing_main,
    without_lost_main,
)
from hypernodes.exceptions import RemoteError, TransportError
from hypernodes.serialization.errors import SerializedError, serialize_error
from hypernodes.serialization.pickling import Serialized, dumps, loads, serialize
from hypernodes.text import message_of, short

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess


class Kind(IntEnum):
    """The kind of a message."""

    READY = auto()
    FAILED = auto()
    CALL = auto()
    STOP = auto()
    RESULT = auto()
    ERROR = auto()
    UNREADABLE = auto()


class Message(NamedTuple):
    """A message that was received; its value is not unpickled yet."""

    kind: Kind
    header: bytes
    buffers: list[bytes]
    out_of_band: bytes

    def deserialize(self) -> Any:
        """Return the value of the message."""
        out_of_band = loads(self.out_of_band) if self.out_of_band else ()
        return Serialized(self.header, self.buffers, out_of_band).deserialize()


def serialize_message(kind: Kind, value: object = None) -> list[Any]:
    """Return a message in the parts that `send` takes."""
    try:
        serialized = serialize(value)
        # A pipe has no other way for these objects, so they are pickled as well.
        out_of_band = dumps(list(serialized.out_of_band)) if serialized.out_of_band else b""
    except pickle.PicklingError:
        raise
    except Exception as error:
        raise TransportError(f"{short(value)} cannot be pickled: {message_of(error)}") from error
    buffers = serialized.buffers
    head = pickle.dumps((int(kind), serialized.header, len(buffers), out_of_band), protocol=5)
    return [head, *map(_as_bytes, buffers)]


def send(pipe: Connection, parts: list[Any]) -> None:
    """Send a message; an OSError means that the other end of the pipe is closed."""
    for part in parts:
        pipe.send_bytes(part)


def receive(pipe: Connection) -> Message:
    """Wait for a message; an EOFError or OSError means that the other end of the pipe is closed."""
    kind, header, count, out_of_band = pickle.loads(pipe.recv_bytes())
    return Message(Kind(kind), header, [pipe.recv_bytes() for _ in range(count)], out_of_band)


def _as_bytes(buffer: Any) -> Any:
    return buffer.raw() if isinstance(buffer, pickle.PickleBuffer) else memoryview(buffer).cast("B")


PARENT_CHECK_INTERVAL_S: Final = 2.0
"""Seconds between checks whether the driver is alive: forked children keep its sentinel open."""
IS_POOL_WORKER: Final = threading.Event()
"""Set in a worker process: it makes one call at a time, and the pool replaces it when it ends."""


def run_worker(pipe: Connection, initializer: bytes | None, directory: str) -> None:
    """Make calls until the driver sends STOP or ends, which leaves the directory of its values behind."""
    # Ctrl-C reaches the whole process group. The driver decides what ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A child inherits that its parent ignores SIGTERM, but the driver ends workers by it.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    IS_POOL_WORKER.set()
    if hasattr(os, "setsid"):
        # The session is a process group, which ends with this process: with the processes of its calls.
        os.setsid()
    _end_with_parent(directory)
    if hasattr(os, "register_at_fork"):
        # The end of the pipe tells the driver that this process has died, so no child may keep it open.
        os.register_at_fork(after_in_child=pipe.close)
    failure = _initialize(initializer)
    try:
        send(pipe, serialize_message(Kind.READY if failure is None else Kind.FAILED, failure))
        while failure is None and (message := receive(pipe)).kind is Kind.CALL:
            send(pipe, _make_call(message))
            del message
    except (EOFError, OSError):
        return


def serialize_initializer(function: Callable[..., object] | None, args: tuple[Any, ...]) -> bytes | None:
    """Pickle an initializer and its arguments; ``None`` if there is none."""
    return None if function is None else dumps((function, args))


def _initialize(initializer: bytes | None) -> SerializedError | None:
    try:
        if initializer is not None:
            function, args = loads(initializer)
            function(*args)
    except BaseException as error:
        logging.getLogger("concurrent.futures").critical("Exception in initializer:", exc_info=True)
        return _serialize_error(error)
    return None


def _make_call(message: Message) -> list[Any]:
    try:
        fn, args, kwargs = message.deserialize()
    except BaseException as error:
        return serialize_message(Kind.UNREADABLE, short(error, 500))
    try:
        return serialize_message(Kind.RESULT, fn(*args, **kwargs))
    except BaseException as error:
        return serialize_message(Kind.ERROR, _serialize_error(error))


def _serialize_error(error: BaseException) -> SerializedError:
    try:
        return serialize_error(error)
    except Exception:  # The text of the error cannot be computed either.
        return serialize_error(RemoteError(f"an error of type {type(error).__qualname__}"))


def _end_with_parent(directory: str) -> None:
    """End this process and those of its calls as soon as the driver has ended, even during a call."""
    if (parent := parent_process()) is None or parent.pid is None:
        return
    pid, sentinel = parent.pid, parent.sentinel

    def watch() -> None:
        while not mp_connection.wait([sentinel], PARENT_CHECK_INTERVAL_S) and os.getppid() == pid:
            continue
        shutil.rmtree(directory, ignore_errors=True)
        if hasattr(os, "killpg"):
            os.killpg(0, signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=watch, name="hypernodes-parent", daemon=True).start()


_context = get_context("spawn")
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forget_processes_of_parent)
_PROCESS_NAME: Final = "hypernodes-worker"
NO_GUARD_EXIT_CODE: Final = 78
"""The exit code of a worker that would start workers of its own while it imports the script of the driver."""


def end_if_importing_main() -> None:
    """End a worker that imports the driver's script, and would start workers: the driver raises the error."""
    if is_importing_main() and current_process().name == _PROCESS_NAME:
        os._exit(NO_GUARD_EXIT_CODE)


class WorkerProcess:
    """A worker process and the driver's end of its pipe."""

    def __init__(self, initializer: bytes | None, directory: str) -> None:
        self._pipe, worker_pipe = _context.Pipe()
        try:
            self.process: SpawnProcess = _context.Process(
                target=run_worker, args=(worker_pipe, initializer, directory), name=_PROCESS_NAME
            )
            with without_lost_main():
                self.process.start()
        except BaseException:
            self._pipe.close()
            raise
        finally:
            worker_pipe.close()
        assert self.process.pid is not None
        self.pid: int = self.process.pid
        self._lock = threading.Lock()
        self._exit_code: int | None = None
        self._has_ended = False
        self.calls = 0  # how many were sent to it
        self.has_unread = False  # it died before it had read everything that was sent to it
        self._pidfd = _open_pidfd(self.pid)
        self._poll = _poll_object((self._pipe.fileno(), self._sentinel))

    @property
    def _sentinel(self) -> int:
        # A forked child of the process keeps its sentinel open, but not the pidfd.
        return self.process.sentinel if self._pidfd is None else self._pidfd

    def send(self, parts: list[Any]) -> bool:
        """Send a call; ``False`` if the process has ended."""
        self.calls += 1
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
                mp_connection.wait([self._pipe, self._sentinel])
            else:
                self._poll.poll()
            return receive(self._pipe) if self._pipe.poll() else None
        except ConnectionResetError:  # Linux raises this if the other end was closed with unread bytes.
            self.has_unread = True
            return None
        except (EOFError, OSError):
            return None

    def is_alive(self) -> bool:
        """Whether the process has not ended."""
        with self._lock:
            return not self._has_ended and self.process.exitcode is None

    def terminate(self) -> None:
        """Send SIGTERM to the process, and to those that its call has started."""
        self._end(by_force=False)

    def kill(self) -> None:
        """Send SIGKILL to the process, and to those that its call has started."""
        self._end(by_force=True)

    def _end(self, *, by_force: bool) -> None:
        with self._lock:
            if self._has_ended:
                return
            try:
                os.killpg(self.pid, signal.SIGKILL if by_force else signal.SIGTERM)
            except (AttributeError, OSError):  # It has no group yet, or the system has none.
                (self.process.kill if by_force else self.process.terminate)()

    def stop(self, timeout: float | None = None, *, is_dead: bool = False) -> int | None:
        """End the process after its call, or kill it after the timeout; return its exit code, if known.

        Args:
            timeout: Seconds until it is killed.
            is_dead: Whether it has died during a call, so that the processes of the call are killed.
        """
        if self._has_ended:
            return self._exit_code
        with contextlib.suppress(OSError):
            send(self._pipe, serialize_message(Kind.STOP))
        self._pipe.close()
        if not self._join(timeout):
            self.kill()
            self._join(None)
        elif is_dead:
            self.kill()
        with self._lock:
            self._exit_code, self._has_ended = self.process.exitcode, True
            with contextlib.suppress(ValueError):  # Other code of this program has waited for the process.
                self.process.close()
            if self._pidfd is not None:
                os.close(self._pidfd)
        return self._exit_code

    def _join(self, timeout: float | None) -> bool:
        if self._pidfd is not None:
            return bool(mp_connection.wait([self._pidfd], timeout))
        self.process.join(timeout)
        return self.process.exitcode is not None


def _open_pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):  # Only Linux has pidfds, and a sandbox may forbid them.
        return None


def _poll_object(files: Iterable[int]) -> Any:
    """Return an object that waits until any of the files can be read; ``None`` on systems without `poll`."""
    if not hasattr(select, "poll"):
        return None
    poll = select.poll()
    for file in files:
        poll.register(file, select.POLLIN)
    return poll


def describe_exit(code: int | None) -> str:
    """Return what the exit code of a process means.

    >>> describe_exit(-9), describe_exit(1)
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
