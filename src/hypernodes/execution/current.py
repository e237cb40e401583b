"""What code can know of the call and of the workers that it runs in."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from hypernodes.callbacks.event import Scope

CURRENT_CALL: ContextVar[Scope | None] = ContextVar("hypernodes_current_call", default=None)
"""Where the call of a node is that this code is a part of; ``None`` outside of calls."""
OCCUPIED: ContextVar[frozenset[int]] = ContextVar("hypernodes_occupied", default=frozenset())
"""The targets in whose workers this code runs: waiting for one of them could take forever."""
OTHER_PROCESS: Final = 0
"""Stands in `OCCUPIED` for whatever target this code reached as a pickle."""
