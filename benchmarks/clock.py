"""Two ways of doing the same work, timed in turns."""

from __future__ import annotations

import gc
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable


class Timing(NamedTuple):
    """Seconds of the floor and of what is measured; neighbours were taken one right after the other."""

    floor: list[float]
    subject: list[float]

    @property
    def ratio(self) -> float:
        """How many times as long as the floor it takes."""
        return median(self.subject) / median(self.floor)

    @property
    def ratios(self) -> list[float]:
        """The ratio of each pair of neighbours."""
        return [subject / floor for floor, subject in zip(self.floor, self.subject, strict=True)]


def in_turns(floor: Callable[[], object], subject: Callable[[], object], repeats: int) -> Timing:
    """Time floor, subject, floor, subject, ... so that a busy spell of the machine meets both."""
    timing = Timing([], [])
    for _ in range(repeats):
        for work, times in ((floor, timing.floor), (subject, timing.subject)):
            # The collector stays on, as it is in real programs, but nobody pays for the other's garbage.
            gc.collect()
            started = perf_counter()
            work()
            times.append(perf_counter() - started)
    return timing
