"""Tables as inputs: those of pandas, polars, Arrow and Daft, whose columns are what is mapped over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from hypernodes.exceptions import MapError, listing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_AT_ONCE: Final = 1000  # rows that become Python objects together


class DataFrame(Protocol):
    """A table that somebody else's library has: what `table_of` knows has columns of this kind at least."""

    def __getitem__(self, key: str, /) -> Any:
        """Return a column."""


@dataclass(frozen=True, slots=True)
class Table:
    """What a map takes of a table, whoever's it is.

    Attributes:
        names: Its columns.
        rows: The values of some columns, row by row, as Python objects.
    """

    names: tuple[str, ...]
    rows: Callable[[Sequence[str]], Iterator[tuple[Any, ...]]]

    def columns(self, names: Sequence[str]) -> dict[str, list[Any]]:
        """Return the values of some columns, as Python objects."""
        values: dict[str, list[Any]] = {name: [] for name in names}
        for row in self.rows(names):
            for column, value in zip(values.values(), row, strict=True):
                column.append(value)
        return values


def table_of(value: object) -> Table | None:
    """Return what a map takes of a table; ``None`` if the value is none.

    Raises:
        MapError: It has two columns of one name, or has not been computed yet.

    Example:
        >>> import pyarrow
        >>> table = table_of(pyarrow.table({"x": [1, None], "y": ["a", "b"]}))
        >>> table.names, list(table.rows(["y", "x"]))
        (('x', 'y'), [('a', 1), ('b', None)])
        >>> table_of({"x": [1, 2]}) is None
        True
    """
    # By name, so that nothing is imported that the user has not.
    for cls in type(value).__mro__:
        known = _KNOWN.get((cls.__module__.partition(".")[0], cls.__name__))
        if known is not None:
            table = known(value)
            twice = sorted({name for name in table.names if table.names.count(name) > 1})
            if twice:
                raise MapError(f"the table has two columns of the same name: {listing(twice)}. Rename one.")
            return table
    return None


def values_of(column: Any) -> Any:
    """Return a column whose elements are its library's own as Python objects, anything else as it is."""
    for cls in type(column).__mro__:
        to_list = _TO_LIST.get((cls.__module__.partition(".")[0], cls.__name__))
        if to_list is not None:
            return getattr(column, to_list)()
    return column


def _of_pandas(frame: Any) -> Table:
    def rows(names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        return zip(*(frame[name] for name in names), strict=True)

    return Table(tuple(name for name in frame.columns if isinstance(name, str)), rows)


def _of_polars(frame: Any) -> Table:
    return Table(tuple(frame.columns), lambda names: frame.select(names).iter_rows())


def _of_lazy_polars(frame: Any) -> Table:
    raise MapError(f"a polars {type(frame).__name__} has no rows yet. Give what its collect() returns.")


def _of_arrow(table: Any) -> Table:
    def rows(names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        return _of_batches(table.select(list(names)).to_batches(_AT_ONCE), names)

    return Table(tuple(table.schema.names), rows)


def _of_arrow_batch(batch: Any) -> Table:
    return Table(tuple(batch.schema.names), lambda names: _of_batches([batch], names))


def _of_arrow_reader(reader: Any) -> Table:
    return Table(tuple(reader.schema.names), lambda names: _of_batches(reader, names))


def _of_batches(batches: Any, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    for batch in batches:
        for start in range(0, batch.num_rows, _AT_ONCE):
            part = batch.slice(start, _AT_ONCE)
            yield from zip(*(part.column(name).to_pylist() for name in names), strict=True)


def _of_daft(frame: Any) -> Table:
    def rows(names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        return (tuple(row[name] for name in names) for row in frame.select(*names).iter_rows())

    return Table(tuple(frame.column_names), rows)


_TO_LIST: Final = {
    ("polars", "Series"): "to_list",
    ("pyarrow", "Array"): "to_pylist",
    ("pyarrow", "ChunkedArray"): "to_pylist",
    ("daft", "Series"): "to_pylist",
}
_KNOWN: Final[dict[tuple[str, str], Callable[[Any], Table]]] = {
    ("pandas", "DataFrame"): _of_pandas,
    ("polars", "DataFrame"): _of_polars,
    ("polars", "LazyFrame"): _of_lazy_polars,
    ("pyarrow", "Table"): _of_arrow,
    ("pyarrow", "RecordBatch"): _of_arrow_batch,
    ("pyarrow", "RecordBatchReader"): _of_arrow_reader,
    ("daft", "DataFrame"): _of_daft,
}
