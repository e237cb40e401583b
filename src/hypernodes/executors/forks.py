"""What a forked child begins anew: it has a copy of every object, but none of the threads that serve it."""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_methods: Final[weakref.WeakKeyDictionary[Any, str]] = weakref.WeakKeyDictionary()


def call_after_fork(method: Callable[[], object]) -> None:
    """Have a method called in each forked child, for as long as its object lives."""
    _methods[method.__self__] = method.__name__  # type: ignore[attr-defined]


def _call_methods() -> None:
    for instance, name in list(_methods.items()):
        getattr(instance, name)()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_call_methods)
