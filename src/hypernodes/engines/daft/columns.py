"""Values in Daft's columns: typed where nothing is lost by it, as Python objects everywhere else."""

from __future__ import annotations

import collections.abc
import inspect
import numbers
import types
import typing
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Union

from hypernodes.exceptions import HintError
from hypernodes.execution.calls.batch import values
from hypernodes.text import short

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from daft import DataType, Series

_PLAIN: Final = ("int", "float", "str", "bool", "bytes")
_GENERATORS: Final = (
    collections.abc.Iterator,
    collections.abc.Iterable,
    collections.abc.Generator,
    collections.abc.AsyncIterator,
    collections.abc.AsyncGenerator,
)


def hints_of(function: Callable[..., Any], outputs: int) -> list[Any]:
    """Return the type that a function is said to return, for each of its outputs; ``None`` where unsaid.

    Example:
        >>> def parts(x: int) -> tuple[int, str | None]: ...
        >>> hints_of(parts, 2)
        [<class 'int'>, <class 'str'>]
    """
    called = inspect.unwrap(function)
    try:
        hint = typing.get_type_hints(called).get("return")
    except Exception:  # names that do not resolve, or no function at all
        return [None] * outputs
    if outputs == 1:
        return [_required(hint)]
    parts = typing.get_args(hint)
    if typing.get_origin(hint) is not tuple or len(parts) != outputs or ... in parts:
        return [None] * outputs
    return list(map(_required, parts))


def _required(hint: Any) -> Any:
    """Return a hint less its ``None``, which every column may have."""
    if typing.get_origin(hint) in (Union, types.UnionType):
        others = [part for part in typing.get_args(hint) if part is not type(None)]
        return others[0] if len(others) == 1 else None
    if typing.get_origin(hint) in _GENERATORS:
        return None  # a generator's values are a list
    return hint


def type_of(hint: Any) -> DataType | None:
    """Return the type of a column for values of a hint; ``None`` where Python objects it must be."""
    from daft import DataType

    name = _name(hint)
    if name is not None:
        return {
            "int": DataType.int64,
            "float": DataType.float64,
            "str": DataType.string,
            "bool": DataType.bool,
            "bytes": DataType.binary,
        }[name]()
    if typing.get_origin(hint) is list and len(typing.get_args(hint)) == 1:
        inner = type_of(typing.get_args(hint)[0])
        return None if inner is None else DataType.list(inner)
    return None


def _name(hint: Any) -> str | None:
    return (
        hint.__name__
        if isinstance(hint, type) and hint.__name__ in _PLAIN and hint.__module__ == "builtins"
        else None
    )


def objects(column: Sequence[Any]) -> Series:
    """Return values as a column of Python objects, which keeps each as it is."""
    from daft import DataType, Series

    return Series.from_pylist(list(column), dtype=DataType.python())


def exact(column: list[Any]) -> Series:
    """Return values as a typed column if all of them come back from it just as they are, else as objects.

    Example:
        >>> exact([1, None, 3]).datatype(), exact([1, True]).datatype()
        (Int64, Python)
    """
    import pyarrow as pa
    from daft import Series

    kinds = set(map(type, column)) - {type(None)}
    if len(kinds) == 1 and (name := _name(kinds.pop())) is not None:
        try:
            return Series.from_arrow(pa.array(column, _arrow(name)))
        except (pa.ArrowException, OverflowError, UnicodeError):  # too large, or half a character
            pass
    return objects(column)


def _arrow(name: str) -> Any:
    import pyarrow as pa

    kinds = {"int": pa.int64, "float": pa.float64, "str": pa.large_string, "bool": pa.bool_}
    return kinds.get(name, pa.large_binary)()


def typed(column: Any, dtype: DataType, what: str, *, exactly: bool = True) -> Series:
    """Return what a node has made as a column of the type that its hint says.

    Args:
        column: A list, array or ndarray.
        dtype: The type.
        what: Whose it is, for messages.
        exactly: Whether values must come back from it as they are. If not, what typing takes for the type
            fits, too: an int for a float, a subclass's object, a NumPy scalar.

    Raises:
        HintError: A value does not fit.

    Example:
        >>> from daft import DataType
        >>> typed([1, None], DataType.int64(), "output 'x'").to_pylist()
        [1, None]
    """
    import pyarrow as pa
    from daft import Series

    wanted = dtype.to_arrow_dtype()
    # Not a pandas Series: of that, Arrow takes NaN for None.
    if type(column).__name__ == "ndarray" and column.ndim == 1 and column.dtype.kind in "biuf":
        column = pa.array(column)
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if isinstance(column, pa.Array) and (_widens(column.type, wanted) or not exactly):
        with suppress(pa.ArrowException):  # else its values may fit
            return Series.from_arrow(column.cast(wanted))
    column = values(column)
    misfit = _misfit(column, wanted, exactly=exactly)
    if misfit:
        raise HintError(
            f"{what} is said to be {dtype}, but {short(misfit[0])} (a {type(misfit[0]).__name__}) is none. "
            f"Correct the hint, or leave it out."
        )
    try:
        return Series.from_arrow(pa.array(column, wanted))
    except (pa.ArrowException, OverflowError, UnicodeError) as error:  # too large, or half a character
        raise HintError(
            f"{what} is said to be {dtype}, but not all of its values fit: {error}. Correct the hint, or "
            f"leave it out."
        ) from error


def _widens(own: Any, wanted: Any) -> bool:
    """Whether values of one type are the same Python objects when they are of another."""
    import pyarrow.types as pt

    if (pt.is_list(own) or pt.is_large_list(own)) and (pt.is_list(wanted) or pt.is_large_list(wanted)):
        return _widens(own.value_type, wanted.value_type)
    return bool(
        own.equals(wanted)
        or (pt.is_integer(own) and pt.is_integer(wanted) and not pt.is_uint64(own))
        or (pt.is_floating(own) and pt.is_floating(wanted))
        or ((pt.is_string(own) or pt.is_large_string(own)) and pt.is_large_string(wanted))
        or ((pt.is_binary(own) or pt.is_large_binary(own)) and pt.is_large_binary(wanted))
        or (pt.is_null(own))
    )


def _misfit(column: Sequence[Any], wanted: Any, *, exactly: bool) -> list[Any]:
    """Return the first value that a type does not hold, in a list; Arrow alone would cut 1.5 to 1."""
    import pyarrow.types as pt

    if pt.is_large_list(wanted) or pt.is_list(wanted):
        for value in column:
            if value is not None and (
                not isinstance(value, list) or _misfit(value, wanted.value_type, exactly=exactly)
            ):
                return [value]
        return []
    own, others = _FITS[str(wanted)]
    good = {
        kind
        for kind in set(map(type, column))
        if kind is own or (not exactly and issubclass(kind, others) and (kind is not bool or own is bool))
    }
    good.add(type(None))
    return next(([value] for value in column if type(value) not in good), [])


_FITS: Final[dict[str, tuple[type, tuple[type, ...]]]] = {
    "bool": (bool, (bool,)),
    "int64": (int, (numbers.Integral,)),
    "double": (float, (numbers.Real,)),
    "large_string": (str, (str,)),
    "large_binary": (bytes, (bytes,)),
}
"""The Python type of each Arrow type, and what else typing takes for it."""


def as_inferred(column: Any) -> Any:
    """Return an array in the type that Arrow takes for its values by itself, as other engines give it."""
    import pyarrow as pa

    if isinstance(column, pa.Array) and not column.type.equals(plain := _inferred(column.type)):
        with suppress(pa.ArrowException):  # too large for it
            return column.cast(plain)
    return column


def _inferred(own: Any) -> Any:
    import pyarrow as pa
    import pyarrow.types as pt

    if pt.is_list(own) or pt.is_large_list(own):
        return pa.list_(_inferred(own.value_type))
    kinds = (
        (pt.is_integer, pa.int64()),
        (pt.is_floating, pa.float64()),
        (pt.is_large_string, pa.string()),
        (pt.is_large_binary, pa.binary()),
    )
    return next((plain for is_kind, plain in kinds if is_kind(own)), own)


def listed(series: Series) -> list[Any]:
    """Return a column's values as Python objects."""
    column: list[Any] = series.to_pylist()
    return column


def array_of(series: Series) -> Any:
    """Return a column as an Arrow array if that has the same Python objects as Daft, else as a list."""
    return series.to_arrow() if _is_arrows(series.datatype()) else listed(series)


def _is_arrows(dtype: DataType) -> bool:
    if dtype.is_list():
        return _is_arrows(dtype.dtype)
    return (
        dtype.is_numeric() or dtype.is_boolean() or dtype.is_string() or dtype.is_binary() or dtype.is_null()
    )
