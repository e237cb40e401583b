"""One call for many items: what a node's batch function takes, and what it returns."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from time import perf_counter, time
from typing import TYPE_CHECKING, Any

from hypernodes.callbacks.event import Event, here
from hypernodes.exceptions import BatchError
from hypernodes.execution.deadline import within
from hypernodes.execution.invoke import UNKNOWN, attempt, note, now, within_contexts
from hypernodes.execution.jobs import Outcome
from hypernodes.execution.mutation import watch
from hypernodes.tables import values_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hypernodes.callbacks.event import Scope
    from hypernodes.execution.jobs import Call
    from hypernodes.execution.steps import CallStep


def call_batch(
    step: CallStep, varying: Mapping[str, Any], fixed: Mapping[str, Any], numbers: Sequence[int], scope: Scope
) -> tuple[Any, ...]:
    """Call a node's batch function; if that fails, find the item whose fault it is.

    Args:
        step: The step.
        varying: Lists or Arrow arrays by parameter, equally long.
        fixed: The other arguments.
        numbers: The index of each item in its map.
        scope: Where the map is.

    Returns:
        A list or array for each output.

    Raises:
        Exception: Whatever the node's function raises for the first item for which it does; else whatever
            the batch function has raised.
    """
    try:
        return _returned(step, varying, fixed, len(numbers), scope)
    except Exception as error:
        for arguments, number in zip(_rows(varying, fixed), numbers, strict=True):
            outcome = now(attempt(step, arguments, scope.of_item(number)))
            if outcome.error is not None:
                raise outcome.error from None
        raise _noted(error, step, numbers, scope) from None


def call_together(calls: Sequence[Call]) -> list[Outcome]:
    """Make calls of one node, for items of one map, by its batch function.

    If that fails, each is made by itself, so that the error stays with the item whose fault it is.
    """
    first = calls[0]
    step, scope = first.step, first.frame.scope
    common = {parameter for parameter, name in step.arguments if name in first.frame.common}
    varying = {
        parameter: [call.arguments[parameter] for call in calls]
        for parameter in first.arguments
        if parameter not in common
    }
    fixed = {parameter: first.arguments[parameter] for parameter in common}
    numbers = [call.frame.scope.items[-1] for call in calls]
    around = replace(scope, items=scope.items[:-1])
    started, began = perf_counter(), time()
    events: list[Event] = []
    try:
        with within_contexts(step, scope) as leave:
            columns = _returned(step, varying, fixed, len(calls), scope, events)
            events += leave()
    except Exception as error:
        outcomes = [now(attempt(step, call.arguments, call.frame.scope)) for call in calls]
        if all(outcome.error is None for outcome in outcomes):
            error = _noted(error, step, numbers, around)
            outcomes = [replace(outcome, outputs=(), error=error) for outcome in outcomes]
        outcomes[0] = replace(outcomes[0], events=(*events, *outcomes[0].events))
        return outcomes
    seconds = (perf_counter() - started) / len(calls)
    rows = zip(*map(values, columns), strict=True)
    outcomes = [
        Outcome(row, None, seconds, ended=(began + number * seconds, here()))
        for number, row in enumerate(rows, 1)
    ]
    outcomes[0] = replace(outcomes[0], events=tuple(events))
    return outcomes


def values(column: Any) -> list[Any]:
    """Return what a batch function has returned as Python objects.

    Example:
        >>> import pyarrow
        >>> values(pyarrow.array([1, None]))
        [1, None]
    """
    column = values_of(column)
    if isinstance(column, list):
        return column
    # A one-dimensional ndarray gives Python numbers; the rows of any other one stay arrays.
    return column.tolist() if getattr(column, "ndim", 0) == 1 else list(column)


def _returned(
    step: CallStep,
    varying: Mapping[str, Any],
    fixed: Mapping[str, Any],
    count: int,
    scope: Scope,
    events: list[Event] | None = None,
) -> tuple[Any, ...]:
    assert step.batch is not None  # noqa: S101
    arrays = {name: _array(name, column, step) for name, column in varying.items()}
    call = partial(step.batch, **arrays, **fixed)
    watched = watch(step, fixed) if step.strict else None
    events = [] if events is None else events
    while True:
        try:
            returned = call() if step.timeout is None else within(step.timeout, call)
            break
        except Exception as error:
            if len(events) >= step.retries or not isinstance(error, step.retry_on):
                raise
            events.append(Event.now("on_node_retry", (step.name, len(events) + 1, error), scope))
    if watched is not None:
        watched.check(step, scope)
    columns = (returned,) if len(step.outputs) == 1 else _several(returned, step)
    for column in columns:
        if isinstance(column, str | bytes | dict) or not hasattr(column, "__len__"):
            raise BatchError(
                f"it returned a {type(column).__name__} for {count} items. It is to return an array, a list "
                f"or an ndarray that has a value for each."
            )
        if len(column) != count:
            raise BatchError(f"it returned {len(column)} values for {count} items, and not one for each.")
    return columns


def _several(returned: Any, step: CallStep) -> tuple[Any, ...]:
    if not isinstance(returned, tuple | list) or len(returned) != len(step.outputs):
        got = f"{len(returned)} values" if isinstance(returned, tuple | list) else type(returned).__name__
        raise BatchError(
            f"it returned {got} for {len(step.outputs)} outputs. It is to return a tuple of as many arrays."
        )
    return tuple(returned)


def _array(name: str, column: Any, step: CallStep) -> Any:
    import pyarrow as pa  # noqa: PLC0415

    if isinstance(column, pa.ChunkedArray):
        return column.combine_chunks()
    if isinstance(column, pa.Array):
        return column
    try:
        return pa.array(column)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise BatchError(
            f"the values of its parameter {name!r} are nothing that Arrow has a type for: {error}. Leave out "
            f"batch= of node {step.name!r}."
        ) from error


def _rows(varying: Mapping[str, Any], fixed: Mapping[str, Any]) -> list[dict[str, Any]]:
    columns = zip(*map(values, varying.values()), strict=True)
    return [{**fixed, **dict(zip(varying, row, strict=True))} for row in columns]


def _noted(error: Exception, step: CallStep, numbers: Sequence[int], scope: Scope) -> Exception:
    item = "".join(f"{number}." for number in scope.items)
    items = f"item {item}{numbers[0]}" + (f" to {item}{numbers[-1]}" if len(numbers) > 1 else "")
    if numbers[0] == UNKNOWN:
        items = f"some {len(numbers)} items"
    note(
        error,
        f"in node {step.name!r} of pipeline {'/'.join(scope.path)!r}, {items}: in its batch function; called "
        f"one by one, its function has raised nothing",
    )
    return error
