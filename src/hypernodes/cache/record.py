"""The records that a store is given, and the rows that it returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hypernodes.cache.entry import Blob


@dataclass(frozen=True, slots=True)
class Record:
    """Bytes to store under a key."""

    key: str
    tag: str | None  # the node that computed the value; ``None`` for a record that is not an entry
    pieces: Sequence[Blob]
    size: int  # of all pieces

    @classmethod
    def of(cls, key: str, tag: str | None, pieces: Sequence[Blob]) -> Self:
        """Return a record of pieces, with their size."""
        return cls(key, tag, pieces, sum([memoryview(piece).nbytes for piece in pieces]))


@dataclass(frozen=True, slots=True)
class Row:
    """A stored entry without its value."""

    key: str
    tag: str  # the node that computed the value
    size: int
    stored: float  # in seconds since the epoch
    used: float  # when it was last read; to the hour if the store has no limit
    head: bytes  # its first 64 KiB, or all of it if it is small
