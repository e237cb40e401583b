"""The SQLite database of a cache, as diskcache lays it out, opened so that nothing in it acts by itself.

Who can write to the directory can write the database, too: settings that diskcache would take for its own
(the folder of its files, any pragma), triggers and views that run within this library's statements, a link
to another database. What diskcache reads there is replaced by what is set here, and the schema must be
the one that diskcache makes, to the letter.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sqlite3
import stat
from typing import TYPE_CHECKING, Any, Final, NoReturn

import diskcache
from diskcache.core import ENOVAL, METADATA

if TYPE_CHECKING:
    from pathlib import Path

_NAME: Final = "cache.db"
_ITS_FILES: Final = (_NAME, f"{_NAME}-wal", f"{_NAME}-shm", f"{_NAME}-journal")
_BUSY_TIMEOUT: Final = 60.0  # seconds that a writer waits for another process's transaction
_NO_LIMIT: Final = 1 << 62  # bytes

_SETTINGS: Final[dict[str, Any]] = {
    "statistics": 0,  # a write for every read
    "tag_index": 1,  # for what is asked by node
    "eviction_policy": "none",
    "size_limit": _NO_LIMIT,
    "cull_limit": 0,  # it goes by the size of the database file, which shrinks only after a transaction
    "sqlite_auto_vacuum": 1,
    "sqlite_cache_size": 1 << 13,  # pages
    "sqlite_journal_mode": "wal",
    "sqlite_mmap_size": 0,  # a mapped file that somebody cuts off ends the process
    "sqlite_synchronous": 1,
    "disk_min_file_size": 0,
    "disk_pickle_protocol": 0,
}

_COLUMNS: Final = (
    "rowid INTEGER PRIMARY KEY, key BLOB, raw INTEGER, store_time REAL, expire_time REAL, access_time REAL,"
    " access_count INTEGER DEFAULT 0, tag BLOB, size INTEGER DEFAULT 0, mode INTEGER DEFAULT 0,"
    " filename TEXT, value BLOB"
)


def _trigger(name: str, event: str, change: str) -> str:
    return (
        f"CREATE TRIGGER Settings_{name}_{event.lower()} AFTER {event} ON Cache FOR EACH ROW BEGIN"
        f' UPDATE Settings SET value = value {change} WHERE key = "{name}"; END'
    )


_TRIGGERS: Final = {
    "Settings_count_insert": _trigger("count", "INSERT", "+ 1"),
    "Settings_count_delete": _trigger("count", "DELETE", "- 1"),
    "Settings_size_insert": _trigger("size", "INSERT", "+ NEW.size"),
    "Settings_size_update": _trigger("size", "UPDATE", "+ NEW.size - OLD.size"),
    "Settings_size_delete": _trigger("size", "DELETE", "- OLD.size"),
}
_SCHEMA: Final = {
    "Settings": "CREATE TABLE Settings ( key TEXT NOT NULL UNIQUE, value)",
    "sqlite_autoindex_Settings_1": None,
    "Cache": f"CREATE TABLE Cache ( {_COLUMNS})",
    "Cache_key_raw": "CREATE UNIQUE INDEX Cache_key_raw ON Cache(key, raw)",
    "Cache_expire_time": "CREATE INDEX Cache_expire_time ON Cache (expire_time)",
    "Cache_store_time": "CREATE INDEX Cache_store_time ON Cache (store_time)",
    "Cache_access_time": "CREATE INDEX Cache_access_time ON Cache (access_time)",
    "Cache_tag_rowid": "CREATE INDEX Cache_tag_rowid ON Cache(tag, rowid)",
    **_TRIGGERS,
}
_FOREIGN_SETTINGS: Final = (
    "typeof(key) <> 'text' OR key NOT IN (SELECT value FROM json_each(?)) "
    "OR (key IN (SELECT value FROM json_each(?)) AND typeof(value) <> 'integer')"
)


class ForeignDatabaseError(sqlite3.DatabaseError):
    """A database that is not as this library makes it."""


class Database(diskcache.Cache):  # type: ignore[misc]
    """A database that can be written to: diskcache's tables, connections and transactions.

    Its keys and values are not: they are what can be unpickled, and what names files.

    Args:
        path: The directory.
        by_use: Whether there is an index on when entries were last used.
    """

    def __init__(self, path: Path, *, by_use: bool) -> None:
        self._path = path
        policy = "least-recently-used" if by_use else "none"
        self._own: dict[str, Any] = {**_SETTINGS, "eviction_policy": policy}
        if os.path.lexists(path / _NAME):
            with contextlib.closing(_connected(path)) as connection:
                _drop_foreign_settings(connection)
        super().__init__(str(path), timeout=_BUSY_TIMEOUT, disk=_NoDisk, **self._own)

    @property
    def _con(self) -> sqlite3.Connection:
        """The connection of this thread; diskcache's own would run the pragmas that the settings name."""
        local, pid = self._local, os.getpid()
        if getattr(local, "pid", None) != pid:
            self.close()
            local.pid = pid
        connection: sqlite3.Connection | None = getattr(local, "con", None)
        if connection is None:
            connection = local.con = _connected(self._path)
            for key in self._own:
                if key.startswith("sqlite_"):
                    self.reset(key, update=False)
        return connection

    def reset(self, key: str, value: Any = ENOVAL, update: bool = True) -> Any:  # noqa: FBT001, FBT002
        """Set what this library sets, whatever the database says, and nothing else."""
        if key in self._own:
            return super().reset(key, self._own[key], update)
        return super().reset(key, ENOVAL) if key in METADATA else value

    def rows(self, statement: str, arguments: Any = ()) -> list[tuple[Any, ...]]:
        """Return what a query finds; a text that is no UTF-8 is given as bytes."""
        return _rows(self._con, statement, arguments)


class ReadOnlyDatabase:
    """A database in a directory in which one may not write."""

    def __init__(self, path: Path) -> None:
        self._con = self._readable(path)

    def _readable(self, path: Path) -> sqlite3.Connection:
        # Without a file for its locks SQLite reads only what nobody can change.
        for options in ("?mode=ro", "?mode=ro&immutable=1"):
            try:
                connection = _connected(path, options)
            except sqlite3.OperationalError:
                continue
            try:
                connection.execute("SELECT 1 FROM Cache LIMIT 1").fetchone()
            except sqlite3.OperationalError:
                connection.close()
            else:
                return connection
        raise PermissionError(f"{path / _NAME} can be neither written nor read")

    def rows(self, statement: str, arguments: Any = ()) -> list[tuple[Any, ...]]:
        """Return what a query finds; a text that is no UTF-8 is given as bytes."""
        return _rows(self._con, statement, arguments)

    def __getattr__(self, name: str) -> Any:
        raise PermissionError("the directory may only be read")

    def close(self) -> None:
        """Close the files."""
        self._con.close()


def file_number(path: Path) -> int | None:
    """Return the number of the file that holds a directory's database; ``None`` if there is none."""
    try:
        return os.lstat(path / _NAME).st_ino
    except FileNotFoundError:
        return None


def _connected(path: Path, options: str | None = None) -> sqlite3.Connection:
    """Connect to a directory's database, if it is one of this library, or to a new one."""
    for name in _ITS_FILES:
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISREG(os.lstat(path / name).st_mode):
                raise ForeignDatabaseError(f"its {name} is no regular file: {_WHAT_TO_DO}")
    connection = sqlite3.connect(
        str(path / _NAME) if options is None else f"{path.as_uri()}/{_NAME}{options}",
        timeout=_BUSY_TIMEOUT,
        isolation_level=None,
        uri=options is not None,
        check_same_thread=options is None,
    )
    try:
        connection.set_authorizer(_permission)
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
        _check_schema(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _check_schema(connection: sqlite3.Connection) -> None:
    for name, made_by in _rows(connection, "SELECT name, sql FROM sqlite_master"):
        if name not in _SCHEMA or made_by != _SCHEMA[name]:
            raise ForeignDatabaseError(f"its {_NAME} has a {name!r} of another program: {_WHAT_TO_DO}")


_WHAT_TO_DO: Final = "delete the directory, and it is made anew"


def _permission(action: int, first: str | None, second: str | None, _: str | None, inside: str | None) -> int:
    """Say whether a statement may do something. SQLite asks again whenever the schema has changed.

    So what somebody adds while the database is open is not executed either.
    """
    if inside is None:
        is_fine = action not in _NEVER
    else:  # within a trigger or a view
        is_fine = inside in _TRIGGERS and (
            action == sqlite3.SQLITE_READ
            or (action == sqlite3.SQLITE_UPDATE and (first, second) == ("Settings", "value"))
        )
    return sqlite3.SQLITE_OK if is_fine else sqlite3.SQLITE_DENY


_NEVER: Final = frozenset({sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH, sqlite3.SQLITE_CREATE_VTABLE})


def _drop_foreign_settings(connection: sqlite3.Connection) -> None:
    """Drop the settings that are none of diskcache's, so that it does not see them."""
    known = (json.dumps([*_SETTINGS, *METADATA]), json.dumps(list(METADATA)))
    with contextlib.suppress(sqlite3.OperationalError):  # the table is not made yet
        if _rows(connection, f"SELECT 1 FROM Settings WHERE {_FOREIGN_SETTINGS} LIMIT 1", known):
            connection.execute(f"DELETE FROM Settings WHERE {_FOREIGN_SETTINGS}", known)
            connection.execute("INSERT OR IGNORE INTO Settings VALUES ('size', -1)")  # to be counted anew


def _rows(connection: sqlite3.Connection, statement: str, arguments: Any = ()) -> list[tuple[Any, ...]]:
    try:
        return connection.execute(statement, arguments).fetchall()
    except sqlite3.OperationalError as error:
        if "decode" not in str(error):
            raise
    connection.text_factory = _text_or_bytes  # slower, and so not from the start
    try:
        return connection.execute(statement, arguments).fetchall()
    finally:
        connection.text_factory = str


def _text_or_bytes(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def _refused(*_: object, **__: object) -> NoReturn:
    raise OSError(errno.EPERM, "diskcache is given no keys, values and files here")


class _NoDisk(diskcache.Disk):  # type: ignore[misc]
    """diskcache's way to keys, values and files, closed: it unpickles, and removes what a row names."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    hash = put = get = store = fetch = filename = remove = _refused
