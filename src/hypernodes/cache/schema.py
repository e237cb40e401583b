"""The tables of a cache's database. They are those of diskcache 5.6, which nothing here needs at run time.

diskcache itself trusts a database: it runs the pragmas that the table of settings names, unpickles keys and
values, and removes files that rows name. Whoever can write to the directory of a cache could use that.
"""

from __future__ import annotations

from typing import Any, Final

DATABASE_NAME: Final = "cache.db"
SMALL_VALUE_MODE: Final = 1
"""The mode of rows that hold bytes."""
FILE_MODE: Final = 2
"""The mode of rows that name a file."""
SETTINGS: Final[dict[str, Any]] = {
    "count": 0,
    "size": 0,
    "hits": 0,
    "misses": 0,
    "statistics": 0,
    "tag_index": 1,
    "eviction_policy": "none",
    "size_limit": 1 << 62,
    "cull_limit": 0,
    "sqlite_auto_vacuum": 1,
    "sqlite_cache_size": 1 << 13,
    "sqlite_journal_mode": "wal",
    "sqlite_mmap_size": 0,
    "sqlite_synchronous": 1,
    "disk_min_file_size": 0,
    "disk_pickle_protocol": 0,
}
"""The rows of a new table of settings. Only the triggers and the sum of sizes use it. A program that opens
the directory with diskcache finds settings with which it drops nothing."""

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
"""The triggers that count entries and bytes."""
SCHEMA: Final = {
    "Settings": "CREATE TABLE Settings ( key TEXT NOT NULL UNIQUE, value)",
    "Cache": f"CREATE TABLE Cache ( {_COLUMNS})",
    "Cache_key_raw": "CREATE UNIQUE INDEX Cache_key_raw ON Cache(key, raw)",
    "Cache_expire_time": "CREATE INDEX Cache_expire_time ON Cache (expire_time)",
    "Cache_tag_rowid": "CREATE INDEX Cache_tag_rowid ON Cache(tag, rowid)",
    **TRIGGERS,
}
"""What every database has: names, and the SQL as SQLite stores it."""
USE_INDEX: Final = {"Cache_access_time": "CREATE INDEX Cache_access_time ON Cache (access_time)"}
"""The index by the time of last use, which caches with a size limit have."""
IS_UNPUSHED: Final = "access_count = 1"
"""SQL: whether a row is still to be written to the remote tier. diskcache has this column for a policy of
eviction that is not used here."""
PUSH_INDEX: Final = {"Cache_unpushed": f"CREATE INDEX Cache_unpushed ON Cache (rowid) WHERE {IS_UNPUSHED}"}
"""The index of the rows that are still to be written to the remote tier."""
KNOWN: Final[dict[str, str | None]] = {
    **SCHEMA,
    **USE_INDEX,
    **PUSH_INDEX,
    "sqlite_autoindex_Settings_1": None,
    "Cache_store_time": "CREATE INDEX Cache_store_time ON Cache (store_time)",
}
"""Everything that a database may have."""
