"""The caches of one process: one for each directory after unpickling, empty after a fork, flushed at exit."""

from __future__ import annotations

import atexit
import os
import weakref
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable


class _ProcessCache(Protocol):
    def flush(self) -> None:
        """Write all delayed entries."""

    def _reset(self) -> None:
        """Begin with no open files and no delayed entries."""


_Cache = TypeVar("_Cache", bound=_ProcessCache)

_unpickled: dict[tuple[Any, ...], Any] = {}
_caches: weakref.WeakValueDictionary[int, _ProcessCache] = weakref.WeakValueDictionary()


def register(cache: _ProcessCache) -> None:
    """Reset a cache in processes that are forked, and flush it when this process exits."""
    _caches[id(cache)] = cache


def shared_in_process(settings: tuple[Any, ...], make: Callable[[], _Cache]) -> _Cache:
    """Return the one cache of this process with some settings, so that its files stay open between tasks.

    Args:
        settings: All settings of the cache.
        make: Makes the cache.
    """
    key = (os.getpid(), *settings)
    if key not in _unpickled:
        _unpickled[key] = make()
    cache: _Cache = _unpickled[key]
    return cache


def _reset_all() -> None:
    for cache in list(_caches.values()):
        cache._reset()


def _flush_all() -> None:
    for cache in list(_caches.values()):
        cache.flush()


os.register_at_fork(after_in_child=_reset_all)
atexit.register(_flush_all)
