"""When may a call begin? The limits of nodes that call services, over all calls of one run.

The driver asks before it hands a call out, so that limits hold wherever calls are made: in threads, in other
processes, on the hosts of a cluster. A call that has to wait is kept here, as data: it holds no worker and no
thread.

call ─▶ admit ─┬─ may begin ──────────────────────────────▶ handed out ─▶ outcome ─┬─▶ settled
               ├─ its node is called often enough: waits for its time ──┐          └─ is to be made again:
               └─ too many calls of its node are under way: waits ──────┴◀──────────── waits for its delay
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field, replace
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING

from hypernodes.callbacks.event import Event
from hypernodes.execution.calls.call import delay_before_retry
from hypernodes.raw_errors import without_frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypernodes.execution.jobs import Call, Outcome
    from hypernodes.execution.plan.model import CallStep
    from hypernodes.execution.plan.placement import TargetRef
    from hypernodes.execution.target import ExecutionTarget


@dataclass(slots=True)
class _Limit:
    """The limits of one node, and how far they are used."""

    most: int | None  # calls under way at once
    interval: float  # seconds between the beginnings of two calls
    next_start: float = 0.0
    under_way: int = 0
    waiting: deque[Call] = field(default_factory=deque)  # for a call that ends


class Pacing:
    """The calls of one run that wait, and how many of each node are under way."""

    def __init__(self, target_of: Callable[[TargetRef], ExecutionTarget]) -> None:
        self._target_of = target_of
        self._limits: dict[object, _Limit] = {}
        self._waiting: list[tuple[float, int, Call, bool]] = []  # a heap; the flag: it waits for a retry
        self._numbers = count()
        self._retried: dict[tuple[CallStep, int], CallStep] = {}
        self.retries = 0  # calls that wait for a retry, and leave their worker to others meanwhile

    def admit(self, call: Call) -> Call | None:
        """Return a call if it may begin now; otherwise keep it."""
        if (limit := self._limit_of(call)) is None:
            return call
        if limit.most is not None and limit.under_way >= limit.most:
            limit.waiting.append(call)
            return None
        limit.under_way += 1
        now = monotonic()
        start = max(now, limit.next_start)
        limit.next_start = start + limit.interval  # so those that wait begin one after the other, in order
        if start == now:
            return call
        self._keep(call, start)
        return None

    def due(self) -> Call | None:
        """Return a call that has waited, and may begin now."""
        while self._waiting and self._waiting[0][0] <= monotonic():
            _, _, call, is_retry = heapq.heappop(self._waiting)
            if not is_retry:
                return call
            self.retries -= call.target is not None
            if (admitted := self.admit(call)) is not None:
                return admitted
        return None

    def ended(self, call: Call) -> None:
        """Take note that a call is no longer under way, so that another one may begin."""
        if (limit := self._limit_of(call)) is not None:
            limit.under_way -= 1
            if limit.waiting and (other := self.admit(limit.waiting.popleft())) is not None:
                self._keep(other, 0.0)

    def retry(self, call: Call, outcome: Outcome) -> Event | None:
        """Keep a call that has failed until it is made again, and return the event; ``None`` if it is not."""
        step, error = call.step, outcome.error
        if error is None or step.options.retry_delay is None:
            return None
        delay = outcome.retry_in
        if delay is None:  # a worker that does not say it: Daft's
            delay = delay_before_retry(step, error)
        if delay is None:
            return None
        attempt = step.attempt + 1
        if (again := self._retried.get((step, attempt))) is None:
            again = self._retried[step, attempt] = replace(step, attempt=attempt)
        self._keep(replace(call, step=again), monotonic() + delay, is_retry=True)
        self.retries += call.target is not None
        return Event.now("on_node_retry", (step.name, attempt, without_frame(error)), call.scope)

    @property
    def seconds_to_wait(self) -> float | None:
        """After how many seconds a call is due; ``None`` if none waits for its time."""
        return max(0.0, self._waiting[0][0] - monotonic()) if self._waiting else None

    def _keep(self, call: Call, until: float, *, is_retry: bool = False) -> None:
        heapq.heappush(self._waiting, (until, next(self._numbers), call, is_retry))

    def _limit_of(self, call: Call) -> _Limit | None:
        """Return the limits of a node; those of its copies under other names are the same."""
        options = call.step.options
        if options.max_concurrent is None and options.rate is None:
            return None
        key = (id(call.step.function), options.max_concurrent, options.rate)
        if (limit := self._limits.get(key)) is None:
            most, interval = options.max_concurrent, 0.0
            if options.rate is not None:
                interval = 1 / options.rate
                # Calls that wait behind busy workers would begin all at once when these are free again.
                workers = None if call.target is None else self._target_of(call.target).workers
                most = most if workers is None else min(workers, most or workers)
            limit = self._limits[key] = _Limit(most, interval)
        return limit
