"""Broadcast values: serialized once and shared by many jobs, and deserialized once in each worker process."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypernodes.serialization.pickling import Serialized

BROADCAST_MIN_BYTES: Final = 64 * 1024
"""Bytes from which on an input is broadcast by itself; a smaller one travels with the jobs."""

MAX_KEPT: Final = 64
MAX_KEPT_BYTES: Final = 1 << 30


class PlacedValue(Protocol):
    """A serialized value, placed where every worker of an executor finds it."""

    def load(self) -> Serialized:
        """Return it, in the worker."""


@dataclass(frozen=True, slots=True)
class InlineValue:
    """A placed value that simply travels with each submission."""

    serialized: Serialized

    def load(self) -> Serialized:
        """Return it."""
        return self.serialized


@dataclass(frozen=True, slots=True)
class Broadcast:
    """A value serialized once and shared by many jobs.

    Attributes:
        digest: A name for its content.
        placed: Where each worker finds it.
        size: Bytes.
    """

    digest: bytes
    placed: PlacedValue
    size: int

    def get(self) -> Any:
        """Return the value, in a worker; all jobs of a process get the same object."""
        with _lock:  # a model is made once, however many threads ask for it
            if self.digest in _values:
                _values.move_to_end(self.digest)
            else:
                # All jobs of this process see the same object, so its arrays need not be copied.
                _values[self.digest] = (self.placed.load().deserialize(as_views=True), self.size)
                while len(_values) > 1 and (
                    len(_values) > MAX_KEPT or sum(size for _, size in _values.values()) > MAX_KEPT_BYTES
                ):
                    _values.popitem(last=False)
            return _values[self.digest][0]


_lock = threading.RLock()
_values: OrderedDict[bytes, tuple[Any, int]] = OrderedDict()


def broadcast(serialized: Serialized, place: Callable[[Serialized], PlacedValue]) -> Broadcast:
    """Make a broadcast value.

    Args:
        serialized: The value.
        place: Places it where every worker finds it.
    """
    return Broadcast(serialized.digest, place(serialized), serialized.size)
