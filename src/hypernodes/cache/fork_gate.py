"""A fork waits until no other thread is within SQLite.

SQLite has locks of its own. A process that is forked while another thread holds one inherits it, no thread of
it ever releases it, and the next use of SQLite there waits for ever.
"""

from __future__ import annotations

import time
from threading import Event, Lock, get_ident
from typing import Final

_MAX_DELAY_S: Final = 5.0
"""A fork waits no longer: a thread may wait in SQLite for another process that writes for long."""
_INTERVAL_S: Final = 0.0005


class ForkGate:
    """Counts the threads that are inside, and lets none in while the process is forked."""

    def __init__(self) -> None:
        self._is_open = Event()
        self._is_open.set()
        self._forking = Lock()  # held by the thread that has closed the gate
        self._forks = 0  # its id; it may free a connection meanwhile
        self._depths: dict[int, int] = {}  # of the threads inside: a thread may enter again

    def __enter__(self) -> None:
        thread = get_ident()
        depth = self._depths.get(thread, 0)
        # Only then is it seen that the gate is closed: `close` looks the other way round.
        self._depths[thread] = depth + 1
        while not depth and not self._is_open.is_set() and thread != self._forks:
            del self._depths[thread]
            self._is_open.wait()
            self._depths[thread] = 1

    def __exit__(self, *exc_info: object) -> None:
        thread = get_ident()
        if depth := self._depths[thread] - 1:
            self._depths[thread] = depth
        else:
            del self._depths[thread]

    def close(self) -> None:
        """Let no thread in, and wait until all others have left."""
        self._forking.acquire()
        self._forks = get_ident()
        self._is_open.clear()
        deadline = time.monotonic() + _MAX_DELAY_S
        while self._depths.keys() - {self._forks} and time.monotonic() < deadline:
            time.sleep(_INTERVAL_S)

    def open(self) -> None:
        """Let threads in again, after a fork."""
        self._forks = 0
        self._is_open.set()
        self._forking.release()

    def open_in_child(self) -> None:
        """Begin in a process that was forked, which has one thread."""
        self.__init__()  # type: ignore[misc]


SQLITE: Final = ForkGate()
"""Around all use of SQLite in this process."""
