"""One call for several items: what a node's batch function takes, and what it returns."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from time import perf_counter, time
from typing import TYPE_CHECKING, Any

from hypernodes.callbacks.event import Event, current_worker
from hypernodes.exceptions import BatchError
from hypernodes.execution.calls.call import call_node
from hypernodes.execution.calls.location import UNKNOWN, note
from hypernodes.execution.calls.mutation import watch
from hypernodes.execution.calls.node_contexts import NodeContexts
from hypernodes.execution.calls.returned import collected, has_no_order
from hypernodes.execution.calls.timeout import call_with_timeout
from hypernodes.execution.calls.watchdog import ending_process
from hypernodes.execution.current import CURRENT_CALL
from hypernodes.execution.jobs import BatchOutcome, Outcome
from hypernodes.executors.settled import cancelled_inside
from hypernodes.raw_errors import cause_of, is_a, without_frame
from hypernodes.tables import values_of
from hypernodes.text import message_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hypernodes.callbacks.event import Scope
    from hypernodes.execution.jobs import BatchCall
    from hypernodes.execution.plan.model import CallStep


def call_batch(
    step: CallStep, varying: Mapping[str, Any], fixed: Mapping[str, Any], indices: Sequence[int], scope: Scope
) -> tuple[Any, ...]:
    """Call a node's batch function, and return a list or array for each output.

    If it fails, the node's function is called item by item: what it raises for the first item for which it
    does is raised, else whatever the batch function has raised.
    """
    try:
        return _attempts(step, varying, fixed, len(indices), scope)
    except Exception as error:
        for arguments, index in zip(_rows(varying, fixed), indices, strict=True):
            _raise_error_of(call_node(step, arguments, scope.of_item(index)))
        raise _noted(error, step, indices, scope) from None
    except BaseException as error:
        _noted(error, step, indices, scope)
        raise


def _raise_error_of(outcome: Outcome) -> None:
    if outcome.error is not None:
        try:
            raise outcome.error from None
        finally:
            del outcome  # the traceback of the error refers to this frame


def call_batch_of(job: BatchCall) -> BatchOutcome:
    """Make the calls of a job by the node's batch function.

    If that fails, each call is made by itself, so that the error stays with the item that is to blame.
    """
    events: list[Event] = []
    try:
        return BatchOutcome(_outcomes(job, events), list(events))
    finally:
        events.clear()  # The errors in them refer to this frame.


def _outcomes(job: BatchCall, events: list[Event]) -> list[Outcome]:
    step, calls, first, shared = job.step, job.calls, job.calls[0], job.fixed
    varying = {
        parameter: [call.arguments[parameter] for call in calls]
        for parameter in first.arguments
        if parameter not in shared
    }
    fixed = {parameter: first.arguments[parameter] for parameter in shared}
    scope = first.scope
    started, began = perf_counter(), time()
    try:
        with NodeContexts(step.name, scope) as leave:
            columns = _attempts(step, varying, fixed, len(calls), scope, events)
            events += leave()
    except Exception as error:
        outcomes = [call_node(step, call.arguments, call.scope) for call in calls]
        if all(outcome.error is None for outcome in outcomes):
            indices = [call.scope.items[-1] for call in calls]
            around = replace(scope, items=scope.items[:-1])
            noted = _noted(without_frame(error), step, indices, around)
            outcomes = [replace(outcome, outputs=(), error=noted) for outcome in outcomes]
            del noted
        try:
            return outcomes
        finally:
            del outcomes  # the frames of functions that have raised refer to this frame
    except BaseException as error:
        indices = [call.scope.items[-1] for call in calls]
        _noted(error, step, indices, replace(scope, items=scope.items[:-1]))
        raise
    seconds = (perf_counter() - started) / len(calls)
    rows = zip(*map(values, columns), strict=True)
    return [
        Outcome(row, None, seconds, ended=(began + number * seconds, current_worker()))
        for number, row in enumerate(rows, 1)
    ]


def values(column: Any) -> list[Any]:
    """Return a column that a batch function has returned, as Python objects.

    >>> import pyarrow
    >>> values(pyarrow.array([1, None]))
    [1, None]
    """
    column = values_of(column)
    if isinstance(column, list):
        return column
    # A one-dimensional ndarray gives Python numbers; the rows of any other one stay arrays.
    return column.tolist() if getattr(column, "ndim", 0) == 1 else list(column)


def _attempts(
    step: CallStep,
    varying: Mapping[str, Any],
    fixed: Mapping[str, Any],
    count: int,
    scope: Scope,
    events: list[Event] | None = None,
) -> tuple[Any, ...]:
    batch: Any = step.options.batch
    arrays = {name: _array(name, column, step) for name, column in varying.items()}
    options = step.options
    named = {**arrays, **fixed}
    args = [named.pop(name, default) for name, default in step.batch_positional]
    call = partial(batch, *args, **named)
    watched = watch(step, fixed) if step.strict else None
    events = [] if events is None else events
    calling = CURRENT_CALL.set(scope)
    try:
        while True:
            try:
                returned = call() if options.timeout is None else _within(options.timeout, call)
                break
            except BaseException as error:
                error = cancelled_inside(error)
                is_retried = is_a(error, Exception) and is_a(error, options.retry_on)
                if not is_retried or len(events) >= options.retries:
                    if error is not sys.exception():
                        raise error from cause_of(error)
                    raise
                events.append(
                    Event.now("on_node_retry", (step.name, len(events) + 1, without_frame(error)), scope)
                )
    finally:
        CURRENT_CALL.reset(calling)
        del events  # The errors in them refer to this frame.
    if watched is not None:
        watched.check(step, scope)
    columns = (returned,) if len(step.outputs) == 1 else _several(returned, step)
    columns = tuple(map(_collected, columns))
    for column in columns:
        if isinstance(column, str | bytes) or has_no_order(column) or not hasattr(column, "__len__"):
            raise BatchError(
                f"it returned a {type(column).__name__} for {count} items. It is to return an array, a list "
                f"or an ndarray that has a value for each."
            )
        if len(column) != count:
            raise BatchError(
                f"it returned {len(column)} values for {count} items. The length must be the number of items."
            )
    return columns


def _collected(column: Any) -> Any:
    """Return a column that has been returned, with a list for each iterator in it, itself included."""
    column = collected(column)
    if type(column) is list and any(hasattr(kind, "__next__") for kind in set(map(type, column))):
        return list(map(collected, column))
    return column


def _within(seconds: float, call: Callable[[], Any]) -> Any:
    with ending_process(seconds):
        return call_with_timeout(seconds, call)


def _several(returned: Any, step: CallStep) -> tuple[Any, ...]:
    if not isinstance(returned, tuple | list) or len(returned) != len(step.outputs):
        got = f"{len(returned)} values" if isinstance(returned, tuple | list) else type(returned).__name__
        raise BatchError(
            f"it returned {got} for {len(step.outputs)} outputs. It is to return a tuple of as many arrays."
        )
    return tuple(returned)


def _array(name: str, column: Any, step: CallStep) -> Any:
    import pyarrow as pa

    if isinstance(column, pa.ChunkedArray):
        return column.combine_chunks()
    if isinstance(column, pa.Array):
        return column
    try:
        return pa.array(column)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise BatchError(
            f"the values of its parameter {name!r} are nothing that Arrow has a type for: "
            f"{message_of(error)}. Leave out batch= of node {step.name!r}."
        ) from error


def _rows(varying: Mapping[str, Any], fixed: Mapping[str, Any]) -> list[dict[str, Any]]:
    columns = zip(*map(values, varying.values()), strict=True)
    return [{**fixed, **dict(zip(varying, row, strict=True))} for row in columns]


def _noted(error: BaseException, step: CallStep, indices: Sequence[int], scope: Scope) -> BaseException:
    item = "".join(f"{index}." for index in scope.items)
    items = f"item {item}{indices[0]}" + (f" to {item}{indices[-1]}" if len(indices) > 1 else "")
    if indices[0] == UNKNOWN:
        items = f"some {len(indices)} items"
    alone = "; called one by one, its function has raised nothing" if is_a(error, Exception) else ""
    where = f"in node {step.name!r} of pipeline {'/'.join(scope.path)!r}, {items}"
    note(error, f"{where}: in its batch function{alone}")
    return error
