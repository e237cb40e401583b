"""The node contexts of callbacks around a call, and the event that has their notes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypernodes.callbacks.event import Event
from hypernodes.callbacks.node_context import EnteredContexts, NodeCall
from hypernodes.execution.calls.location import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypernodes.callbacks.event import Scope


class NodeContexts:
    """The contexts of callbacks around a call, as a context whose value leaves them and returns events."""

    __slots__ = ("_entered", "_node", "_scope")

    def __init__(self, node: str, scope: Scope) -> None:
        self._node = node
        self._scope = scope

    def __enter__(self) -> Callable[[], tuple[Event, ...]]:
        scope = self._scope
        items = scope.items
        if UNKNOWN in items:
            items = tuple(index for index in items if index != UNKNOWN)
        self._entered = EnteredContexts(scope.node_contexts, NodeCall(scope.path, self._node, items))
        return self._leave

    def _leave(self) -> tuple[Event, ...]:
        notes = self._entered.leave()
        return (Event.now("on_node_notes", (self._node, notes), self._scope),) if notes else ()

    def __exit__(self, *raised: object) -> None:
        self._entered.leave()
