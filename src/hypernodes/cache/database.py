"""The SQLite database of a cache, opened so that nothing in it acts by itself.

Whoever can write to the directory can write the database: triggers and views that run inside this library's
statements, links to other databases. So the schema must be exactly the known one, and an authorizer refuses
all other actions.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import sqlite3
import stat
import threading
from typing import TYPE_CHECKING, Any, Final, NoReturn

from hypernodes.cache.fork_gate import SQLITE
from hypernodes.cache.schema import DATABASE_NAME, KNOWN, SCHEMA, SETTINGS, TRIGGERS
from hypernodes.cache.summary import printable
from hypernodes.text import short

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

_DATABASE_FILES: Final = tuple(f"{DATABASE_NAME}{suffix}" for suffix in ("", "-wal", "-shm", "-journal"))
_WRITE_TIMEOUT_S: Final = 60.0
"""A write waits for so long for the transaction of another process."""
_READ_TIMEOUT_S: Final = 10.0
"""Reading waits for no transaction, only while another process recovers or converts the database."""
_SET_UP: Final = (
    "PRAGMA trusted_schema = OFF",
    "PRAGMA cell_size_check = ON",
    "PRAGMA cache_size = 8192",  # pages
    "PRAGMA mmap_size = 0",  # Truncating a mapped file would end this process.
    "PRAGMA synchronous = NORMAL",
)
_REFUSED_ACTIONS: Final = frozenset(
    {sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH, sqlite3.SQLITE_CREATE_VTABLE}
)
_LOCKED: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


class ForeignDatabaseError(sqlite3.DatabaseError):
    """A database that is damaged, or that another program has created or changed."""


class Database:
    """The database of a directory, with one connection for each thread; both are created if need be."""

    def __init__(self, directory: Path, indexes: Mapping[str, str]) -> None:
        self._directory = directory
        self._options: str | None = None
        self._local = threading.local()
        # A directory that another thread creates meanwhile must not be taken for a read-only one.
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(directory, os.W_OK) and database_inode(directory) is not None:
            self._options = self._read_only_options()
            return
        with contextlib.suppress(FileExistsError):
            # SQLite gives its other files the rights of this one.
            os.close(os.open(directory / DATABASE_NAME, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
        if is_new := not SCHEMA.keys() <= self._names():
            self.rows("PRAGMA auto_vacuum = FULL")  # It must be set before there are tables.
        # In another mode reading waits for transactions, but the mode of a database in use cannot be changed.
        with (
            SQLITE,
            contextlib.suppress(sqlite3.OperationalError),
            _waiting(self._connection, _WRITE_TIMEOUT_S if is_new else 0),
        ):
            self.rows("PRAGMA journal_mode = WAL")
        if is_new:
            self._complete(SCHEMA, _WRITE_TIMEOUT_S)
        if indexes and not indexes.keys() <= self._names():
            with contextlib.suppress(sqlite3.OperationalError):  # Indexes only save time.
                self._complete(indexes, 0)

    def _complete(self, schema: Mapping[str, str], timeout_s: float) -> None:
        """Create what the database lacks."""
        with self.transaction(timeout_s):
            present = self._names()
            for name, statement in schema.items():
                if name not in present:
                    self.rows(statement)
            self.execute_many("INSERT OR IGNORE INTO Settings VALUES (?, ?)", SETTINGS.items())

    def _names(self) -> set[str]:
        return {name for (name,) in self.rows("SELECT name FROM sqlite_master")}

    def _read_only_options(self) -> str:
        """Return the options with which a database can be read in a directory that cannot be written to."""
        # Without a file for its locks, SQLite reads only a database that is declared immutable.
        for options in ("?mode=ro", "?mode=ro&immutable=1"):
            with (
                SQLITE,
                contextlib.suppress(sqlite3.OperationalError),
                contextlib.closing(_connect(self._directory, options)) as connection,
            ):
                connection.execute("SELECT 1 FROM Cache LIMIT 1").fetchone()
                return options
        raise PermissionError(f"{self._directory / DATABASE_NAME} can be neither written nor read")

    @property
    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = _connect(self._directory, self._options)
        return connection

    def rows(self, statement: str, arguments: Any = ()) -> list[tuple[Any, ...]]:
        """Return the rows that a statement finds; a string that is not UTF-8 is returned as bytes."""
        try:
            with SQLITE:
                return _rows(self._connection, statement, arguments)
        except sqlite3.DatabaseError as error:
            self._raise(error)

    def execute_many(self, statement: str, arguments: Iterable[tuple[Any, ...]]) -> None:
        """Execute a statement for each tuple of arguments."""
        try:
            with SQLITE:
                self._connection.executemany(statement, arguments)
        except sqlite3.DatabaseError as error:
            self._raise(error)

    @contextlib.contextmanager
    def transaction(self, timeout_s: float = _WRITE_TIMEOUT_S) -> Iterator[None]:
        """Return a context in which all writes take effect together or not at all."""
        if self._options is not None:
            raise PermissionError("the directory is read-only")
        try:
            with SQLITE, _waiting(self._connection, timeout_s) as connection:
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield
                    connection.execute("COMMIT")
                finally:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
        except sqlite3.DatabaseError as error:
            self._raise(error)

    def _raise(self, error: sqlite3.DatabaseError) -> NoReturn:
        """Raise an error of SQLite, with advice if it means that the database is damaged."""
        if type(error) is sqlite3.DatabaseError:
            raise ForeignDatabaseError(
                f"its {DATABASE_NAME} is damaged ({printable(str(error))}): {_advice(self._directory)}"
            ) from error
        raise error

    def leave_thread(self) -> None:
        """Close the connection of a thread that is about to end.

        Python's own cache of statements refers to the connection, so that otherwise the garbage collector
        closes it.
        """
        connection = self._local.__dict__.pop("connection", None)
        if connection is not None:
            with SQLITE:
                connection.close()

    def close(self) -> None:
        """Close the connections; those of other threads, when these do not use them any more."""
        connection = getattr(self._local, "connection", None)
        self._local = threading.local()
        if connection is not None:
            with SQLITE:
                connection.close()


def is_locked(error: Exception) -> bool:
    """Return whether an error says that another process is writing to the database."""
    return getattr(error, "sqlite_errorcode", None) in _LOCKED


def database_inode(directory: Path) -> int | None:
    """Return the inode of a directory's database file; ``None`` if there is none."""
    try:
        return os.lstat(directory / DATABASE_NAME).st_ino
    except FileNotFoundError:
        return None


def database_files(directory: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Iterate over the files of a directory's database, whatever they are, with their state."""
    for name in _DATABASE_FILES:
        with contextlib.suppress(FileNotFoundError):
            yield directory / name, os.lstat(directory / name)


def remove_database(directory: Path) -> None:
    """Remove the files of a directory's database, whatever they are. Links are not followed."""
    for path, state in database_files(directory):
        if stat.S_ISDIR(state.st_mode):
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _waiting(connection: sqlite3.Connection, seconds: float) -> Iterator[sqlite3.Connection]:
    """Return a context in which statements wait so long for other processes."""
    connection.execute(f"PRAGMA busy_timeout = {seconds * 1000:.0f}")
    try:
        yield connection
    finally:
        connection.execute(f"PRAGMA busy_timeout = {_READ_TIMEOUT_S * 1000:.0f}")


class SelfClosingConnection(sqlite3.Connection):
    """A connection that is closed when the thread that uses it ends."""

    def __del__(self) -> None:
        with SQLITE, contextlib.suppress(sqlite3.Error):  # The file could not be opened.
            self.close()


def _connect(directory: Path, options: str | None) -> sqlite3.Connection:
    """Connect to a directory's database, if it is one of this library or is empty."""
    for path, state in database_files(directory):
        if not stat.S_ISREG(state.st_mode):
            raise ForeignDatabaseError(f"its {path.name} is no regular file: {_advice(directory)}")
    path = directory / DATABASE_NAME
    connection = sqlite3.connect(
        str(path) if options is None else f"{path.as_uri()}{options}",
        timeout=_READ_TIMEOUT_S,
        isolation_level=None,
        factory=SelfClosingConnection,
        uri=options is not None,
        check_same_thread=False,
    )
    try:
        connection.set_authorizer(_authorize)
        for statement in _SET_UP:
            connection.execute(statement)
        _check_schema(connection, directory)
    except BaseException:
        connection.close()
        raise
    return connection


def _check_schema(connection: sqlite3.Connection, directory: Path) -> None:
    for name, sql in _rows(connection, "SELECT name, sql FROM sqlite_master"):
        if name not in KNOWN or sql != KNOWN[name]:
            raise ForeignDatabaseError(
                f"its {DATABASE_NAME} has a {short(name)} of another program: {_advice(directory)}"
            )
    if _rows(connection, "PRAGMA encoding") != [("UTF-8",)]:  # The names of files would have other lengths.
        raise ForeignDatabaseError(f"its {DATABASE_NAME} has another encoding: {_advice(directory)}")


def _advice(directory: Path) -> str:
    command = f"hypernodes cache --path {shlex.quote(str(directory))} clear"
    return f"run '{command}', or delete the directory, and it is made anew"


def _authorize(action: int, first: str | None, second: str | None, _: str | None, source: str | None) -> int:
    """Tell SQLite whether a statement may perform an action.

    SQLite asks again whenever the schema has changed. So a trigger that another process adds while the
    database is open is not executed either.
    """
    if source is None:
        is_allowed = action not in _REFUSED_ACTIONS
    else:
        is_allowed = source in TRIGGERS and (
            action == sqlite3.SQLITE_READ
            or (action == sqlite3.SQLITE_UPDATE and (first, second) == ("Settings", "value"))
        )
    return sqlite3.SQLITE_OK if is_allowed else sqlite3.SQLITE_DENY


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
