"""The return hints of the outputs of a plan."""

from __future__ import annotations

import inspect
import types
import typing
from typing import Any, Union

from hypernodes.execution.plan.model import CallStep, NestedStep, Plan

if typing.TYPE_CHECKING:
    from collections.abc import Callable


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
        return [without_none(hint)]
    parts = typing.get_args(hint)
    if typing.get_origin(hint) is not tuple or len(parts) != outputs or ... in parts:
        return [None] * outputs
    return list(map(without_none, parts))


def without_none(hint: Any) -> Any:
    """Return a hint without its ``None``, which every column may hold, and what an alias stands for."""
    while type(alias := typing.get_origin(hint) or hint).__name__ == "TypeAliasType":
        parts = typing.get_args(hint)  # NumPy's NDArray is such an alias in Python 3.12 and newer
        hint = alias.__value__[parts] if parts else alias.__value__
    if typing.get_origin(hint) in (Union, types.UnionType):
        others = [part for part in typing.get_args(hint) if part is not type(None)]
        return others[0] if len(others) == 1 else hint
    return hint
