"""The caches of one process: one for each directory after unpickling, empty after a fork, flushed at exit.

A fork waits until other threads have left SQLite: see `fork_gate`.
"""

from __future__ import annotations

import atexit
import os
import weakref
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from hypernodes.cache.fork_gate import SQLITE

if TYPE_CHECKING:
    from collections.abc import Callable


class _ProcessCache(Protocol):
    _store: Any

    def write_delayed(self) -> None:
        """Write all delayed entries to the directory."""

    def flush(self) -> None:
        """Write all delayed entries, also to a remote tier."""

    def _reset(self) -> None:
        """Begin with no open files and no delayed entries."""


_Cache = TypeVar("_Cache", bound=_ProcessCache)

_unpickled: dict[tuple[Any, ...], Any] = {}
_caches: weakref.WeakValueDictionary[int, _ProcessCache] = weakref.WeakValueDictionary()
_inherited: list[object] = []


def register(cache: _ProcessCache) -> None:
    """Reset a cache in processes that are forked, and flush it when this process exits."""
    _caches[id(cache)] = cache


def shared_in_process(settings: tuple[Any, ...], make: Callable[[], _Cache]) -> _Cache:
    """Return the one cache of this process with some settings, so that its files stay open between tasks."""
    key = (os.getpid(), *settings)
    if key not in _unpickled:
        _unpickled[key] = make()
    cache: _Cache = _unpickled[key]
    return cache


def _after_fork_in_child() -> None:
    SQLITE.begin()
    for cache in list(_caches.values()):
        # SQLite forbids even closing a connection in a forked process, so that nothing may free it.
        _inherited.append(cache._store)
        cache._reset()


def write_delayed() -> None:
    """Write what the caches of this process have delayed to their directories."""
    for cache in list(_caches.values()):
        cache.write_delayed()


def _flush_all() -> None:
    write_delayed()
    for cache in list(_caches.values()):
        cache.flush()


os.register_at_fork(before=SQLITE.close, after_in_parent=SQLITE.open, after_in_child=_after_fork_in_child)
atexit.register(_flush_all)
