"""Marks at a Ray cluster of the calls that are running: those of a process that has died stay.

If a process dies, Daft's Ray runner starts another one and gives it the same rows, without end. A call that
finds marks knows that processes have died of its rows.
"""

from __future__ import annotations

import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from hypernodes._compat.ray import add_mark, remove_marks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daft import Series


MAX_ATTEMPTS: Final = 2
"""How often a UDF is called with a single item whose process ends each time.

The items of a map that ends a process are tried again in parts, so that a call with them is made once.
"""


class CallMarks:
    """The marks of one query, over so many items if that is known."""

    def __init__(self, items: int | None) -> None:
        self._query = secrets.token_hex(8)
        self._attempts = MAX_ATTEMPTS if items == 1 else 1

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
