"""Delayed writes: records are collected and written in batches, from a thread of their own.

add ─▶ pending ──(256 records, 4 MB, 50 ms, or flush)──▶ one transaction of the store
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

from hypernodes.cache.summary import describe
from hypernodes.cache.warn_once import QUIET_THREAD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from hypernodes.cache.backend import BackendHandle
    from hypernodes.cache.record import Record

_MAX_PENDING: Final = 256
"""Records in a batch. A transaction takes about 50 µs, and a small record in it about 20 µs."""
_MAX_PENDING_SIZE: Final = 4 << 20
"""Bytes of pending records in memory."""
_FLUSH_DELAY_S: Final = 0.05
"""A record waits at most so long for others to be written with; other processes do not see it until then."""
_COUNT_BACKOFF_S: Final = 1.0
"""Counts without records are not written for so long after another process has been found writing."""


class WriteBehind:
    """Collects records and counts, and writes them in batches."""

    def __init__(self, backend: BackendHandle, warn: Callable[[str, str], None]) -> None:
        self._backend = backend
        self._warn = warn
        self._lock = threading.RLock()  # of all attributes below
        self._writing = threading.RLock()  # held during a write, so that batches are written in order
        self._pending: dict[str, Record] = {}
        self._in_flight: dict[str, Record] = {}
        self._is_writing = False
        self._pending_size = 0
        self._oldest = 0.0  # when the first pending record was added, by the monotonic clock
        self._counts: Counter[str] = Counter()
        self._next_count_at = 0.0  # by the monotonic clock
        self._has_thread = False

    def get_many(self, keys: Iterable[str]) -> dict[str, Record]:
        """Return those records that are not written yet."""
        if not self._pending and not self._in_flight:
            return {}
        found = ((key, self._pending.get(key) or self._in_flight.get(key)) for key in keys)
        return {key: record for key, record in found if record is not None}

    def count(self, counts: Mapping[str, int]) -> None:
        """Add to counters, with the next batch: a transaction for each run would take as long as the run."""
        with self._lock:
            if not self._pending and not self._counts:
                self._oldest = time.monotonic()
            self._counts.update(counts)
            needs_thread = not self._has_thread and self._has_due_counts()
            self._has_thread |= needs_thread
        if needs_thread:
            self._start_thread()

    def add(self, record: Record) -> None:
        """Add a record, and write the batch if it is full."""
        with self._lock:
            if not self._pending and not self._counts:
                self._oldest = time.monotonic()
            self._pending[record.key] = record
            self._pending_size += record.size
            is_full = len(self._pending) >= _MAX_PENDING or self._pending_size >= _MAX_PENDING_SIZE
            # Pieces can refer to the memory of the value, which may change after this call.
            writes_at_once = is_full or len(record.pieces) > 1
            needs_thread = not writes_at_once and not self._has_thread
            self._has_thread |= needs_thread
        if writes_at_once:
            self._write_batch()
        elif needs_thread:
            self._start_thread()

    def flush(self, *, with_counts: bool = True) -> None:
        """Write all records and counts, and wait for batches that another thread is writing.

        While another process is writing to the database for long, counts without records are kept.
        """
        if self._pending or (with_counts and self._has_due_counts()) or self._is_writing:
            self._write_batch()

    def _has_due_counts(self) -> bool:
        return bool(self._counts) and time.monotonic() >= self._next_count_at

    def _write_batch(self) -> None:
        with self._writing:
            with self._lock:
                self._is_writing = True
                records, self._in_flight = list(self._pending.values()), self._pending
                self._pending, self._pending_size = {}, 0
                counts, self._counts = self._counts, Counter()
            try:
                # An empty batch would open a closed store again.
                if (records or counts) and not self._backend.get().write(records, counts):
                    self._next_count_at = time.monotonic() + _COUNT_BACKOFF_S
                    with self._lock:
                        self._counts += counts
            except Exception as error:
                if records:
                    self._warn(
                        "write", f"cannot be written ({describe(error)}); results are returned but not stored"
                    )
            finally:
                self._in_flight = {}
                self._is_writing = False

    def _start_thread(self) -> None:
        self._backend.preload()
        try:
            threading.Thread(target=self._write_until_empty, name=QUIET_THREAD, daemon=True).start()
        except RuntimeError:  # The interpreter is shutting down.
            self._has_thread = False
            self._write_batch()

    def _write_until_empty(self) -> None:
        while True:
            time.sleep(max(0.001, self._oldest + _FLUSH_DELAY_S - time.monotonic()))
            has_work = self._pending or self._has_due_counts()
            if has_work and time.monotonic() - self._oldest < _FLUSH_DELAY_S:
                continue  # Another thread has written the batch, and a new one has begun.
            if has_work:
                self._write_batch()
            with self._lock:
                if not self._pending and not self._has_due_counts():
                    self._has_thread = False
                    break
        self._backend.leave_thread()
