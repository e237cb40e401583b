"""The inputs of a run and of a map: mappings and tables, checked and split into items and fixed values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from hypernodes.exceptions import InputError, MapError, TableWarning, listing
from hypernodes.expansion import check_shared, expand, parse_map_over, stream
from hypernodes.iterators import is_consumed_once
from hypernodes.mapping import Columns, ItemStream
from hypernodes.tables import DataFrame, Table, table_of
from hypernodes.text import identifier, short
from hypernodes.user_warnings import warn_user

if TYPE_CHECKING:
    from typing import TypeAlias

    from hypernodes.graph import Graph
    from hypernodes.nested import MapMode

    Inputs: TypeAlias = Mapping[str, Any] | DataFrame | None
    MapOver: TypeAlias = str | Sequence[str] | None

Items = TypeVar("Items")

_SHOWN_COLUMNS: Final = 5
_ROWS_HINT: Final = (
    " Map over rows as a table, map(pandas.DataFrame(rows)), or as a list of values for each input: "
    "map({'x': [row['x'] for row in rows]}, map_over='x')."
)


@dataclass(frozen=True, slots=True)
class MapInputs(Generic[Items]):
    """The inputs of a map.

    Attributes:
        names: The inputs that vary from item to item.
        items: For each item, the values of these inputs.
        fixed: The inputs that are the same for all items.
    """

    names: tuple[str, ...]
    items: Items
    fixed: dict[str, Any]


@dataclass(frozen=True, slots=True)
class GivenValues:
    """The inputs of a run or map as they are given: of those that vary, collections."""

    values: dict[str, Any]
    varying: tuple[str, ...]


def check_inputs(inputs: Inputs, where: str) -> Mapping[str, Any]:
    """Return the inputs of one run as a mapping, by names as Python normalizes them.

    Raises:
        InputError: The inputs are a table, or no mapping, or a name is no text.
    """
    if inputs is None:
        return {}
    if isinstance(inputs, Mapping):
        return _normalized(inputs, where)
    if table_of(inputs) is not None:
        raise InputError(
            f"{where}: a table has many rows, but run computes the outputs once. Use map, which takes each "
            f"row as an item."
        )
    rows = isinstance(inputs, list | tuple) and inputs and isinstance(inputs[0], Mapping)
    raise InputError(
        f"{where}: inputs must be a mapping of names to values, as in {{'x': 1}}, but they are a "
        f"{type(inputs).__name__}: {short(inputs)}.{_ROWS_HINT if rows else ''}"
    )


def has_plain_names(inputs: Mapping[str, Any]) -> bool:
    """Whether the names of inputs are texts that Python reads as they are."""
    try:
        return "".join(inputs).isascii()
    except TypeError:
        return False


def _normalized(inputs: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    if has_plain_names(inputs):
        return inputs
    for name in inputs:
        if not isinstance(name, str):
            raise InputError(f"{where}: the names of inputs are texts, and not {short(name)}.")
    values = {identifier(name): value for name, value in inputs.items()}
    if len(values) != len(inputs):
        raise InputError(
            f"{where}: two inputs have the same name, since {listing(inputs)} are read as {listing(values)}. "
            f"Remove one."
        )
    return values


def map_inputs(
    inputs: Inputs, map_over: MapOver, map_mode: MapMode, *, graph: Graph, where: str
) -> MapInputs[Columns]:
    """Return the inputs of a map, with all items in memory.

    Raises:
        InputError: The inputs are neither a mapping nor a table.
        MapError: ``map_over`` or a value that it names cannot be mapped over.
    """
    names, values = _names_and_values(inputs, map_over, graph, where)
    fixed = _fixed_inputs(values, names, where)
    return MapInputs(names, expand(values, names, map_mode, where), fixed)


def stream_inputs(
    inputs: Inputs, map_over: MapOver, map_mode: MapMode, *, graph: Graph, where: str
) -> MapInputs[Iterator[dict[str, Any]]]:
    """Return the same as `map_inputs`, but with items that are made when they are requested.

    A table is converted piece by piece if all its inputs vary and are zipped.
    """
    table = table_of(inputs)
    if table is not None and map_mode == "zip":
        names = all_columns_vary(table, map_over, graph, where)
        if names is not None:
            return MapInputs(names, ItemStream(names, table.rows(names), (), where), {})
    names, values = _names_and_values(inputs, map_over, graph, where)
    fixed = _fixed_inputs(values, names, where)
    return MapInputs(names, stream(values, names, map_mode, where), fixed)


def given_values(
    inputs: Inputs, map_over: MapOver, map_mode: MapMode, *, graph: Graph, where: str, is_map: bool
) -> GivenValues:
    """Return what is given to a run or map, without consuming it.

    Raises:
        InputError: As for `check_inputs` and `map_inputs`.
    """
    if not is_map:
        return GivenValues(dict(check_inputs(inputs, where)), ())
    table = table_of(inputs)
    if table is not None and table.is_lazy:
        names, used = input_columns(table, map_over, graph, where)
        return GivenValues(dict.fromkeys(used, iter(())), names)
    names, values = _names_and_values(inputs, map_over, graph, where)
    _fixed_inputs(values, names, where)
    if not any(is_consumed_once(values[name]) for name in names):
        expand(values, names, map_mode, where)
    return GivenValues(dict(values), names)


def input_columns(
    table: Table, map_over: MapOver, graph: Graph, where: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the columns of a table that vary from row to row, and all that are used.

    A column with the name of an output is used only if ``map_over`` names it. It may be the result of an
    earlier run, and must not replace what the nodes compute now.

    Raises:
        MapError: No column is an input.
    """
    named = () if map_over is None else parse_map_over(map_over, table.names, where)
    used = tuple(name for name in table.names if name in graph.input_names or name in named)
    if not used:
        found, hint = f"The table has {listing(table.names)}", "Rename the columns."
        if table.unnamed:
            shown = ", ".join(map(short, table.unnamed[:_SHOWN_COLUMNS]))
            found = f"The names of its columns are no texts: {shown}"
            hint = f"Rename them: frame.rename(columns={{{short(table.unnamed[0])}: 'x'}})."
        elif not set(table.names).isdisjoint(graph.output_names):
            hint = "Name columns that are to replace nodes in map_over, or rename the columns."
        raise MapError(
            f"{where}: no column of the table is an input. {found}; the pipeline takes "
            f"{listing(graph.input_names)}. {hint}"
        )
    return named or used, used


def warn_of_unused_columns(inputs: Inputs, map_over: MapOver, graph: Graph, where: str) -> None:
    """Warn of the columns of a table that are not used since they have the names of outputs."""
    table = table_of(inputs)
    if table is None:
        return
    named = () if map_over is None else parse_map_over(map_over, table.names, where)
    made = set(graph.output_names) - set(named)
    unused = [name for name in table.names if name in made]
    if unused and len(unused) < len(table.names):
        warn_user(
            f"{where}: columns of the table have the names of outputs: {listing(unused)}. They are not used, "
            f"since nodes compute these outputs. To use a column in place of its node, name it in map_over.",
            TableWarning,
        )


def all_columns_vary(table: Table, map_over: MapOver, graph: Graph, where: str) -> tuple[str, ...] | None:
    """Return the columns of a table that vary from row to row; ``None`` if another input column does not."""
    names, used = input_columns(table, map_over, graph, where)
    return names if set(names) >= set(used) else None


def _names_and_values(
    inputs: Inputs, map_over: MapOver, graph: Graph, where: str
) -> tuple[tuple[str, ...], Mapping[str, Any]]:
    """Return the names of the inputs that vary, and the values of all inputs; of a table, lists."""
    table = table_of(inputs)
    if table is not None:
        names, used = input_columns(table, map_over, graph, where)
        return names, table.columns(used)
    values = check_inputs(inputs, where)
    if map_over is None:
        raise MapError(
            f"{where}: map_over is missing. Name the inputs that vary from item to item: map_over=... takes "
            f"one or more of {listing(values)}. It may be left out only if the inputs are a table."
        )
    return parse_map_over(map_over, values, where), values


def _fixed_inputs(values: Mapping[str, Any], names: tuple[str, ...], where: str) -> dict[str, Any]:
    others = {name: value for name, value in values.items() if name not in names}
    check_shared(others, where)
    return others
