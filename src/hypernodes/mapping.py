"""The items of a map, made of the collections that it is given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from inspect import isgenerator
from itertools import islice, product, zip_longest
from math import prod
from typing import TYPE_CHECKING, Any, Final, overload

from hypernodes.exceptions import MapError, did_you_mean, listing
from hypernodes.iterators import is_consumed_once
from hypernodes.tables import table_of, values_of
from hypernodes.text import names_in, short

if TYPE_CHECKING:
    from hypernodes.nested import MapMode


_NO_LABELS: Final[Mapping[str, str]] = {}


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
        return (dict(zip(names, row, strict=True)) for row in zip(*self.columns.values(), strict=True))

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


def expand(
    inputs: Mapping[str, Any],
    map_over: Sequence[str],
    map_mode: MapMode,
    where: str,
    *,
    beside: Sequence[str] = (),
    labels: Mapping[str, str] = _NO_LABELS,
) -> Columns:
    """List the items of a map.

    Args:
        inputs: Values by name; those named in ``map_over`` are collections.
        map_over: The inputs that vary from item to item.
        map_mode: ``"zip"`` combines the collections element by element, ``"product"`` takes every
            combination, the last collection varying fastest.
        where: What is mapped, for messages, as in ``"pipeline 'p'"``.
        beside: Those of them that have a value for each item in every mode, and are not combined.
        labels: The names of inputs in messages, if the user knows them by other names.

    Returns:
        For each item, the values of the inputs that vary.

    Raises:
        MapError: A value is not a collection, or zipped collections differ in length.

    Example:
        >>> list(expand({"x": [1, 2], "y": 5}, ["x"], "zip", "pipeline 'p'"))
        [{'x': 1}, {'x': 2}]
        >>> list(expand({"x": [1, 2], "y": [3, 4]}, ["x", "y"], "product", "pipeline 'p'"))
        [{'x': 1, 'y': 3}, {'x': 1, 'y': 4}, {'x': 2, 'y': 3}, {'x': 2, 'y': 4}]
    """
    shown = [labels.get(name, name) for name in map_over]
    columns = [
        list(_iterable(label, inputs[name], where, is_named=name not in beside))
        for label, name in zip(shown, map_over, strict=True)
    ]
    lengths = list(map(len, columns))
    needed = "inputs that are mapped together must have the same length"
    if map_mode == "product":
        combined = [position for position, name in enumerate(map_over) if name not in beside]
        for position, column in zip(combined, _product([columns[i] for i in combined]), strict=True):
            columns[position] = column
        needed = (
            f"{listing([labels.get(name, name) for name in beside])} must have a value for each combination"
        )
    if len(set(map(len, columns))) > 1:
        found = ", ".join(f"{name!r} has length {n}" for name, n in zip(shown, lengths, strict=True))
        hint = "" if beside else " Use map_mode='product' for every combination."
        raise MapError(f"{where}: {needed}, but {found}.{hint}")
    return Columns(dict(zip(map_over, columns, strict=True)))


def stream(
    inputs: Mapping[str, Any], map_over: Sequence[str], map_mode: MapMode, where: str
) -> Iterator[dict[str, Any]]:
    """Yield the items that `expand` lists, each when it is requested.

    The collections may be endless; of a product only the first one, since the others are walked repeatedly.

    Args:
        inputs: Values by name; those named in ``map_over`` are collections.
        map_over: The inputs that vary from item to item.
        map_mode: As for `expand`.
        where: What is mapped, for messages, as in ``"pipeline 'p'"``.

    Raises:
        MapError: A value is not a collection. While the items are taken: a zipped collection has ended before
            the others.

    Example:
        >>> from itertools import count
        >>> next(stream({"x": count(), "y": [3, 4]}, ["x", "y"], "product", "pipeline 'p'"))
        {'x': 0, 'y': 3}
    """
    columns = [_iterable(name, inputs[name], where) for name in map_over]
    if map_mode == "product":
        first, *others = columns
        lists = [list(column) for column in others]
        rows: Iterator[tuple[Any, ...]] = ((value, *rest) for value in first for rest in product(*lists))
    else:
        rows = zip(*columns, strict=True) if len(columns) == 1 else _zipped(map_over, columns, where)
    return ItemStream(map_over, rows, columns, where)


class ItemStream(Iterator[dict[str, Any]]):
    """Rows as items, one by one or several at once.

    An error of a source says where it is from, and generators are closed in the end.

    Args:
        names: The inputs that vary.
        rows: A value for each of them.
        sources: What the rows come from.
        where: What is mapped, for messages.
    """

    def __init__(
        self, names: Sequence[str], rows: Iterable[tuple[Any, ...]], sources: Sequence[Any], where: str
    ) -> None:
        self.names = tuple(names)
        self._rows = iter(rows)
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
        row: list[tuple[Any, ...]] = []
        self.draw_into(row, 1)
        if not row:
            raise StopIteration
        return dict(zip(self.names, row[0], strict=True))

    def draw_into(self, drawn: list[tuple[Any, ...]], count: int) -> None:
        """Append so many rows to a list, or as many as there are; those before an error are in the list."""
        before = len(drawn)
        try:
            drawn.extend(islice(self._rows, count))
        except Exception as error:
            self._count += len(drawn) - before
            self._note(error)
            self.close()
            raise
        self._count += len(drawn) - before
        if len(drawn) - before < count:
            self.close()

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

    Args:
        rows: The outputs of each item by name; for an item that failed, its exception.
        names: The names of the outputs.

    Returns:
        The values of each output in the order of the items. The exception of an item that failed stands in
        each list.

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

    Args:
        previous: The result of that map.
        names: The outputs of the map now.
        count: The number of its items.
        where: What is mapped, for messages.

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


def check_shared(values: Mapping[str, Any], where: str) -> None:
    """Check the inputs that are the same for all items of a map.

    Raises:
        MapError: One of them is an iterator: the first item would leave nothing for the others.
    """
    for name, value in values.items():
        if hasattr(type(value), "__next__") and is_consumed_once(value):
            raise MapError(
                f"{where}: every item takes the input {name!r}, but its {type(value).__name__} can be "
                f"consumed only once. Give a list, or name {name!r} in map_over."
            )


def _zipped(names: Sequence[str], columns: list[Iterable[Any]], where: str) -> Iterator[tuple[Any, ...]]:
    missing = object()
    for index, row in enumerate(zip_longest(*columns, fillvalue=missing)):
        ended = [name for name, value in zip(names, row, strict=True) if value is missing]
        if ended:
            raise MapError(
                f"{where}: inputs that are mapped together must have the same length, but {listing(ended)} "
                f"ended after {index} items and the others did not. Use map_mode='product' for every "
                f"combination."
            )
        yield row


def _product(columns: list[list[Any]]) -> list[list[Any]]:
    """Return the columns of the table of every combination, the last column varying fastest."""
    lengths = [len(column) for column in columns]
    return [
        [value for value in column for _ in range(prod(lengths[position + 1 :]))] * prod(lengths[:position])
        for position, column in enumerate(columns)
    ]


def _iterable(name: str, value: Any, where: str, *, is_named: bool = True) -> Iterable[Any]:
    if table_of(value) is not None:
        raise MapError(
            f"{where}: map_over names {name!r}, whose value is a table, which has columns rather than "
            f"items. Give the table itself as inputs, so that its rows are the items, or a list of its rows."
        )
    value = values_of(value)
    if type(value) is list:
        items: list[Any] = value
        return items
    try:
        if not isinstance(value, str | bytes | bytearray | Mapping) and isinstance(value, Iterable):
            return iter(value)
    except TypeError:  # An array or tensor without dimensions has the method, and refuses.
        pass
    if is_named:
        raise MapError(
            f"{where}: map_over names {name!r}, whose value, {_kind(value)}, is not a collection of items. "
            f"Give a list, or leave {name!r} out of map_over."
        )
    raise MapError(
        f"{where}: the value given for {name!r}, {_kind(value)}, is not a collection. The pipeline is "
        f"mapped: give a list with a value for each item."
    )


def _kind(value: Any) -> str:
    kind = f"of type {type(value).__name__}"
    return f"{kind} without dimensions" if getattr(value, "ndim", None) == 0 else kind


def parse_map_over(map_over: str | Iterable[str], known: Iterable[str], where: str) -> tuple[str, ...]:
    """Return the names in ``map_over`` as a tuple.

    Args:
        map_over: One name, or several.
        known: The inputs that were given.
        where: What is mapped, for messages.

    Raises:
        MapError: It names no input, an input twice, or an input that was not given.
    """
    known = list(known)
    names = names_in(map_over)
    if names is None:
        raise MapError(
            f"{where}: map_over is the name of an input or a list of names, not {short(map_over)}. Name at "
            f"least one of {listing(known)}."
        )
    if not names:
        raise MapError(f"{where}: map_over names no input. Name at least one of {listing(known)}.")
    if len(set(names)) != len(names):
        raise MapError(f"{where}: map_over names an input twice: {listing(names)}. Name each input once.")
    for name in names:
        if name not in known:
            raise MapError(
                f"{where}: map_over names {name!r}, which is not among the inputs. Given: {listing(known)}."
                f"{did_you_mean(name, known)}"
            )
    return names
