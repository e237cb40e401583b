"""Single flight: equal calls are made once in a process; the others wait, and then look the result up.

Waiting holds up nothing: a call that is inside another call never waits, and work in an executor waits only
for calls that are being made, not for calls that may be queued behind it.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from hypernodes.execution.current import CURRENT_CALL, OCCUPIED

if TYPE_CHECKING:
    from collections.abc import Hashable

    from hypernodes.execution.jobs import Call

    Flight: TypeAlias = Hashable


@dataclass(slots=True)
class _Flight:
    owner: object
    is_running: bool
    waiting: list[Future[None]] = field(default_factory=list)


class InFlight:
    """The cached calls that are under way in this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flights: dict[Flight, _Flight] = {}

    def join(self, call: Call, owner: object) -> Future[None] | None:
        """Begin a call, or wait for an equal one.

        Args:
            call: The call; it is cached.
            owner: Who makes it, and will `leave`.

        Returns:
            ``None`` to go on and make the call; else a future that is done when an equal call is.
        """
        key, is_running = flight_of(call), call.target is None
        with self._lock:
            flight = self._flights.get(key)
            if flight is None:
                self._flights[key] = _Flight(owner, is_running)
                return None
            if CURRENT_CALL.get() is not None or (OCCUPIED.get() and not flight.is_running):
                return None
            future: Future[None] = Future()
            flight.waiting.append(future)
            return future

    def leave(self, key: Flight, owner: object) -> None:
        """Wake those who wait for a call, if it is the owner's."""
        with self._lock:
            flight = self._flights.get(key)
            if flight is None or flight.owner is not owner:
                return
            del self._flights[key]
        for future in flight.waiting:
            if future.set_running_or_notify_cancel():
                future.set_result(None)


def flight_of(call: Call) -> Flight:
    """Return what equal calls have in common."""
    entry: Any = call.entry
    return (entry.cache, entry.signature)


IN_FLIGHT: Final = InFlight()
