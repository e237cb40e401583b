"""Bytes by key in a directory that many processes share. It is a `diskcache`, set up for results.

diskcache's own defaults are those of a web cache: it drops entries beyond 1 GiB, the least recently
*stored* first, and it unpickles what it finds. Here nothing is dropped unless a limit is given, then
the least recently *used* goes first, and diskcache sees neither values nor files:

    Store ─▶ rows.py      which rows are this library's own
          ─▶ files.py     large values, in files that are reached without following links
          ─▶ database.py  diskcache's tables and transactions
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from hypernodes.cache.database import Database, ReadOnlyDatabase, file_number
from hypernodes.cache.entry import NOT_OWN
from hypernodes.cache.files import ValueFiles
from hypernodes.cache.rows import (
    FILE_OF,
    HAS_FILE,
    HAS_VALUE,
    IS_COUNTER,
    IS_OWN,
    LARGE,
    MAY_BE_NO_TEXT,
    SMALL,
    has_value,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from hypernodes.cache.entry import Blob

_BESIDE: Final = 1 << 15  # bytes; larger entries are files, which can be mapped
_EXPIRED_EVERY: Final = 60.0  # seconds; until then expired entries only count as absent
_IS_PRESENT: Final = "(expire_time IS NULL OR expire_time > ?)"
_IS_ONE_OF: Final = "raw = 1 AND key IN (SELECT value FROM json_each(?))"
_IS_FOREIGN: Final = f"({IS_OWN} OR {IS_COUNTER}) IS NOT TRUE"
_READ_ONE: Final = (
    "SELECT key, tag, access_time, mode, filename, value FROM Cache "
    f"WHERE raw = 1 AND key = ? AND {_IS_PRESENT}"
)
_READ_MANY: Final = (
    f"SELECT key, tag, access_time, mode, filename, value FROM Cache WHERE {_IS_ONE_OF} AND {_IS_PRESENT}"
)
_STORE: Final = (
    "INSERT INTO Cache (key, raw, store_time, expire_time, access_time, tag, size, mode, filename, value) "
    "VALUES (?, 1, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key, raw) DO UPDATE SET "
    "store_time = excluded.store_time, expire_time = excluded.expire_time, "
    "access_time = excluded.access_time, tag = excluded.tag, size = excluded.size, "
    "mode = excluded.mode, filename = excluded.filename, value = excluded.value"
)
_COUNT: Final = (
    "INSERT INTO Cache (key, raw, store_time, access_time, size, mode, value) "
    f"VALUES (?, 1, ?, ?, 0, {SMALL}, ?) ON CONFLICT (key, raw) DO UPDATE SET "
    f"value = excluded.value + CASE WHEN {IS_COUNTER} THEN value ELSE 0 END, "
    "store_time = excluded.store_time, access_time = excluded.access_time, expire_time = NULL, "
    "tag = NULL, size = 0, mode = excluded.mode, filename = NULL"
)
_FILES_OF: Final = f"SELECT filename FROM Cache WHERE {_IS_ONE_OF} AND {HAS_FILE}"
_AT_ONCE: Final = 500  # rows dropped at once
_LARGEST_EXCESS: Final = 1 << 30  # bytes over the limit that one batch may well have written
_USED_AGAIN: Final = 3600.0  # seconds; without a limit, use is noted as coarsely, and reading writes nothing
_ORPHAN: Final = 600.0  # seconds after which a file that no row names was left behind by a writer that died
_OF_THIS_PROCESS: Final = frozenset({errno.EMFILE, errno.ENFILE})  # what keeps from opening any file


@dataclass(frozen=True, slots=True)
class Record:
    """Something to store.

    Attributes:
        key: Under which it is found.
        tag: The node that made it; ``None`` for what is no entry.
        pieces: Its bytes.
        size: How many they are.
    """

    key: str
    tag: str | None
    pieces: Sequence[Blob]
    size: int

    @classmethod
    def of(cls, key: str, tag: str | None, pieces: Sequence[Blob]) -> Self:
        """Make one."""
        return cls(key, tag, pieces, sum([memoryview(piece).nbytes for piece in pieces]))


@dataclass(frozen=True, slots=True)
class Row:
    """What is known of something stored, its value left aside.

    Attributes:
        tag: The node that made it.
        size: Bytes.
        stored: When, in seconds since the epoch.
        used: When last, likewise, to the hour if the store has no limit.
        head: Its first 64 KiB, or all of it.
    """

    key: str
    tag: str
    size: int
    stored: float
    used: float
    head: bytes


class Store:
    """Bytes by key in a directory.

    Args:
        path: The directory; it is made, for its owner only, when it does not exist.
        size_limit: Bytes to keep.
        expire: Seconds after which what was stored counts as absent.
        can_map: Whether the largest values may be mapped into memory, where others can still change them.
    """

    def __init__(
        self, path: Path, size_limit: int | None = None, expire: float | None = None, *, can_map: bool = True
    ) -> None:
        self.path = path
        self._size_limit = size_limit
        self._expire = expire
        self._expired = 0.0  # when expired entries were last dropped
        self._files = ValueFiles(path, can_map=can_map)
        self._open()

    def _open(self) -> None:
        self._database: Any
        if not os.access(self.path, os.W_OK) and file_number(self.path) is not None:
            self._database = ReadOnlyDatabase(self.path)  # diskcache would write its settings
        else:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._database = Database(self.path, by_use=self._size_limit is not None)
        self._file_number = file_number(self.path)

    def _reopen_if_gone(self) -> None:
        """Begin anew where somebody has deleted the directory: SQLite would write into the deleted file."""
        if file_number(self.path) != self._file_number:
            self._database.close()
            self._open()

    # ------------------------------------------------------------------------------------ reading

    def read(self, keys: Iterable[str]) -> dict[str, tuple[str, Blob]]:
        """Return tag and bytes of those keys that are there; no bytes of one that is not of this library."""
        found: dict[str, tuple[str, Blob]] = {}
        used: list[str] = []
        now, wanted = time.time(), list(keys)
        if len(wanted) == 1:
            found_rows = self._database.rows(_READ_ONE, (wanted[0], now))
        else:
            found_rows = self._database.rows(_READ_MANY, (json.dumps(wanted), now))
        for key, tag, last, mode, filename, value in found_rows:
            if not has_value(tag, last, mode, filename, value):
                found[key] = ("", NOT_OWN)
                continue
            blob = value if filename is None else self._content(filename)
            if blob is None:
                continue
            found[key] = (tag or "", blob)
            if self._size_limit or now - last > _USED_AGAIN:
                used.append(key)
        if used:
            with contextlib.suppress(Exception):  # of a directory that may only be read
                self._touch(used, now)
        return found

    def _content(self, name: str) -> Blob | None:
        """Return what a file holds; ``None`` if it was dropped by another process just now."""
        try:
            return self._files.read(name)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in _OF_THIS_PROCESS:
                raise
        except MemoryError:  # a file that has holes can be larger than any disk
            pass
        return NOT_OWN

    def contains(self, keys: Iterable[str]) -> set[str]:
        """Return those keys that are there."""
        found = self._database.rows(
            f"SELECT key FROM Cache WHERE {_IS_ONE_OF} AND {_IS_PRESENT} AND {HAS_VALUE}",
            (json.dumps(list(keys)), time.time()),
        )
        return {key for (key,) in found}

    def rows(self, tag: str | None = None, limit: int = -1, start: str = "") -> Iterator[Row]:
        """Walk what is stored by nodes, or by one of them, under keys that begin so, the latest first."""
        found = self._database.rows(
            "SELECT rowid FROM Cache WHERE tag IS NOT NULL AND (:tag IS NULL OR tag = :tag) "
            "AND (expire_time IS NULL OR expire_time > :now) AND substr(key, 1, length(:start)) = :start "
            f"AND {IS_OWN} ORDER BY store_time DESC, rowid DESC LIMIT :limit",
            {"tag": tag, "now": time.time(), "limit": limit, "start": start},
        )
        for (rowid,) in found:
            for key, name, size, stored, used, filename, value in self._database.rows(
                "SELECT key, tag, size, store_time, access_time, filename, value FROM Cache "
                f"WHERE rowid = ? AND tag IS NOT NULL AND {IS_OWN}",
                (rowid,),
            ):
                if isinstance(key, bytes) or isinstance(name, bytes):
                    continue
                try:
                    head = value if filename is None else self._files.head(filename)
                except FileNotFoundError:
                    continue
                except OSError:
                    head = NOT_OWN
                yield Row(key, name, size, stored, used, head)

    def counts(self, prefix: str) -> dict[str, int]:
        """Return the counters whose key begins with a prefix."""
        found = self._database.rows(
            f"SELECT key, value FROM Cache WHERE key >= ? AND key < ? AND {IS_COUNTER}",
            (prefix, prefix + "\U0010ffff"),
        )
        return {key.removeprefix(prefix): value for key, value in found if isinstance(key, str)}

    def by_tag(self) -> dict[str, tuple[int, int]]:
        """Return the number of entries and their bytes, by node."""
        found = self._database.rows(
            "SELECT tag, COUNT(*), TOTAL(size) FROM Cache "
            f"WHERE tag IS NOT NULL AND {_IS_PRESENT} AND {IS_OWN} GROUP BY tag",
            (time.time(),),
        )
        return {tag: (number, int(size)) for tag, number, size in found if isinstance(tag, str)}

    def foreign(self) -> dict[int, str]:
        """Return the rows that are not of this library: their keys, by the numbers of the rows."""
        key = "CASE WHEN typeof(key) = 'text' THEN substr(key, 1, 200) END"
        found = self._database.rows(f"SELECT rowid, {key} FROM Cache WHERE {_IS_FOREIGN}")
        for rowid, key, tag in self._database.rows(
            f"SELECT rowid, key, tag FROM Cache WHERE {MAY_BE_NO_TEXT}"
        ):
            if isinstance(key, bytes) or isinstance(tag, bytes):
                found.append((rowid, key))
        return {rowid: key if isinstance(key, str) else f"row {rowid}" for rowid, key in found}

    # ------------------------------------------------------------------------------------ writing

    def write(self, records: Sequence[Record], counts: dict[str, int] | None = None) -> None:
        """Store records, and add to counters, in one transaction."""
        self._reopen_if_gone()
        written: list[str] = []
        try:
            replaced = self._write(records, counts or {}, written)
        except BaseException:
            for name in written:
                self._files.remove(name)
            raise
        for name in replaced:
            self._files.remove(name)
        if self._size_limit is not None:
            self._drop_least_used(self._size_limit)
        if self._expire is not None and time.monotonic() - self._expired > _EXPIRED_EVERY:
            self._expired = time.monotonic()
            self._drop("expire_time < ?", time.time())

    def _write(self, records: Sequence[Record], counts: dict[str, int], written: list[str]) -> list[str]:
        """Store records in one statement: a `set` for each costs three times as much.

        Returns:
            The files of what they replace; the names of new ones are added to those written.
        """
        now = time.time()
        expires = None if self._expire is None else now + self._expire
        made = []
        for record in records:
            ends = None if record.tag is None else expires
            form: tuple[int, str | None, Blob | None]
            if record.size < _BESIDE:
                blob = b"".join(record.pieces) if len(record.pieces) > 1 else record.pieces[0]
                form = (SMALL, None, blob)
            else:  # its file is written before anybody is kept from writing
                written.append(self._files.write(record.pieces))
                form = (LARGE, written[-1], None)
            made.append((record.key, now, ends, now, record.tag, record.size, *form))
        if not (made or counts):
            return []
        keys = json.dumps([*(record.key for record in records), *counts])
        with self._database.transact():
            replaced = self._database.rows(_FILES_OF, (keys,))
            self._database._con.executemany(_STORE, made)
            self._database._con.executemany(
                _COUNT, [(key, now, now, number) for key, number in counts.items()]
            )
        return [name for (name,) in replaced]

    def _touch(self, keys: list[str], now: float) -> None:
        with self._database.transact():
            self._database._con.executemany(
                "UPDATE Cache SET access_time = ? WHERE raw = 1 AND key = ?", [(now, key) for key in keys]
            )

    # ----------------------------------------------------------------------------------- dropping

    def _drop_least_used(self, limit: int) -> None:
        excess = self._size(limit) - limit
        while excess > 0:
            with self._database.transact():
                found = self._database.rows(
                    f"SELECT rowid, {FILE_OF}, CASE WHEN {IS_OWN} THEN size ELSE 0 END "
                    "FROM Cache ORDER BY access_time LIMIT ?",
                    (_AT_ONCE,),
                )
                dropped = []
                for rowid, name, size in found:
                    if excess <= 0:
                        break
                    dropped.append((rowid, name))
                    excess -= size
                self._delete(dropped)
            self._remove_files(dropped)
            if not found:
                return

    def _size(self, limit: int) -> int:
        """Return the bytes of all values, as the triggers count them, unless somebody has falsified that."""
        found = self._database.rows("SELECT value FROM Settings WHERE key = 'size'")
        size = found[0][0] if found else None
        if type(size) is int and 0 <= size <= 2 * limit + _LARGEST_EXCESS:
            return size
        self._drop(f"{_IS_FOREIGN} OR size > ?", limit)
        with self._database.transact():
            ((total,),) = self._database.rows("SELECT TOTAL(size) FROM Cache")
            self._database.rows("INSERT OR REPLACE INTO Settings VALUES ('size', ?)", (int(total),))
        return int(total)

    def delete(self, keys: Iterable[str]) -> int:
        """Drop what is stored under these keys, and return how many there were."""
        return self._drop(_IS_ONE_OF, json.dumps(list(keys)))

    def delete_rows(self, numbers: Iterable[int]) -> int:
        """Drop rows by their numbers, and return how many there were."""
        return self._drop("rowid IN (SELECT value FROM json_each(?))", json.dumps(list(numbers)))

    def clear(self) -> int:
        """Drop everything, and return how many entries there were."""
        number = sum(count for count, _ in self.by_tag().values())
        self._drop("TRUE")
        return number

    def tidy(self) -> int:
        """Remove files that writers who died have left behind, and return how many."""
        old = list(self._files.older_than(_ORPHAN))
        found = self._database.rows(f"SELECT filename FROM Cache WHERE {HAS_FILE}")
        orphans = set(old).difference(name for (name,) in found)
        for name in orphans:
            self._files.remove(name)
        return len(orphans)

    def _drop(self, which: str, *arguments: Any) -> int:
        """Drop the rows that SQL describes, with those of their files that are this library's."""
        number = 0
        while True:
            with self._database.transact():
                dropped = self._database.rows(
                    f"SELECT rowid, {FILE_OF} FROM Cache WHERE {which} LIMIT ?",
                    (*arguments, _AT_ONCE),
                )
                self._delete(dropped)
            self._remove_files(dropped)
            number += len(dropped)
            if len(dropped) < _AT_ONCE:
                return number

    def _delete(self, dropped: Sequence[tuple[Any, ...]]) -> None:
        self._database._con.executemany("DELETE FROM Cache WHERE rowid = ?", [(row[0],) for row in dropped])

    def _remove_files(self, dropped: Sequence[tuple[Any, ...]]) -> None:
        for _, name in dropped:
            if name is not None:
                self._files.remove(name)

    def close(self) -> None:
        """Close the files."""
        self._database.close()
