"""Marks at a Ray cluster of the calls that are running: those of a process that has died stay.

If a process dies, Daft's Ray runner starts another one and gives it the same rows, without end. A call that
finds marks knows that processes have died of its rows.
"""

from __future__ import annotations

import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hypernodes._compat.ray import add_mark, remove_marks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daft import Series


class CallMarks:
    """The marks of one query, whose rows are given to a process so many times."""

    def __init__(self, attempts: int) -> None:
        self._query = secrets.token_hex(8)
        self._attempts = attempts

    @contextmanager
    def around(self, udf: int, positions: Series) -> Iterator[bool]:
        """Leave a mark while a call of a UDF runs; the context is whether it may run."""
        if not len(positions):
            yield True
            return
        key = f"{self._query}:{udf}:{positions.to_arrow()[0].as_py()};"
        marks = add_mark(key)
        try:
            yield marks < self._attempts
        finally:
            remove_marks(key)

    def clear(self) -> None:
        """Remove all marks, since the query has ended."""
        remove_marks(f"{self._query}:")
