"""When is a tier asked again that did not answer?"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from hypernodes.cache.summary import describe

if TYPE_CHECKING:
    from collections.abc import Callable

_MIN_BACKOFF_S: Final = 30.0
"""After a failure there is no request for so long. The time doubles with each failure."""
_MAX_BACKOFF_S: Final = 240.0


class Circuit:
    """Counts the failures of one kind of request, and warns of the first of a tier.

    A map of many items would otherwise wait for as many timeouts.
    """

    def __init__(self, warn: Callable[[str, str], None], url: str, fault: str, effect: str) -> None:
        self._warn = warn
        self._url = url
        self._fault = fault
        self._effect = effect
        self._next_request_at = 0.0  # by the monotonic clock
        self._backoff_s = _MIN_BACKOFF_S

    @property
    def is_open(self) -> bool:
        """Whether requests are left out, since one of them has failed not long ago."""
        return time.monotonic() < self._next_request_at

    def failed(self, error: Exception) -> None:
        """Leave requests out for a while."""
        self._next_request_at = time.monotonic() + self._backoff_s
        self._backoff_s = min(self._backoff_s * 2, _MAX_BACKOFF_S)
        text = describe(error).partition("\\n")[0]
        self._warn("remote", f"its remote tier {self._url!r} {self._fault} ({text}); {self._effect}")

    def worked(self) -> None:
        """Note that a request was answered."""
        self._backoff_s = _MIN_BACKOFF_S
