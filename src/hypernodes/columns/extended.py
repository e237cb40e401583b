"""A table with further columns, of the same library as the table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from hypernodes.columns.plain import Plain, encodable, to_json
from hypernodes.columns.types import ColumnType
from hypernodes.exceptions import TableWarning
from hypernodes.user_warnings import warn_user

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pyarrow as pa

    Columns = Mapping[str, Sequence[Any]]

MAX_EXACT_FLOAT: Final = 1 << 53
"""Integers up to here are exact as floats."""


def kind_of_table(table: object) -> str | None:
    """Return the library of a table that can get columns; ``None`` for any other value.

    >>> import pyarrow
    >>> kind_of_table(pyarrow.table({"x": [1]})), kind_of_table([1])
    ('pyarrow.Table', None)
    """
    for cls in type(table).__mro__:
        name = f"{cls.__module__.partition('.')[0]}.{cls.__name__}"
        if name in _EXTENDED or name in (DAFT, RAY_DATA):
            return name
    return None


DAFT: Final = "daft.DataFrame"
RAY_DATA: Final = "ray.Dataset"


def extended(table: Any, columns: Columns, kind: str, where: str) -> Any:
    """Return a table with further columns, which replace those of the same names."""
    return _EXTENDED[kind](table, columns, where)


def arrow_column(name: str, values: Sequence[Any], where: str) -> pa.Array:
    """Return values as an Arrow array: as JSON texts, with a warning, if no one type holds them all."""
    import pyarrow as pa

    plain, kind = Plain(), ColumnType()
    column = [plain.row({name: value})[name] for value in values]
    for value in column:
        kind.add(value)
    for remark in plain.remarks():
        warn_user(f"{where}: {remark}", TableWarning)
    if not kind.fits_parquet:
        warn_user(
            f"{where}: no one type of Arrow holds all values of output {name!r}, so that the column has them "
            f"as JSON texts.",
            TableWarning,
        )
    return pa.array([storable(value, as_json=not kind.fits_parquet) for value in column], kind.arrow())


def storable(value: Any, *, as_json: bool) -> Any:
    """Return a plain value as a column of Arrow takes it, or as a JSON text."""
    if as_json:
        return None if value is None else to_json(value)
    match value:
        case str():
            return encodable(value)
        case list():
            return [storable(each, as_json=False) for each in value]
        case dict():
            return {key: storable(each, as_json=False) for key, each in value.items()}
    return value


def _pandas(frame: Any, columns: Columns, where: str) -> Any:
    import pandas as pd

    del where
    made = {}
    for name, values in columns.items():
        series = pd.Series(list(values), index=frame.index)
        # Beside a None or a fraction, pandas makes integers floats, which are not exact beyond 2**53.
        if series.dtype.kind == "f" and any(type(v) is int and abs(v) > MAX_EXACT_FLOAT for v in values):
            series = pd.Series(list(values), index=frame.index, dtype=object)
        made[name] = series
    return frame.assign(**made)


def _polars(frame: Any, columns: Columns, where: str) -> Any:
    import polars as pl

    del where
    made = []
    for name, values in columns.items():
        plain, kind = Plain(), ColumnType()
        column = [plain.row({name: value})[name] for value in values]
        for value in column:
            kind.add(value)
        if kind.fits_parquet and not plain.replaced:
            import pyarrow as pa

            array = pa.array([storable(value, as_json=False) for value in column], kind.arrow())
            made.append(pl.Series(name, array))
        else:
            made.append(pl.Series(name, list(values), dtype=pl.Object))
    return frame.with_columns(made)


def _arrow(table: Any, columns: Columns, where: str) -> Any:
    for name, values in columns.items():
        array = arrow_column(name, values, where)
        if name in table.schema.names:
            table = table.set_column(table.schema.names.index(name), name, array)
        else:
            table = table.append_column(name, array)
    return table


def _arrow_batch(batch: Any, columns: Columns, where: str) -> Any:
    import pyarrow as pa

    table = _arrow(pa.Table.from_batches([batch]), columns, where)
    arrays = [column.combine_chunks() for column in table.columns]
    return pa.RecordBatch.from_arrays(arrays, schema=table.schema)


def _arrow_reader(table: Any, columns: Columns, where: str) -> Any:
    return _arrow(table, columns, where).to_reader()


_EXTENDED: Final[dict[str, Callable[[Any, Columns, str], Any]]] = {
    "pandas.DataFrame": _pandas,
    "polars.DataFrame": _polars,
    "pyarrow.Table": _arrow,
    "pyarrow.RecordBatch": _arrow_batch,
    "pyarrow.RecordBatchReader": _arrow_reader,
}
