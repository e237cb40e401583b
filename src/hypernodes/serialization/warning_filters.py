"""The filters of `warnings` of the driver, for the calls that workers make.

Where a worker has not imported the module of a category, its filter has a stand-in for it: the driver may
have imported large modules that its nodes do not need.
"""

from __future__ import annotations

import sys
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hypernodes.serialization.broadcast import Broadcast, broadcast
from hypernodes.serialization.pickler import is_importable
from hypernodes.serialization.pickling import serialize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hypernodes.serialization.broadcast import PlacedValue
    from hypernodes.serialization.pickling import Serialized


def broadcast_filters(place: Callable[[Serialized], PlacedValue]) -> Broadcast:
    """Return the filters of this process, for its workers; those that cannot be pickled stay behind."""
    try:
        serialized = serialize(
            tuple((action, text, _to_send(category), *at) for action, text, category, *at in warnings.filters)
        )
    except Exception:
        serialized = serialize(())
    return broadcast(serialized, place)


@contextmanager
def warning_filters(filters: Broadcast) -> Iterator[None]:
    """Use the filters of the driver for a while, in a worker."""
    wanted: tuple[Any, ...] = filters.get()
    own: Any = warnings.filters
    if tuple(each for each in wanted if not isinstance(each[2], _StandIn)) == tuple(own):
        own[:] = wanted  # Stand-ins can stay: they match nothing as long as their module is not imported.
    if not wanted or wanted == tuple(own):  # Each change has Python print warnings once more.
        yield
        return
    with warnings.catch_warnings():
        own = warnings.filters
        warnings.resetwarnings()
        own[:] = wanted
        yield


def _to_send(category: type[Warning] | tuple[type[Warning], ...]) -> Any:
    return tuple(map(_Category, category)) if isinstance(category, tuple) else _Category(category)


class _Category:
    """The category of a filter, on its way to a worker."""

    def __init__(self, category: type[Warning]) -> None:
        self._category = category

    def __reduce__(self) -> tuple[Any, ...]:
        category = self._category
        if is_importable(category):
            return _category_here, (category.__module__, category.__qualname__)
        return _same, (category,)


def _same(category: type[Warning]) -> type[Warning]:
    return category


def _category_here(module: str, name: str) -> type[Warning]:
    """Return the class of that name, or a stand-in as long as its module is not imported here."""
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, type) else _StandIn(name, (Warning,), {"__module__": module})


class _StandIn(type):
    """The class of stand-ins. The category of that name is a subclass of its stand-in, and so are its own."""

    def __subclasscheck__(cls, subclass: type) -> bool:
        name = (cls.__module__, cls.__qualname__)
        return any((each.__module__, each.__qualname__) == name for each in subclass.__mro__)
