"""diskcache's tables, connections and transactions, without its handling of keys, values, files and settings.

Whoever can write to a cache's directory can write its database. diskcache trusts the database: it runs the
pragmas that the table of settings names, unpickles keys and values, and removes files that rows name. So
`Tables` overrides these parts, which are private.

diskcache 5.6.3, of 2023, is its last release. tests/test_compat_diskcache.py tests each symbol used here.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any, Final, NoReturn

from diskcache.core import DEFAULT_SETTINGS, ENOVAL, METADATA, MODE_BINARY, MODE_RAW

if TYPE_CHECKING:
    import sqlite3
    import threading
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    class _Cache:
        """The part of `diskcache.Cache` that is used."""

        _local: threading.local

        def __init__(self, directory: str, timeout: float, disk: type, **settings: Any) -> None: ...
        def reset(self, key: str, value: Any = ..., *, update: bool = ...) -> Any: ...
        def transact(self) -> AbstractContextManager[None]: ...
        def close(self) -> None: ...

    class _Disk:
        """The part of `diskcache.Disk` that is used."""

else:
    from diskcache import Cache as _Cache
    from diskcache import Disk as _Disk

DATABASE_NAME: Final = "cache.db"
SMALL_VALUE_MODE: Final[int] = MODE_RAW
"""The mode of rows that hold bytes."""
FILE_MODE: Final[int] = MODE_BINARY
"""The mode of rows that name a file."""
COUNTER_SETTINGS: Final[tuple[str, ...]] = tuple(METADATA)
"""The keys in the table of settings under which diskcache counts entries, bytes and hits."""
SETTING_NAMES: Final[frozenset[str]] = frozenset(DEFAULT_SETTINGS)
"""The other keys in the table of settings."""

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


TRIGGERS: Final = {
    "Settings_count_insert": _trigger("count", "INSERT", "+ 1"),
    "Settings_count_delete": _trigger("count", "DELETE", "- 1"),
    "Settings_size_insert": _trigger("size", "INSERT", "+ NEW.size"),
    "Settings_size_update": _trigger("size", "UPDATE", "+ NEW.size - OLD.size"),
    "Settings_size_delete": _trigger("size", "DELETE", "- OLD.size"),
}
"""The triggers that diskcache creates: their names, and the SQL as SQLite stores it."""
SCHEMA: Final[dict[str, str | None]] = {
    "Settings": "CREATE TABLE Settings ( key TEXT NOT NULL UNIQUE, value)",
    "sqlite_autoindex_Settings_1": None,
    "Cache": f"CREATE TABLE Cache ( {_COLUMNS})",
    "Cache_key_raw": "CREATE UNIQUE INDEX Cache_key_raw ON Cache(key, raw)",
    "Cache_expire_time": "CREATE INDEX Cache_expire_time ON Cache (expire_time)",
    "Cache_store_time": "CREATE INDEX Cache_store_time ON Cache (store_time)",
    "Cache_access_time": "CREATE INDEX Cache_access_time ON Cache (access_time)",
    "Cache_tag_rowid": "CREATE INDEX Cache_tag_rowid ON Cache(tag, rowid)",
    **TRIGGERS,
}
"""Everything that diskcache creates in a database: names, and the SQL as SQLite stores it."""


class Tables(_Cache):
    """The tables of a cache, with connections that are made and set up by the caller alone.

    Every setting has a fixed value, whatever the database says.
    """

    def __init__(
        self,
        directory: Path,
        *,
        connect: Callable[[], sqlite3.Connection],
        settings: Mapping[str, Any],
        busy_timeout: float,
    ) -> None:
        if missing := SETTING_NAMES.difference(settings):
            raise TypeError(f"no value for the settings {', '.join(sorted(missing))} of diskcache")
        self._connect = connect
        self._fixed_settings = dict(settings)
        super().__init__(str(directory), timeout=busy_timeout, disk=_RefusingDisk, **settings)

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection of the current thread."""
        return self._con

    @property
    def _con(self) -> sqlite3.Connection:
        """The connection of the current thread. diskcache's own would run the pragmas in the database."""
        local, pid = self._local, os.getpid()
        if getattr(local, "pid", None) != pid:  # The process was forked: connections cannot be shared.
            self.close()
            local.pid = pid
        connection: sqlite3.Connection | None = getattr(local, "con", None)
        if connection is None:
            connection = local.con = self._connect()
            for key in self._fixed_settings:
                if key.startswith("sqlite_"):
                    self.reset(key, update=False)
        return connection

    def reset(self, key: str, value: Any = ENOVAL, **options: bool) -> Any:
        """Set a setting to its fixed value, read a counter, and ignore all other keys."""
        if key in self._fixed_settings:
            return super().reset(key, self._fixed_settings[key], **options)
        return super().reset(key, ENOVAL) if key in COUNTER_SETTINGS else value


def _refuse(*_: object, **__: object) -> NoReturn:
    raise OSError(errno.EPERM, "diskcache must not handle keys, values and files here")


class _RefusingDisk(_Disk):
    """Refuses what diskcache does with keys, values and files: it would unpickle and remove them."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    hash = put = get = store = fetch = filename = remove = _refuse
