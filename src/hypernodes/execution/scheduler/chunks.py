"""The chunks of a map: what was sent together, what comes back, and what if a worker could not run it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from hypernodes.callbacks.event import Event
from hypernodes.exceptions import TransportError, UnpackError, WorkerDiedError
from hypernodes.execution.calls.location import is_located, item_of, locate_output, note, shown
from hypernodes.execution.jobs import Chunk, ChunkOutcome, CommonValue, Failure, MapContext
from hypernodes.execution.plan.variants import without_shared
from hypernodes.execution.scheduler.sent_jobs import SentJobs
from hypernodes.execution.scheduler.worker_death import Death, divided
from hypernodes.mapping import Columns
from hypernodes.raw_errors import is_a

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hypernodes.callbacks.event import Scope
    from hypernodes.execution.jobs import OnError, Values
    from hypernodes.execution.plan.model import Plan
    from hypernodes.execution.scheduler.item_lookup import ItemLookup
    from hypernodes.execution.scheduler.items import ItemSource, Rows
    from hypernodes.execution.scheduler.pace import Pace
    from hypernodes.execution.scheduler.shared import SharedValues
    from hypernodes.execution.scheduler.state import RunState


@dataclass(frozen=True, slots=True)
class _Sent:
    """The items of a chunk that was handed out."""

    positions: Sequence[int]  # of each item in its map
    deaths: int = 0  # how many workers have died of them
    with_shared: bool = False  # the values that are the same for all items went along


class ChunkedMap(Protocol):
    """The map of the chunks, as far as they must know it."""

    run: RunState
    plan: Plan
    scope: Scope
    over: bool
    on_error: OnError
    executed: int
    hits: int
    items: ItemSource
    rows: Rows
    fixed: Values
    common: dict[str, CommonValue]
    identities: dict[str, bytes | None]
    lookup: ItemLookup
    shared: SharedValues
    pace: Pace

    def refill(self) -> None:
        """Start as many items as there is room for."""

    def lose(self, positions: Sequence[int], error: BaseException) -> None:
        """Put an error into the rows of items."""

    def emit_lost(self, position: int, error: BaseException, *, has_run: bool = False) -> None:
        """Emit the error of an item that has not run, or whose result is lost."""

    def fail(self, error: BaseException) -> None:
        """End with an error."""


class SentChunks(SentJobs[ChunkedMap]):
    """The chunks of one map that are under way."""

    def __init__(self, owner: ChunkedMap) -> None:
        super().__init__(owner)
        self.under_way = 0

    def forget_context(self) -> None:
        """Make the context of further chunks anew, since the fixed inputs of the map have changed."""
        vars(self).pop("_context", None)

    @cached_property
    def _context(self) -> MapContext:
        plan: Any = self._part.plan.chunk_plan
        if self._part.shared.are_there:
            plan = without_shared(plan)
        needed = {*plan.inputs, *plan.shared}
        used = {name: value for name, value in self._part.fixed.items() if name in needed}
        return MapContext(
            plan=replace(plan, bound={}),  # bound values are among the fixed inputs
            fingerprints=self._part.run.fingerprints,
            fixed=used,
            common={name: self._part.common[name] for name in used},
            identities=dict(self._part.identities),
            scope=self._part.scope,
            on_error=self._part.on_error,
        )

    def send(self, positions: Sequence[int], deaths: int = 0) -> None:
        """Send items, of which some workers have died."""
        self.under_way += 1
        mapped = self._part
        known = {}
        for at, position in enumerate(positions if mapped.lookup.is_used else ()):
            if (signed := mapped.lookup.signed(position)) is not None and signed.known:
                known[at] = signed.known
        mapped.run.jobs.append(
            Chunk(
                mapped.run.key_for(self, _Sent(positions, deaths, mapped.shared.are_there)),
                self._context,
                mapped.items.indices(positions),
                mapped.items.at(positions),
                mapped.plan.map_target,
                known,
            )
        )

    def job_begins(self, about: _Sent) -> None:
        """Do nothing: what happens in a chunk is emitted by the worker."""

    def look_again(self, about: _Sent) -> None:
        """Do nothing: only calls are made once for several runs."""

    def job_done(self, about: _Sent, outcome: ChunkOutcome) -> None:
        """Put the rows of a chunk."""
        self.under_way -= 1
        mapped, positions, rows = self._part, about.positions, outcome.rows
        items, lookup = mapped.items, mapped.lookup
        mapped.run.events += outcome.events
        mapped.executed += outcome.executed
        mapped.hits += outcome.hits
        nbytes = outcome.nbytes or items.mean_nbytes * len(rows)
        mapped.pace.measure(max(1, len(rows)), outcome.seconds, nbytes)
        if isinstance(rows, Columns):
            items.drop(positions)
            mapped.rows.put_all(positions, rows)
            for position in positions if lookup.is_used else ():
                lookup.done(position)
            mapped.run.later(mapped.refill)
            return
        drop, put, done = items.drop, mapped.rows.put, lookup.done if lookup.is_used else None
        for position, row in zip(positions, rows, strict=False):  # an error may have ended it early
            if type(row) is Failure:
                if is_a(row.error, UnpackError) and not is_located(row.error):
                    self._note(row.error, (position,))
                    mapped.emit_lost(position, row.error, has_run=row.error.output is not None)
                if mapped.on_error == "raise":
                    mapped.fail(row.error)
                    return
            drop((position,))
            put(position, row)
            if done is not None:
                done(position)
        mapped.run.later(mapped.refill)

    def job_failed(self, about: _Sent, error: BaseException) -> None:
        """Go on after a chunk that could not be run."""
        self.under_way -= 1
        is_single = len(about.positions) == 1
        if about.with_shared and self._part.shared.withdraw(error):
            self.forget_context()
            self.send(about.positions, about.deaths)
        elif is_a(error, WorkerDiedError):
            self._worker_died(about, error)
        elif is_a(error, UnpackError) and not is_single:  # None has begun. Which item is to blame?
            self._send_divided(about)
        elif self._part.on_error == "raise":
            self._note(error, about.positions)
            self._part.fail(error)
        elif is_a(error, TransportError) and not is_single:
            self._send_divided(about)
        else:
            self._note(error, about.positions)
            self._part.lose(about.positions, error)

    def _note(self, error: BaseException, positions: Sequence[int], suffix: str = "") -> None:
        """Note on an error of items where it happened, as far as that is known here."""
        first, last = (self._part.scope.of_item(self._part.items.index(positions[at])) for at in (0, -1))
        values = {**self._part.fixed, **self._part.items[positions[0]]}
        if is_a(error, UnpackError) and error.output is not None:
            locate_output(error, self._part.plan, error.output, first, values)
            return
        items = f"items {item_of(first)} to {item_of(last)}" if last != first else f"item {item_of(first)}"
        names = [step.name for step in self._part.plan.calls()]
        node = f" (node {names[0]!r})" if len(names) == 1 else ""  # of several, any may have been the one
        given = f", given {shown(values)}" if last == first else ""
        note(error, f"in {items} of pipeline {self._part.plan.label!r}{node}{suffix}{given}")

    def _worker_died(self, about: _Sent, error: WorkerDiedError) -> None:
        """Run the items again in smaller parts, until the item that is to blame is alone."""
        target: Any = self._part.plan.map_target
        first, is_alone = self._part.items.index(about.positions[0]), len(about.positions) == 1
        death = Death(error, about.deaths + 1, is_alone)
        final = death.final_error(self._timeout, self._part.run.target_info(target).max_retries)
        if final is not None:
            failed, suffix = final
            self._note(failed, about.positions, suffix)
            if self._part.on_error == "raise":
                self._part.fail(failed)
            else:
                self._part.lose(about.positions, failed)
            return
        if "on_node_retry" in self._part.plan.subscribed:
            scope = self._part.scope.of_item(first) if is_alone else self._part.scope
            retry = (self._part.plan.path[-1], death.deaths, error)
            self._part.run.events.append(Event.now("on_node_retry", retry, scope))
        self._send_divided(replace(about, deaths=death.deaths))

    @cached_property
    def _timeout(self) -> float | None:
        times = (step.options.timeout for step in self._part.plan.calls())
        return min((seconds for seconds in times if seconds is not None), default=None)

    def _send_divided(self, about: _Sent) -> None:
        for part in divided(about.positions):
            self.send(part, about.deaths)
