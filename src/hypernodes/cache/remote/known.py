"""Which entries does a tier have, and where? A database of this host, for all of its processes.

It has the indexes of all segments that the host knows, so that a look-up of many keys needs no request, and
each host reads an index once. It contains nothing that cannot be read again from the tier: a damaged
database is made anew.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sqlite3
import stat
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from hypernodes.cache.database import SelfClosingConnection
from hypernodes.cache.remote.locks import no_fork
from hypernodes.cache.remote.segment import Item, SegmentName

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from hypernodes.cache.remote.segment import Index

_SCHEMA: Final = {
    "Segments": "CREATE TABLE Segments (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
    "Items": (
        "CREATE TABLE Items (key TEXT NOT NULL PRIMARY KEY, tag TEXT, segment INTEGER, start INTEGER, "
        "size INTEGER, expiry REAL, time INTEGER, value TEXT) WITHOUT ROWID"
    ),
    "Items_place": "CREATE INDEX Items_place ON Items (segment, start)",
}
_AUTOMATIC: Final = "sqlite_autoindex_"
_TIMEOUT_S: Final = 60.0
_ADD: Final = (
    "INSERT INTO Items VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET tag = excluded.tag, "
    "segment = excluded.segment, start = excluded.start, size = excluded.size, expiry = excluded.expiry, "
    "time = excluded.time, value = excluded.value WHERE excluded.time >= time"
)
_FIND: Final = (
    "SELECT key, tag, start, size, expiry, time, value, name FROM Items JOIN Segments ON segment = id WHERE "
)
_IS_PRESENT: Final = "size IS NOT NULL AND (expiry IS NULL OR expiry > ?)"


@dataclass(frozen=True, slots=True)
class Place:
    """An item, and the name of its segment."""

    item: Item
    segment: str


class KnownItems:
    """The items of a tier that this host knows."""

    def __init__(self, path: Path) -> None:
        try:
            self._database = _open(str(path))
        except sqlite3.DatabaseError as error:
            if isinstance(
                error, sqlite3.OperationalError
            ):  # The directory is read-only, or the disk is full.
                self._database = _open(":memory:")
            else:
                remove_known_items(path)
                self._database = _open(str(path))

    def segments(self) -> dict[str, int]:
        """Return the names of the segments whose indexes are known, with their ids."""
        return dict(self._rows("SELECT name, id FROM Segments"))

    def latest_time(self) -> int:
        """Return the time of the latest segment; 0 if there is none."""
        ((name,),) = self._rows("SELECT MAX(name) FROM Segments")
        parsed = None if name is None else SegmentName.parse(name)
        return 0 if parsed is None else parsed.time

    def update(self, added: Mapping[str, Index], without: Iterable[str], gone: Iterable[str]) -> None:
        """Add the items of segments, and drop those of segments that are gone.

        `without` names segments that count as known although they have no item of interest.
        """
        with self._transaction():
            known = self.segments()
            ids = json.dumps([known[name] for name in gone if name in known])
            for statement in (
                "DELETE FROM Items WHERE segment IN (SELECT value FROM json_each(?))",
                "DELETE FROM Segments WHERE id IN (SELECT value FROM json_each(?))",
            ):
                if ids != "[]":
                    self._database.execute(statement, (ids,))
            for name in (*added, *without):
                self._database.execute("INSERT OR IGNORE INTO Segments (name) VALUES (?)", (name,))
            known = self.segments()
            for name, index in added.items():
                number = known[name]
                self._database.executemany(
                    _ADD,
                    (
                        (
                            item.key,
                            item.tag,
                            number,
                            item.start,
                            item.size,
                            None if item.expiry == math.inf else item.expiry,
                            item.time,
                            item.value,
                        )
                        for item in index.items
                    ),
                )

    def find(self, keys: Iterable[str]) -> dict[str, Place]:
        """Return the places of those keys that have an entry."""
        found = self._rows(
            f"{_FIND} key IN (SELECT value FROM json_each(?)) AND {_IS_PRESENT}",
            (json.dumps(list(keys)), time.time()),
        )
        return {place.item.key: place for place in map(_place, found)}

    def within(self, segment: str, start: int, end: int) -> list[Item]:
        """Return the items of a segment that begin in a range, in their order."""
        found = self._rows(
            f"{_FIND} name = ? AND start >= ? AND start < ? AND value IS NULL AND {_IS_PRESENT} "
            "ORDER BY start",
            (segment, start, end, time.time()),
        )
        return [_place(row).item for row in found]

    def items(self, *, node: str | None = None, before: float = math.inf) -> Iterator[Place]:
        """Iterate over all items, or those of a node, or written before a time; deleted ones, too."""
        limit = 1 << 62 if before == math.inf else int(before * 1e6)
        for row in self._rows(
            f"{_FIND} time < ? AND (? IS NULL OR tag = ?) ORDER BY segment, start", (limit, node, node)
        ):
            yield _place(row)

    def by_tag(self) -> dict[str, tuple[int, int]]:
        """Return the number of entries and of their bytes, by node."""
        found = self._rows(
            "SELECT tag, COUNT(*), TOTAL(size) FROM Items "
            f"WHERE tag IS NOT NULL AND {_IS_PRESENT} GROUP BY tag",
            (time.time(),),
        )
        return {tag: (number, int(size)) for tag, number, size in found}

    def close(self) -> None:
        """Close the database."""
        with no_fork():
            self._database.close()

    def _rows(self, statement: str, arguments: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with no_fork():
            return self._database.execute(statement, arguments).fetchall()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with no_fork():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._database.execute("COMMIT")
            finally:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")


def remove_known_items(path: Path) -> None:
    """Remove the files of a database."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _place(row: tuple[Any, ...]) -> Place:
    key, tag, start, size, expiry, time, value, name = row
    return Place(Item(key, tag, start, size, math.inf if expiry is None else expiry, time, value), name)


def _open(path: str) -> sqlite3.Connection:
    """Open a database, and create it if need be. A schema of another form is a `sqlite3.DatabaseError`."""
    if path != ":memory:":
        with contextlib.suppress(FileExistsError, OSError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISREG(os.lstat(path).st_mode):
                raise sqlite3.DatabaseError("it is no regular file")
    connection = sqlite3.connect(
        path, timeout=_TIMEOUT_S, isolation_level=None, factory=SelfClosingConnection, check_same_thread=False
    )
    try:
        for statement in (
            "trusted_schema = OFF",
            "cell_size_check = ON",
            "mmap_size = 0",
            "synchronous = NORMAL",
        ):
            connection.execute(f"PRAGMA {statement}")
        connection.execute("PRAGMA journal_mode = WAL")
        found = dict(connection.execute("SELECT name, sql FROM sqlite_master"))
        if not found:
            connection.execute("BEGIN IMMEDIATE")
            for statement in _SCHEMA.values():
                connection.execute(
                    statement.replace("TABLE ", "TABLE IF NOT EXISTS ").replace(
                        "INDEX ", "INDEX IF NOT EXISTS "
                    )
                )
            connection.execute("COMMIT")
            found = dict(connection.execute("SELECT name, sql FROM sqlite_master"))
        _check_schema(found)
    except BaseException:
        connection.close()
        raise
    return connection


def _check_schema(found: Mapping[str, str]) -> None:
    if {name: sql for name, sql in found.items() if not name.startswith(_AUTOMATIC)} != _SCHEMA:
        raise sqlite3.DatabaseError("its schema is of another form")
