"""From what a function has returned to the values of a node's outputs.

What can be consumed only once is collected in a list: a generator, ``map``, ``zip``, any iterator. The first
consumer would take everything, and the second one and the cache would get nothing. A resource stays as it is,
although it is an iterator, too: an open file, a cursor, a connection.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from operator import length_hint
from typing import TYPE_CHECKING, Any, Final

from hypernodes.exceptions import OutputCountError
from hypernodes.executors.loops import run_awaitable
from hypernodes.iterators import has_method, is_async_and_consumed_once, is_consumed_once
from hypernodes.tables import is_table

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable

    from hypernodes.execution.plan.model import CallStep

FINAL_TYPES: Final = frozenset({int, float, str, bytes, bool, type(None), list, tuple, dict, set, complex})
"""Types that are neither awaitable nor iterators: asking each value would cost more than most calls."""


def final_value(value: Any) -> Any:
    """Return the final value of what a function has returned: awaited, and collected if it is an iterator."""
    kind = type(value)
    try:
        if kind in FINAL_TYPES or not (
            hasattr(kind, "__next__") or hasattr(kind, "__await__") or hasattr(kind, "__anext__")
        ):
            return value
    except Exception:  # A class answers by code of its metaclass, which may raise anything.
        return value
    awaitable = awaitable_of(value)
    return collected(value if awaitable is None else run_awaitable(awaitable))


async def final_value_on_loop(value: Any) -> Any:
    """Return the same as `final_value`, on an event loop."""
    if type(value) in FINAL_TYPES:
        return value
    awaitable = awaitable_of(value)
    return collected(value if awaitable is None else await awaitable)


def called_and_collected(call: Callable[[], Any]) -> Any:
    """Call a function, and collect what it returns if that is an iterator."""
    return collected(call())


def collected(value: Any) -> Any:
    """Return the items of an iterator as a list, and any other value as it is."""
    kind = type(value)
    if kind in FINAL_TYPES or not is_consumed_once(value):
        return value
    is_endless = kind in (itertools.count, itertools.cycle) or (
        kind is itertools.repeat and length_hint(value, -1) < 0
    )
    if is_endless:
        raise OutputCountError(
            f"it returned an itertools.{kind.__name__}, which never ends and cannot be collected in a list. "
            f"Return a part of it, itertools.islice(...), or a function that makes it."
        )
    return list(value)


def awaitable_of(value: Any) -> Awaitable[Any] | None:
    """Return an awaitable that produces the value, or ``None`` if the value is not to be awaited."""
    if has_method(type(value), "__await__"):
        awaitable: Awaitable[Any] = value
        return awaitable
    return _collect(value) if is_async_and_consumed_once(value) else None


async def _collect(items: AsyncIterable[Any]) -> list[Any]:
    return [item async for item in items]


def unpack(value: Any, step: CallStep, path: tuple[str, ...]) -> tuple[Any, ...]:
    """Return the values of a node with several outputs; iterators among them are collected."""
    values = _unpacked(value, step, path)
    if FINAL_TYPES.issuperset(map(type, values)):
        return values
    return tuple(
        [
            run_awaitable(_collect(item)) if is_async_and_consumed_once(item) else collected(item)
            for item in values
        ]
    )


def _unpacked(value: Any, step: CallStep, path: tuple[str, ...]) -> tuple[Any, ...]:
    expected = len(step.outputs)
    if not hasattr(value, "__iter__") or isinstance(value, str | bytes | bytearray) or has_no_order(value):
        got = f"one {type(value).__name__}"
        if isinstance(value, set | frozenset):
            got += ", whose items have no order"
    else:
        values = tuple(value)
        if len(values) == expected:
            return values
        got = f"{len(values)} values"
    raise OutputCountError(
        f"node {step.name!r} of pipeline {'/'.join(path)!r} has {expected} outputs but returned {got}. "
        f"Return a tuple of {expected} values, or correct output_name."
    )


def has_no_order(value: Any) -> bool:
    """Whether iterating over a value does not give values in an order that the author of a node has chosen.

    Sets are iterated by hash, and mappings and tables give the names of what is in them.
    """
    return isinstance(value, AbstractSet | Mapping) or is_table(value)


async def unpack_on_loop(value: Any, step: CallStep, path: tuple[str, ...]) -> tuple[Any, ...]:
    """Return the same as `unpack`, on an event loop."""
    values = _unpacked(value, step, path)
    if FINAL_TYPES.issuperset(map(type, values)):
        return values
    return tuple(
        [await _collect(item) if is_async_and_consumed_once(item) else collected(item) for item in values]
    )
