"""Warnings about what is not cached, or counts without a part of it: each is emitted once."""

from __future__ import annotations

import multiprocessing
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from hypernodes.exceptions import CacheWarning
from hypernodes.user_warnings import warn_user

if TYPE_CHECKING:
    from hypernodes.cache.content import Omissions
    from hypernodes.execution.plan.model import Plan

_warned: WeakKeyDictionary[Plan, set[str]] = WeakKeyDictionary()


def warn_once(plan: Plan, message: str, cause: str = "") -> None:
    """Emit a warning about a plan, unless there was one for the same cause, or with the same text."""
    warned = _warned.setdefault(plan, set())
    if (cause or message) not in warned:
        warned.add(cause or message)
        warn_user(message, CacheWarning)


def warn_of_gaps(left_out: Omissions) -> None:
    """Warn, once for each class, of private attributes that do not count since they cannot be fingerprinted.

    Processes that were started for a pool are silent: the process that started them does the same work.
    """
    for kind, attributes in left_out.items():
        name = f"{kind.__module__}.{kind.__qualname__}"
        if name in _warned_classes or multiprocessing.parent_process() is not None:
            continue
        _warned_classes.add(name)
        listed = " and ".join(map(repr, attributes))
        reasons = "; ".join(dict.fromkeys(attributes.values()))
        warn_user(
            f"objects of class {kind.__qualname__!r} count without their private attribute {listed}, which "
            f"cannot be fingerprinted: {reasons}. If results depend on it, say what it stands for: define a "
            f"method __cache_key__(self) that returns all that counts of the object.",
            CacheWarning,
        )


_warned_classes: set[str] = set()
