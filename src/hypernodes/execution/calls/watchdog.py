"""Ends this process if a call in it takes too long, whatever the call does.

Two things watch: a timer of `faulthandler`, which prints where the call is stuck; and a small process, since
the timers of a process that is stopped (SIGSTOP) do not run.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import struct
import sys
import threading
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from time import monotonic
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

MAY_END_PROCESS: ContextVar[bool] = ContextVar("hypernodes_may_end_process", default=False)
"""Whether this process is a worker, and is replaced when it ends."""
GRACE_S: Final = 2.0
"""Seconds after its timeout in which a call may end by itself, before its process is ended."""
STOPPED_S: Final = 1.0
"""Seconds after that in which the process may end by itself, before the other process kills it."""

_SOURCE: Final = """
import os, select, signal, struct, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
parent, deadline = int(sys.argv[1]), None
while os.getppid() == parent:
    started = time.monotonic()
    wait = 1.0 if deadline is None else max(0.0, min(1.0, deadline - started))
    if select.select([0], [], [], wait)[0]:
        received = os.read(0, 4096)
        if not received:
            break
        (left,) = struct.unpack("d", received[-8:])
        deadline = time.monotonic() + left if left else None
    elif time.monotonic() - started > wait + 1.0:
        # This process was stopped as well: the whole job was paused, and goes on now.
        deadline = deadline and time.monotonic() + 3.0
    elif deadline and time.monotonic() >= deadline:
        os.kill(parent, signal.SIGKILL)
        break
"""


class _Watchdog:
    """The deadlines of the calls in this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._deadlines: dict[object, float] = {}
        self._pipe: int | None = None

    @contextmanager
    def watch(self, seconds: float) -> Iterator[None]:
        """End the process if the code within takes longer."""
        call = object()
        with self._lock:
            self._deadlines[call] = monotonic() + seconds
            self._set_timers()
        try:
            yield
        finally:
            with self._lock:
                del self._deadlines[call]
                self._set_timers()

    def _set_timers(self) -> None:
        if not self._deadlines:
            faulthandler.cancel_dump_traceback_later()
            self._send(0.0)
            return
        left = max(0.001, min(self._deadlines.values()) - monotonic())
        faulthandler.dump_traceback_later(left, exit=True)
        self._send(left + STOPPED_S)

    def _send(self, seconds: float) -> None:
        if not hasattr(signal, "SIGSTOP"):  # On Windows, no process is stopped.
            return
        with suppress(OSError):  # The other process has ended: the next call starts another one.
            if self._pipe is None:
                self._pipe = _start()
            try:
                os.write(self._pipe, struct.pack("d", seconds))
            except OSError:
                os.close(self._pipe)
                self._pipe = None
                raise


def _start() -> int:
    """Start the process that watches this one, and return the pipe to it."""
    receiving, sending = os.pipe()
    try:
        os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-S", "-c", _SOURCE, str(os.getpid())],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, receiving, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
        )
    finally:
        os.close(receiving)
    return sending


_watchdog = _Watchdog()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_watchdog.__init__)  # type: ignore[misc]


@contextmanager
def ending_process(seconds: float) -> Iterator[None]:
    """End this process if a call takes longer than its timeout and `GRACE_S`, where that is allowed."""
    if not MAY_END_PROCESS.get():
        yield
        return
    with _watchdog.watch(seconds + GRACE_S):
        yield
