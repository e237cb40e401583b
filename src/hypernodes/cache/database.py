"""The SQLite database of a cache, opened so that nothing in it acts by itself.

Whoever can write to the directory can write the database: settings that diskcache would obey, triggers and
views that run inside this library's statements, links to other databases. So the settings are overridden,
the schema must be exactly the one that diskcache creates, and an authorizer refuses all other actions.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sqlite3
import stat
from typing import TYPE_CHECKING, Any, Final, Protocol

from hypernodes._compat.diskcache import (
    COUNTER_SETTINGS,
    DATABASE_NAME,
    SCHEMA,
    SETTING_NAMES,
    TRIGGERS,
    Tables,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager
    from pathlib import Path

_DATABASE_FILES: Final = tuple(f"{DATABASE_NAME}{suffix}" for suffix in ("", "-wal", "-shm", "-journal"))
_BUSY_TIMEOUT_S: Final = 60.0
"""A write waits for so long for the transaction of another process."""
_NO_SIZE_LIMIT: Final = 1 << 62  # bytes

_SETTINGS: Final[dict[str, Any]] = {
    "statistics": 0,  # Counting hits would turn every read into a write.
    "tag_index": 1,  # The tag is the name of the node, and entries are listed by node.
    "eviction_policy": "none",
    "size_limit": _NO_SIZE_LIMIT,
    "cull_limit": 0,  # It would use the size of the database file, which shrinks only after a transaction.
    "sqlite_auto_vacuum": 1,
    "sqlite_cache_size": 1 << 13,  # pages
    "sqlite_journal_mode": "wal",
    "sqlite_mmap_size": 0,  # Truncating a mapped file would end this process.
    "sqlite_synchronous": 1,
    "disk_min_file_size": 0,
    "disk_pickle_protocol": 0,
}
_FOREIGN_SETTINGS: Final = (
    "typeof(key) <> 'text' OR key NOT IN (SELECT value FROM json_each(?)) "
    "OR (key IN (SELECT value FROM json_each(?)) AND typeof(value) <> 'integer')"
)
_REFUSED_ACTIONS: Final = frozenset(
    {sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH, sqlite3.SQLITE_CREATE_VTABLE}
)
_ADVICE: Final = "delete the directory, and it is made anew"


class ForeignDatabaseError(sqlite3.DatabaseError):
    """A database that another program has created or changed."""


class Database(Protocol):
    """A database of entries."""

    def rows(self, statement: str, arguments: Any = ()) -> list[tuple[Any, ...]]:
        """Return the rows that a query finds; a string that is not UTF-8 is returned as bytes."""

    def execute_many(self, statement: str, arguments: Iterable[tuple[Any, ...]]) -> None:
        """Execute a statement for each tuple of arguments."""

    def transaction(self) -> AbstractContextManager[None]:
        """Return a context in which all writes take effect together or not at all."""

    def close(self) -> None:
        """Close the files."""


def open_database(directory: Path, *, has_use_index: bool) -> Database:
    """Open the database of a directory, and create both if they do not exist.

    Args:
        directory: The directory.
        has_use_index: Whether there is an index by the time of last use.

    Raises:
        ForeignDatabaseError: The database is not one of this library.
        PermissionError: It can be neither written nor read.
    """
    # A directory that another thread creates meanwhile must not be taken for a read-only one.
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not os.access(directory, os.W_OK) and database_inode(directory) is not None:
        return _ReadOnlyDatabase(directory)
    return _WritableDatabase(directory, has_use_index=has_use_index)


def database_inode(directory: Path) -> int | None:
    """Return the inode of a directory's database file; ``None`` if there is none."""
    try:
        return os.lstat(directory / DATABASE_NAME).st_ino
    except FileNotFoundError:
        return None


class _WritableDatabase:
    def __init__(self, directory: Path, *, has_use_index: bool) -> None:
        if os.path.lexists(directory / DATABASE_NAME):
            with contextlib.closing(_connect(directory)) as connection:
                _drop_foreign_settings(connection)
        policy = "least-recently-used" if has_use_index else "none"
        self._tables = Tables(
            directory,
            connect=functools.partial(_connect, directory),
            settings={**_SETTINGS, "eviction_policy": policy},
            busy_timeout=_BUSY_TIMEOUT_S,
        )

    def rows(self, statement: str, arguments: Any = ()) -> list[tuple[Any, ...]]:
        return _rows(self._tables.connection, statement, arguments)

    def execute_many(self, statement: str, arguments: Iterable[tuple[Any, ...]]) -> None:
        self._tables.connection.executemany(statement, arguments)

    def transaction(self) -> AbstractContextManager[None]:
        return self._tables.transact()

    def close(self) -> None:
        self._tables.close()


class _ReadOnlyDatabase:
    """A database in a directory that this process must not write to."""

    def __init__(self, directory: Path) -> None:
        self._connection = self._connect(directory)

    def _connect(self, directory: Path) -> sqlite3.Connection:
        # Without a file for its locks, SQLite reads only a database that is declared immutable.
        for options in ("?mode=ro", "?mode=ro&immutable=1"):
            try:
                connection = _connect(directory, options)
            except sqlite3.OperationalError:
                continue
            try:
                connection.execute("SELECT 1 FROM Cache LIMIT 1").fetchone()
            except sqlite3.OperationalError:
                connection.close()
            else:
                return connection
        raise PermissionError(f"{directory / DATABASE_NAME} can be neither written nor read")

    def rows(self, statement: str, arguments: Any = ()) -> list[tuple[Any, ...]]:
        return _rows(self._connection, statement, arguments)

    def execute_many(self, statement: str, arguments: Iterable[tuple[Any, ...]]) -> None:
        del statement, arguments
        raise PermissionError("the directory is read-only")

    def transaction(self) -> AbstractContextManager[None]:
        raise PermissionError("the directory is read-only")

    def close(self) -> None:
        self._connection.close()


def _connect(directory: Path, options: str | None = None) -> sqlite3.Connection:
    """Connect to a directory's database, if it is one of this library or does not exist yet."""
    for name in _DATABASE_FILES:
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISREG(os.lstat(directory / name).st_mode):
                raise ForeignDatabaseError(f"its {name} is no regular file: {_ADVICE}")
    path = directory / DATABASE_NAME
    connection = sqlite3.connect(
        str(path) if options is None else f"{path.as_uri()}{options}",
        timeout=_BUSY_TIMEOUT_S,
        isolation_level=None,
        uri=options is not None,
        check_same_thread=options is None,
    )
    try:
        connection.set_authorizer(_authorize)
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
        _check_schema(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _check_schema(connection: sqlite3.Connection) -> None:
    for name, sql in _rows(connection, "SELECT name, sql FROM sqlite_master"):
        if name not in SCHEMA or sql != SCHEMA[name]:
            raise ForeignDatabaseError(f"its {DATABASE_NAME} has a {name!r} of another program: {_ADVICE}")


def _authorize(action: int, first: str | None, second: str | None, _: str | None, source: str | None) -> int:
    """Tell SQLite whether a statement may perform an action.

    SQLite asks again whenever the schema has changed. So a trigger that another process adds while the
    database is open is not executed either.

    Args:
        action: What would be done.
        first: What it would be done to; its meaning depends on the action.
        second: More of that.
        source: The trigger or view that the action is part of.
    """
    if source is None:
        is_allowed = action not in _REFUSED_ACTIONS
    else:
        is_allowed = source in TRIGGERS and (
            action == sqlite3.SQLITE_READ
            or (action == sqlite3.SQLITE_UPDATE and (first, second) == ("Settings", "value"))
        )
    return sqlite3.SQLITE_OK if is_allowed else sqlite3.SQLITE_DENY


def _drop_foreign_settings(connection: sqlite3.Connection) -> None:
    """Drop the settings that diskcache does not know, so that it cannot obey them."""
    counters = list(COUNTER_SETTINGS)
    known = (json.dumps([*SETTING_NAMES, *counters]), json.dumps(counters))
    with contextlib.suppress(sqlite3.OperationalError):  # The table does not exist yet.
        if _rows(connection, f"SELECT 1 FROM Settings WHERE {_FOREIGN_SETTINGS} LIMIT 1", known):
            connection.execute(f"DELETE FROM Settings WHERE {_FOREIGN_SETTINGS}", known)
            # A negative size makes the store add up the sizes of all entries.
            connection.execute("INSERT OR IGNORE INTO Settings VALUES ('size', -1)")


def _rows(connection: sqlite3.Connection, statement: str, arguments: Any = ()) -> list[tuple[Any, ...]]:
    try:
        return connection.execute(statement, arguments).fetchall()
    except sqlite3.OperationalError as error:
        if "decode" not in str(error):
            raise
    # Forged strings need not be UTF-8. This factory is slower, so it is used only when it is needed.
    connection.text_factory = _decode
    try:
        return connection.execute(statement, arguments).fetchall()
    finally:
        connection.text_factory = str


def _decode(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw
