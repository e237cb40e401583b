"""Columns of Daft: types from the hints of functions, and values, typed if they come back exactly so."""

from __future__ import annotations

import datetime as dt
import inspect
import math
import numbers
import types
import typing
import warnings
from contextlib import suppress
from typing import Any, Final, Union

import pyarrow as pa
import pyarrow.types as pt
from daft import DataType, Series

from hypernodes.exceptions import HintError
from hypernodes.execution.calls.batch import values
from hypernodes.execution.plan.model import CallStep, NestedStep, Plan
from hypernodes.text import short

if typing.TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TYPED_NAMES: Final = ("int", "float", "str", "bool", "bytes")
"""The built-in types whose values Arrow holds exactly."""


def column_type_of_output(plan: Plan, name: str, *, exactly: bool) -> DataType | None:
    """Return the type of the column for an output of a plan; ``None`` for a column of Python objects.

    Args:
        plan: The plan.
        name: The output.
        exactly: Whether only types are wanted whose columns give all values back as they were.
    """
    hint = hint_of_output(plan, name)
    return column_type(hint) if exactly else inferred_type(hint)


def hint_of_output(plan: Plan, name: str) -> Any:
    """Return the return hint of the node that makes an output; ``None`` if it has none."""
    step = plan.producers.get(name)
    match step:
        case CallStep():
            return return_hints(step.function, len(step.outputs))[step.outputs.index(name)]
        case NestedStep():
            inner = next(inner for inner, outer in step.results if outer == name)
            hint = hint_of_output(step.inner, inner)
            return types.GenericAlias(list, (hint,)) if step.map_over and hint is not None else hint
    return None


def return_hints(function: Callable[..., Any], outputs: int) -> list[Any]:
    """Return the type that a function's return hint has for each of its outputs; ``None`` without a hint.

    >>> def parts(x: int) -> tuple[int, str | None]: ...
    >>> return_hints(parts, 2)
    [<class 'int'>, <class 'str'>]
    """
    called = inspect.unwrap(function)
    try:
        hint = typing.get_type_hints(called).get("return")
    except Exception:  # The hint has names that do not resolve, or the callable is no function at all.
        return [None] * outputs
    if outputs == 1:
        return [_without_none(hint)]
    parts = typing.get_args(hint)
    if typing.get_origin(hint) is not tuple or len(parts) != outputs or ... in parts:
        return [None] * outputs
    return list(map(_without_none, parts))


def _without_none(hint: Any) -> Any:
    """Return a hint without its ``None``, since every column may hold that."""
    if typing.get_origin(hint) in (Union, types.UnionType):
        others = [part for part in typing.get_args(hint) if part is not type(None)]
        return others[0] if len(others) == 1 else hint
    return hint


def column_type(hint: Any) -> DataType | None:
    """Return the type of a column for values of a hint; ``None`` for a column of Python objects."""
    if (name := typed_name(hint)) is not None:
        return {
            "int": DataType.int64,
            "float": DataType.float64,
            "str": DataType.string,
            "bool": DataType.bool,
            "bytes": DataType.binary,
        }[name]()
    if typing.get_origin(hint) is list and len(typing.get_args(hint)) == 1:
        inner = column_type(_without_none(typing.get_args(hint)[0]))
        return None if inner is None else DataType.list(inner)
    return None


_INFERRED: Final = (dt.date, dt.datetime, dt.time, dt.timedelta)


def inferred_type(hint: Any) -> DataType | None:
    """Return the type that Daft infers from a hint; ``None`` if it would hold pickles, or other values.

    >>> import datetime
    >>> inferred_type(list[datetime.date]), inferred_type(dict[str, int | None])
    (List[Date], Map[String: Int64])
    """
    hint = _without_none(hint)
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


def typed_name(hint: Any) -> str | None:
    """Return the name of a built-in type whose values Arrow holds exactly, else ``None``."""
    if isinstance(hint, type) and hint.__name__ in TYPED_NAMES and hint.__module__ == "builtins":
        return hint.__name__
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
    if len(kinds) == 1 and (name := typed_name(kinds.pop())) is not None:
        try:
            return Series.from_arrow(pa.array(column, _arrow_type(name)))
        except (pa.ArrowException, OverflowError, UnicodeError):
            pass  # An int is beyond 64 bits, or a text has half of a surrogate pair.
    return object_series(column)


def _arrow_type(name: str) -> Any:
    kinds = {"int": pa.int64, "float": pa.float64, "str": pa.large_string, "bool": pa.bool_}
    return kinds.get(name, pa.large_binary)()


def typed_series(column: Any, dtype: DataType, label: str, *, exactly: bool = True) -> Series:
    """Return the values that a node has computed as a column of the type of its hint, or raise a HintError.

    If the column need not give the values back exactly, values that typing accepts for the type fit, too: an
    int for a float, an object of a subclass, a NumPy scalar.

    >>> from daft import DataType
    >>> typed_series([1, None], DataType.int64(), "output 'x'").to_pylist()
    [1, None]
    """
    if not _is_exact(dtype):
        return _inferred_series(values(column), dtype, label)
    wanted = dtype.to_arrow_dtype()
    # A pandas Series is left out here: Arrow would turn its NaN into None.
    if type(column).__name__ == "ndarray" and column.ndim == 1 and column.dtype.kind in "biuf":
        column = pa.array(column)
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if isinstance(column, pa.Array) and (_cast_is_exact(column.type, wanted) or not exactly):
        with suppress(pa.ArrowException):  # The cast fails as a whole; the values are tried one by one below.
            return Series.from_arrow(column.cast(wanted))
    column = values(column)
    if (misfit := _misfit(column, wanted, exactly=exactly)) is not None:
        raise HintError(
            f"{label} has a hint for {dtype}, but its value {short(misfit)} is of type "
            f"{type(misfit).__name__!r}. Correct the hint, or leave it out."
        )
    try:
        return Series.from_arrow(pa.array(column, wanted))
    except (pa.ArrowException, OverflowError, UnicodeError) as error:
        raise HintError(
            f"{label} has a hint for {dtype}, but not all of its values fit: {error}. Correct the hint, or "
            f"leave it out."
        ) from error


def _is_exact(dtype: DataType) -> bool:
    """Whether a type is one of those that `column_type` returns."""
    if dtype.is_list():
        return _is_exact(dtype.dtype)
    return any(
        is_kind()
        for is_kind in (dtype.is_boolean, dtype.is_int64, dtype.is_float64, dtype.is_string, dtype.is_binary)
    )


def _inferred_series(column: list[Any], dtype: DataType, label: str) -> Series:
    """Return values as a column of a type that Daft has inferred, or raise a HintError if it changes one."""
    try:
        series = Series.from_pylist(column, dtype=dtype)
        back = restored(series.to_pylist(), dtype)
    except Exception as error:
        raise HintError(
            f"{label} has a hint for {dtype}, but not all of its values fit: {error}. Correct the hint, or "
            f"leave it out."
        ) from error
    for value, found in zip(column, back, strict=True):
        if not _is_same(value, found):
            raise HintError(
                f"{label} has a hint for {dtype}, but its value {short(value)}, of type "
                f"{type(value).__name__!r}, would become {short(found)}. Correct the hint, or leave it out."
            )
    return series


def _is_same(value: Any, found: Any) -> bool:
    if isinstance(value, dict) and isinstance(found, dict):
        return value.keys() == found.keys() and all(_is_same(value[key], found[key]) for key in value)
    if isinstance(value, list) and isinstance(found, list):
        return len(value) == len(found) and all(map(_is_same, value, found))
    if type(value).__name__ == "ndarray":
        import numpy as np

        is_same = type(found) is type(value) and value.dtype == found.dtype and value.shape == found.shape
        return is_same and np.array_equal(value, found, equal_nan=value.dtype.kind in "fc")
    return bool(value == found) or (isinstance(value, float) and math.isnan(value) and math.isnan(found))


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


def _cast_is_exact(own: Any, wanted: Any) -> bool:
    """Whether a cast from one Arrow type to another keeps the Python objects of all values."""
    if (pt.is_list(own) or pt.is_large_list(own)) and (pt.is_list(wanted) or pt.is_large_list(wanted)):
        return _cast_is_exact(own.value_type, wanted.value_type)
    return bool(
        own.equals(wanted)
        or (pt.is_integer(own) and pt.is_integer(wanted) and not pt.is_uint64(own))
        or (pt.is_floating(own) and pt.is_floating(wanted))
        or ((pt.is_string(own) or pt.is_large_string(own)) and pt.is_large_string(wanted))
        or ((pt.is_binary(own) or pt.is_large_binary(own)) and pt.is_large_binary(wanted))
        or (pt.is_null(own))
    )


def _misfit(column: Sequence[Any], wanted: Any, *, exactly: bool) -> Any:
    """Return the first value that does not fit a type, or ``None``, which fits every type.

    Arrow alone would not find all of them: it truncates 1.5 to 1.
    """
    if pt.is_large_list(wanted) or pt.is_list(wanted):
        for value in column:
            if value is not None and (
                not isinstance(value, list) or _misfit(value, wanted.value_type, exactly=exactly) is not None
            ):
                return value
        return None
    own, others = _ACCEPTED[str(wanted)]
    fitting = {
        kind
        for kind in set(map(type, column))
        if kind is own or (not exactly and issubclass(kind, others) and (kind is not bool or own is bool))
    }
    fitting.add(type(None))
    return next((value for value in column if type(value) not in fitting), None)


_ACCEPTED: Final[dict[str, tuple[type, tuple[type, ...]]]] = {
    "bool": (bool, (bool,)),
    "int64": (int, (numbers.Integral,)),
    "double": (float, (numbers.Real,)),
    "large_string": (str, (str,)),
    "large_binary": (bytes, (bytes,)),
}
"""The Python type of each Arrow type, and the types that typing accepts in its place."""


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
