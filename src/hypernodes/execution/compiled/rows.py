"""A compiled plan over the items of a chunk: a row for each item, the values or the error."""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Self

from hypernodes.callbacks.event import Event, NotSent
from hypernodes.execution.compiled.codegen import compiled_over_columns, markers_of
from hypernodes.execution.compiled.failed_nodes import FAILED_NODES, FailedNode
from hypernodes.execution.compiled.watched import Watch
from hypernodes.execution.jobs import Failure
from hypernodes.execution.plan.model import NestedStep
from hypernodes.execution.plan.needs import AGGREGATED_EVENTS
from hypernodes.executors.context import can_share, own_context
from hypernodes.mapping import Columns
from hypernodes.raw_errors import without_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextvars import Token

    from hypernodes.callbacks.event import Scope
    from hypernodes.execution.jobs import Chunk, MapContext, Values
    from hypernodes.execution.plan.model import Plan


def compute_rows(
    chunk: Chunk, *, is_isolated: bool, put: Callable[[Event], object] | None = None
) -> tuple[Sequence[Values | Failure], list[Event]]:
    """Compute items one after the other; return rows, up to a failure that ends the map, and events.

    Isolated, the items after one that has changed its context are computed in another one. With `put`, events
    are emitted as they happen.
    """
    context, columns = chunk.context, chunk.items.columns
    over_columns: Any = compiled_over_columns(
        context.plan, tuple(columns), is_isolated=is_isolated, emits=True
    )
    made: dict[str, list[Any]] = {name: [] for name in context.plan.outputs}
    if not made:
        return Columns({}, len(chunk.indices)), []
    first = next(iter(made.values()))
    remaining, numbers = {name: iter(column) for name, column in columns.items()}, iter(chunk.indices)
    compute = partial(over_columns, remaining, context.fixed, context.scope.items)
    failures: dict[int, Failure] = {}
    with _ItemEvents(context) as seen:
        if context.plan.is_watched:
            compute = partial(compute, watch=seen.watch(put))
        while len(first) + len(failures) < len(chunk.indices):
            try:
                if is_isolated:
                    own = own_context()
                    own.run(compute, numbers if can_share(own) else islice(numbers, 1), made)
                else:
                    compute(numbers, made)
            except Exception as error:
                position = len(first) + len(failures)
                # The frame of the compiled plan has all items.
                failures[position] = Failure(without_frame(without_frame(error)))
                seen.failed(error, chunk.indices[position])
                if context.on_error == "raise":
                    break
    try:
        return _rows(made, failures), seen.events(len(first))
    finally:
        failures.clear()  # the frame of the function that has raised refers to this frame
        seen.clear()


def _rows(made: dict[str, list[Any]], failures: Mapping[int, Failure]) -> Sequence[Values | Failure]:
    columns = Columns(made)
    if not failures:
        return columns
    rows: list[Values | Failure] = list(columns)
    for position, failure in failures.items():
        rows.insert(position, failure)
    return rows


async def compute_rows_on_loop(
    chunk: Chunk, compute: Callable[..., Any]
) -> tuple[Sequence[Values | Failure], list[Event]]:
    """Compute items one after the other on an event loop; see `compute_rows`."""
    context = chunk.context
    rows: list[Values | Failure] = []
    done = 0
    with _ItemEvents(context) as seen:
        for index, item in zip(chunk.indices, chunk.items, strict=True):
            try:
                rows.append(await compute({**context.fixed, **item}, (*context.scope.items, index)))
                done += 1
            except Exception as error:
                rows.append(Failure(without_frame(error)))
                seen.failed(error, index)
                if context.on_error == "raise":
                    break
    try:
        return rows, seen.events(done)
    finally:
        del rows  # the frame of the function that has raised refers to this frame


class _ItemEvents:
    """The events of a chunk: one that counts the items that are done, and those of the items that failed."""

    def __init__(self, context: MapContext) -> None:
        self._scope = context.scope
        self._is_counted = AGGREGATED_EVENTS in context.plan.needs
        self._plans = {marker: plan for plan, marker in markers_of(context.plan)} if self._is_counted else {}
        self._raises = context.on_error == "raise"
        self._failed: list[FailedNode] = []
        self._events: list[Event] = []

    def watch(self, put: Callable[[Event], object] | None) -> Watch:
        """Return where a plan puts its own events; by default they are kept."""
        return Watch(put or self._events.append, self._scope.run, ends_failed=not self._raises)

    def __enter__(self) -> Self:
        self._token: Token[list[FailedNode] | None] = FAILED_NODES.set(self._failed)
        return self

    def __exit__(self, *raised: object) -> None:
        FAILED_NODES.reset(self._token)
        self._failed.clear()

    def failed(self, error: Exception, index: int) -> None:
        """Take note that an item has failed."""
        self._events += _events_of_failed(self._plans, self._failed, error)
        self._failed.clear()
        if self._is_counted and not self._raises:
            self._events.append(Event.now("on_map_item_end", (index, 0.0), self._scope.of_item(index)))

    def events(self, done: int) -> list[Event]:
        """Return what is to be emitted."""
        if self._is_counted and done:
            self._events.insert(0, Event.now("on_map_items_end", (done,), self._scope))
        return list(self._events)

    def clear(self) -> None:
        """Let go of the errors in events, whose frames may refer to these events."""
        self._events.clear()


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
