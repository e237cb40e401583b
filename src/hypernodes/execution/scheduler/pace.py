"""How many items of a map are under way at a time, and how many of them go in a chunk."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Final

from hypernodes.execution.scheduler.chunk_size import (
    IN_PROCESS_CHUNK_S,
    INLINE_CHUNK_S,
    INLINE_MAX_ITEM_S,
    MAX_CHUNK_ITEMS,
    MAX_STREAM_CHUNK_ITEMS,
    SERIALIZED_CHUNK_S,
    SPREAD_MIN_S,
    Measured,
    chunk_size,
)

if TYPE_CHECKING:
    from hypernodes.execution.plan.model import Plan
    from hypernodes.execution.scheduler.state import RunState

SHORTEST_ITEM_S: Final = 1e-7
"""What an item takes at least, so that the ideal number of items in a chunk is finite."""


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
        self._measured = Measured()
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
        return max(least, 2 * window * (self._measured.asked if self.sends_chunks else 1))

    @property
    def least_items(self) -> int:
        """How many items of a stream are in memory at least, whatever their size, so that no worker idles."""
        return self._workers if "window" in vars(self) else 1

    def next_size(self, here: int, drawn: int) -> int:
        """Return how many items the next chunk has."""
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
                self._measured,
                left=None if self._total is None else here + self._total - drawn,
                workers=self._workers,
                ideal_seconds=ideal_seconds,
                largest=1 if capabilities is not None and capabilities.runs_coroutines else largest,
            )
        self._measured = replace(self._measured, asked=size)
        return min(size, here)

    def spreads(self, left: int) -> bool:
        """Whether the run sends the parts of the next item, so that the workers that have none share them."""
        return (
            self._plan.spread_plan is not None
            and left < self._workers
            and not 0 < self._measured.item_seconds < SPREAD_MIN_S
        )

    def measure(self, seconds: float, nbytes: float = 0.0) -> None:
        """Take note of how long an item took, and of how many bytes have travelled for it."""
        self._measured = Measured(max(seconds, SHORTEST_ITEM_S), nbytes, self._measured.asked)
        # Items of this process go in chunks only if they are short; else their events come as they happen.
        # Streams never batch items inline: that would delay items already requested.
        plan = self._plan
        if plan.chunk_plan is not None and plan.map_target is None and not self._is_stream:
            self.sends_chunks = seconds < INLINE_MAX_ITEM_S

    @cached_property
    def _workers(self) -> int:
        target = self._plan.map_target
        return 1 if target is None else self._run.target_info(target).workers

    @cached_property
    def _gathers(self) -> bool:
        target = self._plan.map_target
        return self.sends_chunks and target is not None and target.capabilities.gathers
