"""What a run knows of the items of a plan: how long they take, and how many of them are left.

Several maps over one plan, as the maps inside of items, share the workers and have like items. So they share
what was measured, and each sizes its chunks by what is left of all.
"""

from __future__ import annotations

from typing import Final

from hypernodes.execution.scheduler.chunk_size import Measured

MIN_ITEM_S: Final = 1e-7
"""What an item takes at least, so that the ideal number of items in a chunk is finite."""
MIN_CHUNKS: Final = 4
"""The mean is over so many chunks or as many as there are workers: items may change from chunk to chunk."""


class ItemStatistics:
    """The items of all maps over one plan in a run.

    Attributes:
        left: How many items of the maps that are under way have not been started.
        measured: What the last chunks say of an item.
    """

    def __init__(self) -> None:
        self.left = 0
        self.measured = Measured()
        self._items = self._seconds = self._nbytes = (
            0.0  # sums, in which a chunk counts less with each new one
        )

    def measure(self, items: int, seconds: float, nbytes: float, workers: int) -> None:
        """Take note of how long some items took together, and of how many bytes have travelled for them."""
        kept = 1 - 1 / max(MIN_CHUNKS, workers)
        self._items = self._items * kept + items
        self._seconds = self._seconds * kept + max(seconds, MIN_ITEM_S * items)
        self._nbytes = self._nbytes * kept + nbytes
        self.measured = Measured(
            self._seconds / self._items, self._nbytes / self._items, max(items, self.measured.items)
        )
