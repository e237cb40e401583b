"""A worker process of `ParallelExecutor`, as the driver sees it: how it is started, asked, and ended."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from collections.abc import Iterable
from multiprocessing import connection as mp_connection
from multiprocessing import get_context
from multiprocessing.context import SpawnProcess
from typing import Any

from hypernodes.executors.process_worker import Kind, Message, receive, run_worker, send, serialize_message

_context = get_context("spawn")


class WorkerProcess:
    """A worker process and the driver's end of its pipe."""

    def __init__(self, initializer: bytes | None) -> None:
        self._pipe, worker_pipe = _context.Pipe()
        try:
            self.process: SpawnProcess = _context.Process(target=run_worker, args=(worker_pipe, initializer))
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
        self.has_unread = False  # it died before it had read everything that was sent to it
        self._pidfd = _open_pidfd(self.pid)
        self._poll = _poll_object((self._pipe.fileno(), self._sentinel))

    @property
    def _sentinel(self) -> int:
        # A forked child of the process keeps its sentinel open, but not the pidfd.
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
        """Send SIGTERM to the process."""
        with self._lock:
            if not self._has_ended:
                self.process.terminate()

    def kill(self) -> None:
        """Send SIGKILL to the process."""
        with self._lock:
            if not self._has_ended:
                self.process.kill()

    def stop(self, timeout: float | None = None) -> int | None:
        """End the process after its call, or kill it after the timeout; return its exit code, if known."""
        if self._has_ended:
            return self._exit_code
        with contextlib.suppress(OSError):
            send(self._pipe, serialize_message(Kind.STOP))
        self._pipe.close()
        if not self._join(timeout):
            self.kill()
            self._join(None)
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
