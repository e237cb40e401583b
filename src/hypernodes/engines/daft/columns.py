"""Columns of Daft: types from the hints of functions, and values, typed if they come back exactly so."""

from __future__ import annotations

import collections.abc
import inspect
import numbers
import types
import typing
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

_ITERATORS: Final = (
    collections.abc.Iterator,
    collections.abc.Iterable,
    collections.abc.Generator,
    collections.abc.AsyncIterator,
    collections.abc.AsyncGenerator,
)


def column_type_of_output(plan: Plan, name: str) -> DataType | None:
    """Return the type of the column for an output of a plan; ``None`` for a column of Python objects."""
    return column_type(_hint_of_output(plan, name))


def _hint_of_output(plan: Plan, name: str) -> Any:
    step = plan.producers.get(name)
    match step:
        case CallStep():
            return return_hints(step.function, len(step.outputs))[step.outputs.index(name)]
        case NestedStep():
            inner = next(inner for inner, outer in step.results if outer == name)
            hint = _hint_of_output(step.inner, inner)
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
        return others[0] if len(others) == 1 else None
    if typing.get_origin(hint) in _ITERATORS:
        return None  # The output of a generator function is the list of its values.
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
        inner = column_type(typing.get_args(hint)[0])
        return None if inner is None else DataType.list(inner)
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
