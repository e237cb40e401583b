"""Finishes submitted work before the interpreter ends, as the executors of the standard library do."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Generic, TypeVar

from hypernodes._compat.concurrent_futures import run_before_exit
from hypernodes._compat.multiprocessing import run_before_processes_are_joined
from hypernodes.executors.forks import call_after_fork

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class ExitHook(Generic[T]):
    """Calls a function for each of the registered objects that still exist when the interpreter ends."""

    def __init__(self, finish: Callable[[T], None]) -> None:
        self._finish = finish
        self._begin()
        run_before_exit(self._run)
        call_after_fork(self._begin)

    def _begin(self) -> None:
        """Begin without any object: in a forked child, those of its parent never finish."""
        self._objects: weakref.WeakSet[T] = weakref.WeakSet()
        self._is_exiting = False
        self._runs_in_time = False

    def register(self, instance: T) -> None:
        """Have an object finish its work when the interpreter ends; it is not kept alive for that."""
        if not self._runs_in_time:
            self._runs_in_time = True
            run_before_processes_are_joined(self._run)
        self._objects.add(instance)

    def check(self) -> None:
        """Refuse new work while the interpreter ends."""
        if self._is_exiting:
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    def _run(self) -> None:
        self._is_exiting = True
        for instance in list(self._objects):
            self._finish(instance)
