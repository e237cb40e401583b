"""Single flight: equal calls are made once in a process; the others wait, and then look the result up.

Waiting holds up nothing: a call that is inside another call never waits, and work in an executor waits only
for calls that are being made, not for calls that may be queued behind it.

A call that was looked up before an equal one ended is looked up again instead of being made. Cache objects
with one store have their calls in common: before a result is looked up through another object than it was put
into, that one writes it.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from hypernodes.execution.current import CURRENT_CALL, OCCUPIED

if TYPE_CHECKING:
    from collections.abc import Hashable

    from hypernodes.cache.bulk import BulkCache
    from hypernodes.execution.jobs import Call, JobKey

    Flight: TypeAlias = Hashable

MAX_COMPLETED: Final = 1 << 15
"""How many calls that have ended are remembered, for runs that have looked them up before: other runs make
fewer between the look-up of a block of items and the calls of these items."""


@dataclass(slots=True)
class _Flight:
    cache: BulkCache
    is_running: bool
    waiting: list[Future[None]] = field(default_factory=list)
    is_joined_by_other_object: bool = False


class _Shared:
    """What all runs of this process have in common."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Begin without any call, also in a forked process: calls of the other one would never end here."""
        self.lock = threading.Lock()
        self.flights: dict[Flight, _Flight] = {}
        self.completed: dict[Flight, BulkCache] = {}
        self.open: set[CallsInFlight] = set()


_shared: Final = _Shared()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_shared.begin)


class CallsInFlight:
    """The cached calls that one run has under way, among those of all runs in this process.

    It has to be closed.
    """

    def __init__(self) -> None:
        self._own: dict[JobKey, Flight] = {}
        with _shared.lock:
            _shared.open.add(self)

    def join(self, call: Call) -> Future[None] | None:
        """Begin a cached call with ``None``, or return a future that is done when an equal call is."""
        entry: Any = call.entry
        cache, is_running = entry.cache, call.target is None
        flight = flight_of(cache, entry.signature)
        with _shared.lock:
            other = _shared.flights.get(flight)
            written = _shared.completed.get(flight)
            if other is None:
                if written is None:
                    _shared.flights[flight] = _Flight(cache, is_running)
                    self._own[call.key] = flight
                    return None
            elif CURRENT_CALL.get() is not None or (OCCUPIED.get() and not other.is_running):
                return None
            future: Future[None] = Future()
            if other is not None:
                other.waiting.append(future)
                other.is_joined_by_other_object |= other.cache is not cache
                return future
        if written is not cache and written is not None:
            written.write_delayed()
        future.set_result(None)
        return future

    def leave(self, call: Call, *, is_stored: bool) -> None:
        """Wake those who wait for a call that has ended, if this run has made it."""
        self._leave(call.key, is_stored=is_stored)

    def _leave(self, key: JobKey, *, is_stored: bool) -> None:
        if (flight := self._own.pop(key, None)) is None:
            return
        with _shared.lock:
            entry = _shared.flights.pop(flight, None)
            if entry is None:  # this process was forked since
                return
            if is_stored:
                _shared.completed[flight] = entry.cache
                if len(_shared.completed) > MAX_COMPLETED:
                    del _shared.completed[next(iter(_shared.completed))]
        try:
            if is_stored and entry.is_joined_by_other_object:
                entry.cache.write_delayed()
        finally:
            for future in entry.waiting:
                if future.set_running_or_notify_cancel():
                    future.set_result(None)

    @staticmethod
    def forget(cache: BulkCache, signature: bytes) -> None:
        """Have a call made again, whose result is not in the cache although it has ended."""
        with _shared.lock:
            _shared.completed.pop(flight_of(cache, signature), None)

    def close(self) -> None:
        """Wake those who wait for calls of this run, which has ended."""
        for key in tuple(self._own):
            self._leave(key, is_stored=False)
        with _shared.lock:
            is_last = bool(_shared.completed) and _shared.open == {self}
            caches = {id(cache): cache for cache in _shared.completed.values()} if is_last else {}
        try:
            for cache in caches.values():
                cache.write_delayed()  # a run that begins now does not know what has been completed
        finally:
            with _shared.lock:
                _shared.open.discard(self)
                if not _shared.open:  # No run has looked anything up before these calls ended.
                    _shared.completed.clear()


def flight_of(cache: BulkCache, signature: bytes) -> Flight:
    """Return what equal calls have in common."""
    store_id = getattr(cache, "store_id", None)
    return (id(cache) if store_id is None else store_id, signature)
