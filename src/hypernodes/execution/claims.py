"""Who computes what right now? Equal calls are made once in a process; the others wait, and then look again.

Whoever waits holds up nobody: a call that is inside another call never waits, and work in an executor
waits only for calls that are being made, not for calls that may be queued behind it.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from hypernodes.execution.lane import BUSY

if TYPE_CHECKING:
    from collections.abc import Hashable

CALLING: ContextVar[bool] = ContextVar("hypernodes_calling", default=False)
"""Whether this code was called by a node's function."""


@dataclass(slots=True)
class _Claim:
    owner: object
    is_running: bool
    waiting: list[Future[None]] = field(default_factory=list)


class Claims:
    """The computations that are under way in this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._claims: dict[Hashable, _Claim] = {}

    def take(self, key: Hashable, owner: object, *, here: bool) -> Future[None] | None:
        """Claim a computation.

        Args:
            key: What is computed.
            owner: Who claims it, and will `release` it.
            here: Whether it is called at once, and not queued.

        Returns:
            ``None`` to go on and compute it; else what is done when somebody else has computed it.
        """
        with self._lock:
            claim = self._claims.get(key)
            if claim is None:
                self._claims[key] = _Claim(owner, here)
                return None
            if CALLING.get() or (BUSY.get() and not claim.is_running):
                return None
            future: Future[None] = Future()
            claim.waiting.append(future)
            return future

    def release(self, key: Hashable, owner: object) -> None:
        """Wake those who wait for a computation, if it is the owner's."""
        with self._lock:
            claim = self._claims.get(key)
            if claim is None or claim.owner is not owner:
                return
            del self._claims[key]
        for future in claim.waiting:
            if future.set_running_or_notify_cancel():
                future.set_result(None)


CLAIMS: Final = Claims()
