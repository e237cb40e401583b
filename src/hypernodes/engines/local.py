"""HyperNodesEngine: node by node, with executors."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Never

from hypernodes.arguments import unknown_option
from hypernodes.engines.scheduled import ScheduledEngine, shut_down
from hypernodes.execution.plan.placement import Placement, TargetRef
from hypernodes.execution.target import ExecutionTarget
from hypernodes.execution.targets.select import target_of
from hypernodes.executors.aliases import SEQUENTIAL, check_executor

if TYPE_CHECKING:
    from concurrent.futures import Executor


class HyperNodesEngine(ScheduledEngine):
    """Run pipelines node by node.

    Args:
        node_executor: Where single nodes are called: ``"sequential"``, ``"async"``, ``"threaded"``,
            ``"parallel"``, ``"ray"``, any object with the `concurrent.futures.Executor` protocol, or an
            `ExecutionTarget`. ``None`` is ``"sequential"``.
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
        self,
        node_executor: str | Executor | ExecutionTarget | None = SEQUENTIAL,
        map_executor: str | Executor | ExecutionTarget | None = SEQUENTIAL,
        **unknown: Never,
    ) -> None:
        if unknown:
            raise unknown_option("HyperNodesEngine", unknown)
        self.node_executor: str | Executor | ExecutionTarget = _checked(node_executor, "node_executor")
        self.map_executor: str | Executor | ExecutionTarget = _checked(map_executor, "map_executor")
        self._node = target_of(self.node_executor)
        # One pool given twice is one target, so that work in it is known to be there already.
        is_same = self.node_executor is self.map_executor and not isinstance(self.map_executor, str)
        self._map = self._node if is_same else target_of(self.map_executor)
        given = (self.node_executor, self.map_executor)
        targets = [target for target in dict.fromkeys((self._node, self._map)) if target is not None]
        super().__init__(targets, [target for target in targets if target not in given])
        self._finalizer = weakref.finalize(self, shut_down, self._own)

    def placement(self) -> Placement:
        """Return where calls and map items go; here, if this code runs in a worker of that executor."""
        return Placement(_unless_occupied(self._node), _unless_occupied(self._map))

    def __reduce__(self) -> tuple[Any, ...]:
        return HyperNodesEngine, (self.node_executor, self.map_executor)

    def __repr__(self) -> str:
        shown = (
            f"{name}={executor!r}"
            for name, executor in (("node_executor", self.node_executor), ("map_executor", self.map_executor))
            if executor != SEQUENTIAL
        )
        return f"HyperNodesEngine({', '.join(shown)})"


def _checked(
    executor: str | Executor | ExecutionTarget | None, option: str
) -> str | Executor | ExecutionTarget:
    if executor is None:
        return SEQUENTIAL
    if not isinstance(executor, ExecutionTarget):
        check_executor(executor, option)
    return executor


def _unless_occupied(target: ExecutionTarget | None) -> TargetRef | None:
    return None if target is None or target.is_occupied else target.ref
