"""Where the items of a map come from, and where its rows go."""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final, Protocol

from hypernodes.execution.jobs import Failure
from hypernodes.mapping import Columns, Drawn, ItemStream, column_lists

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

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


MAX_BLOCK: Final = 1024
"""How many small items of a stream are drawn at once."""


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

    def put_all(self, positions: Sequence[int], rows: Columns) -> None:
        """Take the rows of several items."""

    def all(self) -> Sequence[Any]:
        """Return the rows that are kept."""


class CollectedRows:
    """Rows that are kept until the map is done, by column; a row that is a failure is in each column."""

    is_stream = False
    waiting = 0
    nbytes = 0

    def __init__(self, names: Sequence[str], total: int) -> None:
        self._columns: dict[str, list[Any]] = {name: [None] * total for name in names}
        self._failed: dict[int, Failure] = {}

    def put(self, position: int, row: Any) -> None:
        """Keep a row."""
        if type(row) is Failure:
            self._failed[position] = row
            return
        for name, column in self._columns.items():
            column[position] = row[name]

    def put_all(self, positions: Sequence[int], rows: Columns) -> None:
        """Keep several rows."""
        for name, column in self._columns.items():
            if isinstance(positions, range):
                column[positions.start : positions.stop] = rows.columns[name]
                continue
            for position, value in zip(positions, rows.columns[name], strict=True):
                column[position] = value

    def all(self) -> Sequence[Any]:
        """Return all rows."""
        columns = Columns(self._columns)
        if not self._failed:
            return columns
        rows: list[Any] = list(columns)
        for position, failure in self._failed.items():
            rows[position] = failure
        return rows


@dataclass(slots=True)
class _Block:
    """Rows of a stream that follow one another."""

    positions: Sequence[int]
    rows: Sequence[Any]
    nbytes: int


class StreamedRows:
    """Rows that are handed out as they come, and not kept."""

    is_stream = True

    def __init__(self, *, in_order: bool) -> None:
        self._in_order = in_order
        self.nbytes = 0
        self.waiting = 0
        self._next = 0
        self._early: dict[int, _Block] = {}  # by their first position
        self._ready: deque[_Block] = deque()

    def put(self, position: int, row: Any) -> None:
        """Take a row; that of an item that has failed is handed out as its error."""
        size = size_of(row)
        self._put(_Block((position,), (row.error if type(row) is Failure else row,), size))

    def put_all(self, positions: Sequence[int], rows: Columns) -> None:
        """Take several rows."""
        if not isinstance(positions, range):
            for position, row in zip(positions, rows, strict=True):
                self.put(position, row)
            return
        are_small = all(SMALL_TYPES.issuperset(map(type, column)) for column in rows.columns.values())
        self._put(_Block(positions, rows, 0 if are_small else sum(map(size_of, rows))))

    def _put(self, block: _Block) -> None:
        self.waiting += len(block.positions)
        self.nbytes += block.nbytes
        if not self._in_order:
            self._ready.append(block)
            return
        self._early[block.positions[0]] = block
        while (following := self._early.pop(self._next, None)) is not None:
            self._ready.append(following)
            self._next += len(following.positions)

    @property
    def has_ready(self) -> bool:
        """Whether there are rows to be handed out."""
        return bool(self._ready)

    def take(self) -> Iterator[tuple[int, Any]]:
        """Hand out the rows that are ready."""
        while self._ready:
            block = self._ready.popleft()
            yield from zip(block.positions, block.rows, strict=True)
            self.waiting -= len(block.positions)
            self.nbytes -= block.nbytes

    def clear(self) -> None:
        """Drop the rows that were not taken."""
        self._early.clear()
        self._ready.clear()

    def all(self) -> Sequence[Any]:
        """Return nothing: streamed rows are not kept."""
        return ()


class Positions:
    """A queue of positions, in ranges as far as they follow one another."""

    def __init__(self) -> None:
        self._parts: deque[range] = deque()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def add(self, positions: Iterable[int]) -> None:
        """Put positions at the end."""
        if isinstance(positions, range):
            self._put(positions)
        else:
            for position in positions:
                self._put(range(position, position + 1))

    def _put(self, positions: range) -> None:
        self._length += len(positions)
        if self._parts and self._parts[-1].stop == positions.start:
            positions = range(self._parts.pop().start, positions.stop)
        self._parts.append(positions)

    def add_first(self, positions: Sequence[int]) -> None:
        """Put positions at the beginning."""
        self._length += len(positions)
        if isinstance(positions, range):
            self._parts.appendleft(positions)
        else:
            self._parts.extendleft(range(position, position + 1) for position in reversed(positions))

    def take(self, count: int) -> Sequence[int]:
        """Remove so many positions from the beginning, and return them."""
        count = min(count, self._length)
        self._length -= count
        found: list[int] = []
        while len(found) < count:
            part = self._parts.popleft()
            taken = part[: count - len(found)]
            if len(taken) < len(part):
                self._parts.appendleft(part[len(taken) :])
            if len(taken) == count:
                return taken
            found += taken
        return found


class ItemSource:
    """The items of a map, by position: drawn all at once, or as there is room for them."""

    def __init__(
        self,
        items: Columns | Iterator[Mapping[str, Any]],
        indices: Sequence[int] | None = None,
    ) -> None:
        self._columns = items if isinstance(items, Columns) else None
        self.total = None if self._columns is None else len(self._columns)  # if it is known
        self.drawn = 0  # how many have been drawn
        self.is_exhausted = False
        self._source = items if isinstance(items, ItemStream) else iter(items)
        self._indices = getattr(items, "indices", None) if indices is None else indices
        self._blocks: dict[int, _DrawnBlock] = {}  # of a stream, by their first position
        self._starts: list[int] = []  # these positions
        self._left = 0  # of those drawn that have no row yet
        self.error: Exception | None = None
        self.nbytes = 0
        self._sizes: dict[int, int] = {}

    @property
    def whole(self) -> Columns | None:
        """All items, unless they are a stream."""
        return self._columns

    def draw_all(self) -> range:
        """Draw all items, and return their positions."""
        first = self.drawn
        self._left = self.drawn = self.total or 0
        self.is_exhausted = True
        return range(first, self.drawn)

    def draw(self, room: int, room_bytes: int, least: int) -> range:
        """Draw items of a stream, and return their positions."""
        first = self.drawn
        if room_bytes <= 0:
            room = min(room, least)
        count = 1  # large items are drawn one by one, small ones in blocks
        while self.drawn - first < room and not self.is_exhausted:
            if room_bytes <= 0 and self.drawn - first >= least:
                break
            nbytes = self._draw(min(count, room - (self.drawn - first)))
            room_bytes -= nbytes
            count = 1 if nbytes else min(2 * count, MAX_BLOCK)
        return range(first, self.drawn)

    def _draw(self, count: int) -> int:
        """Draw so many items, if there are as many, and return their bytes."""
        drawn = self._source.draw(count) if isinstance(self._source, ItemStream) else self._draw_items(count)
        rows, self.error = drawn  # The error is raised when the items before it are done.
        self.is_exhausted = len(rows) < count
        nbytes, columns = 0, rows.columns.values()
        if not all(SMALL_TYPES.issuperset(map(type, column)) for column in columns):
            for position, row in enumerate(zip(*columns, strict=True), self.drawn):
                if size := size_of(row):
                    self._sizes[position] = size
                    nbytes += size
        if rows:
            self._blocks[self.drawn] = _DrawnBlock(rows, len(rows))
            self._starts.append(self.drawn)
        self.nbytes += nbytes
        self.drawn += len(rows)
        self._left += len(rows)
        return nbytes

    def _draw_items(self, count: int) -> Drawn:
        items: list[Mapping[str, Any]] = []
        try:
            items.extend(islice(self._source, count))
        except Exception as error:
            return Drawn(_columns_of(items), error)
        return Drawn(_columns_of(items), None)

    def _pieces(self, positions: Sequence[int]) -> Iterator[tuple[_DrawnBlock, int, int, int]]:
        """Walk over blocks: each with its first position, and from where to where positions are wanted."""
        for part in (positions,) if isinstance(positions, range) else map(_single, positions):
            first, end = part.start, part.stop
            while first < end:
                start = self._starts[bisect_right(self._starts, first) - 1]
                block = self._blocks[start]
                upto = min(end, start + len(block.rows))
                yield block, start, first - start, upto - start
                first = upto

    def index(self, position: int) -> int:
        """Return the index of an item in its map."""
        return position if self._indices is None else self._indices[position]

    def indices(self, positions: Sequence[int]) -> Sequence[int]:
        """Return the indices of items in their map."""
        return positions if self._indices is None else [self._indices[position] for position in positions]

    def drop(self, positions: Sequence[int]) -> None:
        """Forget items, which have rows now."""
        self._left -= len(positions)
        if self._columns is not None:
            return
        for block, start, first, end in self._pieces(positions):
            block.left -= end - first
            if not block.left:
                del self._blocks[start]
                del self._starts[bisect_right(self._starts, start) - 1]
        if self._sizes:
            self.nbytes -= sum(self._sizes.pop(position, 0) for position in positions)

    @property
    def mean_nbytes(self) -> float:
        """About how many bytes an item of a stream has."""
        return self.nbytes / max(1, self._left)

    def __getitem__(self, position: int) -> Mapping[str, Any]:
        if self._columns is not None:
            return self._columns[position]
        ((block, _, at, _),) = self._pieces((position,))
        return block.rows[at]

    def at(self, positions: Sequence[int]) -> Columns:
        """Return several items."""
        if self._columns is not None:
            return self._columns.at(positions)
        parts = [block.rows[first:end] for block, _, first, end in self._pieces(positions)]
        if len(parts) == 1:
            return parts[0]
        columns = {
            name: list(chain.from_iterable(part.columns[name] for part in parts)) for name in parts[0].columns
        }
        return Columns(columns, len(positions))

    def __len__(self) -> int:
        """Return how many items have been drawn and have no row yet."""
        return self._left


@dataclass(slots=True)
class _DrawnBlock:
    """Items of a stream that were drawn together; they are forgotten when each of them has a row."""

    rows: Columns
    left: int  # items that have no row yet


def _columns_of(items: list[Mapping[str, Any]]) -> Columns:
    return Columns(column_lists(items, tuple(items[0]) if items else ()), len(items))


def _single(position: int) -> range:
    return range(position, position + 1)
