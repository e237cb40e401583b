"""The records that a store is given, and the rows that it returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hypernodes.cache.entry import Blob


@dataclass(frozen=True, slots=True)
class Record:
    """Bytes to store under a key.

    Attributes:
        key: The key.
        tag: The node that computed the value; ``None`` for a record that is not an entry.
        pieces: The bytes, in pieces.
        size: The number of all bytes.
    """

    key: str
    tag: str | None
    pieces: Sequence[Blob]
    size: int

    @classmethod
    def of(cls, key: str, tag: str | None, pieces: Sequence[Blob]) -> Self:
        """Return a record of pieces, with their size."""
        return cls(key, tag, pieces, sum([memoryview(piece).nbytes for piece in pieces]))


@dataclass(frozen=True, slots=True)
class Row:
    """A stored entry without its value.

    Attributes:
        key: The key.
        tag: The node that computed the value.
        size: The number of bytes.
        stored: The time when it was written, in seconds since the epoch.
        used: The time when it was last read; to the hour if the store has no limit.
        head: Its first 64 KiB, or all of it if it is small.
    """

    key: str
    tag: str
    size: int
    stored: float
    used: float
    head: bytes
