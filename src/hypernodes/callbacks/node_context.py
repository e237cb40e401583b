"""Node contexts: context managers of callbacks that are entered for each call of a node.

They are entered in the process and thread that makes the call.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager

_logger = logging.getLogger("hypernodes")


class NodeCall(NamedTuple):
    """A call of a node."""

    pipeline_path: tuple[str, ...]  # the pipeline ids from the outermost to the node's
    node_id: str
    item_path: tuple[int, ...]  # the item indices of the enclosing maps, the outermost first


NodeContext: TypeAlias = "Callable[[NodeCall], AbstractContextManager[Iterable[Any] | None]]"
"""Returns a context manager for a call; it is pickled to travel to workers. The notes that the manager
yields, if any, are read after the call, sent to the driver, and emitted with ``on_node_notes``."""

_reported: set[type] = set()


class EnteredContexts:
    """Node contexts around a call: entered when this is made, and exited by `leave`.

    A context that raises is reported once, and does not stop the call.
    """

    __slots__ = ("_entered",)

    def __init__(self, contexts: Iterable[NodeContext], call: NodeCall) -> None:
        self._entered: list[tuple[NodeContext, AbstractContextManager[Any], Iterable[Any] | None]] = []
        for context in contexts:
            try:
                manager = context(call)
                self._entered.append((context, manager, manager.__enter__()))
            except Exception as error:
                _report(context, error)

    def leave(self) -> tuple[Any, ...]:
        """Exit the contexts, the last one first, and return their notes."""
        notes: list[Any] = []
        while self._entered:
            context, manager, yielded = self._entered.pop()
            try:
                manager.__exit__(None, None, None)
                notes += yielded or ()
            except Exception as error:
                _report(context, error)
        return tuple(notes)


def _report(context: NodeContext, error: Exception) -> None:
    if type(context) not in _reported:
        _reported.add(type(context))
        _logger.error(
            "node context %r raised; the run continues, and this is reported once", context, exc_info=error
        )
