"""What many jobs have in common: packed once, and unpacked once in each worker process."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypernodes.portable import Packed, Shared

OWN_PARCEL: Final = 64 * 1024  # bytes; smaller fixed inputs go with the plan
_PARCELS_KEPT: Final = 64
_BYTES_KEPT: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Parcel:
    """A part that many jobs have in common.

    Attributes:
        digest: A name for its content.
        shared: Where each worker finds it.
        size: Bytes.
    """

    digest: bytes
    shared: Shared
    size: int

    def unpack(self) -> Any:
        """Return it, in a worker; all jobs of a process get the same object."""
        with _lock:  # a model is made once, however many threads ask for it
            if self.digest in _unpacked:
                _unpacked.move_to_end(self.digest)
            else:
                # All jobs of this process see the same object: its arrays need not be copied.
                _unpacked[self.digest] = (self.shared.load().unpack(as_views=True), self.size)
                while len(_unpacked) > 1 and (
                    len(_unpacked) > _PARCELS_KEPT
                    or sum(size for _, size in _unpacked.values()) > _BYTES_KEPT
                ):
                    _unpacked.popitem(last=False)
            return _unpacked[self.digest][0]


_lock = threading.RLock()
_unpacked: OrderedDict[bytes, tuple[Any, int]] = OrderedDict()


def parcel_of(packed: Packed, share: Callable[[Packed], Shared]) -> Parcel:
    """Make a parcel of a packed value.

    Args:
        packed: The value.
        share: Places it where every worker finds it.
    """
    return Parcel(packed.digest, share(packed), packed.size)
