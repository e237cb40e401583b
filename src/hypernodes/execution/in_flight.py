"""Single flight: equal calls are made once in a process; the others wait, and then look the result up.

Waiting holds up nothing: a call that is inside another call never waits, and work in an executor waits only
for calls that are being made, not for calls that may be queued behind it.

A call that was looked up before an equal one ended is looked up again instead of being made. Cache objects
with one store have their calls in common: before a result is looked up again through another object than it
was put into, that one writes it. So a call that has ended is forgotten only when it is written and no run is
open that may have looked it up before.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from hypernodes.config import MISS
from hypernodes.execution.current import CURRENT_CALL, OCCUPIED

if TYPE_CHECKING:
    from collections.abc import Hashable

    from hypernodes.cache.bulk import BulkCache
    from hypernodes.execution.jobs import EntryKey

    Flight: TypeAlias = Hashable

MAX_COMPLETED: Final = 1 << 15
"""How many calls that have ended are remembered, for runs that have looked them up before: other runs make
fewer between the look-up of a block of items and the calls of these items."""


@dataclass(slots=True, eq=False)
class _CallInFlight:
    """A call that is made, or has ended with a result in its cache."""

    cache: BulkCache
    is_running: bool
    waiting: list[Future[None]] = field(default_factory=list)


class _Shared:
    """What all runs of this process have in common."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Begin without any call, also in a forked process: calls of the other one would never end here."""
        # The garbage collector may close an abandoned stream, and so its run, inside any block with the lock.
        self.lock = threading.RLock()
        self.flights: dict[Flight, _CallInFlight] = {}
        self.completed: dict[Flight, _CallInFlight] = {}
        self.open: set[CallsInFlight] = set()


_shared: Final = _Shared()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_shared.begin)


class CallsInFlight:
    """The cached calls that one run has under way, among those of all runs in this process.

    It has to be closed.
    """

    def __init__(self) -> None:
        self._own: dict[Hashable, Flight] = {}
        with _shared.lock:
            _shared.open.add(self)

    def join(self, key: Hashable, entry: EntryKey, *, is_running: bool) -> Future[None] | None:
        """Begin a cached call with ``None``, or return a future that is done when an equal call is."""
        cache = entry.cache
        flight = flight_of(cache, entry.signature)
        with _shared.lock:
            if (other := _shared.flights.get(flight)) is not None:
                if CURRENT_CALL.get() is not None or (OCCUPIED.get() and not other.is_running):
                    return None
                waits: Future[None] = Future()
                other.waiting.append(waits)
                return waits
            if flight not in _shared.completed:
                _shared.flights[flight] = _CallInFlight(cache, is_running)
                self._own[key] = flight
                return None
        ended: Future[None] = Future()
        ended.set_result(None)
        return ended

    def leave(self, key: Hashable, *, is_stored: bool) -> None:
        """Wake those who wait for a call that has ended, if this run has made it."""
        if (flight := self._own.pop(key, None)) is None:
            return
        with _shared.lock:
            ended = _shared.flights.pop(flight, None)
            if ended is None:  # this process was forked since
                return
            if is_stored:
                _shared.completed[flight] = ended
                if len(_shared.completed) > MAX_COMPLETED:
                    del _shared.completed[next(iter(_shared.completed))]
        for future in ended.waiting:
            if future.set_running_or_notify_cancel():
                future.set_result(None)
        ended.waiting.clear()

    def close(self) -> None:
        """Wake those who wait for calls of this run, which has ended."""
        for key in tuple(self._own):
            self.leave(key, is_stored=False)
        with _shared.lock:
            if _shared.open != {self}:  # The last of the other runs has everything written.
                _shared.open.discard(self)
                return
            completed = _shared.completed.copy()
        try:
            for cache in {id(ended.cache): ended.cache for ended in completed.values()}.values():
                cache.write_delayed()
        finally:
            with _shared.lock:
                _shared.open.discard(self)
                # Calls of runs that have begun and ended meanwhile may not be written yet.
                if not _shared.open and _shared.completed == completed:
                    _shared.completed.clear()


def look_up_again(cache: BulkCache, signature: bytes) -> Any:
    """Return the result of a call that has ended; `MISS` has it made again, unless it ends meanwhile."""
    flight = flight_of(cache, signature)
    with _shared.lock:
        ended = _shared.completed.get(flight)
    if ended is not None and ended.cache is not cache:
        ended.cache.write_delayed()
    outputs = cache.get(signature.hex())
    if outputs is MISS and ended is not None:
        with _shared.lock:
            if _shared.completed.get(flight) is ended:
                del _shared.completed[flight]
    return outputs


def flight_of(cache: BulkCache, signature: bytes) -> Flight:
    """Return what equal calls have in common."""
    store_id = getattr(cache, "store_id", None)
    return (id(cache) if store_id is None else store_id, signature)
