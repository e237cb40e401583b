"""Finishes submitted work before the interpreter ends, as the executors of the standard library do."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Generic, TypeVar

from hypernodes._compat.concurrent_futures import run_before_exit

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class ExitHook(Generic[T]):
    """Calls a function for each of the registered objects that still exist when the interpreter ends."""

    def __init__(self, finish: Callable[[T], None]) -> None:
        self._finish = finish
        self._objects: weakref.WeakSet[T] = weakref.WeakSet()
        self._is_exiting = False
        run_before_exit(self._run)

    def register(self, instance: T) -> None:
        """Have an object finish its work when the interpreter ends; it is not kept alive for that."""
        self._objects.add(instance)

    def check(self) -> None:
        """Refuse new work while the interpreter ends."""
        if self._is_exiting:
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    def _run(self) -> None:
        self._is_exiting = True
        for instance in list(self._objects):
            self._finish(instance)
