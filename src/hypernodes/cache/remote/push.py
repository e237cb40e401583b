"""Entries of a directory are written to its tier behind the run, by whichever process of the host is free.

write ─▶ rows marked as unpushed ──(8 MB, 10 s, or flush)──▶ one segment ─▶ rows marked as pushed

The marks are in the directory. What a process that dies has not written, or what could not be written while
the tier was unreachable, another process writes later.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from hypernodes.cache import entry
from hypernodes.cache.push_marks import PushMarks
from hypernodes.cache.remote.locks import LOCK_TIMEOUT_S, host_lock, no_fork
from hypernodes.cache.remote.tier import MAX_SEGMENT_SIZE, MIN_VALUE_SIZE, Sealed
from hypernodes.cache.warn_once import QUIET_THREAD

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hypernodes.cache.push_marks import UnpushedRow
    from hypernodes.cache.record import Record
    from hypernodes.cache.remote.tier import RemoteTier
    from hypernodes.cache.store import Store

_DELAY_S: Final = 10.0
"""An entry waits at most so long for others. Fewer segments take a reader fewer requests."""
_MAX_VALUES_SIZE: Final = 8 * MAX_SEGMENT_SIZE
"""Bytes of large values that the index of one segment names; they are in memory meanwhile."""


class Pusher:
    """Writes the entries of a directory that its tier lacks."""

    def __init__(self, store: Store, tier: RemoteTier, directory: Path, key: bytes | None) -> None:
        self.marks = PushMarks(store)
        self._tier = tier
        self._path = directory / "push.lock"
        self._key = key
        self._lock = threading.Lock()  # of the attributes below
        self._size = 0  # bytes that this process has added since it last looked
        self._oldest = 0.0  # when the first of them was added, by the monotonic clock
        self._thread: threading.Thread | None = None
        self._is_due = threading.Event()

    def note(self, records: Sequence[Record]) -> None:
        """Have the thread write what was added, after a while or once there is much."""
        with self._lock:
            if not self._size:
                self._oldest = time.monotonic()
            self._size += sum(record.size for record in records)
            if self._size >= MAX_SEGMENT_SIZE:
                self._is_due.set()
            if self._thread is not None or not self._tier.objects.can_be_used:
                return
            # Warnings of a thread with this name are deferred, until the user can see them.
            self._thread = threading.Thread(target=self._push_until_done, name=QUIET_THREAD, daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # The interpreter is shutting down; `flush` follows.
            self._thread = None

    def _push_until_done(self) -> None:
        while True:
            self._is_due.wait(max(0.0, self._oldest + _DELAY_S - time.monotonic()))
            with self._lock:
                self._is_due.clear()
                self._size, self._oldest = 0, time.monotonic()
            self.push(timeout_s=0)  # If another process holds the lock, it writes these entries, too.
            with self._lock:
                if not self._size:
                    self._thread = None
                    return

    def push(self, *, timeout_s: float = LOCK_TIMEOUT_S) -> int:
        """Write all entries that are not pushed yet, and return their number."""
        number, started = 0, time.time()
        if not self._tier.can_be_written or not self._has_unpushed():
            return number
        with host_lock(self._path, timeout_s=timeout_s) as is_held:
            if not is_held and not timeout_s:
                return number
            while rows := self._unpushed(started):  # What is added meanwhile makes another segment.
                whole = [sealed for row in rows if (sealed := self._sealed(row)) is not None]
                if whole and not self._tier.write(whole):
                    break
                with no_fork():
                    self.marks.mark_pushed(rows)
                number += len(whole)
        return number

    def _has_unpushed(self) -> bool:
        with no_fork():
            return self.marks.has_unpushed()

    def _unpushed(self, before: float) -> list[UnpushedRow]:
        with no_fork():
            return self.marks.unpushed(before, MAX_SEGMENT_SIZE, MIN_VALUE_SIZE, _MAX_VALUES_SIZE)

    def _sealed(self, row: UnpushedRow) -> Sealed | None:
        """Return the entry of a row, unless it is damaged: damage does not spread."""
        try:
            entry.check(row.key, row.blob, self._key)
        except entry.EntryError:
            return None
        return Sealed(row.key, row.tag, row.blob, entry.expiry_of(row.blob))
