"""Columns of Ray Data: typed by the hints of functions, and of pickled Python objects without."""

from __future__ import annotations

import datetime as dt
import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
from ray.data.extensions import ArrowPythonObjectArray, ArrowTensorArray

from hypernodes.execution.calls.batch import values
from hypernodes.execution.hinted_columns import check_same, exact_type, misfits, typed_array
from hypernodes.execution.plan.output_hints import without_none

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

_TIMES: Final = {
    dt.date: pa.date32(),
    dt.datetime: pa.timestamp("us"),
    dt.time: pa.time64("us"),
    dt.timedelta: pa.duration("us"),
}


@dataclass(frozen=True, slots=True)
class OutputColumn:
    """A value that a stage computes for each row."""

    name: str
    column: str  # the name of its column
    label: str  # for messages
    dtype: pa.DataType | np.dtype[Any] | None = None  # of the values, or of arrays; ``None`` for objects

    def array(self, column: Any) -> Any:
        """Return values as an array, or raise a HintError if one does not fit."""
        if self.dtype is None:
            return ArrowPythonObjectArray.from_objects(_objects(values(column)))
        hinted = f"{self.label} has a hint for {self.dtype}"
        if not isinstance(self.dtype, pa.DataType):
            return _tensors(values(column), self.dtype, hinted)
        if _is_exact(self.dtype):
            return typed_array(column, self.dtype, hinted)
        listed = values(column)
        try:
            array = pa.array(listed, self.dtype)
        except (pa.ArrowException, OverflowError, UnicodeError, TypeError, ValueError) as error:
            raise misfits(hinted, error) from error
        check_same(listed, array.to_pylist(), hinted)
        return array


def column_type(hint: Any) -> pa.DataType | np.dtype[Any] | None:
    """Return the type of a column for values of a hint; ``None`` for a column of Python objects.

    >>> column_type(list[int]), column_type(dt.date), column_type(set)
    (LargeListType(large_list<item: int64>), DataType(date32[day]), None)
    """
    hint = without_none(hint)
    return plain if (plain := _arrow_type(hint)) is not None else _array_type(hint)


def _arrow_type(hint: Any) -> pa.DataType | None:
    hint = without_none(hint)
    if (plain := exact_type(hint)) is not None:
        return plain
    if isinstance(hint, type) and hint in _TIMES:
        return _TIMES[hint]
    if typing.is_typeddict(hint) and not hint.__optional_keys__:
        fields = {name: _arrow_type(part) for name, part in typing.get_type_hints(hint).items()}
        known = [(name, field) for name, field in fields.items() if field is not None]
        return pa.struct(known) if known and len(known) == len(fields) else None
    if typing.get_origin(hint) is list and len(typing.get_args(hint)) == 1:
        inner = _arrow_type(typing.get_args(hint)[0])
        return None if inner is None else pa.large_list(inner)
    if isinstance(hint, type) and hint.__module__ == "numpy" and (dtype := _dtype_of(hint)) is not None:
        return pa.from_numpy_dtype(dtype)
    return None


def _array_type(hint: Any) -> np.dtype[Any] | None:
    """Return the type of the elements of ``numpy.typing.NDArray[...]``; ``None`` for any other hint."""
    parts = typing.get_args(hint)
    is_array = getattr(typing.get_origin(hint), "__name__", "") == "ndarray" and len(parts) == 2
    kinds = typing.get_args(parts[1]) if is_array else ()
    return _dtype_of(kinds[0]) if kinds and isinstance(kinds[0], type) else None


def _dtype_of(kind: type) -> np.dtype[Any] | None:
    """Return the type of NumPy for its numbers and booleans, if it is one and not a family of them."""
    import numpy as np

    try:
        dtype: np.dtype[Any] = np.dtype(kind)
    except TypeError:
        return None
    return dtype if dtype.kind in "biuf" and dtype.type is kind else None


def _is_exact(dtype: pa.DataType) -> bool:
    while pa.types.is_large_list(dtype):
        dtype = dtype.value_type
    return dtype in (pa.int64(), pa.float64(), pa.large_string(), pa.bool_(), pa.large_binary())


def _objects(column: Sequence[Any]) -> np.ndarray[Any, Any]:
    """Return values as an array of objects, which NumPy itself would make of more dimensions."""
    import numpy as np

    objects = np.empty(len(column), dtype=object)
    for position, value in enumerate(column):
        objects[position] = value
    return objects


def _tensors(column: list[Any], dtype: np.dtype[Any], hinted: str) -> Any:
    """Return arrays as a column of tensors; those of one column have the same number of dimensions."""
    import numpy as np

    if not column:
        return pa.nulls(0)
    other = next((each for each in column if type(each) is not np.ndarray or each.dtype != dtype), column)
    if other is not column:
        check_same([other], [None], hinted)
        raise misfits(hinted, TypeError("None is no array"))
    try:
        is_one_shape = len({each.shape for each in column}) == 1
        tensors = ArrowTensorArray.from_numpy(np.stack(column) if is_one_shape else _objects(column))
    except Exception as error:
        raise misfits(hinted, error) from error
    check_same(column, tensors.to_pylist(), hinted)
    return tensors


def list_of(column: pa.ChunkedArray) -> list[Any]:
    """Return a column as Python objects; arrays can be written to, as those of other engines."""
    found: list[Any] = column.to_pylist()
    return [
        value.copy() if type(value).__name__ == "ndarray" and not value.flags.writeable else value
        for value in found
    ]
