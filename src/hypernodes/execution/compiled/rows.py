"""A compiled plan over the items of a chunk: a row for each item, the values or the error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypernodes.callbacks.event import Event
from hypernodes.execution.calls.location import without_frame
from hypernodes.execution.compiled.codegen import FAILED_NODES, FailedNode, markers_of
from hypernodes.execution.jobs import Failure
from hypernodes.execution.plan.needs import AGGREGATED_EVENTS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hypernodes.execution.jobs import MapContext, Values


async def compute_rows(
    context: MapContext,
    compute: Callable[..., Any],
    indices: Sequence[int],
    items: Sequence[Mapping[str, Any]],
    *,
    on_loop: bool,
) -> tuple[list[Values | Failure], list[Event]]:
    """Compute items one after the other.

    Args:
        context: What the items have in common.
        compute: The compiled plan; a coroutine function if ``on_loop``.
        indices: The index of each item in its map.
        items: The inputs that vary.
        on_loop: Whether this runs on an event loop.

    Returns:
        A row for each item, up to the first failure that ends the map, and the events.
    """
    rows: list[Values | Failure] = []
    events: list[Event] = []
    failed: list[FailedNode] = []
    scope, is_counted = context.scope, AGGREGATED_EVENTS in context.plan.needs
    owners = markers_of(context.plan) if is_counted else frozenset()
    token = FAILED_NODES.set(failed)
    try:
        for index, item in zip(indices, items, strict=True):
            try:
                row = compute({**context.fixed, **item}, (*scope.items, index))
                rows.append(await row if on_loop else row)
            except Exception as error:
                rows.append(Failure(without_frame(error)))
                events += [
                    Event.now("on_error", (node.name, error), node.scope)
                    for node in failed
                    if node.error is error and node.owner in owners
                ]
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
