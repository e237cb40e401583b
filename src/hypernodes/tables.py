"""Tables of other libraries as the inputs of a map: rows are items, columns are inputs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Protocol
from weakref import WeakKeyDictionary

from hypernodes.exceptions import MapError, listing
from hypernodes.text import identifier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ROWS_PER_BATCH: Final = 1000
"""Rows of an Arrow table that are converted to Python objects together: many enough to spread the cost of a
conversion, few enough that a table of any size can be streamed."""


class DataFrame(Protocol):
    """The type of the tables that `table_of` accepts, for type checkers.

    The libraries have no base class in common, and none of them is imported here.
    """

    def __getitem__(self, key: str, /) -> Any:
        """Return a column."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table of any supported library, as a map reads it."""

    names: tuple[str, ...]
    rows: Callable[[Sequence[str]], Iterator[tuple[Any, ...]]]  # of some columns, as tuples of Python objects
    unnamed: tuple[Any, ...] = ()  # columns whose names are no texts, so that they cannot be inputs
    is_lazy: bool = False  # its rows are computed, or consumed, when they are read

    def columns(self, names: Sequence[str]) -> dict[str, list[Any]]:
        """Return the values of some columns as lists of Python objects."""
        values: dict[str, list[Any]] = {name: [] for name in names}
        for row in self.rows(names):
            for column, value in zip(values.values(), row, strict=True):
                column.append(value)
        return values


def table_of(value: object) -> Table | None:
    """Return a reader of a table; ``None`` for any other value.

    >>> import pyarrow
    >>> table = table_of(pyarrow.table({"x": [1, None], "y": ["a", "b"]}))
    >>> table.names, list(table.rows(["y", "x"]))
    (('x', 'y'), [('a', 1), ('b', None)])
    >>> table_of({"x": [1, 2]}) is None
    True
    """
    # Classes are compared by name: an import would load a library that the user may not even have.
    for cls in type(value).__mro__:
        make_table = _TABLES.get((cls.__module__.partition(".")[0], cls.__name__))
        if make_table is not None:
            return _with_normalized_names(make_table(value))
    return None


def _with_normalized_names(table: Table) -> Table:
    """Return a reader by the names of columns as Python reads them."""
    own = {identifier(name): name for name in table.names}
    if len(own) != len(table.names):
        names = [identifier(name) for name in table.names]
        duplicates = sorted({name for name in names if names.count(name) > 1})
        raise MapError(f"the table has two columns of the same name: {listing(duplicates)}. Rename one.")
    if all(name == normalized for normalized, name in own.items()):
        return table
    return replace(table, names=tuple(own), rows=lambda names: table.rows([own[name] for name in names]))


def is_table(value: object) -> bool:
    """Whether a value is a table of a supported library."""
    return any((cls.__module__.partition(".")[0], cls.__name__) in _TABLES for cls in type(value).__mro__)


def values_of(column: Any) -> Any:
    """Return a column of polars, Arrow or Daft as a list of Python objects, any other value unchanged."""
    for cls in type(column).__mro__:
        to_list = _TO_LIST.get((cls.__module__.partition(".")[0], cls.__name__))
        if to_list is not None:
            return getattr(column, to_list)()
    return column


def _pandas_table(frame: Any) -> Table:
    def rows(names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        return zip(*(frame[name] for name in names), strict=True)

    names = tuple(name for name in frame.columns if isinstance(name, str))
    return Table(names, rows, tuple(name for name in frame.columns if not isinstance(name, str)))


def _lazy_polars_table(frame: Any) -> Table:
    raise MapError(f"a polars {type(frame).__name__} is not computed yet. Give the result of its collect().")


def _arrow_table(table: Any) -> Table:
    def rows(names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        return _batch_rows(table.select(list(names)).to_batches(ROWS_PER_BATCH), names)

    return Table(tuple(table.schema.names), rows)


def _batch_rows(batches: Any, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    for batch in batches:
        for start in range(0, batch.num_rows, ROWS_PER_BATCH):
            rows = batch.slice(start, ROWS_PER_BATCH)
            yield from zip(*(rows.column(name).to_pylist() for name in names), strict=True)


def _daft_table(frame: Any) -> Table:
    def rows(names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        return (tuple(row[name] for name in names) for row in frame.select(*names).iter_rows())

    return Table(tuple(frame.column_names), rows, is_lazy=True)


_columns_of_results: Final[WeakKeyDictionary[Any, tuple[str, ...]]] = WeakKeyDictionary()


def remember_columns(dataset: Any, names: tuple[str, ...]) -> Any:
    """Return a data set whose columns are known, so that Ray Data need not compute rows to tell them."""
    _columns_of_results[dataset] = names
    return dataset


def column_names(dataset: Any) -> tuple[str, ...]:
    """Return the names of the columns of a data set; Ray Data may have to compute its first rows."""
    if (known := _columns_of_results.get(dataset)) is not None:
        return known
    schema = dataset.schema()
    return () if schema is None else tuple(schema.names)


def _ray_table(dataset: Any) -> Table:
    def rows(names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        tables = dataset.select_columns(list(names)).iter_batches(batch_size=None, batch_format="pyarrow")
        return _batch_rows(tables, names)

    return Table(column_names(dataset), rows, is_lazy=True)


_TO_LIST: Final = {
    ("polars", "Series"): "to_list",
    ("pyarrow", "Array"): "to_pylist",
    ("pyarrow", "ChunkedArray"): "to_pylist",
    ("daft", "Series"): "to_pylist",
}
_TABLES: Final[dict[tuple[str, str], Callable[[Any], Table]]] = {
    ("pandas", "DataFrame"): _pandas_table,
    ("polars", "DataFrame"): lambda frame: Table(
        tuple(frame.columns), lambda names: frame.select(names).iter_rows()
    ),
    ("polars", "LazyFrame"): _lazy_polars_table,
    ("pyarrow", "Table"): _arrow_table,
    ("pyarrow", "RecordBatch"): lambda batch: Table(
        tuple(batch.schema.names), lambda names: _batch_rows([batch], names)
    ),
    ("pyarrow", "RecordBatchReader"): lambda reader: Table(
        tuple(reader.schema.names), lambda names: _batch_rows(reader, names), is_lazy=True
    ),
    ("daft", "DataFrame"): _daft_table,
    ("ray", "Dataset"): _ray_table,
}
