"""The record of one run: what `RunReport` collects from its events."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from hypernodes.callbacks.waterfall import Calls
from hypernodes.exceptions import CALL_ATTRIBUTE, FailedCallError
from hypernodes.text import described

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping
    from pathlib import Path as File

Path: TypeAlias = tuple[str, ...]

_MAX_SLOW_ITEMS: Final = 10
_MAX_FAILURES: Final = 100
"""Failures whose errors are kept: a map may fail a million times. All are counted."""


@dataclass(slots=True)
class NodeReport:
    """The numbers of one node in a run.

    Attributes:
        path: The ids of the pipelines that contain it, and its name.
        runs: How often it was executed.
        cached: How often its outputs came from the cache.
        retried: How often it was called again.
        failed: How often it failed.
        abandoned: How often it was under way when another node's error ended the run.
        seconds: The sum of the durations of its executions; with concurrent ones, more than the run took.
        slowest: The duration of the slowest execution.
        is_nested: Whether it is a nested pipeline.
    """

    path: Path
    runs: int = 0
    cached: int = 0
    retried: int = 0
    failed: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    is_nested: bool = False
    abandoned: int = 0

    @property
    def mean(self) -> float:
        """The mean duration of its executions."""
        return self.seconds / self.runs if self.runs else 0.0


@dataclass(frozen=True, slots=True)
class SlowItem:
    """One of the slowest items: the path of its pipeline, its item indices, and its duration in seconds."""

    path: Path
    item: tuple[int, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class FailedNode:
    """One failure: the path of the node, the item indices, and the error."""

    path: Path
    item: tuple[int, ...]
    error: BaseException

    def save(self, filename: str | os.PathLike[str]) -> File:
        """Write the failed call to a file for ``hypernodes replay``. See `hypernodes.FailedCall.save`."""
        call: Any = getattr(self.error, CALL_ATTRIBUTE, None)
        if call is None:
            raise FailedCallError(f"it is not known which call has raised {described(self.error)[:200]}.")
        file: File = call.of(self.error).save(filename)
        return file


@dataclass(slots=True)
class RunRecord:
    """What is recorded of one run."""

    name: str = ""
    outermost: Path = ()
    started: float = 0.0  # in seconds since the epoch
    seconds: float | None = None  # ``None`` if it failed, or is under way
    items: int = 0  # items that are done, in maps of every depth
    cached_items: int = 0  # items all of whose outputs came from the cache
    nodes: dict[Path, NodeReport] = field(default_factory=dict)  # in the order of their first events
    needs: dict[Path, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    failures: list[FailedNode] = field(default_factory=list)
    calls: Calls = field(default_factory=Calls)  # those that the waterfall shows
    retried: set[tuple[Path, tuple[int, ...]]] = field(default_factory=set)  # nodes that were called again
    _slowest: list[tuple[float, Path, tuple[int, ...]]] = field(default_factory=list)

    def node(self, path: Path) -> NodeReport:
        """Return the report of a node; a new one if it has none."""
        if (node := self.nodes.get(path)) is None:
            node = self.nodes[path] = NodeReport(path)
        return node

    def add_item(self, path: Path, item: tuple[int, ...], seconds: float) -> None:
        """Record an item that is done."""
        self.items += 1
        slowest = self._slowest
        if len(slowest) < _MAX_SLOW_ITEMS:
            heapq.heappush(slowest, (seconds, path, item))
        elif seconds > slowest[0][0]:
            heapq.heapreplace(slowest, (seconds, path, item))

    def add_failure(self, path: Path, item: tuple[int, ...], error: BaseException) -> None:
        """Record an error, unless there are very many."""
        if len(self.failures) < _MAX_FAILURES:
            self.failures.append(FailedNode(path, item, error))

    @property
    def slowest_items(self) -> list[SlowItem]:
        """The slowest items, the slowest first."""
        return [SlowItem(path, item, seconds) for seconds, path, item in sorted(self._slowest, reverse=True)]

    @property
    def failed_calls(self) -> int:
        """How many executions failed, nested pipelines not counted."""
        return sum(node.failed for node in self.nodes.values() if not node.is_nested)

    def critical_path(self) -> list[NodeReport]:
        """Return the chain of dependent nodes with the longest total duration, in their order."""
        outermost = next(iter(self.needs), None)
        return [] if outermost is None else list(self._chain(outermost))

    def _chain(self, pipeline: Path) -> Iterator[NodeReport]:
        """Yield the longest chain of a pipeline; each nested pipeline is followed by its own chain."""
        longest: dict[str, tuple[float, tuple[str, ...]]] = {}
        for name, needs in self.needs.get(pipeline, {}).items():
            seconds, names = max((longest[other] for other in needs if other in longest), default=(0.0, ()))
            node = self.nodes.get((*pipeline, name))
            longest[name] = (seconds + (node.seconds if node else 0.0), (*names, name))
        for name in max(longest.values(), default=(0.0, ()))[1]:
            if (node := self.nodes.get((*pipeline, name))) is not None and node.runs:
                yield node
                yield from self._chain(node.path)

    def paths_in_order(self) -> list[Path]:
        """Return the paths of the nodes, each nested pipeline followed by the nodes in it."""
        order = {path: position for position, path in enumerate(self.nodes)}
        first = {
            path: min(position for other, position in order.items() if other[: len(path)] == path)
            for path in order
        }
        return sorted(
            order, key=lambda path: [first.get(path[: depth + 1], -1) for depth in range(1, len(path))]
        )
