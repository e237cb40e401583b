"""From the return hint of a function to the types of the columns for its outputs."""

from __future__ import annotations

import collections.abc
import inspect
import types
import typing
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Union

from hypernodes.execution.plan.model import CallStep, NestedStep, Plan

if TYPE_CHECKING:
    from daft import DataType

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
    from daft import DataType

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
