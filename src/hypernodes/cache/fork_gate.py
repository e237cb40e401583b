"""A fork waits until no other thread is within SQLite.

SQLite has locks of its own. A process that is forked while another thread holds one inherits it, no thread of
it ever releases it, and the next use of SQLite there waits for ever.
"""

from __future__ import annotations

import time
from threading import Lock, get_ident
from typing import Final

_MAX_DELAY_S: Final = 5.0
"""A fork waits no longer: a thread may wait in SQLite for another process that writes for long."""
_INTERVAL_S: Final = 0.0005


class ForkGate:
    """Counts the threads that are inside, and lets none in while a thread forks the process."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Begin with no thread inside, also in a process that was forked."""
        self._closed = Lock()
        self._forking_thread = 0  # its id; it may free a connection meanwhile
        self._depths: dict[int, int] = {}  # of the threads inside: a thread may enter again

    def __enter__(self) -> None:
        thread = get_ident()
        depth = self._depths.get(thread, 0)
        # Only then is it seen whether the gate is closed: `close` looks the other way round.
        self._depths[thread] = depth + 1
        while not depth and self._forking_thread not in (0, thread):
            del self._depths[thread]
            with self._closed:  # It is held until the gate is open.
                pass
            self._depths[thread] = 1

    def __exit__(self, *exc_info: object) -> None:
        thread = get_ident()
        if depth := self._depths[thread] - 1:
            self._depths[thread] = depth
        else:
            del self._depths[thread]

    def close(self) -> None:
        """Let no thread in, and wait until all others have left."""
        self._closed.acquire()
        self._forking_thread = get_ident()
        deadline = time.monotonic() + _MAX_DELAY_S
        while self._depths.keys() - {self._forking_thread} and time.monotonic() < deadline:
            time.sleep(_INTERVAL_S)

    def open(self) -> None:
        """Let threads in again, after a fork."""
        self._forking_thread = 0
        self._closed.release()


SQLITE: Final = ForkGate()
"""Around all use of SQLite in this process."""
