"""Bytes by key in a directory that many processes share. It is a `diskcache`, set up for results.

diskcache's own defaults are those of a web cache: it drops entries beyond 1 GiB, the least recently
*stored* first, and it unpickles what it finds. Here nothing is dropped unless a limit is given, then
the least recently *used* goes first, and diskcache sees only bytes.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import diskcache
from diskcache.core import MODE_BINARY, MODE_RAW

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from hypernodes.cache.entry import Blob

_NO_LIMIT: Final = 1 << 62  # bytes
_BUSY_TIMEOUT: Final = 60.0  # seconds that a writer waits for another process's transaction
_BESIDE: Final = 1 << 15  # bytes; larger entries are files, which can be mapped
_MAPPED: Final = 4 << 20  # bytes; each mapped file takes a descriptor, of which a process has 1024 or so
_EXPIRED_EVERY: Final = 60.0  # seconds; until then expired entries only count as absent
_READ_ONE: Final = (
    "SELECT key, tag, access_time, mode, filename, value FROM Cache WHERE raw = 1 AND key = ? "
    "AND (expire_time IS NULL OR expire_time > ?)"
)
_READ_MANY: Final = _READ_ONE.replace("key = ?", "key IN (SELECT value FROM json_each(?))")
_STORE: Final = (
    "INSERT INTO Cache (key, raw, store_time, expire_time, access_time, tag, size, mode, value) "
    "VALUES (?, 1, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key, raw) DO UPDATE SET "
    "store_time = excluded.store_time, expire_time = excluded.expire_time, "
    "access_time = excluded.access_time, tag = excluded.tag, size = excluded.size, "
    "mode = excluded.mode, filename = NULL, value = excluded.value"
)
_FILES_OF: Final = (
    "SELECT filename FROM Cache WHERE raw = 1 AND filename IS NOT NULL "
    "AND key IN (SELECT value FROM json_each(?))"
)
_AT_ONCE: Final = 500  # entries considered at once when there is no room
_USED_AGAIN: Final = 3600.0  # seconds; without a limit, use is noted as coarsely, and reading writes nothing
_HEAD: Final = 1 << 16  # bytes that tell how an entry was made
_ORPHAN: Final = 600.0  # seconds after which a file that no row names was left behind by a writer that died


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
    """

    def __init__(self, path: Path, size_limit: int | None = None, expire: float | None = None) -> None:
        self.path = path
        self._size_limit = size_limit
        self._expire = expire
        self._expired = 0.0  # when expired entries were last dropped
        self._open()

    def _open(self) -> None:
        self._cache: Any
        if not os.access(self.path, os.W_OK) and (self.path / "cache.db").exists():
            self._cache = _ReadOnly(self.path)  # diskcache would write its settings
        else:
            self._cache = self._writable()
        self._database = (self.path / "cache.db").stat().st_ino

    def _writable(self) -> Any:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return diskcache.Cache(
            str(self.path),
            timeout=_BUSY_TIMEOUT,
            disk=_Files,
            disk_min_file_size=_BESIDE,
            size_limit=_NO_LIMIT,
            cull_limit=0,  # it goes by the size of the database file, which shrinks only after a transaction
            eviction_policy="least-recently-used" if self._size_limit else "none",  # an index on last use
            statistics=False,  # a write for every read
            tag_index=True,  # for what is asked by node
        )

    def _reopen_if_gone(self) -> None:
        """Begin anew where somebody has deleted the directory: SQLite would write into the deleted file."""
        try:
            is_there = (self.path / "cache.db").stat().st_ino == self._database
        except FileNotFoundError:
            is_there = False
        if not is_there:
            self._cache.close()
            self._open()

    def read(self, keys: Iterable[str]) -> dict[str, tuple[str, Blob]]:
        """Return tag and bytes of those keys that are there."""
        found: dict[str, tuple[str, Blob]] = {}
        used: list[str] = []
        now, wanted = time.time(), list(keys)
        one = len(wanted) == 1
        rows = self._cache._sql(
            _READ_ONE if one else _READ_MANY, (wanted[0] if one else json.dumps(wanted), now)
        ).fetchall()
        for key, tag, last, mode, filename, value in rows:
            try:
                blob = value if filename is None else self._cache.disk.fetch(mode, filename, None, read=False)
            except FileNotFoundError:  # dropped by another process just now
                continue
            found[key] = (tag, blob)
            if self._size_limit or now - last > _USED_AGAIN:
                used.append(key)
        if used:
            with contextlib.suppress(Exception):  # of a directory that may only be read
                self._touch(used, now)
        return found

    def contains(self, keys: Iterable[str]) -> set[str]:
        """Return those keys that are there."""
        rows = self._cache._sql(
            "SELECT key FROM Cache WHERE raw = 1 AND key IN (SELECT value FROM json_each(?)) "
            "AND (expire_time IS NULL OR expire_time > ?)",
            (json.dumps(list(keys)), time.time()),
        )
        return {key for (key,) in rows.fetchall()}

    def write(self, records: Sequence[Record], counts: dict[str, int] | None = None) -> None:
        """Store records, and add to counters, small ones in one transaction."""
        self._reopen_if_gone()
        small = []
        for record in records:
            if record.size < _BESIDE:
                small.append(record)
            else:  # its file is written before anybody is kept from writing
                expire = None if record.tag is None else self._expire
                self._cache.set(record.key, _Reader(record.pieces), expire, read=True, tag=record.tag)
        if small or counts:
            self._write_small(small, counts or {})
        if self._size_limit is not None:
            self._drop_least_used(self._size_limit)
        if self._expire is not None and time.monotonic() - self._expired > _EXPIRED_EVERY:
            self._expired = time.monotonic()
            self._cache.expire()

    def _write_small(self, small: Sequence[Record], counts: dict[str, int]) -> None:
        """Store records in one transaction and one statement; a `set` for each costs three times as much."""
        now = time.time()
        expires = None if self._expire is None else now + self._expire
        rows = []
        for record in small:
            blob = b"".join(record.pieces) if len(record.pieces) > 1 else record.pieces[0]
            ends = None if record.tag is None else expires
            rows.append((record.key, now, ends, now, record.tag, len(blob), MODE_RAW, blob))
        with self._cache.transact():
            keys = json.dumps([record.key for record in small])
            replaced = self._cache._sql(_FILES_OF, (keys,)).fetchall()
            self._cache._con.executemany(_STORE, rows)
            for key, number in counts.items():
                self._cache.incr(key, number)
        for (filename,) in replaced:
            (self.path / filename).unlink(missing_ok=True)

    def _drop_least_used(self, limit: int) -> None:
        excess = self._cache.reset("size") - limit
        while excess > 0:
            rows = self._cache._sql(
                "SELECT key, size FROM Cache ORDER BY access_time LIMIT ?", (_AT_ONCE,)
            ).fetchall()
            if not rows:
                return
            for key, size in rows:
                if excess <= 0:
                    return
                self._cache.delete(key)
                excess -= size

    def _touch(self, keys: list[str], now: float) -> None:
        with self._cache.transact():
            for key in keys:
                self._cache._sql("UPDATE Cache SET access_time = ? WHERE raw = 1 AND key = ?", (now, key))

    def delete(self, keys: Iterable[str]) -> int:
        """Drop what is stored under these keys, and return how many there were."""
        return sum(bool(self._cache.delete(key)) for key in keys)

    def rows(self, tag: str | None = None, limit: int = -1, start: str = "") -> Iterator[Row]:
        """Walk what is stored by nodes, or by one of them, under keys that begin so, the latest first."""
        found = self._cache._sql(
            "SELECT rowid FROM Cache WHERE tag IS NOT NULL AND (?1 IS NULL OR tag = ?1) "
            "AND (expire_time IS NULL OR expire_time > ?2) AND substr(key, 1, length(?4)) = ?4 "
            "ORDER BY store_time DESC, rowid DESC LIMIT ?3",
            (tag, time.time(), limit, start),
        ).fetchall()
        for (rowid,) in found:
            row = self._cache._sql(
                "SELECT key, tag, size, store_time, access_time, filename, value FROM Cache WHERE rowid = ?",
                (rowid,),
            ).fetchone()
            if row is None:
                continue
            key, name, size, stored, used, filename, value = row
            try:
                head = value if filename is None else _head(self.path / filename)
            except OSError:
                continue
            yield Row(key, name, size, stored, used, head)

    def counts(self, prefix: str) -> dict[str, int]:
        """Return the counters whose key begins with a prefix."""
        rows = self._cache._sql(
            "SELECT key, value FROM Cache WHERE raw = 1 AND key >= ? AND key < ?",
            (prefix, prefix + "\U0010ffff"),
        )
        return {key.removeprefix(prefix): int(value) for key, value in rows.fetchall()}

    def by_tag(self) -> dict[str, tuple[int, int]]:
        """Return the number of entries and their bytes, by node."""
        rows = self._cache._sql(
            "SELECT tag, COUNT(*), SUM(size) "
            "FROM Cache WHERE tag IS NOT NULL AND (expire_time IS NULL OR expire_time > ?) GROUP BY tag",
            (time.time(),),
        )
        return {tag: (number, size) for tag, number, size in rows.fetchall()}

    def tidy(self) -> int:
        """Remove files that writers who died have left behind, and return how many."""
        known = {name for (name,) in self._cache._sql("SELECT filename FROM Cache").fetchall()}
        orphans = [
            path
            for path in self.path.glob("??/??/*.val")
            if str(path.relative_to(self.path)) not in known and _age(path) > _ORPHAN
        ]
        for path in orphans:
            path.unlink(missing_ok=True)
        return len(orphans)

    def clear(self) -> int:
        """Drop everything, and return how many entries there were."""
        number = sum(count for count, _ in self.by_tag().values())
        self._cache.clear()
        return number

    def close(self) -> None:
        """Close the files."""
        self._cache.close()


class _ReadOnly:
    """The part of `diskcache.Cache` that reads, for a directory in which one may not write."""

    def __init__(self, path: Path) -> None:
        self.disk = _Files(str(path))
        self._con = self._connected(f"{path.as_uri()}/cache.db?mode=ro")

    def _connected(self, uri: str) -> sqlite3.Connection:
        # Without a file for its locks SQLite reads only what nobody can change.
        for options in ("", "&immutable=1"):
            connection = sqlite3.connect(uri + options, uri=True, check_same_thread=False)
            try:
                connection.execute("SELECT COUNT(*) FROM Cache").fetchone()
            except sqlite3.OperationalError:
                connection.close()
            else:
                return connection
        raise PermissionError(f"{uri} can be neither written nor read")

    def _sql(self, statement: str, arguments: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        return self._con.execute(statement, arguments)

    def __getattr__(self, name: str) -> Any:
        raise PermissionError("the directory may only be read")

    def close(self) -> None:
        self._con.close()


class _Files(diskcache.Disk):  # type: ignore[misc]
    """Large values as files; the largest are mapped into memory, where a change stays with who makes it."""

    def store(self, value: Any, *args: Any, **kwargs: Any) -> tuple[int, int, str | None, Any]:
        size, mode, filename, stored = super().store(value, *args, **kwargs)
        # diskcache counts files only
        return (len(value) if filename is None and isinstance(value, bytes) else size), mode, filename, stored

    def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> Any:  # noqa: FBT001
        if mode != MODE_BINARY or read or filename is None:
            return super().fetch(mode, filename, value, read)
        with (Path(self._directory) / filename).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size >= _MAPPED:
                with contextlib.suppress(OSError):
                    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            blob = bytearray(size)  # of which arrays can be made that can be changed
            file.readinto(blob)
            return blob

    def _write(self, full_path: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return super()._write(full_path, *args, **kwargs)
        except BaseException:  # a full disk, say: half a file is of no use to anybody
            Path(full_path).unlink(missing_ok=True)
            raise


class _Reader:
    """Pieces of bytes as diskcache reads a file, one after the other."""

    def __init__(self, pieces: Sequence[Blob]) -> None:
        self._pieces = iter(pieces)

    def read(self, _size: int) -> Blob:
        return next((piece for piece in self._pieces if memoryview(piece).nbytes), b"")


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD)


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
