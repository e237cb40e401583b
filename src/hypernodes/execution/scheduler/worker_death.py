"""What happens to work whose worker died.

A chunk that cost its worker its life is divided, and its parts are run again, until the item that is to blame
is alone; that one is tried as often as its target retries. A call is tried again by the target itself, if it
does so.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Final

from hypernodes.execution.calls.timeout import overdue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hypernodes.exceptions import WorkerDiedError

PARTS: Final = 16
"""Into how many parts a chunk is divided: the culprit among 4 096 items is alone after three deaths."""


def divided(positions: Sequence[int]) -> list[list[int]]:
    """Return the parts of a chunk that are run again.

    >>> divided(range(5))
    [[0], [1], [2], [3], [4]]
    """
    size = ceil(len(positions) / PARTS)
    return [list(positions[start : start + size]) for start in range(0, len(positions), size)]


@dataclass(frozen=True, slots=True)
class Death:
    """The death of a worker, as it concerns the chunk that it ran."""

    error: WorkerDiedError
    deaths: int  # how many workers have died of these items
    is_alone: bool  # the chunk had a single item

    def final_error(self, timeout: float | None, max_retries: int) -> tuple[Exception, str] | None:
        """Return the error that the item fails with, and the end of its note; ``None`` to try again.

        A worker may have been ended for the shortest timeout of the item's calls.
        """
        if not self.is_alone:
            return None
        if (late := overdue(self.error, timeout)) is not None:
            return late, ""
        if self.deaths <= max_retries:
            return None
        return self.error, f", of which {self.deaths} worker{'s' if self.deaths > 1 else ''} died"
