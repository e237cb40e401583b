"""How many items make a chunk? A pure function of what was measured, of the workers, and of what is left."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Final

SERIALIZED_CHUNK_S: Final = 0.075
"""Seconds of work in a chunk for other processes: sending one costs about a millisecond."""
CHUNKS_PER_S: Final = 1000
"""How many chunks a driver can send to other processes in a second, with some time to spare."""
IN_PROCESS_CHUNK_S: Final = 0.002
"""Seconds of work in a chunk for a thread: handing it over costs some 20 microseconds."""
INLINE_CHUNK_S: Final = 0.01
"""Seconds of work in a chunk that is run right here: events of its items are emitted when it is done."""
INLINE_MAX_ITEM_S: Final = 0.005
"""Seconds: longer items are run one by one, so that their events come as they happen."""
SPREAD_MIN_S: Final = 0.02
"""Seconds: the parts of shorter items are not worth sending one by one."""
CHUNK_BYTES: Final = 16 << 20
"""Bytes of items and rows in a chunk: more would hold up a worker and fill the memory of the driver."""

MAX_CHUNK_ITEMS: Final = 1 << 16
MAX_STREAM_CHUNK_ITEMS: Final = 1 << 12
"""Of a stream, items are in memory only for the chunks that are under way."""

CHUNKS_LEFT_PER_WORKER: Final = 3
"""Chunks that each worker should still get towards the end, so that all workers end together."""
MIN_CHUNK_FRACTION: Final = 0.06
"""Of the ideal size, at the end of a map: below that, sending costs more than an even end saves."""
MAX_GROWTH: Final = 16
"""A chunk is at most this much larger than the one measured before: items may differ."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What is known of the items of a map."""

    item_seconds: float = 0.0
    item_nbytes: float = 0.0
    asked: int = 1


def chunk_size(
    measured: Measured,
    *,
    left: int | None,
    workers: int,
    ideal_seconds: float,
    largest: int = MAX_CHUNK_ITEMS,
) -> int:
    """Return how many items the next chunk should have.

    >>> chunk_size(Measured(0.001, 0, 50), left=10_000, workers=2, ideal_seconds=0.075)
    75
    >>> chunk_size(Measured(0.001, 0, 50), left=60, workers=2, ideal_seconds=0.075)
    10
    >>> chunk_size(Measured(0.001, 0, 999), left=10_000_000, workers=1_000, ideal_seconds=0.075)
    1000
    """
    if not measured.item_seconds:
        return measured.asked
    if ideal_seconds >= SERIALIZED_CHUNK_S:
        ideal_seconds = max(ideal_seconds, workers / CHUNKS_PER_S)
    by_time = int(ideal_seconds / measured.item_seconds)
    by_bytes = int(CHUNK_BYTES / measured.item_nbytes) if measured.item_nbytes else by_time
    by_share = by_time if left is None else ceil(left / (workers * CHUNKS_LEFT_PER_WORKER))
    by_share = max(by_share, int(by_time * MIN_CHUNK_FRACTION))
    return max(1, min(by_time, by_bytes, by_share, measured.asked * MAX_GROWTH, largest))
