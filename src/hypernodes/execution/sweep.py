"""One plan over items: as frames of this run, or in batches that workers run whole."""

from __future__ import annotations

from collections import deque
from functools import cached_property
from math import ceil
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from hypernodes.callbacks.base import Event, Scope
from hypernodes.execution.frame import Frame
from hypernodes.execution.jobs import Batch, Failure, Probe
from hypernodes.execution.probe import Prober
from hypernodes.execution.scene import Scene, Waiter
from hypernodes.execution.signature import identify

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hypernodes.execution.jobs import BatchOutcome, OnError, Values
    from hypernodes.execution.probe import Found, Signed
    from hypernodes.execution.run import Run
    from hypernodes.execution.steps import Plan

_REMOTE_AIM: Final = 0.075  # seconds of work in a chunk; sending one costs about a millisecond
_LOCAL_AIM: Final = 0.002  # seconds; handing a chunk to a thread costs some 20 microseconds
_ROUNDS: Final = 3  # chunks that each worker shall still get, so that all end at about the same time
_FIRST_BLOCK: Final = 32  # items that are looked up at once; twice as many each time
_LARGEST_BLOCK: Final = 512
_BLOCK_AIM: Final = 0.05  # seconds; nothing is started meanwhile
_GROWTH: Final = 16  # a chunk is at most this much larger than the one measured before

_HOOKS_OF_ITEMS: Final = frozenset(
    ("on_map_item_start", "on_node_cached", "on_map_item_cached", "on_map_item_end")
)


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
        numbers: Sequence[int] | None = None,
    ) -> None:
        super().__init__(run, plan, scope, waiter)
        self.items = items
        self.fixed = fixed
        self.on_error = on_error
        self.numbers: Sequence[int] = range(len(items)) if numbers is None else numbers
        self.rows: list[Any] = [None] * len(items)
        self.identities = identities
        self.identities |= run.codes.bound.get(plan.key, {})
        self._left = len(items)
        self._active = 0
        self._size = 1
        self._item_seconds = 0.0
        self._ships = plan.shipped is not None
        self._prober: Prober | None = None
        self._unknown = deque(range(len(items)))  # items to look up before they are started
        self._waiting: deque[int] = deque()  # items to start
        self._probing = 0  # items that are being looked up
        # What was sent here was looked up there; now it is what lies behind that is looked up at once.
        self._block = _FIRST_BLOCK if numbers is None else _LARGEST_BLOCK
        self._signed: dict[int, Signed] = {}  # what was found out of items that wait here
        self._keys: dict[int, tuple[bytes, ...]] = {}  # what an item that was started will be known as
        self._twins: dict[tuple[bytes, ...], list[int]] = {}  # items equal to one that was started
        self._alone: set[int] = set()  # items that have waited for an equal one in vain

    def begin(self, told_as: str, shown: Mapping[str, Any]) -> None:
        """Start the first items."""
        self.told_as = told_as
        self.emit("on_pipeline_start", told_as, shown)
        self.emit("on_map_start", len(self.items))
        self.run.later(self.refill)

    def prepare(self) -> None:
        """Identify what all items have in common, once, and see whether items can be looked up."""
        for name in self.run.signer(self.plan).inputs:
            if name in self.fixed and name not in self.identities:
                self.identities[name] = identify(self.fixed[name], name, self.plan)
        prober = Prober(self.run, self.plan, self.fixed, self.identities)
        if prober.can_find:
            self._prober = prober
        else:
            self._waiting, self._unknown = self._unknown, deque()

    def refill(self) -> None:
        """Start as many items as have room."""
        if self.over:
            return
        if not self._left:
            self._end()
            return
        if self._prober is None and self._unknown:
            self.prepare()
        while self._waiting or self._unknown:
            if not self._waiting:  # nobody may need the executor, so it is not even asked for its size
                self._probe()
                return
            if self._active >= self._window:
                return
            size = self._chunk() if self._ships else 1
            if self._unknown and len(self._waiting) < size:
                self._probe()
                return
            self._active += 1
            if self._ships:
                at = [self._waiting.popleft() for _ in range(min(size, len(self._waiting)))]
                numbers = [self.numbers[i] for i in at]
                self.run.jobs.append(Batch(self, numbers, [self.items[i] for i in at], at))
            else:
                self._start_item(self._waiting.popleft())

    @cached_property
    def _workers(self) -> int:
        return 1 if self.plan.map_lane is None else self.plan.map_lane.workers

    @cached_property
    def _window(self) -> int:
        """How many items or chunks are under way: of chunks, one is run and one waits at each worker."""
        return self._workers * (2 if self._ships else 1)

    @cached_property
    def _aim(self) -> float:
        lane = self.plan.map_lane
        return _REMOTE_AIM if lane is not None and lane.is_remote else _LOCAL_AIM

    @cached_property
    def _largest(self) -> int:
        lane = self.plan.map_lane
        return 1 if lane is not None and lane.runs_coroutines else len(self.items)

    def _chunk(self) -> int:
        left = len(self._waiting) + len(self._unknown)
        if self._item_seconds:
            by_time = int(self._aim / self._item_seconds)
            by_share = ceil(left / (self._workers * _ROUNDS))
            self._size = max(1, min(by_time, by_share, self._size * _GROWTH, self._largest))
        return min(self._size, left)

    # ------------------------------------------------------------------- items that are known already

    def _probe(self) -> None:
        if self._probing:
            return
        at = [self._unknown.popleft() for _ in range(min(self._block, len(self._unknown)))]
        self._probing = len(at)
        self.run.jobs.append(Probe(self, at))

    def look_up(self, probe: Probe) -> None:
        """Look items up; those that are known are done."""
        if self.over:
            return
        assert self._prober is not None  # noqa: S101  else nothing would be probed
        started = perf_counter()
        found = self._prober.look_up([self.items[at] for at in probe.at])
        seconds = perf_counter() - started
        self._probing = 0
        self._block = min(_LARGEST_BLOCK, self._block * 2) if seconds < _BLOCK_AIM else self._block
        for at, known in zip(probe.at, found, strict=True):
            if known is None:
                self._waiting.append(at)
            elif known.outputs is not None:
                self._known(at, known, seconds / len(found))
            elif known.wanted in self._twins and at not in self._alone:
                self._twins[known.wanted].append(at)
            else:
                self._keys[at] = known.wanted
                if not self._ships:
                    self._signed[at] = known.signed
                self._twins.setdefault(known.wanted, [])
                self._waiting.append(at)
        self.run.later(self.refill)

    def _known(self, at: int, known: Found, seconds: float) -> None:
        assert self._prober is not None  # noqa: S101
        number = self.numbers[at]
        if not self.plan.hears.isdisjoint(_HOOKS_OF_ITEMS):
            scope = Scope(self.scope.plan, self.scope.path, (*self.scope.items, number))
            told = [Event("on_map_item_start", (number,), scope)]
            for step, signature in zip(self._prober.steps, known.wanted, strict=True):
                told.append(Event("on_node_cached", (step.name, signature.hex()), scope))
            told.append(Event("on_map_item_cached", (number, self._prober.signature_of(known).hex()), scope))
            told.append(Event("on_map_item_end", (number, seconds), scope))
            self.run.events += [event for event in told if event.hook in self.plan.hears]
        self.rows[at] = known.outputs
        self._left -= 1

    def _settled(self, at: int) -> None:
        """Look up those that are equal to an item that is done."""
        key = self._keys.pop(at, None)
        twins = self._twins.pop(key, None) if key is not None else None
        if twins:
            self._unknown.extendleft(reversed(twins))
            self._alone.update(twins)

    # --------------------------------------------------------------------------- items that are started

    def batch_done(self, batch: Batch, outcome: BatchOutcome) -> None:
        """Take note of the rows of a batch."""
        if self.over:
            return
        self._active -= 1
        self._left -= len(outcome.rows)
        self._item_seconds = max(outcome.seconds / max(1, len(outcome.rows)), 1e-7)
        for at, row in zip(batch.at, outcome.rows, strict=False):  # an error may have ended it early
            self.rows[at] = row
            if self.on_error == "raise" and isinstance(row, Failure):
                self.fail(row.error)
                return
            self._settled(at)
        self.run.later(self.refill)

    def _start_item(self, at: int) -> None:
        index = self.numbers[at]
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
            signed=self._signed.pop(at, None),
        )
        frame.emit("on_map_item_start", index)
        frame.begin()

    def _item_done(self, frame: Frame, at: int, row: Any, started: float) -> None:
        frame.emit("on_map_item_end", self.numbers[at], perf_counter() - started)
        self.rows[at] = row
        self._active -= 1
        self._left -= 1
        self._settled(at)
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
