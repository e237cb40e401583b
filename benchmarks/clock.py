"""Two ways of doing the same work, timed in turns."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import NamedTuple


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


@dataclass(frozen=True, slots=True)
class Row:
    """Some work, by hand and by hypernodes.

    Attributes:
        work: What is done, in words.
        floor: Does it as one would by hand.
        subject: Does it with hypernodes.
        budget: The ratio that is the goal.
        repeats: How often each side is timed.
        calls: How many runs or items one timing covers, where the time of a single one is shown.
        against: What the floor is, in words.
    """

    work: str
    floor: Callable[[], object]
    subject: Callable[[], object]
    budget: float
    repeats: int
    calls: int = 1
    against: str = "the same by hand"


def measure(row: Row) -> Timing:
    """Check that both sides agree, which also warms them up, and time them."""
    expected, got = row.floor(), row.subject()
    assert got == expected, f"{row.work}: {str(got)[:80]} is not {str(expected)[:80]}"
    return in_turns(row.floor, row.subject, row.repeats)


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
