"""The markers of the configuration, and the interface of a cache."""

from __future__ import annotations

from enum import Enum
from typing import Any, Final, Protocol, runtime_checkable


class Inherit(Enum):
    """The type of `INHERIT`."""

    INHERIT = "INHERIT"

    def __repr__(self) -> str:
        return self.value

    __str__ = __repr__


class Miss(Enum):
    """The type of `MISS`."""

    MISS = "MISS"

    def __repr__(self) -> str:
        return self.value

    __str__ = __repr__


INHERIT: Final = Inherit.INHERIT
"""Take this setting from the enclosing pipeline. For the outermost pipeline it means none."""

MISS: Final = Miss.MISS
"""The answer of a cache that has no entry. ``None`` cannot say so: it is a value that may be cached."""


@runtime_checkable
class Cache(Protocol):
    """A store of results by signature.

    A cache is pickled on its way to worker processes, and must find the same entries there.
    """

    def get(self, signature: str) -> Any:
        """Return the value stored under a signature, or `MISS`."""

    def put(self, signature: str, value: Any) -> None:
        """Store a value under a signature. A cache may lose the value, and must not raise."""
