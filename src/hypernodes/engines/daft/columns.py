"""Columns of Daft: types from the hints of functions, and values, typed if they come back exactly so."""

from __future__ import annotations

import datetime as dt
import typing
import warnings
from contextlib import suppress
from typing import Any, Final

import pyarrow as pa
import pyarrow.types as pt
from daft import DataType, Series

from hypernodes.execution.calls.batch import values
from hypernodes.execution.hinted_columns import check_same, exact_type, misfits, typed_array
from hypernodes.execution.plan.output_hints import hint_of_output, without_none

if typing.TYPE_CHECKING:
    from collections.abc import Sequence

    from hypernodes.execution.plan.model import Plan


def column_type_of_output(plan: Plan, name: str, *, exactly: bool) -> DataType | None:
    """Return the type of the column for an output of a plan; ``None`` for a column of Python objects."""
    hint = hint_of_output(plan, name)
    return column_type(hint) if exactly else inferred_type(hint)


def column_type(hint: Any) -> DataType | None:
    """Return the type of a column for values of a hint; ``None`` for a column of Python objects."""
    plain = exact_type(hint)
    return None if plain is None else DataType.from_arrow_type(plain)


_INFERRED: Final = (dt.date, dt.datetime, dt.time, dt.timedelta)


def inferred_type(hint: Any) -> DataType | None:
    """Return the type that Daft infers from a hint; ``None`` if it would hold pickles, or other values.

    >>> import datetime
    >>> inferred_type(list[datetime.date]), inferred_type(dict[str, int | None])
    (List[Date], Map[String: Int64])
    """
    hint = without_none(hint)
    if (simple := column_type(hint)) is not None:
        return simple
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    found: DataType
    if hint in _INFERRED:
        found = DataType.infer_from_type(hint)
        return found
    if typing.is_typeddict(hint) and not hint.__optional_keys__:
        fields = {name: inferred_type(part) for name, part in typing.get_type_hints(hint).items()}
        known = {name: field for name, field in fields.items() if field is not None}
        return DataType.struct(known) if known and len(known) == len(fields) else None
    inner = [inferred_type(part) for part in parts] if origin in (list, dict) else []
    if inner and None not in inner:
        found = DataType.list(inner[0]) if origin is list else DataType.map(*inner)
        return found
    if getattr(origin or hint, "__module__", "") == "numpy":
        with warnings.catch_warnings(), suppress(Exception):
            warnings.simplefilter("ignore")  # of an array without the type of its elements
            found = DataType.infer_from_type(hint)
            if "Python" not in repr(found):
                return found
    return None


def object_series(column: Sequence[Any]) -> Series:
    """Return values as a column of Python objects, which gives each back as it is."""
    return Series.from_pylist(list(column), dtype=DataType.python())


def exact_series(column: list[Any]) -> Series:
    """Return values as a typed column if it gives all of them back exactly, else as Python objects.

    >>> exact_series([1, None, 3]).datatype(), exact_series([1, True]).datatype()
    (Int64, Python)
    """
    kinds = set(map(type, column)) - {type(None)}
    if len(kinds) == 1 and (plain := exact_type(kinds.pop())) is not None:
        try:
            return Series.from_arrow(pa.array(column, plain))
        except (pa.ArrowException, OverflowError, UnicodeError):
            pass  # An int is beyond 64 bits, or a text has half of a surrogate pair.
    return object_series(column)


def typed_series(column: Any, dtype: DataType, label: str, *, exactly: bool = True) -> Series:
    """Return the values that a node has computed as a column of the type of its hint, or raise a HintError.

    If the column need not give the values back exactly, values that typing accepts for the type fit, too: an
    int for a float, an object of a subclass, a NumPy scalar.

    >>> from daft import DataType
    >>> typed_series([1, None], DataType.int64(), "output 'x'").to_pylist()
    [1, None]
    """
    hinted = f"{label} has a hint for {dtype}"
    if not _is_exact(dtype):
        return _inferred_series(values(column), dtype, hinted)
    return Series.from_arrow(typed_array(column, dtype.to_arrow_dtype(), hinted, exactly=exactly))


def _is_exact(dtype: DataType) -> bool:
    """Whether a type is one of those that `column_type` returns."""
    if dtype.is_list():
        return _is_exact(dtype.dtype)
    return any(
        is_kind()
        for is_kind in (dtype.is_boolean, dtype.is_int64, dtype.is_float64, dtype.is_string, dtype.is_binary)
    )


def _inferred_series(column: list[Any], dtype: DataType, hinted: str) -> Series:
    """Return values as a column of a type that Daft has inferred, or raise a HintError if it changes one."""
    try:
        series = Series.from_pylist(column, dtype=dtype)
        back = restored(series.to_pylist(), dtype)
    except Exception as error:
        raise misfits(hinted, error) from error
    check_same(column, back, hinted)
    return series


def restored(column: list[Any], dtype: DataType) -> list[Any]:
    """Return values that Daft has read from a column, with dictionaries for maps."""
    if "Map[" not in repr(dtype):
        return column
    return [_restored(value, dtype) for value in column]


def _restored(value: Any, dtype: DataType) -> Any:
    if value is None:
        return None
    if dtype.is_map():
        return {key: _restored(part, dtype.value_type) for key, part in value}
    if dtype.is_list():
        return [_restored(part, dtype.dtype) for part in value]
    if dtype.is_struct():
        return {name: _restored(value[name], field) for name, field in dtype.fields.items()}
    return value


def as_inferred(column: Any) -> Any:
    """Return an array of the type that Arrow infers from its values, as other engines pass it."""
    if isinstance(column, pa.Array) and not column.type.equals(plain := _inferred(column.type)):
        with suppress(pa.ArrowException):  # An unsigned value may be beyond the signed type.
            return column.cast(plain)
    return column


def _inferred(own: Any) -> Any:
    if pt.is_list(own) or pt.is_large_list(own):
        return pa.list_(_inferred(own.value_type))
    kinds = (
        (pt.is_integer, pa.int64()),
        (pt.is_floating, pa.float64()),
        (pt.is_large_string, pa.string()),
        (pt.is_large_binary, pa.binary()),
    )
    return next((plain for is_kind, plain in kinds if is_kind(own)), own)


def list_of(series: Series) -> list[Any]:
    """Return the values of a column as Python objects."""
    column: list[Any] = series.to_pylist()
    return column


def array_of(series: Series) -> Any:
    """Return a column as an Arrow array if that gives the same Python objects as Daft, else as a list."""
    return series.to_arrow() if _is_same_in_arrow(series.datatype()) else list_of(series)


def _is_same_in_arrow(dtype: DataType) -> bool:
    if dtype.is_list():
        return _is_same_in_arrow(dtype.dtype)
    return (
        dtype.is_numeric() or dtype.is_boolean() or dtype.is_string() or dtype.is_binary() or dtype.is_null()
    )
