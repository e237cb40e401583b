"""Columns of Arrow for values of a type hint: of which type, and whether the values fit it."""

from __future__ import annotations

import math
import numbers
import typing
from contextlib import suppress
from typing import Any, Final

import pyarrow as pa
import pyarrow.types as pt

from hypernodes.exceptions import HintError
from hypernodes.execution.calls.batch import values
from hypernodes.execution.plan.output_hints import without_none
from hypernodes.text import short

if typing.TYPE_CHECKING:
    from collections.abc import Sequence

_TYPES: Final = {
    "int": pa.int64(),
    "float": pa.float64(),
    "str": pa.large_string(),
    "bool": pa.bool_(),
    "bytes": pa.large_binary(),
}
"""The built-in types whose values Arrow holds exactly."""


def exact_type(hint: Any) -> pa.DataType | None:
    """Return the type of Arrow that holds values of a hint exactly; ``None`` if there is none.

    >>> exact_type(int), exact_type(list[str | None]), exact_type(set)
    (DataType(int64), LargeListType(large_list<item: large_string>), None)
    """
    if isinstance(hint, type) and hint.__module__ == "builtins" and hint.__name__ in _TYPES:
        return _TYPES[hint.__name__]
    if typing.get_origin(hint) is list and len(typing.get_args(hint)) == 1:
        inner = exact_type(without_none(typing.get_args(hint)[0]))
        return None if inner is None else pa.large_list(inner)
    return None


def typed_array(column: Any, wanted: pa.DataType, hinted: str, *, exactly: bool = False) -> pa.Array:
    """Return the values that a node has computed as an array of an exact type, or raise a HintError.

    If the array need not give the values back exactly, values that typing accepts for the type fit, too: an
    int for a float, an object of a subclass, a NumPy scalar. `hinted` begins the message of the error.

    >>> typed_array([1, None], pa.int64(), "output 'x' has a hint for int").to_pylist()
    [1, None]
    """
    # A pandas Series is left out here: Arrow would turn its NaN into None.
    if type(column).__name__ == "ndarray" and column.ndim == 1 and column.dtype.kind in "biuf":
        column = pa.array(column)
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if isinstance(column, pa.Array) and (_cast_is_exact(column.type, wanted) or not exactly):
        with suppress(pa.ArrowException):  # The cast fails as a whole; the values are tried one by one below.
            return column.cast(wanted)
    column = values(column)
    if (misfit := _misfit(column, wanted, exactly=exactly)) is not None:
        raise HintError(
            f"{hinted}, but its value {short(misfit)} is of type {type(misfit).__name__!r}. Correct the "
            f"hint, or leave it out."
        )
    try:
        return pa.array(column, wanted)
    except (pa.ArrowException, OverflowError, UnicodeError) as error:
        raise misfits(hinted, error) from error


def misfits(hinted: str, error: Exception) -> HintError:
    """Return the error of values of which some do not fit their hint."""
    return HintError(f"{hinted}, but not all of its values fit: {error}. Correct the hint, or leave it out.")


def check_same(column: Sequence[Any], back: Sequence[Any], hinted: str) -> None:
    """Raise a HintError if a column gives a value back as another one."""
    for value, found in zip(column, back, strict=True):
        if not _is_same(value, found):
            raise HintError(
                f"{hinted}, but its value {short(value)}, of type {type(value).__name__!r}, would become "
                f"{short(found)}. Correct the hint, or leave it out."
            )


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
