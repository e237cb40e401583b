"""What the executors rely on in asyncio beyond its documented interface."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

running_loop: Callable[[], asyncio.AbstractEventLoop | None] = asyncio._get_running_loop
"""Returns the event loop that runs in this thread, or ``None``.

Why: each submission asks for the loop. `asyncio.get_running_loop` raises a RuntimeError where no loop runs,
which costs more than the answer.
When ``asyncio._get_running_loop`` is gone: call `asyncio.get_running_loop`, and catch the RuntimeError.
"""
