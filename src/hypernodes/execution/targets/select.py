"""Which execution target an executor is, by its alias or by what the executor says of itself."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from hypernodes.execution.plan.placement import Capabilities
from hypernodes.execution.target import ExecutionTarget
from hypernodes.execution.targets.in_process import LOOP, THREADS, InProcessTarget
from hypernodes.execution.targets.on_ray import RayTarget
from hypernodes.execution.targets.pickled import PickledTarget
from hypernodes.executors.aliases import SEQUENTIAL

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from hypernodes.execution.targets.executor import ExecutorTarget

_PROCESSES: Final = Capabilities(groups_calls=True)
_CLUSTER: Final = Capabilities(places_calls=True, groups_calls=True)

_ALIASES: Final[dict[str, tuple[type[ExecutorTarget], Capabilities]]] = {
    "async": (InProcessTarget, LOOP),
    "threaded": (InProcessTarget, THREADS),
    "parallel": (PickledTarget, _PROCESSES),
    "ray": (RayTarget, _CLUSTER),
}


def target_of(executor: str | Executor | ExecutionTarget) -> ExecutionTarget | None:
    """Return the target that an executor is; ``None`` for the alias ``"sequential"``, which needs none."""
    if isinstance(executor, ExecutionTarget):
        return executor
    if isinstance(executor, str):
        if executor == SEQUENTIAL:
            return None
        kind, capabilities = _ALIASES[executor]
        return kind(executor, capabilities)
    if getattr(executor, "runs_coroutines", False):
        return InProcessTarget(executor, Capabilities(serializes=False, runs_coroutines=True))
    if isinstance(executor, ThreadPoolExecutor):
        return InProcessTarget(executor, Capabilities(serializes=False))
    if getattr(executor, "places_calls", False):
        return RayTarget(executor, _CLUSTER)
    return PickledTarget(executor, _PROCESSES)
