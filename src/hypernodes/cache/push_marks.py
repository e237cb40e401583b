"""Which rows of a store are still to be written to its remote tier? Each row has a mark."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hypernodes.cache.entry import FOREIGN_BLOB
from hypernodes.cache.rows import IS_VALUE_ROW
from hypernodes.cache.schema import IS_UNPUSHED

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hypernodes.cache.entry import Blob
    from hypernodes.cache.store import Store

_IS_PENDING: Final = f"{IS_UNPUSHED} AND {IS_VALUE_ROW} AND (expire_time IS NULL OR expire_time > ?)"
_MAX_ROWS: Final = 50_000
"""Rows that are taken together; their keys are in memory."""


@dataclass(frozen=True, slots=True)
class UnpushedRow:
    """A row that is still to be written to the remote tier."""

    row_id: int
    stored: float
    key: str
    tag: str | None
    blob: Blob


class PushMarks:
    """The marks of the rows of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def has_unpushed(self) -> bool:
        """Return whether a row is to be written."""
        found = self._store._database.rows(f"SELECT 1 FROM Cache WHERE {_IS_PENDING} LIMIT 1", (time.time(),))
        return bool(found)

    def unpushed(
        self, stored_before: float, max_size: int, min_large: int, max_large_size: int
    ) -> list[UnpushedRow]:
        """Return rows that are to be written, up to some bytes of small and of large ones; at least one."""
        condition = f"{_IS_PENDING} AND store_time <= ?"
        times = (time.time(), stored_before)
        sizes = self._store._database.rows(
            f"SELECT rowid, size FROM Cache WHERE {condition} ORDER BY rowid LIMIT {_MAX_ROWS}", times
        )
        small = large = 0
        selected: list[int] = []
        for row_id, size in sizes:
            small, large = (small, large + size) if size >= min_large else (small + size, large)
            if selected and (small > max_size or large > max_large_size):
                break
            selected.append(row_id)
        found = self._store._database.rows(
            "SELECT rowid, store_time, key, tag, size, filename, value FROM Cache "
            f"WHERE rowid IN (SELECT value FROM json_each(?)) AND {condition} ORDER BY rowid",
            (json.dumps(selected), *times),
        )
        rows = []
        for row_id, stored, key, tag, size, filename, value in found:
            blob = value if filename is None else self._store._content(filename, size)
            is_text = isinstance(key, str) and (tag is None or isinstance(tag, str))
            rows.append(
                UnpushedRow(row_id, stored, key, tag, FOREIGN_BLOB if blob is None or not is_text else blob)
            )
        return rows

    def mark_pushed(self, rows: Iterable[UnpushedRow]) -> None:
        """Note that rows were written, unless they have other content since."""
        with self._store._database.transaction():
            self._store._database.execute_many(
                "UPDATE Cache SET access_count = 0 WHERE rowid = ? AND store_time = ?",
                [(row.row_id, row.stored) for row in rows],
            )

    def mark_unpushed(self, keys: Iterable[str]) -> None:
        """Have the rows with some keys written."""
        with self._store._database.transaction():
            self._store._database.rows(
                "UPDATE Cache SET access_count = 1 WHERE key IN (SELECT value FROM json_each(?)) "
                f"AND {IS_VALUE_ROW}",
                (json.dumps(list(keys)),),
            )

    def keys(self) -> list[str]:
        """Return the keys of all rows with a value."""
        found = self._store._database.rows(f"SELECT key FROM Cache WHERE {IS_VALUE_ROW}")
        return [key for (key,) in found if isinstance(key, str)]
