"""How many items make a chunk? A pure function of what was measured, of the workers, and of what is left.

A chunk costs its worker some milliseconds and the driver about half a millisecond. So chunks are long, while
there is much to do; the work that is left is divided among all workers, so that they end together; and many
workers get longer chunks, since one driver has to serve them all. `docs/scaling.md` has the figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, sqrt
from typing import Final

SERIALIZED_CHUNK_S: Final = 0.25
"""Seconds of work in a chunk for other processes: a worker idles for about 4 ms between two of them."""
CHUNKS_PER_S: Final = 500
"""How many chunks a driver is to send to other processes in a second: about half of what it can."""
IN_PROCESS_CHUNK_S: Final = 0.002
"""Seconds of work in a chunk for a thread: handing it over costs some 20 microseconds."""
IN_PROCESS_CHUNKS_PER_S: Final = 5_000
"""How many chunks threads are to get in a second: all of them share one interpreter with the driver."""
INLINE_CHUNK_S: Final = 0.01
"""Seconds of work in a chunk that is run right here: aggregated events are emitted when it is done."""
INLINE_MAX_ITEM_S: Final = 0.005
"""Seconds: longer items are run one by one, so that aggregated events do not wait for several of them."""
SPREAD_MIN_S: Final = 0.02
"""Seconds: the parts of shorter items are not worth sending one by one."""
CHUNK_BYTES: Final = 16 << 20
"""Bytes of items and rows in a chunk: more would hold up a worker and fill the memory of the driver."""

MAX_CHUNK_ITEMS: Final = 1 << 16
MAX_STREAM_CHUNK_ITEMS: Final = 1 << 12
"""Of a stream, items are in memory only for the chunks that are under way."""

CHUNKS_LEFT_PER_WORKER: Final = 2
"""Chunks that each worker should still get towards the end, so that all workers end together."""
MIN_CHUNK_FRACTION: Final = 0.06
"""Of the ideal size, in threads at the end of a map: below that, chunks cost more than an even end saves."""
MAX_GROWTH: Final = 64
"""A chunk has at most so many times the items of the largest one that was measured: items may differ."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What is known of the items of a map."""

    item_seconds: float = 0.0
    item_nbytes: float = 0.0
    items: int = 0  # of the largest chunk that was measured


def chunk_size(
    measured: Measured,
    *,
    left: int | None,
    workers: int,
    ideal_seconds: float,
    largest: int = MAX_CHUNK_ITEMS,
) -> int:
    """Return how many items the next chunk should have.

    >>> chunk_size(Measured(0.001, 0, 50), left=10_000, workers=2, ideal_seconds=0.25)
    250
    >>> chunk_size(Measured(0.001, 0, 50), left=60, workers=2, ideal_seconds=0.25)
    15
    >>> chunk_size(Measured(0.001, 0, 999), left=10_000_000, workers=1_000, ideal_seconds=0.25)
    2000
    """
    item = measured.item_seconds
    if not item:
        return 1
    per_second = CHUNKS_PER_S if ideal_seconds >= SERIALIZED_CHUNK_S else IN_PROCESS_CHUNKS_PER_S
    seconds = max(ideal_seconds, workers / per_second)
    if left is not None:
        share = left * item / (workers * CHUNKS_LEFT_PER_WORKER)
        seconds = min(seconds, max(share, _least_seconds(left * item, ideal_seconds)))
    by_bytes = CHUNK_BYTES / measured.item_nbytes if measured.item_nbytes else largest
    return max(1, min(ceil(seconds / item), int(by_bytes), measured.items * MAX_GROWTH, largest))


def _least_seconds(left: float, ideal_seconds: float) -> float:
    """Return how long the shortest chunk is that is worth sending, given the seconds of work that are left.

    In chunks of n seconds, a driver sends the work that is left in left / n / CHUNKS_PER_S seconds, and the
    last chunk takes n seconds more. The root is where both together are shortest.
    """
    if ideal_seconds < SERIALIZED_CHUNK_S:
        return ideal_seconds * MIN_CHUNK_FRACTION
    return sqrt(left / CHUNKS_PER_S)
