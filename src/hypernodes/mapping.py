"""From collections to the items of a map."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product, zip_longest
from math import prod
from typing import TYPE_CHECKING, Any, overload

from hypernodes.exceptions import MapError, listing
from hypernodes.tables import table_of, values_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hypernodes.nested import MapMode


class Columns(Sequence[dict[str, Any]]):
    """Rows that are kept by column: the items of a map, or what came of them.

    Args:
        columns: Values by name, equally many of each.

    Example:
        >>> rows = Columns({"x": [1, 2], "y": [3, 4]})
        >>> rows[1], len(rows)
        ({'x': 2, 'y': 4}, 2)
    """

    __slots__ = ("columns",)

    def __init__(self, columns: dict[str, list[Any]]) -> None:
        self.columns = columns

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]], names: Sequence[str]) -> Columns:
        """Return the columns of rows."""
        rows = list(rows)
        return cls({name: [row[name] for row in rows] for name in names})

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> Columns: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | Columns:
        row = {name: column[index] for name, column in self.columns.items()}
        return Columns(row) if isinstance(index, slice) else row

    def __iter__(self) -> Iterator[dict[str, Any]]:
        names = tuple(self.columns)
        return (dict(zip(names, row, strict=True)) for row in zip(*self.columns.values(), strict=True))

    def __repr__(self) -> str:
        return f"Columns({self.columns!r})"


def expand(inputs: Mapping[str, Any], map_over: Sequence[str], map_mode: MapMode, where: str) -> Columns:
    """Return the items: for each, the values of the inputs in ``map_over``.

    Args:
        inputs: Values by name; those in ``map_over`` are collections.
        map_over: The inputs that vary.
        map_mode: ``"zip"`` walks them together, ``"product"`` takes every combination, the last
            one varying fastest.
        where: What is mapped, for messages.

    Raises:
        MapError: A value that is no collection, or zipped ones of different lengths.

    Example:
        >>> list(expand({"x": [1, 2], "y": 5}, ["x"], "zip", "pipeline 'p'"))
        [{'x': 1}, {'x': 2}]
        >>> list(expand({"x": [1, 2], "y": [3, 4]}, ["x", "y"], "product", "pipeline 'p'"))
        [{'x': 1, 'y': 3}, {'x': 1, 'y': 4}, {'x': 2, 'y': 3}, {'x': 2, 'y': 4}]
    """
    columns = [_collection(name, inputs[name], where) for name in map_over]
    if map_mode == "product":
        columns = _crossed(columns)
    lengths = {name: len(column) for name, column in zip(map_over, columns, strict=True)}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name!r} has {length}" for name, length in lengths.items())
        raise MapError(
            f"{where}: inputs mapped together must be equally long, but {told}. "
            f"Use map_mode='product' for every combination."
        )
    return Columns(dict(zip(map_over, columns, strict=True)))


def stream(
    inputs: Mapping[str, Any], map_over: Sequence[str], map_mode: MapMode, where: str
) -> Iterator[dict[str, Any]]:
    """Yield the items that `expand` would list, as they are asked for.

    Collections may be endless; of a product only the first.

    Raises:
        MapError: A value that is no collection. Or, where it shows, zipped ones of different lengths.

    Example:
        >>> from itertools import count
        >>> next(stream({"x": count(), "y": [3, 4]}, ["x", "y"], "product", "pipeline 'p'"))
        {'x': 0, 'y': 3}
    """
    columns = [_iterable(name, inputs[name], where) for name in map_over]
    if map_mode == "product":
        first, *others = columns
        others = [list(column) for column in others]
        rows: Iterator[tuple[Any, ...]] = ((value, *rest) for value in first for rest in product(*others))
    else:
        rows = _zipped(map_over, columns, where)
    return (dict(zip(map_over, row, strict=True)) for row in rows)


def _zipped(names: Sequence[str], columns: list[Iterable[Any]], where: str) -> Iterator[tuple[Any, ...]]:
    missing = object()
    for index, row in enumerate(zip_longest(*columns, fillvalue=missing)):
        ended = [name for name, value in zip(names, row, strict=True) if value is missing]
        if ended:
            raise MapError(
                f"{where}: inputs mapped together must be equally long, but {listing(ended)} ended after "
                f"{index} items and the others did not. Use map_mode='product' for every combination."
            )
        yield row


def _crossed(columns: list[list[Any]]) -> list[list[Any]]:
    """Return the columns of the table that has every combination, the last one varying fastest."""
    lengths = [len(column) for column in columns]
    return [
        [value for value in column for _ in range(prod(lengths[at + 1 :]))] * prod(lengths[:at])
        for at, column in enumerate(columns)
    ]


def _collection(name: str, value: Any, where: str) -> list[Any]:
    return list(_iterable(name, value, where))


def _iterable(name: str, value: Any, where: str) -> Iterable[Any]:
    if table_of(value) is not None:
        raise MapError(
            f"{where}: map_over names {name!r}, whose value is a table, which has columns rather than "
            f"items. Give the table itself as inputs, so that they are mapped over, or a list of its rows."
        )
    value = values_of(value)
    if isinstance(value, str | bytes | bytearray | Mapping) or not isinstance(value, Iterable):
        raise MapError(
            f"{where}: map_over names {name!r}, whose value is no collection of items but "
            f"{'a ' + type(value).__name__}. Give a list, or leave {name!r} out of map_over."
        )
    return value


def parse_map_over(map_over: str | Iterable[str], known: Iterable[str], where: str) -> tuple[str, ...]:
    """Return the names in ``map_over`` as a tuple.

    Raises:
        MapError: It names nothing, or nothing that was given.
    """
    names = (map_over,) if isinstance(map_over, str) else tuple(map_over)
    if not names:
        raise MapError(f"{where}: map_over names no input.")
    if len(set(names)) != len(names):
        raise MapError(f"{where}: map_over names an input twice: {listing(names)}.")
    known = list(known)
    for name in names:
        if name not in known:
            raise MapError(
                f"{where}: map_over names {name!r}, which is not among the inputs: {listing(known)}."
            )
    return names
