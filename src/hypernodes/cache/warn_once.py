"""Warnings of a cache: one for each cause, in a thread in which the user can see them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from hypernodes.exceptions import CacheWarning
from hypernodes.user_warnings import warn_user

if TYPE_CHECKING:
    from pathlib import Path

QUIET_THREAD: Final = "hypernodes-cache"
"""The name of threads whose warnings are deferred."""


class WarnOnce:
    """Warns once for each cause; each text begins with the directory of the cache.

    Warnings of a quiet thread are deferred to `emit_deferred`: a filter that turns warnings into errors would
    end that thread, and the user would not notice.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._causes: set[str] = set()
        self._deferred: list[tuple[str, str]] = []

    def __call__(self, cause: str, text: str) -> None:
        """Emit a `CacheWarning`, unless there was one for the same cause."""
        if cause in self._causes:
            return
        if threading.current_thread().name == QUIET_THREAD:
            self._deferred.append((cause, text))
            return
        self._causes.add(cause)
        warn_user(f"cache {str(self._path)!r}: {text}.", CacheWarning)

    def emit_deferred(self) -> None:
        """Emit the warnings that the quiet thread has deferred."""
        while self._deferred:
            self(*self._deferred.pop())

    def drop_deferred(self) -> None:
        """Drop the warnings that the quiet thread has deferred."""
        self._deferred.clear()
