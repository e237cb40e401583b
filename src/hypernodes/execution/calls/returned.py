"""From what a function has returned to the values of a node's outputs."""

from __future__ import annotations

import inspect
from types import AsyncGeneratorType, GeneratorType
from typing import TYPE_CHECKING, Any, Final

from hypernodes.exceptions import OutputCountError
from hypernodes.executors.loops import run_awaitable

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable

    from hypernodes.execution.plan.model import CallStep

FINAL_TYPES: Final = frozenset({int, float, str, bytes, bool, type(None), list, tuple, dict, set, complex})
"""Types that are neither awaitable nor generators: asking each value would cost more than most calls."""


def final_value(value: Any) -> Any:
    """Return the final value of what a function has returned: awaited, or collected if it is a generator."""
    if type(value) in FINAL_TYPES:
        return value
    if type(value) is GeneratorType:
        return list(value)
    awaitable = awaitable_of(value)
    return value if awaitable is None else run_awaitable(awaitable)


async def final_value_on_loop(value: Any) -> Any:
    """Return the same as `final_value`, on an event loop."""
    if type(value) in FINAL_TYPES:
        return value
    awaitable = awaitable_of(value)
    return value if awaitable is None else await awaitable


def called_and_collected(call: Callable[[], Any]) -> Any:
    """Call a function, and collect what it yields if it is a generator function."""
    value = call()
    return list(value) if type(value) is GeneratorType else value


def awaitable_of(value: Any) -> Awaitable[Any] | None:
    """Return an awaitable that produces the value, or ``None`` if the value is final."""
    if type(value) is AsyncGeneratorType:
        return _collect(value)
    try:
        return value if inspect.isawaitable(value) else None
    except Exception:  # a proxy whose `__class__` raises, for example
        return None


async def _collect(items: AsyncIterable[Any]) -> list[Any]:
    return [item async for item in items]


def unpack(value: Any, step: CallStep, path: tuple[str, ...]) -> tuple[Any, ...]:
    """Return the values of a node with several outputs.

    Raises:
        OutputCountError: There are more or fewer values than outputs.
    """
    expected = len(step.outputs)
    if isinstance(value, str | bytes | dict) or not hasattr(value, "__iter__"):
        got = f"one {type(value).__name__}"
    else:
        values = tuple(value)
        if len(values) == expected:
            return values
        got = f"{len(values)} values"
    raise OutputCountError(
        f"node {step.name!r} of pipeline {'/'.join(path)!r} has {expected} outputs but returned {got}. "
        f"Return a tuple of {expected} values, or correct output_name."
    )
