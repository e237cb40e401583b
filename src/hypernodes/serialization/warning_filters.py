"""The filters of `warnings` of the driver, for the calls that workers make."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hypernodes.serialization.broadcast import Broadcast, broadcast
from hypernodes.serialization.pickling import serialize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hypernodes.serialization.broadcast import PlacedValue
    from hypernodes.serialization.pickling import Serialized


def broadcast_filters(place: Callable[[Serialized], PlacedValue]) -> Broadcast:
    """Return the filters of this process, for its workers; those that cannot be pickled stay behind."""
    try:
        serialized = serialize(tuple(warnings.filters))
    except Exception:
        serialized = serialize(())
    return broadcast(serialized, place)


@contextmanager
def warning_filters(filters: Broadcast) -> Iterator[None]:
    """Use the filters of the driver for a while, in a worker."""
    wanted: tuple[Any, ...] = filters.get()
    if not wanted or wanted == tuple(warnings.filters):  # Each change has Python print warnings once more.
        yield
        return
    with warnings.catch_warnings():
        own: Any = warnings.filters
        warnings.resetwarnings()
        own[:] = wanted
        yield
