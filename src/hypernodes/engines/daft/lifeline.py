"""Ends the processes of a query with their calls, when the query is cancelled or the driver has ended.

Daft itself waits for the end of a call, and the processes of a killed driver go on with theirs.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

from hypernodes._compat.daft import are_threads_in_udfs, is_udf_process, udf_process_socket, wait_for_threads

CHECK_INTERVAL_S: Final = 1.0
"""Seconds between checks whether the driver is alive."""
CANCEL_TIMEOUT_S: Final = 2.0
"""Seconds, at most, that a stopped query waits until its processes have ended."""


class Lifeline:
    """A pipe from the driver to the processes of a query, which end when there is something in it.

    Systems without ``/proc`` cannot open it in another process: there, a process ends with the driver only.
    """

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        # A process opens the pipe for reading through its other end, which stays open longer.
        self._path = f"/proc/{os.getpid()}/fd/{self._write}"
        self._lock = threading.Lock()
        self._is_cut = self._is_closed = False

    def cut(self) -> None:
        """End the processes of the query."""
        with self._lock:
            if not (self._is_cut or self._is_closed):
                os.write(self._write, b".")  # No process reads it: all see it.
                self._is_cut = True

    def close(self, timeout: float | None) -> None:
        """Close the pipe; if it was cut, wait until its processes have ended, at most that many seconds."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
        os.close(self._read)
        if self._is_cut and hasattr(select, "poll"):
            poll = select.poll()
            poll.register(self._write, 0)
            seconds = CANCEL_TIMEOUT_S if timeout is None else min(timeout, CANCEL_TIMEOUT_S)
            if poll.poll(seconds * 1000):  # All other ends of the pipe are closed.
                wait_for_threads(seconds)
            if are_threads_in_udfs():
                return  # A process that is only starting opens the pipe, and ends.
        os.close(self._write)

    def __reduce__(self) -> tuple[type[_WorkerLifeline], tuple[str]]:
        return _WorkerLifeline, (self._path,)


class _WorkerLifeline:
    """The end of a lifeline in a process of the query."""

    def __init__(self, path: str) -> None:
        self._path = path

    def open(self) -> int | None:
        """Open the pipe; ``None`` if that is not possible. End this process if its query has ended."""
        try:
            return os.open(self._path, os.O_RDONLY | os.O_NONBLOCK)
        except FileNotFoundError:
            if Path("/proc/self/fd").exists():
                _end(with_socket=True)
            return None
        except OSError:
            return None

    def __reduce__(self) -> tuple[type[_WorkerLifeline], tuple[str]]:
        return _WorkerLifeline, (self._path,)


@cache
def end_with_driver(lifeline: Lifeline | _WorkerLifeline | None) -> None:
    """Watch the driver in a process of Daft; do nothing in another process, such as the driver itself."""
    if not is_udf_process() or not hasattr(os, "setsid"):
        return
    with suppress(PermissionError):  # This process leads a group already.
        os.setsid()
    parent = os.getppid()
    pipe = lifeline.open() if isinstance(lifeline, _WorkerLifeline) else None
    thread = threading.Thread(target=_watch, args=(parent, pipe), name="hypernodes-parent", daemon=True)
    thread.start()


def _watch(parent: int, pipe: int | None) -> None:
    poll = select.poll()
    if pipe is not None:
        poll.register(pipe, select.POLLIN)
    while os.getppid() == parent:
        events = poll.poll(CHECK_INTERVAL_S * 1000)
        if events and events[0][1] & select.POLLIN:
            break
        if events and pipe is not None:  # The query has ended, or the driver.
            poll.unregister(pipe)
            pipe = None
    else:
        _end(with_socket=True)
    _end(with_socket=False)


def _end(*, with_socket: bool) -> None:
    """End this process, and those that its calls have started; a driver that has ended leaves its socket."""
    if with_socket:
        Path(udf_process_socket()).unlink(missing_ok=True)
    os.killpg(0, signal.SIGKILL)
