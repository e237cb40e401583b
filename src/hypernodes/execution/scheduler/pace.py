"""How many items of a map are under way at a time, and how many of them go in a chunk."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from hypernodes.execution.plan.model import NestedStep
from hypernodes.execution.scheduler.chunk_size import (
    IN_PROCESS_CHUNK_S,
    INLINE_CHUNK_S,
    INLINE_MAX_ITEM_S,
    MAX_CHUNK_ITEMS,
    MAX_STREAM_CHUNK_ITEMS,
    SERIALIZED_CHUNK_S,
    SPREAD_MIN_S,
    chunk_size,
)

if TYPE_CHECKING:
    from hypernodes.execution.plan.model import Plan
    from hypernodes.execution.scheduler.state import RunState
    from hypernodes.mapping import Columns


LONG_ITEM: Final = 1.25
"""An item is long whose nested maps have so many times the share of one worker in all nested maps."""


class Pace:
    """The pace of one map. A chunk's items belong to a map that goes on elsewhere."""

    def __init__(
        self, run: RunState, plan: Plan, total: int | None, *, is_chunk: bool, is_stream: bool
    ) -> None:
        self._run = run
        self._plan = plan
        self._total = total
        self._is_chunk = is_chunk
        self._is_stream = is_stream
        self._items = run.items_of(plan)
        self._left = total or 0  # of this map, in what the maps of the plan have left
        self._items.left += self._left
        self._asked = 1  # how many items the last chunk was to have
        # Several items go together.
        self.sends_chunks = plan.chunk_plan is not None and plan.map_target is not None

    @cached_property
    def window(self) -> int:
        """How many items or chunks are under way: of chunks, one is run and one waits at each worker."""
        if self._gathers and self._total is not None:
            return self._total
        if self._is_chunk and self._plan.has_batch:
            return max(1, self._total or 1)  # so that all calls of a node can be made together
        return self._workers * (2 if self.sends_chunks else 1)

    def most_items(self, least: int) -> int:
        """Return how many items of a stream are in memory at most."""
        # While no item needs the target, it is not asked for its size.
        window: int = vars(self).get("window", 1)
        return max(least, 2 * window * (self._asked if self.sends_chunks else 1))

    @property
    def least_items(self) -> int:
        """How many items of a stream are in memory at least, whatever their size, so that no worker idles."""
        return self._workers if "window" in vars(self) else 1

    def next_size(self, here: int, drawn: int) -> int:
        """Return how many items the next chunk has."""
        self._note_left(here, drawn)
        target = self._plan.map_target
        if self._gathers and target is not None:
            size = self._run.target_info(target).chunk_items(self._total)
        else:
            capabilities = None if target is None else target.capabilities
            ideal_seconds = (
                INLINE_CHUNK_S
                if capabilities is None
                else SERIALIZED_CHUNK_S
                if capabilities.serializes
                else IN_PROCESS_CHUNK_S
            )
            largest = MAX_STREAM_CHUNK_ITEMS if self._is_stream else MAX_CHUNK_ITEMS
            size = chunk_size(
                self._items.measured,
                left=None if self._total is None else self._items.left,
                workers=self._workers,
                ideal_seconds=ideal_seconds,
                largest=1 if capabilities is not None and capabilities.runs_coroutines else largest,
            )
        self._asked = size
        return min(size, here)

    def spreads(self, left: int) -> bool:
        """Whether the run sends the parts of the next item, so that the workers that have none share them."""
        return (
            self._plan.spread_plan is not None
            and left < self._workers
            and not 0 < self._items.measured.item_seconds < SPREAD_MIN_S
        )

    def long_items(self, items: Columns) -> frozenset[int]:
        """Return the positions of items that alone would keep a worker busy when all others have finished."""
        if self._plan.spread_plan is None:
            return frozenset()
        lengths = nested_lengths(self._plan, items)
        fair = LONG_ITEM * sum(lengths) / self._workers
        return frozenset(position for position, length in enumerate(lengths) if length > fair)

    def measure(self, items: int, seconds: float, nbytes: float = 0.0) -> None:
        """Take note of how long some items took together, and of how many bytes have travelled for them."""
        self._items.measure(items, seconds, nbytes, self._workers)
        # Items of this process go in chunks only if they are short: aggregated events wait for a whole chunk.
        # Streams never batch items inline: that would delay items already requested.
        plan = self._plan
        if plan.chunk_plan is not None and plan.map_target is None and not self._is_stream:
            self.sends_chunks = seconds < items * INLINE_MAX_ITEM_S

    def close(self) -> None:
        """Count the items of this map no longer: it is over."""
        self._items.left -= self._left
        self._left = 0

    def _note_left(self, here: int, drawn: int) -> None:
        if self._total is not None:
            left = here + self._total - drawn
            self._items.left += left - self._left
            self._left = left

    @cached_property
    def _workers(self) -> int:
        target = self._plan.map_target
        return 1 if target is None else self._run.target_info(target).workers

    @cached_property
    def _gathers(self) -> bool:
        target = self._plan.map_target
        return self.sends_chunks and target is not None and target.capabilities.gathers


def nested_lengths(plan: Plan, items: Columns) -> list[int]:
    """Return for each item how many items its nested maps have, as far as their inputs tell."""
    lengths = [0] * len(items)
    for step in plan.steps:
        if isinstance(step, NestedStep):
            source = dict(step.arguments)
            columns = [items.columns.get(source[name], ()) for name in step.map_over]
            combined = math.prod if step.map_mode == "product" else min
            for position, values in enumerate(zip(*columns, strict=False)):
                lengths[position] += combined(map(length_of, values))
    return lengths


def length_of(value: Any) -> int:
    """Return the length of a value, or 0: the `__len__` of a user's class may raise anything."""
    try:
        return len(value)
    except Exception:
        return 0
