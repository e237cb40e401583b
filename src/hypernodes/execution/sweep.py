"""One plan over items: as frames of this run, or in batches that workers run whole."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import cached_property
from itertools import islice
from math import ceil
from time import perf_counter, time
from typing import TYPE_CHECKING, Any, Final, Protocol

from hypernodes.callbacks.event import Event, here
from hypernodes.exceptions import TransportError
from hypernodes.execution.deadline import overdue
from hypernodes.execution.frame import Frame
from hypernodes.execution.invoke import note
from hypernodes.execution.jobs import Batch, Failure, Probe
from hypernodes.execution.probe import Prober
from hypernodes.execution.scene import Scene, Waiter
from hypernodes.execution.signature import identify
from hypernodes.execution.steps import CallStep
from hypernodes.portable import fetched

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hypernodes.callbacks.event import Scope
    from hypernodes.exceptions import WorkerDiedError
    from hypernodes.execution.jobs import BatchOutcome, OnError, Values
    from hypernodes.execution.probe import Found, Signed
    from hypernodes.execution.run import Run
    from hypernodes.execution.steps import Plan

_REMOTE_AIM: Final = 0.075  # seconds of work in a chunk; sending one costs about a millisecond
_LOCAL_AIM: Final = 0.002  # seconds; handing a chunk to a thread costs some 20 microseconds
_HERE_AIM: Final = 0.01  # seconds; of items that are run right here, and told in numbers
_SHORT: Final = 0.005  # seconds
_ROUNDS: Final = 3  # chunks that each worker shall still get, so that all end at about the same time
_FIRST_BLOCK: Final = 32  # items that are looked up at once; twice as many each time
_LARGEST_BLOCK: Final = 512
_BLOCK_AIM: Final = 0.05  # seconds; nothing is started meanwhile
_LARGEST_CHUNK: Final = 1 << 12
_BYTES_AIM: Final = 16 << 20  # bytes of items and rows that a chunk may have
_PARTS: Final = 16  # into how many parts a batch is taken apart that has cost a worker its life
_LEAST: Final = 0.06  # of what a chunk should take, at the end of a map: sending one costs something, too
_GROWTH: Final = 16  # a chunk is at most this much larger than the one measured before

_HOOKS_OF_ITEMS: Final = frozenset(
    ("on_map_item_start", "on_node_cached", "on_map_item_cached", "on_map_item_end")
)


class Rows(Protocol):
    """Where the rows of a map go."""

    def put(self, at: int, row: Any) -> None:
        """Take the row of the item at a place."""

    @property
    def waiting(self) -> int:
        """How many rows nobody has taken yet."""


class Listed:
    """Rows that are kept until the map is done.

    Args:
        total: How many there will be.
    """

    waiting = 0

    def __init__(self, total: int) -> None:
        self.rows: list[Any] = [None] * total

    def put(self, at: int, row: Any) -> None:
        """Keep a row."""
        self.rows[at] = row


class Streamed:
    """Rows that are handed out as they come, and not kept.

    Args:
        in_order: Whether a row waits for those before it.
    """

    def __init__(self, *, in_order: bool) -> None:
        self._in_order = in_order
        self._next = 0
        self._early: dict[int, Any] = {}
        self._ready: deque[tuple[int, Any]] = deque()

    def put(self, at: int, row: Any) -> None:
        """Take a row."""
        if not self._in_order:
            self._ready.append((at, row))
            return
        self._early[at] = row
        while self._next in self._early:
            self._ready.append((self._next, self._early.pop(self._next)))
            self._next += 1

    def take(self) -> Iterator[tuple[int, Any]]:
        """Hand out what is ready."""
        while self._ready:
            yield self._ready.popleft()

    @property
    def waiting(self) -> int:
        """How many rows are here."""
        return len(self._ready) + len(self._early)


class Sweep(Scene):
    """One plan over items: as frames of this run, or in batches that workers run whole.

    Args:
        items: A sequence, or an iterator of unknown length, which is drawn from as there is room.
        rows: Where rows go; with `Streamed` rows only a bounded number of items is here at any time.
        numbers: The index of each item in its map, where this is a part of one.
    """

    def __init__(
        self,
        run: Run,
        plan: Plan,
        scope: Scope,
        waiter: Waiter,
        items: Sequence[Mapping[str, Any]] | Iterator[Mapping[str, Any]],
        *,
        fixed: Values,
        identities: dict[str, bytes | None],
        on_error: OnError = "raise",
        numbers: Sequence[int] | None = None,
        rows: Rows | None = None,
    ) -> None:
        super().__init__(run, plan, scope, waiter)
        self.fixed = fixed
        self.on_error = on_error
        self.total = len(items) if isinstance(items, Sequence) else None
        self.rows: Rows = Listed(self.total or 0) if rows is None else rows
        self.identities = identities
        self.identities |= run.codes.bound.get(plan.key, {})
        run.common |= {id(value): value for value in fixed.values()}
        self._numbers = numbers
        self.is_chunk = numbers is not None
        self._source = iter(items)
        self._is_exhausted = False
        self._drawn = 0
        self._items: dict[int, Mapping[str, Any]] = {}  # those that are in the house
        self._active = 0
        self._size = 1
        self._item_seconds = 0.0
        self._item_bytes = 0.0
        # Items that are run here go together only if they are short; else each step is told as it happens.
        self._ships = plan.shipped is not None and plan.map_lane is not None
        self._prober: Prober | None = None
        self._prepared = False
        self._unknown: deque[int] = deque()  # items to look up before they are started
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
        self.emit("on_map_start", self.total)
        self.run.later(self.refill)

    def number(self, at: int) -> int:
        """Return the index of an item in its map."""
        return at if self._numbers is None else self._numbers[at]

    def prepare(self) -> None:
        """Identify what all items have in common, once, and see whether items can be looked up."""
        self._prepared = True
        for name in self.run.signer(self.plan).inputs:
            if name in self.fixed and name not in self.identities:
                self.identities[name] = identify(fetched(self.fixed[name]), name, self.plan, self.run.codes)
        prober = Prober(self.run, self.plan, self.fixed, self.identities)
        if prober.can_find:
            self._prober = prober

    def refill(self) -> None:
        """Start as many items as have room."""
        if self.over:
            return
        if not self._prepared and self.is_stream:
            self.prepare()  # what is not looked up in blocks is not drawn in blocks
        try:
            self._draw()
        except Exception as error:
            note(error, f"in the items of pipeline {self.plan.label!r}, after {self._drawn} of them")
            self.fail(error)
            return
        if self._is_exhausted and not self._items:
            self._end()
            return
        while self._waiting or self._unknown:
            if not self._prepared:
                self.prepare()
            if self._prober is None:
                self._waiting += self._unknown
                self._unknown.clear()
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
                self._send([self._waiting.popleft() for _ in range(min(size, len(self._waiting)))])
            else:
                self._start_item(self._waiting.popleft())

    def _draw(self) -> None:
        """Take items from where they come from: all, or as many as there is room for."""
        if self._is_exhausted:
            return
        room = None if isinstance(self.rows, Listed) else self._room() - len(self._items) - self.rows.waiting
        if room is not None and room <= 0:
            return
        before = self._drawn
        for item in islice(self._source, room):
            self._items[self._drawn] = item
            self._unknown.append(self._drawn)
            self._drawn += 1
        self._is_exhausted = room is None or self._drawn - before < room

    def _room(self) -> int:
        """Return how many items may be here at a time, if not all of them are to be."""
        least = _FIRST_BLOCK * 2 if self._prober is not None or not self._prepared else 2
        window: int = vars(self).get(
            "_window", 1
        )  # nobody may need the executor, so it is not asked for its size
        return max(least, 2 * window * (self._size if self._ships else 1))

    def _send(self, at: list[int], deaths: int = 0) -> None:
        numbers = [self.number(i) for i in at]
        self.run.jobs.append(Batch(self, numbers, [self._items[i] for i in at], at, deaths))

    @cached_property
    def _workers(self) -> int:
        return 1 if self.plan.map_lane is None else self.plan.map_lane.workers

    @cached_property
    def _window(self) -> int:
        """How many items or chunks are under way: of chunks, one is run and one waits at each worker."""
        if self._gathers and self.total is not None:
            return self.total
        if self.is_chunk and any(isinstance(step, CallStep) and step.batch for step in self.plan.steps):
            return max(1, self.total or 1)  # so that all calls of a node can be made together
        return self._workers * (2 if self._ships else 1)

    @cached_property
    def _gathers(self) -> bool:
        return self._ships and self.plan.map_lane is not None and self.plan.map_lane.gathers

    @cached_property
    def _aim(self) -> float:
        lane = self.plan.map_lane
        if lane is None:
            return _HERE_AIM
        return _REMOTE_AIM if lane.is_remote else _LOCAL_AIM

    @cached_property
    def _largest(self) -> int:
        lane = self.plan.map_lane
        return 1 if lane is not None and lane.runs_coroutines else _LARGEST_CHUNK

    def _chunk(self) -> int:
        here = len(self._waiting) + len(self._unknown)
        if self._gathers:
            assert self.plan.map_lane is not None  # noqa: S101
            self._size = self.plan.map_lane.block(self.total)
            return min(self._size, here)
        if self._item_seconds:
            by_time = int(self._aim / self._item_seconds)
            by_bytes = int(_BYTES_AIM / self._item_bytes) if self._item_bytes else by_time
            left = here + (0 if self.total is None else self.total - self._drawn)
            by_share = ceil(left / (self._workers * _ROUNDS)) if self.total is not None else by_time
            by_share = max(by_share, int(by_time * _LEAST))
            self._size = max(1, min(by_time, by_bytes, by_share, self._size * _GROWTH, self._largest))
        return min(self._size, here)

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
        found = self._prober.look_up([self._items[at] for at in probe.at])
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
        number = self.number(at)
        if not self.plan.hears.isdisjoint(_HOOKS_OF_ITEMS):
            told: list[tuple[str, tuple[Any, ...], str | None]] = [("on_map_item_start", (number,), None)]
            for step, signature in zip(self._prober.steps, known.wanted, strict=True):
                told.append(("on_node_cached", (step.name, signature.hex()), signature.hex()))
            told.append(("on_map_item_cached", (number, self._prober.signature_of(known).hex()), None))
            told.append(("on_map_item_end", (number, seconds), None))
            scope, when, worker = self.scope.of_item(number), time(), here()
            self.run.events += [
                Event(hook, arguments, scope, when, worker, signature)
                for hook, arguments, signature in told
                if hook in self.plan.hears
            ]
        self._put(at, known.outputs)

    def _put(self, at: int, row: Any) -> None:
        del self._items[at]
        self.rows.put(at, row)

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
        self._note_seconds(outcome.seconds / max(1, len(outcome.rows)))
        self._item_bytes = outcome.size / max(1, len(outcome.rows))
        put, items, raises = self.rows.put, self._items, self.on_error == "raise"
        for at, row in zip(batch.at, outcome.rows, strict=False):  # an error may have ended it early
            if raises and row.__class__ is Failure:
                self.fail(row.error)
                return
            del items[at]
            put(at, row)
        if self._keys:
            for at in batch.at:
                self._settled(at)
        self.run.later(self.refill)

    def _note_seconds(self, seconds: float) -> None:
        """Take note of how long an item took."""
        self._item_seconds = max(seconds, 1e-7)
        # Of a stream, nobody wants to wait for items that he has not asked for.
        if self.plan.shipped is not None and self.plan.map_lane is None and not self.is_stream:
            self._ships = seconds < _SHORT

    def failed(self, batch: Batch, error: BaseException) -> None:
        """Take note that a batch could not be carried out."""
        if self.on_error == "raise":
            self.fail(error)
        elif isinstance(error, TransportError) and len(batch.at) > 1:  # whose fault is it?
            self._take_apart(batch, batch.deaths)
        elif not self.over:
            self._active -= 1
            for at in batch.at:
                self._lost(at, error)
            self.run.later(self.refill)

    def _lost(self, at: int, error: BaseException) -> None:
        """Put the error of an item as a whole into its row; what it has told is lost with its worker."""
        number = self.number(at)
        scope, name = self.scope.of_item(number), self.plan.path[-1]
        told = [
            Event.now("on_map_item_start", (number,), scope),
            Event.now("on_error", (name, error), scope, about="item"),
            Event.now("on_map_item_end", (number, 0.0), scope),
        ]
        self.run.events += [event for event in told if event.hook in self.plan.hears]
        self._put(at, Failure(error))
        self._settled(at)

    def _take_apart(self, batch: Batch, deaths: int) -> None:
        size = ceil(len(batch.at) / _PARTS)
        parts = [list(batch.at[start : start + size]) for start in range(0, len(batch.at), size)]
        self._active += len(parts) - 1
        for part in parts:
            self._send(part, deaths)

    def died(self, batch: Batch, error: WorkerDiedError) -> None:
        """Try the items of a batch again that has cost a worker its life, in smaller parts."""
        if self.over:
            return
        lane = self.plan.map_lane
        assert lane is not None  # noqa: S101
        deaths, alone = batch.deaths + 1, len(batch.at) == 1
        scope = self.scope.of_item(batch.numbers[0]) if alone else self.scope
        late = overdue(error, self._timeout) if alone else None
        if late is not None or (alone and deaths > lane.retries):
            self._active -= 1
            failed = late or error
            times = "" if late is not None else f", of which {deaths} worker{'s' if deaths > 1 else ''} died"
            names = [step.name for step in self._calls]
            node = f" (node {names[0]!r})" if len(names) == 1 else ""  # else nobody knows which it was
            note(failed, f"in item {batch.numbers[0]} of pipeline {self.plan.label!r}{node}{times}")
            if self.on_error == "raise":
                self.fail(failed)
                return
            self._lost(batch.at[0], failed)
            self.run.later(self.refill)
            return
        if "on_node_retry" in self.plan.hears:
            told = (self.plan.path[-1], deaths, error)
            self.run.events.append(Event.now("on_node_retry", told, scope))
        self._take_apart(batch, deaths)

    @cached_property
    def _timeout(self) -> float | None:
        times = [step.timeout for step in self._calls]
        return min((time for time in times if time is not None), default=None)

    @property
    def _calls(self) -> list[CallStep]:
        return [step for plan in self.plan.tree() for step in plan.steps if isinstance(step, CallStep)]

    def _start_item(self, at: int) -> None:
        index = self.number(at)
        scope = self.scope.of_item(index)
        started = perf_counter()

        def finish(outputs: Values) -> None:
            if frame.executed == 0 and (signature := self._signature_of(frame)) is not None:
                frame.emit("on_map_item_cached", index, signature)
            self._item_done(frame, at, outputs, started)

        def fail(error: BaseException) -> None:
            if self.on_error == "return":
                self._item_done(frame, at, Failure(error), started)
            else:
                self.fail(error)

        frame = Frame(
            self.run,
            self.plan,
            scope,
            Waiter(finish, fail, self),
            {**self.fixed, **self._items[at]},
            identities=self.identities,
            signed=self._signed.pop(at, None),
        )
        frame.emit("on_map_item_start", index)
        frame.begin()

    def _item_done(self, frame: Frame, at: int, row: Any, started: float) -> None:
        seconds = perf_counter() - started
        frame.emit("on_map_item_end", self.number(at), seconds)
        self._note_seconds(seconds)
        if self.run.has_kept and self.waiter.scene is None and isinstance(row, dict):
            row = {name: fetched(value) for name, value in row.items()}  # it was asked for
        self._put(at, row)
        self._active -= 1
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

    @property
    def is_stream(self) -> bool:
        """Whether its rows are handed out as they come."""
        return isinstance(self.rows, Streamed)

    def stop(self) -> None:
        """End here, since nobody wants the rest."""
        if not self.over:
            self._end()

    def _end(self) -> None:
        self.over = True
        seconds = perf_counter() - self.started
        if self.told_as is not None:
            self.emit("on_map_end", seconds)
            if "on_pipeline_end" in self.plan.hears:
                rows = self.rows.rows if isinstance(self.rows, Listed) else []
                good = [row for row in rows if not isinstance(row, Failure)]
                columns = {name: [row[name] for row in good] for name in self.plan.outputs}
                self.emit("on_pipeline_end", self.told_as, columns, seconds)
        self.waiter.finish(self.rows.rows if isinstance(self.rows, Listed) else [])
