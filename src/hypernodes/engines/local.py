"""HyperNodesEngine: node by node, with executors."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from hypernodes.engines.laned import LanedEngine, shut_down
from hypernodes.execution.lane import Lane, Lanes
from hypernodes.executors.aliases import SEQUENTIAL, check_executor

if TYPE_CHECKING:
    from concurrent.futures import Executor


class HyperNodesEngine(LanedEngine):
    """Run pipelines node by node.

    Args:
        node_executor: Where single nodes are called: ``"sequential"``, ``"async"``, ``"threaded"``,
            ``"parallel"``, ``"ray"``, or any object with the `concurrent.futures.Executor` protocol.
        map_executor: Where the items of a map are run, likewise.

    An executor that an alias stands for is made when it is first needed, kept, and shut down with the
    engine (``with``, `shutdown`, or the end of the program). One that you made is yours to shut down.

    Raises:
        UnknownExecutorError: Neither an alias nor an executor.

    Example:
        >>> from hypernodes import Pipeline, node
        >>> with HyperNodesEngine(map_executor="threaded") as engine:
        ...     sizes = Pipeline([node(abs, output_name="size")], engine=engine)
        ...     sizes.map({"x": [-1, 2, -3]}, map_over="x")
        {'size': [1, 2, 3]}
    """

    def __init__(
        self, node_executor: str | Executor = SEQUENTIAL, map_executor: str | Executor = SEQUENTIAL
    ) -> None:
        check_executor(node_executor, "node_executor")
        check_executor(map_executor, "map_executor")
        self.node_executor = node_executor
        self.map_executor = map_executor
        node = None if node_executor == SEQUENTIAL else Lane(node_executor)
        # One pool given twice is one lane, so that work in it is known to be there already.
        same = node_executor is map_executor and not isinstance(map_executor, str)
        map_ = node if same else None if map_executor == SEQUENTIAL else Lane(map_executor)
        self._lanes = Lanes(node, map_)
        self._in_use = [
            lane for lane in {id(lane): lane for lane in (node, map_)}.values() if lane is not None
        ]
        self._finalizer = weakref.finalize(self, shut_down, self._in_use)

    def lanes(self) -> Lanes:
        """Return where nodes and items go; right here, if this code runs in a worker of that executor."""
        node, map_ = self._lanes.node, self._lanes.map
        return Lanes(
            None if node is None or node.is_busy_here else node,
            None if map_ is None or map_.is_busy_here else map_,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return HyperNodesEngine, (self.node_executor, self.map_executor)

    def __repr__(self) -> str:
        told = (
            f"{name}={executor!r}"
            for name, executor in (("node_executor", self.node_executor), ("map_executor", self.map_executor))
            if executor != SEQUENTIAL
        )
        return f"HyperNodesEngine({', '.join(told)})"
