"""Broadcast values: serialized once and shared by many jobs, and deserialized once in each worker process.

Code, and values that nothing can change, are found by their content, in every run. A value that a call might
change in place is deserialized again in the next run: what one run does to it, no other may see.
"""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypernodes.serialization.pickling import Serialized

BROADCAST_MIN_BYTES: Final = 64 * 1024
"""Bytes from which on an input is a broadcast value of its own; a smaller one is part of each job."""
MAX_CACHED_VALUES: Final = 64
"""How many broadcast values a worker process keeps; those of earlier runs must not fill its memory."""
MAX_CACHED_BYTES: Final = 1 << 30
"""Bytes of the broadcast values that a worker process keeps; one value is kept whatever its size."""


class PlacedValue(Protocol):
    """A serialized value, placed where every worker of an executor finds it."""

    def load(self) -> Serialized:
        """Return the serialized value, in a worker."""


@dataclass(frozen=True, slots=True)
class InlineValue:
    """A value that is part of each submission."""

    serialized: Serialized

    def load(self) -> Serialized:
        """Return the serialized value."""
        return self.serialized


@dataclass(frozen=True, slots=True)
class Broadcast:
    """A value serialized once and shared by many jobs."""

    digest: bytes  # a hash of the content, after what names the run
    placed: PlacedValue  # loads the serialized value in a worker
    size: int

    def get(self) -> Any:
        """Return the value, in a worker; all jobs of the process get the same object."""
        with _lock:  # Several threads that need a value deserialize it only once.
            if self.digest in _values:
                _values.move_to_end(self.digest)
            else:
                # No job may change a common value, so its arrays can be read-only views.
                _values[self.digest] = (self.placed.load().deserialize(as_views=True), self.size)
                while len(_values) > 1 and (
                    len(_values) > MAX_CACHED_VALUES
                    or sum(size for _, size in _values.values()) > MAX_CACHED_BYTES
                ):
                    _values.popitem(last=False)
            return _values[self.digest][0]


_lock = threading.RLock()
_values: OrderedDict[bytes, tuple[Any, int]] = OrderedDict()


def broadcast(
    serialized: Serialized, place: Callable[[Serialized], PlacedValue], run: bytes = b""
) -> Broadcast:
    """Make a broadcast value; `run` names the run that it belongs to, if calls might change it."""
    return Broadcast(run + serialized.digest, place(serialized), serialized.size)


def run_name() -> bytes:
    """Return a name that no other run has."""
    return secrets.token_bytes(8)
