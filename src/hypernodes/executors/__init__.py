"""Executors: they call functions in threads, on an event loop, in processes or on Ray, without pipelines.

Each is a `concurrent.futures.Executor`, and can be used without a pipeline.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypernodes.earlier_names import lazy_attributes as _lazy_attributes

if TYPE_CHECKING:
    from hypernodes.executors.aliases import ALIASES as ALIASES
    from hypernodes.executors.asynchronous import AsyncExecutor as AsyncExecutor
    from hypernodes.executors.parallel import ParallelExecutor as ParallelExecutor
    from hypernodes.executors.ray import RayExecutor as RayExecutor

_LAZY = {
    "ALIASES": "hypernodes.executors.aliases",
    "AsyncExecutor": "hypernodes.executors.asynchronous",
    "ParallelExecutor": "hypernodes.executors.parallel",
    "RayExecutor": "hypernodes.executors.ray",
    # Users look for the engines here as well. Their packages import this one, so they are imported on use.
    "DaftEngine": "hypernodes.engines.daft",
    "Engine": "hypernodes.engines",
    "HyperNodesEngine": "hypernodes.engines",
}

__all__ = [
    "ALIASES",
    "AsyncExecutor",
    "DaftEngine",
    "Engine",
    "HyperNodesEngine",
    "ParallelExecutor",
    "RayExecutor",
]


if not TYPE_CHECKING:  # Type checkers know the names that are imported for them above, and no others.
    __getattr__ = _lazy_attributes(__name__, _LAZY)
