"""How long functions take on one target: calls that are shorter than their way there travel together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Callable

SHORT_S: Final = 1e-3
"""Seconds below which a call is short: to send one takes about as long."""
CALL_S: Final = 5e-5
"""Seconds that a call in a group takes at least, with the way of its result."""
KEPT: Final = 0.9
"""What part of the longest duration counts at the next call: a function may have been slow only once."""


class CallDurations:
    """How long functions take on one target, as far as they were called there."""

    def __init__(self) -> None:
        self._seconds: WeakKeyDictionary[Callable[..., Any], float] = WeakKeyDictionary()

    def note(self, function: Callable[..., Any], seconds: float) -> None:
        """Take note of a call."""
        try:
            self._seconds[function] = max(seconds, KEPT * self._seconds.get(function, 0.0))
        except TypeError:  # It has no weak references, or no hash.
            return

    def of_short(self, function: Callable[..., Any]) -> float | None:
        """Return how many seconds a short call takes; ``None`` if the function is not known to be short."""
        try:
            seconds = self._seconds.get(function)
        except TypeError:
            return None
        return max(seconds, CALL_S) if seconds is not None and seconds < SHORT_S else None
