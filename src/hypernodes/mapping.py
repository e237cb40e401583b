"""The items of a map, made of the collections that it is given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from inspect import isgenerator
from itertools import islice, repeat
from typing import Any, NamedTuple, overload

from hypernodes.exceptions import MapError, listing
from hypernodes.text import short


class Columns(Sequence[dict[str, Any]]):
    """Rows that are stored by column: the items of a map, or its results.

    Args:
        columns: A list of values for each name; all lists have the same length.
        length: The number of rows; by default, that of the values.
        indices: Of each row its index in its map, if the rows are only some of a map's items.

    Example:
        >>> rows = Columns({"x": [1, 2], "y": [3, 4]})
        >>> rows[1], len(rows)
        ({'x': 2, 'y': 4}, 2)
    """

    __slots__ = ("_length", "columns", "indices")

    def __init__(
        self, columns: dict[str, list[Any]], length: int | None = None, indices: Sequence[int] | None = None
    ) -> None:
        self.columns: dict[str, list[Any]] = columns
        self._length = len(next(iter(columns.values()), ())) if length is None else length
        self.indices: Sequence[int] | None = indices

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]], names: Sequence[str]) -> Columns:
        """Make columns of rows.

        Args:
            rows: Mappings that have a value for each name.
            names: The names of the columns.
        """
        return rows if isinstance(rows, cls) else cls(column_lists(list(rows), names))

    def at(self, positions: Sequence[int]) -> Columns:
        """Return the rows at some positions; of a range, by slices."""
        if isinstance(positions, range):
            return self[positions.start : positions.stop]
        return Columns(
            {name: [column[position] for position in positions] for name, column in self.columns.items()},
            len(positions),
        )

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> Columns: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | Columns:
        row = {name: column[index] for name, column in self.columns.items()}
        return Columns(row, len(range(self._length)[index])) if isinstance(index, slice) else row

    def __iter__(self) -> Iterator[dict[str, Any]]:
        names = tuple(self.columns)
        if not names:
            return ({} for _ in range(self._length))
        columns = self.columns.values()
        if len(names) == 1:
            (name,), (column,) = names, columns
            return ({name: value} for value in column)
        return map(dict, map(zip, repeat(names), zip(*columns, strict=True)))

    def only(self, indices: Sequence[int]) -> Columns:
        """Return some of the rows, which keep their indices."""
        columns = {name: [column[index] for index in indices] for name, column in self.columns.items()}
        return Columns(columns, len(indices), indices)

    def __repr__(self) -> str:
        return f"Columns({self.columns!r})"


def column_lists(rows: Sequence[Mapping[str, Any]], names: Iterable[str]) -> dict[str, list[Any]]:
    """Return the columns of rows, which have a value for each name.

    >>> column_lists([{"x": 1, "y": 2}, {"x": 3, "y": 4}], ["x"])
    {'x': [1, 3]}
    """
    if isinstance(rows, Columns):
        return {name: rows.columns[name] for name in names}
    return {name: [row[name] for row in rows] for name in names}


class Drawn(NamedTuple):
    """Rows that were drawn from a stream, and the error of its sources that ended it."""

    rows: Columns
    error: Exception | None


class ItemStream(Iterator[dict[str, Any]]):
    """Rows as items, one by one or several at once.

    An error of a source says where it is from, and generators are closed in the end.
    `values` is what the rows take their values from, if only one input varies.
    """

    def __init__(
        self,
        names: Sequence[str],
        rows: Iterable[tuple[Any, ...]],
        sources: Sequence[Any],
        where: str,
        values: Iterator[Any] | None = None,
    ) -> None:
        self.names = tuple(names)
        self._rows = iter(rows)
        self._values = values
        self._sources = sources
        self._where = where
        self._count = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:  # noqa: PYI034  a generator is faster than `__next__`
        try:
            for row in self._rows:
                self._count += 1
                yield dict(zip(self.names, row, strict=True))
        except Exception as error:
            self._note(error)
            raise
        finally:
            self.close()

    def __next__(self) -> dict[str, Any]:
        drawn = self.draw(1)
        if drawn.error is not None:
            raise drawn.error
        if not drawn.rows:
            raise StopIteration
        return drawn.rows[0]

    def draw(self, count: int) -> Drawn:
        """Return so many rows, or as many as there are before the end or an error."""
        drawn: list[Any] = []
        try:
            drawn.extend(islice(self._rows if self._values is None else self._values, count))
        except Exception as error:  # No variable of this frame keeps it: its traceback has this frame.
            self._count += len(drawn)
            self._note(error)
            self.close()
            return Drawn(self._columns(drawn), error)
        self._count += len(drawn)
        if len(drawn) < count:
            self.close()
        return Drawn(self._columns(drawn), None)

    def _columns(self, drawn: list[Any]) -> Columns:
        if self._values is not None:
            return Columns({self.names[0]: drawn}, len(drawn))
        return Columns({name: [row[at] for row in drawn] for at, name in enumerate(self.names)}, len(drawn))

    def _note(self, error: Exception) -> None:
        with suppress(Exception):  # An error may take no note.
            error.add_note(f"in the items of {self._where}, after {self._count} of them")

    def close(self) -> None:
        """Close the generators that the rows come from."""
        for source in self._sources:
            if isgenerator(source):
                source.close()


def collect(rows: Sequence[Any], names: Sequence[str]) -> dict[str, list[Any]]:
    """Make the result of a map of its rows.

    Example:
        >>> collect([{"y": 1}, KeyError("x")], ["y"])
        {'y': [1, KeyError('x')]}
    """
    if isinstance(rows, Columns):
        return column_lists(rows, names)
    failed = [isinstance(row, BaseException) for row in rows]
    if not any(failed):
        return {name: [row[name] for row in rows] for name in names}
    return {
        name: [row if is_error else row[name] for row, is_error in zip(rows, failed, strict=True)]
        for name in names
    }


def failed_items(
    previous: Mapping[str, Sequence[Any]], names: Sequence[str], count: int, where: str
) -> list[int]:
    """Return the indices of the items that failed in an earlier map.

    Raises:
        MapError: It is no result of the same map.

    Example:
        >>> failed_items({"y": [1, KeyError("x"), 2]}, ["y"], 3, "pipeline 'p'")
        [1]
    """
    if not isinstance(previous, Mapping) or (missing := [name for name in names if name not in previous]):
        found = (
            short(previous) if not isinstance(previous, Mapping) else f"a result without {listing(missing)}"
        )
        raise MapError(
            f"{where}: previous must be the result of an earlier map with these outputs, {listing(names)}, "
            f"and not {found}."
        )
    for name in names:
        if len(previous[name]) != count:
            raise MapError(
                f"{where}: previous must be the result of the same map, but its {name!r} has length "
                f"{len(previous[name])}, and there are {count} items now."
            )
    rows = zip(*(previous[name] for name in names), strict=True)
    return [index for index, row in enumerate(rows) if any(isinstance(value, BaseException) for value in row)]
