"""A lock among the processes of one host that use one directory, which ends with its process."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK_TIMEOUT_S: Final = 60.0
"""A process that is stopped can hold a lock for ever."""
_POLL_S: Final = 0.01
_OPEN: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK

_FORK_TIMEOUT_S: Final = 5.0
"""Requests of a database take milliseconds, unless the disk is very slow."""

_in_process: dict[Path, threading.Lock] = {}
_no_fork = threading.RLock()


def no_fork() -> contextlib.AbstractContextManager[object]:
    """Return a context that a fork of this process waits for.

    The child would otherwise inherit locks of SQLite that none of its threads releases.
    """
    return _no_fork


def _before_fork() -> None:
    _no_fork.acquire(timeout=_FORK_TIMEOUT_S)


def _after_fork_in_parent() -> None:
    with contextlib.suppress(RuntimeError):  # The time was up.
        _no_fork.release()


def _after_fork_in_child() -> None:
    global _no_fork  # noqa: PLW0603  # A thread that does not exist here may hold it.
    _no_fork = threading.RLock()
    _in_process.clear()


os.register_at_fork(
    before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
)


@contextlib.contextmanager
def host_lock(path: Path, *, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[bool]:
    """Return a context that holds the lock of a file; its value is whether no other process holds it.

    The lock only saves work: what it guards is right, too, if two processes do it. So it counts as held if
    the file cannot be created.
    """
    end = time.monotonic() + timeout_s
    # Locks of files are between processes only, and closing any descriptor of the file releases them.
    in_process = _in_process.setdefault(path, threading.Lock())
    if not in_process.acquire(timeout=timeout_s):
        yield False
        return
    try:
        try:
            descriptor = os.open(path, _OPEN, 0o600)
        except OSError:
            yield True
            return
        with os.fdopen(descriptor, "rb+", buffering=0) as file:
            yield _lock(file.fileno(), end)
    finally:
        in_process.release()


def _lock(descriptor: int, end: float) -> bool:
    while True:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(_POLL_S)
        except OSError:  # The file system has no locks.
            return True
        else:
            return True
