"""Where the items of a map come from, and where its rows go."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SMALL_TYPES: Final = frozenset({int, float, bool, type(None), complex})
"""Types whose values take no memory to speak of; that they are not asked saves a third of a look at a row."""
SAMPLE: Final = 16
"""How many elements of a collection are asked for their size, which stand for all of them."""
MAX_DEPTH: Final = 4
"""How deep in collections is looked for large values."""


def size_of(values: Any, depth: int = 0) -> int:
    """Return about how many bytes the values of an item or a row have: arrays, texts, collections of them.

    >>> size_of({"x": bytes(1000)}) > 1000, size_of({"x": [bytes(1000)] * 100}) > 100_000
    (True, True)
    """
    if type(values) is dict:
        values = values.values()
    elif type(values) is not list and type(values) is not tuple:
        return 0
    total = 0
    for value in values if len(values) <= SAMPLE else islice(values, SAMPLE):
        kind = type(value)
        if kind in SMALL_TYPES:
            continue
        try:
            total += max(sys.getsizeof(value), int(getattr(value, "nbytes", 0)))
        except Exception:  # an object whose methods raise
            continue
        if depth < MAX_DEPTH and (kind is list or kind is tuple or kind is dict):
            total += size_of(value, depth + 1)
    return total if len(values) <= SAMPLE else total * len(values) // SAMPLE


class Rows(Protocol):
    """Where the rows of a map go."""

    @property
    def is_stream(self) -> bool:
        """Whether rows are handed out as they come, so that only a bounded number of items may be here."""

    @property
    def waiting(self) -> int:
        """How many rows have not been taken yet."""

    @property
    def nbytes(self) -> int:
        """About how many bytes these rows have, of a stream."""

    def put(self, position: int, row: Any) -> None:
        """Take the row of the item at a position."""

    def all(self) -> list[Any]:
        """Return the rows that are kept."""


class CollectedRows:
    """Rows that are kept until the map is done."""

    is_stream = False
    waiting = 0
    nbytes = 0

    def __init__(self, total: int) -> None:
        self._rows: list[Any] = [None] * total

    def put(self, position: int, row: Any) -> None:
        """Keep a row."""
        self._rows[position] = row

    def all(self) -> list[Any]:
        """Return all rows."""
        return self._rows


class StreamedRows:
    """Rows that are handed out as they come, and not kept."""

    is_stream = True

    def __init__(self, *, in_order: bool) -> None:
        self._in_order = in_order
        self.nbytes = 0
        self._sizes: dict[int, int] = {}
        self._next = 0
        self._early: dict[int, Any] = {}
        self._ready: deque[tuple[int, Any]] = deque()

    def put(self, position: int, row: Any) -> None:
        """Take a row."""
        if size := size_of(row):
            self._sizes[position] = size
            self.nbytes += size
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
            if self._sizes:
                self.nbytes -= self._sizes.pop(self._ready[0][0], 0)
            yield self._ready.popleft()

    @property
    def waiting(self) -> int:
        """How many rows are here."""
        return len(self._ready) + len(self._early)

    def all(self) -> list[Any]:
        """Return nothing: streamed rows are not kept."""
        return []


class ItemSource:
    """The items of a map, by position: drawn all at once, or as there is room for them."""

    def __init__(
        self,
        items: Sequence[Mapping[str, Any]] | Iterator[Mapping[str, Any]],
        indices: Sequence[int] | None = None,
    ) -> None:
        self.total = len(items) if isinstance(items, Sequence) else None  # if it is known
        self.drawn = 0  # how many have been drawn
        self.is_exhausted = False
        self._source = iter(items)
        self._indices = getattr(items, "indices", None) if indices is None else indices
        self._items: dict[int, Mapping[str, Any]] = {}
        self.error: Exception | None = None
        self.nbytes = 0
        self._sizes: dict[int, int] = {}

    def draw_all(self) -> range:
        """Draw all items, and return their positions."""
        first = self.drawn
        for item in self._source:
            self._items[self.drawn] = item
            self.drawn += 1
        self.is_exhausted = True
        return range(first, self.drawn)

    def draw(self, room: int, room_bytes: int, least: int) -> range:
        """Draw items of a stream, and return their positions."""
        first = position = self.drawn
        if self.is_exhausted or room <= 0:
            return range(first, first)
        items, sizes, nbytes = self._items, self._sizes, 0
        try:
            for item in islice(self._source, room if room_bytes > 0 else max(0, least)):
                items[position] = item
                if size := size_of(item):
                    sizes[position] = size
                    nbytes += size
                position += 1
                if nbytes >= room_bytes and position - first >= least:
                    break
            else:
                self.is_exhausted = position - first < room and room_bytes > 0
        except Exception as error:  # It is raised when the items before it are done.
            self.is_exhausted, self.error = True, error
        self.nbytes += nbytes
        self.drawn = position
        return range(first, position)

    def index(self, position: int) -> int:
        """Return the index of an item in its map."""
        return position if self._indices is None else self._indices[position]

    def drop(self, position: int) -> None:
        """Forget an item, which has a row now."""
        del self._items[position]
        if self._sizes:
            self.nbytes -= self._sizes.pop(position, 0)

    @property
    def mean_nbytes(self) -> float:
        """About how many bytes an item of a stream has."""
        return self.nbytes / max(1, len(self._items))

    def __getitem__(self, position: int) -> Mapping[str, Any]:
        return self._items[position]

    def __len__(self) -> int:
        """Return how many items have been drawn and have no row yet."""
        return len(self._items)
