"""Which items does a map have? Its collections are combined element by element, or each with each.

`where` is what is mapped, as messages name it: ``"pipeline 'p'"``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product, zip_longest
from math import prod
from typing import TYPE_CHECKING, Any, Final

from hypernodes.exceptions import MapError, did_you_mean, listing
from hypernodes.iterators import is_consumed_once
from hypernodes.mapping import Columns, ItemStream
from hypernodes.tables import table_of, values_of
from hypernodes.text import names_in, short

if TYPE_CHECKING:
    from hypernodes.nested import MapMode

_NO_LABELS: Final[Mapping[str, str]] = {}


def expand(
    inputs: Mapping[str, Any],
    map_over: Sequence[str],
    map_mode: MapMode,
    where: str,
    *,
    beside: Sequence[str] = (),
    labels: Mapping[str, str] = _NO_LABELS,
) -> Columns:
    """List the items of a map, each with the values of the inputs that vary.

    Inputs `beside` the others have a value for each item in every mode, and are not combined. `labels` are
    the names by which messages name inputs.

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
    elif len(columns) > 1:
        rows = _zipped(map_over, columns, where)
    else:
        values = iter(columns[0])
        return ItemStream(map_over, zip(values), columns, where, values)
    return ItemStream(map_over, rows, columns, where)


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
