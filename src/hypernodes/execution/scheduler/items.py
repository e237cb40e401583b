"""Where the items of a map come from, and where its rows go."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class Rows(Protocol):
    """Where the rows of a map go."""

    @property
    def is_stream(self) -> bool:
        """Whether rows are handed out as they come, so that only a bounded number of items may be here."""

    @property
    def waiting(self) -> int:
        """How many rows have not been taken yet."""

    def put(self, position: int, row: Any) -> None:
        """Take the row of the item at a position."""

    def all(self) -> list[Any]:
        """Return the rows that are kept."""


class CollectedRows:
    """Rows that are kept until the map is done.

    Args:
        total: How many there will be.
    """

    is_stream = False
    waiting = 0

    def __init__(self, total: int) -> None:
        self._rows: list[Any] = [None] * total

    def put(self, position: int, row: Any) -> None:
        """Keep a row."""
        self._rows[position] = row

    def all(self) -> list[Any]:
        """Return all rows."""
        return self._rows


class StreamedRows:
    """Rows that are handed out as they come, and not kept.

    Args:
        in_order: Whether a row waits for those before it.
    """

    is_stream = True

    def __init__(self, *, in_order: bool) -> None:
        self._in_order = in_order
        self._next = 0
        self._early: dict[int, Any] = {}
        self._ready: deque[tuple[int, Any]] = deque()

    def put(self, position: int, row: Any) -> None:
        """Take a row."""
        if not self._in_order:
            self._ready.append((position, row))
            return
        self._early[position] = row
        while self._next in self._early:
            self._ready.append((self._next, self._early.pop(self._next)))
            self._next += 1

    def take(self) -> Iterator[tuple[int, Any]]:
        """Hand out the rows that are ready."""
        while self._ready:
            yield self._ready.popleft()

    @property
    def waiting(self) -> int:
        """How many rows are here."""
        return len(self._ready) + len(self._early)

    def all(self) -> list[Any]:
        """Return nothing: streamed rows are not kept."""
        return []


class ItemSource:
    """The items of a map, by position: drawn all at once, or as there is room for them.

    Args:
        items: A sequence, or an iterator of unknown length.
        indices: The index of each item in its map, where these items are a chunk of one.

    Attributes:
        total: How many items there are, if that is known.
        drawn: How many have been drawn.
        is_exhausted: Whether all have been drawn.
    """

    def __init__(
        self,
        items: Sequence[Mapping[str, Any]] | Iterator[Mapping[str, Any]],
        indices: Sequence[int] | None = None,
    ) -> None:
        self.total = len(items) if isinstance(items, Sequence) else None
        self.drawn = 0
        self.is_exhausted = False
        self._source = iter(items)
        self._indices = indices
        self._items: dict[int, Mapping[str, Any]] = {}

    def draw(self, room: int | None) -> range:
        """Draw items, and return their positions.

        Args:
            room: How many items there is room for; ``None`` for all.
        """
        first = self.drawn
        if self.is_exhausted or (room is not None and room <= 0):
            return range(first, first)
        for item in islice(self._source, room):
            self._items[self.drawn] = item
            self.drawn += 1
        self.is_exhausted = room is None or self.drawn - first < room
        return range(first, self.drawn)

    def index(self, position: int) -> int:
        """Return the index of an item in its map."""
        return position if self._indices is None else self._indices[position]

    def drop(self, position: int) -> None:
        """Forget an item, which has a row now."""
        del self._items[position]

    def __getitem__(self, position: int) -> Mapping[str, Any]:
        return self._items[position]

    def __len__(self) -> int:
        """Return how many items have been drawn and have no row yet."""
        return len(self._items)
