"""What is configured, and what is left to the parent."""

from __future__ import annotations

from enum import Enum
from typing import Any, Final, Protocol, runtime_checkable


class _Marker(Enum):
    INHERIT = "INHERIT"
    MISS = "MISS"

    def __repr__(self) -> str:
        return self.value


INHERIT: Final = _Marker.INHERIT
"""This aspect is taken from the pipeline around, and switched off where there is none."""

MISS: Final = _Marker.MISS
"""What a cache answers when it has no entry; ``None`` is a value like any other."""

type_of_inherit = _Marker


@runtime_checkable
class Cache(Protocol):
    """Where results are kept, by signature.

    A cache travels to workers by pickle and must find the same entries there.
    """

    def get(self, signature: str) -> Any:
        """Return the value stored under a signature, or ``MISS``."""

    def put(self, signature: str, value: Any) -> None:
        """Store a value. Losing it is allowed, raising is not."""
