"""One plan over items: as frames of this run, or in batches that workers run whole."""

from __future__ import annotations

from math import ceil
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from hypernodes.callbacks.base import Scope
from hypernodes.execution.frame import Frame
from hypernodes.execution.jobs import Batch, Failure
from hypernodes.execution.scene import Scene, Waiter
from hypernodes.execution.signature import identify

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hypernodes.execution.jobs import BatchOutcome, OnError, Values
    from hypernodes.execution.run import Run
    from hypernodes.execution.steps import Plan

_REMOTE_AIM: Final = 0.075  # seconds of work in a chunk; sending one costs about a millisecond
_LOCAL_AIM: Final = 0.002  # seconds; handing a chunk to a thread costs some 20 microseconds
_ROUNDS: Final = 3  # chunks that each worker shall still get, so that all end at about the same time
_GROWTH: Final = 16  # a chunk is at most this much larger than the one measured before


class Sweep(Scene):
    """One plan over items: as frames of this run, or in batches that workers run whole."""

    def __init__(
        self,
        run: Run,
        plan: Plan,
        scope: Scope,
        waiter: Waiter,
        items: Sequence[Mapping[str, Any]],
        *,
        fixed: Values,
        identities: dict[str, bytes | None],
        on_error: OnError = "raise",
        first: int = 0,
    ) -> None:
        super().__init__(run, plan, scope, waiter)
        self.items = items
        self.fixed = fixed
        self.on_error = on_error
        self.first = first
        self.rows: list[Any] = [None] * len(items)
        self.identities = identities
        self.identities |= run.codes.bound.get(plan.key, {})
        self._next = 0
        self._active = 0
        self._left = len(items)
        self._size = 1
        self._item_seconds = 0.0
        lane = plan.map_lane
        self._ships = plan.shipped is not None
        # One chunk per worker is being run while another one waits there.
        self._window = 1 if lane is None else lane.workers * (2 if self._ships else 1)
        self._workers = 1 if lane is None else lane.workers
        self._aim = _REMOTE_AIM if lane is not None and lane.is_remote else _LOCAL_AIM
        self._largest = 1 if lane is not None and lane.runs_coroutines else len(items)

    def begin(self, told_as: str, shown: Mapping[str, Any]) -> None:
        """Start the first items."""
        self.told_as = told_as
        self.emit("on_pipeline_start", told_as, shown)
        self.emit("on_map_start", len(self.items))
        self.run.later(self.refill)

    def refill(self) -> None:
        """Start as many items as have room."""
        if self.over:
            return
        if not self._left:
            self._end()
        if not self._next and not self._ships:
            self._identify_fixed()
        while self._active < self._window and self._next < len(self.items):
            self._active += 1
            if self._ships:
                size = self._chunk()
                batch = Batch(self, self.first + self._next, self.items[self._next : self._next + size])
                self._next += size
                self.run.jobs.append(batch)
            else:
                self._next += 1
                self._start_item(self._next - 1)

    def _identify_fixed(self) -> None:
        """Identify what all items have in common, once."""
        if self.plan.cache is not None:
            for name in self.plan.inputs:
                if name in self.fixed and name not in self.identities:
                    self.identities[name] = identify(self.fixed[name], name, self.plan)

    def _chunk(self) -> int:
        left = len(self.items) - self._next
        if self._item_seconds:
            by_time = int(self._aim / self._item_seconds)
            by_share = ceil(left / (self._workers * _ROUNDS))
            self._size = max(1, min(by_time, by_share, self._size * _GROWTH, self._largest))
        return min(self._size, left)

    def batch_done(self, batch: Batch, outcome: BatchOutcome) -> None:
        """Take note of the rows of a batch."""
        if self.over:
            return
        start = batch.first - self.first
        self._active -= 1
        self._left -= len(outcome.rows)
        self._item_seconds = max(outcome.seconds / max(1, len(outcome.rows)), 1e-7)
        self.rows[start : start + len(outcome.rows)] = outcome.rows
        if self.on_error == "raise":
            for row in outcome.rows:
                if isinstance(row, Failure):
                    self.fail(row.error)
                    return
        self.run.later(self.refill)

    def _start_item(self, at: int) -> None:
        index = self.first + at
        scope = Scope(self.scope.plan, self.scope.path, (*self.scope.items, index))
        started = perf_counter()

        def finish(outputs: Values) -> None:
            if frame.executed == 0 and (signature := self._signature_of(frame)) is not None:
                frame.emit("on_map_item_cached", index, signature)
            self._item_done(frame, at, outputs, started)

        def fail(error: BaseException) -> None:
            if self.on_error == "return":
                self._item_done(frame, at, Failure(error), started)
            else:
                self.rows[at] = Failure(error)
                self.fail(error)

        frame = Frame(
            self.run,
            self.plan,
            scope,
            Waiter(finish, fail, self),
            {**self.fixed, **self.items[at]},
            identities=self.identities,
        )
        frame.emit("on_map_item_start", index)
        frame.begin()

    def _item_done(self, frame: Frame, at: int, row: Any, started: float) -> None:
        frame.emit("on_map_item_end", self.first + at, perf_counter() - started)
        self.rows[at] = row
        self._active -= 1
        self._left -= 1
        self.run.later(self.refill)

    def _signature_of(self, frame: Frame) -> str | None:
        """Return the signature of an item whose outputs all came from the cache."""
        for name in self.plan.outputs:
            step = self.plan.producers.get(name)
            identity = frame.identities.get(name)
            if step is not None and identity is not None:
                return identity.hex()
        return None

    def _end(self) -> None:
        self.over = True
        seconds = perf_counter() - self.started
        if self.told_as is not None:
            self.emit("on_map_end", seconds)
            if "on_pipeline_end" in self.plan.hears:
                good = [row for row in self.rows if not isinstance(row, Failure)]
                columns = {name: [row[name] for row in good] for name in self.plan.outputs}
                self.emit("on_pipeline_end", self.told_as, columns, seconds)
        self.waiter.finish(self.rows)
