"""Private parts of the standard library's ``inspect``."""

from __future__ import annotations

import inspect
import sys
from typing import Any


def mark_coroutine_function(target: Any, function: Any) -> None:
    """Have ``inspect.iscoroutinefunction`` say that an object which calls an ``async def`` is one.

    Why: Python 3.11 looks at the parts of a function, and has no `inspect.markcoroutinefunction`.
    When Python 3.11 is not supported any longer: use that function alone.
    """
    if sys.version_info >= (3, 12):
        inspect.markcoroutinefunction(target)
        return
    for name in ("__code__", "__defaults__", "__kwdefaults__"):
        setattr(target, name, getattr(function, name))
