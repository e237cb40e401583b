"""The objects that are made once in this process: by key, under a lock, until they are closed."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final

from hypernodes._compat.multiprocessing import run_before_processes_are_joined

if TYPE_CHECKING:
    from collections.abc import Callable

_LOG: Final = logging.getLogger("hypernodes")


class ProcessObject:
    """One object of this process, which is made on first use."""

    __slots__ = ("closes", "generation", "is_made", "key", "lock", "users", "value")

    def __init__(self, key: bytes, generation: object) -> None:
        self.key = key
        self.generation = generation
        self.lock = threading.RLock()
        self.is_made = False
        self.value: Any = None
        self.users = 0  # holders in this process that have used it
        self.closes = False  # it is closed with its last user; otherwise at the end of the process

    def get(self, make: Callable[[], Any]) -> Any:
        """Return the object; all threads wait for the one that makes it."""
        if not self.is_made:
            with self.lock:
                if not self.is_made:
                    self.value = make()
                    self.is_made = True
        return self.value

    def close(self) -> None:
        """Call the object's own ``close``, if it has one. An error is logged: nothing waits for the end."""
        with self.lock:
            value, is_made = self.value, self.is_made
            self.value, self.is_made = None, False
        close = getattr(type(value), "close", None) if is_made else None
        if callable(close):
            try:
                close(value)
            except Exception:
                _LOG.warning("%s: its close() raised", type(value).__qualname__, exc_info=True)


class _Objects:
    """All of them, by key. A forked child begins without any, and leaves those of its parent alone."""

    def __init__(self) -> None:
        self._of_parents: list[Any] = []
        self._begin()

    def _begin(self) -> None:
        self.generation = object()
        self._lock = threading.RLock()  # a finalizer may run while this thread holds it
        self._by_key: dict[bytes, ProcessObject] = {}
        self._closes_at_exit = False

    def begin_in_child(self) -> None:
        """Keep what the parent has made, so that nothing of it is closed here, and begin anew."""
        self._of_parents.append(self._by_key)
        self._begin()

    def of(self, key: bytes, user: object, *, closes: bool) -> ProcessObject:
        """Return the object of a key for a further user."""
        new = ProcessObject(key, self.generation)
        with self._lock:
            found = self._by_key.setdefault(key, new)
            found.users += 1
            found.closes |= closes
            if not self._closes_at_exit:
                self._closes_at_exit = True
                atexit.register(self.close_all)
                run_before_processes_are_joined(self.close_all)  # where exit functions are not called
        weakref.finalize(user, self._leave, found).atexit = False
        return found

    def _leave(self, found: ProcessObject) -> None:
        with self._lock:
            found.users -= 1
            is_last = not found.users and found.closes and self._by_key.get(found.key) is found
            if is_last:
                del self._by_key[found.key]
        if is_last:
            found.close()

    def close_all(self) -> None:
        """Close the objects of this process, the last one first."""
        with self._lock:
            found, self._by_key = list(self._by_key.values()), {}
        for one in reversed(found):
            one.close()


OBJECTS: Final = _Objects()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=OBJECTS.begin_in_child)
