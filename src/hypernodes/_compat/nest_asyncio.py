"""What the executors rely on in nest_asyncio; its tests are in ``tests/test_compat_asyncio.py``."""

from __future__ import annotations

import asyncio


def can_reenter(loop: asyncio.AbstractEventLoop) -> bool:
    """Make a running loop reentrant, so that code on it can run it again; ``False`` if that is impossible.

    Why: in a notebook, plain code runs on a loop and must wait for coroutines of the same loop. `apply` does
    not say which loops it refuses (those that are not written in Python, such as uvloop's), it marks a loop
    that it has changed only by ``_nest_patched``, and it replaces `asyncio.run` by a function that leaves its
    loop open, for the whole process.
    When ``_nest_patched`` is gone: call `apply` every time, which is slower. When `apply` no longer replaces
    `asyncio.run`: remove the lines that restore it.
    """
    if getattr(loop, "_nest_patched", False):
        return True
    if not isinstance(loop, asyncio.BaseEventLoop):
        return False
    import nest_asyncio

    run = asyncio.run
    try:
        nest_asyncio.apply(loop)
    except ValueError:
        return False
    finally:
        asyncio.run = run
    return True
