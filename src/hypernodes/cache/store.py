"""The store of a cache: bytes by key, in a directory that many processes share.

    Store ─▶ rows.py         which rows are this library's own
          ─▶ value_files.py  large values, in files that are opened without following links
          ─▶ database.py     the database: tables as those of diskcache, connections, transactions

A `Store` drops nothing unless it has a limit. Then it drops the least recently used entries first.
"""

from __future__ import annotations

import errno
import json
import math
import time
from typing import TYPE_CHECKING, Any, Final

from hypernodes.cache.database import Database, database_inode, is_locked, remove_database
from hypernodes.cache.entry import FOREIGN_BLOB
from hypernodes.cache.record import Row
from hypernodes.cache.rows import (
    FILE_OF,
    HAS_FILE,
    HAS_VALUE,
    IS_COUNTER,
    IS_VALUE_ROW,
    LARGE,
    MAY_BE_INVALID_TEXT,
    SMALL,
    has_valid_value,
)
from hypernodes.cache.schema import PUSH_INDEX, USE_INDEX
from hypernodes.cache.value_files import ValueFiles

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from hypernodes.cache.entry import Blob
    from hypernodes.cache.record import Record

_MIN_FILE_SIZE: Final = 1 << 15
"""Bytes. A larger value has a file of its own, which can be mapped into memory."""
_DROP_EXPIRED_EVERY_S: Final = 60.0
"""Until then an expired entry only counts as absent."""
_IS_PRESENT: Final = "(expire_time IS NULL OR expire_time > ?)"
_IS_ONE_OF: Final = "raw = 1 AND key IN (SELECT value FROM json_each(?))"
_IS_FOREIGN: Final = f"({IS_VALUE_ROW} OR {IS_COUNTER}) IS NOT TRUE"
_READ: Final = "SELECT key, tag, access_time, size, mode, filename, value FROM Cache WHERE "
_READ_ONE: Final = f"{_READ} raw = 1 AND key = ? AND {_IS_PRESENT}"
_READ_MANY: Final = f"{_READ} {_IS_ONE_OF} AND {_IS_PRESENT}"
_STORE: Final = (
    "INSERT INTO Cache (key, raw, store_time, expire_time, access_time, tag, size, mode, filename, "
    "value, access_count) VALUES (?, 1, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key, raw) DO UPDATE SET "
    "store_time = excluded.store_time, expire_time = excluded.expire_time, "
    "access_time = excluded.access_time, tag = excluded.tag, size = excluded.size, "
    "mode = excluded.mode, filename = excluded.filename, value = excluded.value, "
    "access_count = excluded.access_count"
)
_COUNT: Final = (
    "INSERT INTO Cache (key, raw, store_time, access_time, size, mode, value) "
    f"VALUES (?, 1, ?, ?, 0, {SMALL}, ?) ON CONFLICT (key, raw) DO UPDATE SET "
    f"value = excluded.value + CASE WHEN {IS_COUNTER} THEN value ELSE 0 END, "
    "store_time = excluded.store_time, access_time = excluded.access_time, expire_time = NULL, "
    "tag = NULL, size = 0, mode = excluded.mode, filename = NULL"
)
_USE: Final = "UPDATE Cache SET access_time = ? WHERE raw = 1 AND key = ?"
_FILES_OF: Final = f"SELECT filename FROM Cache WHERE {_IS_ONE_OF} AND {HAS_FILE}"
_DROPPED_AT_ONCE: Final = 100_000
"""Rows that one transaction drops; other processes wait for so long (10 µs a row)."""
_LEAST_USED_AT_ONCE: Final = 500
"""Rows that one transaction considers for the size limit."""
_MAX_EXCESS: Final = 1 << 30
"""Bytes above twice the limit that a batch may have written. A larger total must be forged."""
_USE_RESOLUTION_S: Final = 3600.0
"""Without a size limit, the time of last use is as coarse as this, so that reading seldom writes."""
_MAX_UNWRITTEN_USES: Final = 100_000
"""Times of use that are kept in memory until the next write. Reading itself never writes."""
_COUNT_TIMEOUT_S: Final = 0.1
"""Counts and times of use wait no longer for another process that is writing."""
_MIN_ORPHAN_AGE_S: Final = 600.0
"""The row of a younger file may not be written yet. The writer of an older one has died."""
_NO_DESCRIPTORS: Final = frozenset({errno.EMFILE, errno.ENFILE})
"""Errors that say nothing about the file which was to be opened."""


class Store:
    """Bytes by key, in a directory, which is created, for its owner only, if it does not exist.

    Large values may be mapped into memory, where other processes can still change them.
    """

    def __init__(
        self,
        path: Path,
        size_limit: int | None = None,
        expire: float | None = None,
        *,
        can_map: bool = True,
        has_tier: bool = False,
    ) -> None:
        self.path = path
        self.size_limit = size_limit
        self._expire = expire
        self._has_tier = has_tier
        self._last_expiry = 0.0  # when expired entries were last dropped, by the monotonic clock
        self._files = ValueFiles(path, can_map=can_map)
        self._may_have_oversized = True
        self._uses: dict[str, float] = {}  # times of use that are not written yet
        self._database, self._inode = self._open()

    def _open(self) -> tuple[Database, int | None]:
        indexes = {} if self.size_limit is None else USE_INDEX
        database = Database(self.path, {**indexes, **PUSH_INDEX} if self._has_tier else indexes)
        return database, database_inode(self.path)

    def _reopen_if_deleted(self) -> None:
        """Create a directory again that was deleted: SQLite would write to the deleted file."""
        if database_inode(self.path) != self._inode:
            self._database.close()
            self._database, self._inode = self._open()

    # ------------------------------------------------------------------------------------ reading

    def read(self, keys: Iterable[str]) -> dict[str, tuple[str, Blob]]:
        """Return the tag and bytes of those keys that exist; `FOREIGN_BLOB` for a row of another program."""
        found: dict[str, tuple[str, Blob]] = {}
        now, wanted = time.time(), list(keys)
        if len(wanted) == 1:
            found_rows = self._database.rows(_READ_ONE, (wanted[0], now))
        else:
            found_rows = self._database.rows(_READ_MANY, (json.dumps(wanted), now))
        for key, tag, last_use, size, mode, filename, value in found_rows:
            if not has_valid_value(tag, last_use, size, mode, filename, value):
                found[key] = ("", FOREIGN_BLOB)
                continue
            blob = value if filename is None else self._content(filename, size)
            if blob is None:
                continue
            found[key] = (tag or "", blob)
            is_news = self.size_limit or now - last_use > _USE_RESOLUTION_S
            if is_news and len(self._uses) < _MAX_UNWRITTEN_USES:
                self._uses[key] = now
        return found

    def _content(self, name: str, size: int) -> Blob | None:
        """Return the content of a file; ``None`` if another process has just dropped it."""
        try:
            return self._files.read(name, size)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in _NO_DESCRIPTORS:
                raise
        except MemoryError:  # A forged file with holes can be larger than any disk.
            pass
        return FOREIGN_BLOB

    def contains(self, keys: Iterable[str]) -> set[str]:
        """Return those keys that exist."""
        found = self._database.rows(
            f"SELECT key FROM Cache WHERE {_IS_ONE_OF} AND {_IS_PRESENT} AND {HAS_VALUE}",
            (json.dumps(list(keys)), time.time()),
        )
        return {key for (key,) in found}

    def rows(self, tag: str | None = None, limit: int = -1, prefix: str = "") -> Iterator[Row]:
        """Iterate over the entries of all nodes or of one, whose keys have a prefix, the latest first."""
        of_tag = "tag IS NOT NULL" if tag is None else "tag = :tag"  # `OR` would make the index useless
        found = self._database.rows(
            f"SELECT rowid FROM Cache WHERE {of_tag} "
            "AND (expire_time IS NULL OR expire_time > :now) AND substr(key, 1, length(:prefix)) = :prefix "
            f"AND {IS_VALUE_ROW} ORDER BY store_time DESC, rowid DESC LIMIT :limit",
            {"tag": tag, "now": time.time(), "limit": limit, "prefix": prefix},
        )
        for (rowid,) in found:
            for key, name, size, stored, used, filename, value in self._database.rows(
                "SELECT key, tag, size, store_time, access_time, filename, value FROM Cache "
                f"WHERE rowid = ? AND tag IS NOT NULL AND {IS_VALUE_ROW}",
                (rowid,),
            ):
                if isinstance(key, bytes) or isinstance(name, bytes):
                    continue
                try:
                    head = value if filename is None else self._files.head(filename)
                except OSError:
                    head = FOREIGN_BLOB
                yield Row(key, name, size, stored, used, head)

    def counts(self, prefix: str) -> dict[str, int]:
        """Return the counters whose keys have a prefix, without that prefix."""
        found = self._database.rows(
            f"SELECT key, value FROM Cache WHERE key >= ? AND key < ? AND {IS_COUNTER}",
            (prefix, prefix + "\U0010ffff"),
        )
        return {key.removeprefix(prefix): value for key, value in found if isinstance(key, str)}

    def by_tag(self) -> dict[str, tuple[int, int]]:
        """Return the number of entries and of their bytes, by node."""
        found = self._database.rows(
            "SELECT tag, COUNT(*), TOTAL(size) FROM Cache "
            f"WHERE tag IS NOT NULL AND {_IS_PRESENT} AND {IS_VALUE_ROW} GROUP BY tag",
            (time.time(),),
        )
        return {tag: (number, int(size)) for tag, number, size in found if isinstance(tag, str)}

    def foreign(self) -> dict[int, str]:
        """Return the keys of rows that this library has not written, by row id."""
        key = "CASE WHEN typeof(key) = 'text' THEN substr(key, 1, 200) END"
        found = self._database.rows(f"SELECT rowid, {key} FROM Cache WHERE {_IS_FOREIGN}")
        for rowid, key, tag in self._database.rows(
            f"SELECT rowid, key, tag FROM Cache WHERE {MAY_BE_INVALID_TEXT}"
        ):
            if isinstance(key, bytes) or isinstance(tag, bytes):
                found.append((rowid, key))
        return {rowid: key if isinstance(key, str) else f"row {rowid}" for rowid, key in found}

    # ------------------------------------------------------------------------------------ writing

    def write(
        self, records: Sequence[Record], counts: dict[str, int] | None = None, *, is_pushed: bool = False
    ) -> bool:
        """Store records and add to counters, in one transaction; `is_pushed` if the remote tier has them.

        Records that are larger than the size limit are not stored: all others would be dropped for them.
        """
        self._reopen_if_deleted()
        stored = [record for record in records if record.size <= (self.size_limit or record.size)]
        written: list[str] = []
        try:
            replaced = self._write(stored, counts or {}, written, is_pushed=is_pushed)
        except BaseException as error:
            for name in written:
                self._files.remove(name)
            if not stored and isinstance(error, Exception) and is_locked(error):
                return False
            raise
        for name in replaced:
            self._files.remove(name)
        if not stored:
            return True
        if self.size_limit is not None:
            self._drop_least_used(self.size_limit)
        if self._expire is not None and time.monotonic() - self._last_expiry > _DROP_EXPIRED_EVERY_S:
            self._last_expiry = time.monotonic()
            self._drop("expire_time < ?", time.time())
        return True

    def _write(
        self, records: Sequence[Record], counts: dict[str, int], written: list[str], *, is_pushed: bool
    ) -> list[str]:
        """Store records, and return the names of the files of replaced entries.

        The names of new files are added to `written`. This is one statement: calls of diskcache's `set` cost
        three times as much.
        """
        now = time.time()
        expiry = None if self._expire is None else now + self._expire
        mark = int(self._has_tier and not is_pushed)
        rows = []
        for record in records:
            expires = None if record.tag is None else expiry
            form: tuple[int, str | None, Blob | None]
            if record.size < _MIN_FILE_SIZE:
                blob = b"".join(record.pieces) if len(record.pieces) > 1 else record.pieces[0]
                form = (SMALL, None, blob)
            else:  # The file is written before the transaction, which makes other processes wait.
                written.append(self._files.write(record.pieces))
                form = (LARGE, written[-1], None)
            rows.append((record.key, now, expires, now, record.tag, record.size, *form, mark))
        uses = [(used, key) for key, used in self._uses.copy().items()]
        if not (rows or counts or uses):
            return []
        keys = json.dumps([*(record.key for record in records), *counts])
        with self._database.transaction() if rows else self._database.transaction(_COUNT_TIMEOUT_S):
            replaced = self._database.rows(_FILES_OF, (keys,))
            self._database.execute_many(_USE, uses)
            self._database.execute_many(_STORE, rows)
            self._database.execute_many(_COUNT, [(key, now, now, number) for key, number in counts.items()])
        for used, key in uses:
            if self._uses.get(key) == used:
                self._uses.pop(key, None)
        return [name for (name,) in replaced]

    # ----------------------------------------------------------------------------------- dropping

    def _drop_least_used(self, limit: int) -> None:
        excess = self._size(limit) - limit
        if excess > 0 and self._may_have_oversized:
            # A cache with a higher limit has stored them. All others would be dropped before them.
            self._drop("size > ?", limit)
            self._may_have_oversized = False
            excess = self._size(limit) - limit
        while excess > 0:
            with self._database.transaction():
                found = self._database.rows(
                    f"SELECT rowid, {FILE_OF}, CASE WHEN {IS_VALUE_ROW} THEN size ELSE 0 END FROM Cache "
                    f"WHERE ({IS_COUNTER}) IS NOT TRUE ORDER BY access_time, rowid LIMIT ?",
                    (_LEAST_USED_AT_ONCE,),
                )
                dropped = []
                for rowid, name, size in found:
                    if excess <= 0:
                        break
                    dropped.append((rowid, name))
                    excess -= size
                self._database.execute_many("DELETE FROM Cache WHERE rowid = ?", [row[:1] for row in dropped])
            for _, name in dropped:
                if name is not None:
                    self._files.remove(name)
            if not found:
                return

    def _size(self, limit: int) -> int:
        """Return the bytes of all values. The count of the triggers is used, unless it is forged."""
        found = self._database.rows("SELECT value FROM Settings WHERE key = 'size'")
        size = found[0][0] if found else None
        if type(size) is int and 0 <= size <= 2 * limit + _MAX_EXCESS:
            return size
        self._drop(f"{_IS_FOREIGN} OR size > ?", limit)
        with self._database.transaction():
            ((total,),) = self._database.rows("SELECT TOTAL(size) FROM Cache")
            self._database.rows("INSERT OR REPLACE INTO Settings VALUES ('size', ?)", (int(total),))
        return int(total)

    def delete(self, keys: Iterable[str]) -> int:
        """Drop the entries with these keys, and return their number."""
        return self._drop(_IS_ONE_OF, json.dumps(list(keys)))

    def delete_rows(self, row_ids: Iterable[int]) -> int:
        """Drop rows by their ids, and return their number."""
        return self._drop("rowid IN (SELECT value FROM json_each(?))", json.dumps(list(row_ids)))

    def clear(self, tag: str | None = None, used_before: float | None = None) -> int:
        """Drop everything, or the entries of a node or not used since a time; return their number."""
        if tag is None and used_before is None:
            number = sum(count for count, _ in self.by_tag().values())
            self._drop("TRUE")
            return number
        return self._drop(
            f"tag IS NOT NULL AND (? IS NULL OR tag = ?) AND access_time < ? AND {IS_VALUE_ROW}",
            *(tag, tag, math.inf if used_before is None else used_before),
        )

    def remove_orphans(self) -> int:
        """Remove files that writers have left behind when they died, and return their number."""
        old = list(self._files.older_than(_MIN_ORPHAN_AGE_S))
        found = self._database.rows(f"SELECT filename FROM Cache WHERE {HAS_FILE}")
        orphans = set(old).difference(name for (name,) in found)
        for name in orphans:
            self._files.remove(name)
        return len(orphans)

    def _drop(self, condition: str, *arguments: Any) -> int:
        """Drop the rows that satisfy a condition in SQL, and the files that they name."""
        number = 0
        rows = (
            f"FROM Cache WHERE rowid IN (SELECT rowid FROM Cache WHERE {condition} LIMIT {_DROPPED_AT_ONCE})"
        )
        while True:
            with self._database.transaction():
                files = self._database.rows(f"SELECT filename {rows} AND {HAS_FILE}", arguments)
                self._database.rows(f"DELETE {rows}", arguments)
                dropped: int = self._database.rows("SELECT changes()")[0][0]
            for (name,) in files:
                self._files.remove(name)
            number += dropped
            if dropped < _DROPPED_AT_ONCE:
                return number

    def leave_thread(self) -> None:
        """Close what a thread has open that is about to end."""
        self._database.leave_thread()

    def close(self) -> None:
        """Close the files."""
        self._database.close()


def clear_directory(path: Path) -> int:
    """Remove the database of a directory, whatever it is, and all value files; return their number."""
    remove_database(path)
    files = ValueFiles(path, can_map=False)
    names = list(files.older_than(-1))
    for name in names:
        files.remove(name)
    return len(names)
