"""A compiled plan over the items of a chunk: a row for each item, the values or the error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypernodes.callbacks.event import Event, NotSent
from hypernodes.execution.calls.location import without_frame
from hypernodes.execution.compiled.codegen import FAILED_NODES, FailedNode, markers_of
from hypernodes.execution.jobs import Failure
from hypernodes.execution.plan.model import NestedStep
from hypernodes.execution.plan.needs import AGGREGATED_EVENTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from hypernodes.callbacks.event import Scope
    from hypernodes.execution.jobs import MapContext, Values
    from hypernodes.execution.plan.model import Plan


async def compute_rows(
    context: MapContext,
    compute: Callable[..., Any],
    indices: Sequence[int],
    items: Sequence[Mapping[str, Any]],
    *,
    on_loop: bool,
) -> tuple[list[Values | Failure], list[Event]]:
    """Compute items one after the other; return rows, up to a failure that ends the map, and events."""
    rows: list[Values | Failure] = []
    events: list[Event] = []
    failed: list[FailedNode] = []
    scope, is_counted = context.scope, AGGREGATED_EVENTS in context.plan.needs
    plans = {marker: plan for plan, marker in markers_of(context.plan)} if is_counted else {}
    token = FAILED_NODES.set(failed)
    try:
        for index, item in zip(indices, items, strict=True):
            try:
                row = compute({**context.fixed, **item}, (*scope.items, index))
                rows.append(await row if on_loop else row)
            except Exception as error:
                rows.append(Failure(without_frame(error)))
                events += _events_of_failed(plans, failed, error)
                failed.clear()
                if context.on_error == "raise":
                    break
                if is_counted:
                    events.append(Event.now("on_map_item_end", (index, 0.0), scope.of_item(index)))
        if is_counted:
            done = sum(row.__class__ is not Failure for row in rows)
            if done:
                events.insert(0, Event.now("on_map_items_end", (done,), scope))
        return rows, events
    finally:
        FAILED_NODES.reset(token)
        del rows, events, failed  # the traceback of an error keeps this frame, which must not keep the error


def _events_of_failed(
    plans: Mapping[object, Plan], failed: Sequence[FailedNode], error: BaseException
) -> Iterator[Event]:
    """Yield what has happened in an item that failed, less what other pipelines have handled."""
    for node in failed:
        if node.error is error and node.owner in plans:
            yield from _events_of_completed(plans[node.owner], node.scope, node.completed)
            yield Event.now("on_error", (node.name, error), node.scope)


def _events_of_completed(plan: Plan, scope: Scope, count: int) -> Iterator[Event]:
    """Yield the end of each of a plan's first steps, which the number of completed items does not cover."""
    for step in plan.steps[:count]:
        if isinstance(step, NestedStep):
            inside = scope.of_nested(step.inner.key, step.inner.path)
            yield from _events_of_completed(step.inner, inside, len(step.inner.steps))
        outputs = {name: NotSent("object") for name in step.outputs if name is not None}
        yield Event.now("on_node_end", (step.name, outputs, 0.0), scope)
