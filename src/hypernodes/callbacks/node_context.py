"""What callbacks put around the call of a node, in the process and thread where it is made."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_logger = logging.getLogger("hypernodes")


class NodeCall(NamedTuple):
    """A call of a node.

    Attributes:
        pipeline_path: The pipeline ids from the outermost to the node's.
        node_id: The node's name.
        item_path: The item indices of the maps around, the outermost first.
    """

    pipeline_path: tuple[str, ...]
    node_id: str
    item_path: tuple[int, ...]


NodeContext: TypeAlias = "Callable[[NodeCall], AbstractContextManager[Iterable[Any] | None]]"
"""Returns a context manager for a call. It is pickled; what its manager yields, if anything, is read after
the call, sent home, and told by ``on_node_notes``."""

_reported: set[type] = set()


@contextmanager
def entered(contexts: Iterable[NodeContext], call: NodeCall) -> Iterator[Callable[[], tuple[Any, ...]]]:
    """Make a call within contexts; yields a function that leaves them and returns what they have noted.

    One that raises is reported once, and does not stop the call.
    """
    inside: list[tuple[NodeContext, AbstractContextManager[Any], Iterable[Any] | None]] = []

    def leave() -> tuple[Any, ...]:
        notes: list[Any] = []
        while inside:
            context, manager, noted = inside.pop()
            try:
                manager.__exit__(None, None, None)
                notes += noted or ()
            except Exception as error:
                _report(context, error)
        return tuple(notes)

    for context in contexts:
        try:
            manager = context(call)
            inside.append((context, manager, manager.__enter__()))
        except Exception as error:
            _report(context, error)
    try:
        yield leave
    finally:
        leave()


def _report(context: NodeContext, error: Exception) -> None:
    if type(context) not in _reported:
        _reported.add(type(context))
        _logger.error(
            "node context %r raised; the run goes on, and this is told once", context, exc_info=error
        )
