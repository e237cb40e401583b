"""Node contexts: context managers of callbacks that are entered for each call of a node.

They are entered in the process and thread that makes the call.
"""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

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


@contextmanager
def enter_node_contexts(
    contexts: Iterable[NodeContext], call: NodeCall
) -> Iterator[Callable[[], tuple[Any, ...]]]:
    """Enter node contexts for a call; yield a function that exits them and returns their notes.

    A context that raises is reported once, and does not stop the call.
    """
    entered: list[tuple[NodeContext, AbstractContextManager[Any], Iterable[Any] | None]] = []

    def exit_contexts() -> tuple[Any, ...]:
        notes: list[Any] = []
        while entered:
            context, manager, yielded = entered.pop()
            try:
                manager.__exit__(None, None, None)
                notes += yielded or ()
            except Exception as error:
                _report(context, error)
        return tuple(notes)

    for context in contexts:
        try:
            manager = context(call)
            entered.append((context, manager, manager.__enter__()))
        except Exception as error:
            _report(context, error)
    try:
        yield exit_contexts
    finally:
        exit_contexts()


def _report(context: NodeContext, error: Exception) -> None:
    if type(context) not in _reported:
        _reported.add(type(context))
        _logger.error(
            "node context %r raised; the run continues, and this is reported once", context, exc_info=error
        )
