"""Signals that end a command: the programs that its nodes have started end with it, and so do its workers."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Never

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

SIGNALS: Final = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
DELAY_S: Final = 0.5
"""Seconds after Ctrl-C until SIGTERM is sent: a terminal has sent SIGINT to the programs itself."""
TIME_LIMIT_S: Final = 5.0
"""Seconds until the process is ended though threads go on with their calls: `docker stop` waits for ten."""
INTERVAL_S: Final = 0.1
"""Seconds between looks for further programs: a thread that goes on with its call may start some."""


class Terminated(KeyboardInterrupt):
    """A signal that is not Ctrl-C ends the run, which leaves as little behind as Ctrl-C does."""


@contextmanager
def ending_programs() -> Iterator[None]:
    """On a signal, stop the run as Ctrl-C does, and end the programs that its nodes have started.

    A node in this process may wait for such a program (`subprocess`) in a thread, which nothing interrupts.
    SIGTERM ends this process after `TIME_LIMIT_S` though threads go on; a second signal ends it at once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    signalled: set[int] = set()

    def stop(number: int, frame: FrameType | None) -> Never:
        del frame
        received.append(number)
        for each in handled:
            signal.signal(each, signal.SIG_DFL)
        threading.Thread(target=_keep_ending, args=(number, signalled), daemon=True).start()
        raise KeyboardInterrupt if number == signal.SIGINT else Terminated(number)

    # A signal that is ignored, as by nohup, stays ignored.
    handled = {number: handler for number in SIGNALS if (handler := signal.getsignal(number)) in _DEFAULTS}
    for number in handled:
        signal.signal(number, stop)
    try:
        yield
    except Terminated:
        sys.exit(128 + received[0])
    finally:
        if received:
            if received[0] == signal.SIGINT and _programs():
                time.sleep(DELAY_S)
            _end_programs(signalled)
        else:
            for number, handler in handled.items():
                signal.signal(number, handler)


_lock: Final = threading.Lock()
_DEFAULTS: Final = (signal.SIG_DFL, signal.default_int_handler)


def _keep_ending(number: int, signalled: set[int]) -> None:
    started = time.monotonic()
    if number == signal.SIGINT:
        time.sleep(DELAY_S)
    while number == signal.SIGINT or time.monotonic() - started < TIME_LIMIT_S:
        _end_programs(signalled)
        time.sleep(INTERVAL_S)
    _end_programs(signalled)
    os._exit(128 + number)


def _end_programs(signalled: set[int]) -> None:
    """Send SIGTERM to the processes below this one, to each once, except those of a group of their own."""
    with _lock:  # This process must not end between the signals.
        stopped: set[int] = set()
        # A process that is stopped starts no others, which would be left alone when it ends.
        while further := _programs() - signalled - stopped:
            stopped |= further
            _send(signal.SIGSTOP, further)
        if not stopped:
            return
        signalled |= stopped
        _send(signal.SIGTERM, stopped)
        _send(signal.SIGCONT, stopped)


def _send(number: int, pids: set[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _programs() -> set[int]:
    """Return the processes below this one that are in its group; none on systems without ``/proc``.

    A worker process leads a group of its own, and ends with this process by itself.
    """
    group = str(os.getpgrp()) if hasattr(os, "getpgrp") else ""
    children: dict[str, list[str]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name of the program, which comes before ")", may contain anything.
            _, parent, its_group, *_ = path.read_text(errors="replace").rpartition(")")[2].split()
        except (OSError, ValueError):  # The process has ended meanwhile.
            continue
        if its_group == group:
            children.setdefault(parent, []).append(path.parent.name)
    found: set[int] = set()
    left = [str(os.getpid())]
    while left:
        below = children.get(left.pop(), [])
        found.update(map(int, below))
        left += below
    return found
