"""One plan over items: each item as a `PlanRun` of this run, or several in a chunk that a worker runs.

source ─▶ drawn ─▶ looked up ─┬─ known ──────────────────────────────────────▶ row
                  (if cached) └─ waiting ─┬─ PlanRun (items stay with this run) ─▶ row
                                          └─ Chunk ─▶ target ─────────────────▶ rows
"""

from __future__ import annotations

from functools import cached_property
from time import time
from typing import TYPE_CHECKING, Any, Final

from hypernodes.callbacks.event import Event, current_worker
from hypernodes.execution.jobs import (
    CommonValue,
    Failure,
    LookUp,
)
from hypernodes.execution.plan.variants import without_shared
from hypernodes.execution.scheduler.chunks import SentChunks
from hypernodes.execution.scheduler.item_lookup import FIRST_BLOCK, ItemLookup
from hypernodes.execution.scheduler.items import CollectedRows, ItemSource
from hypernodes.execution.scheduler.lookup import CacheLookup, sign_item
from hypernodes.execution.scheduler.pace import Pace
from hypernodes.execution.scheduler.plan_execution import PlanExecution
from hypernodes.execution.scheduler.plan_run import PlanRun
from hypernodes.execution.scheduler.shared import SharedValues
from hypernodes.mapping import Columns, column_lists

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hypernodes.callbacks.event import Scope
    from hypernodes.execution.jobs import Found, OnError, Values
    from hypernodes.execution.plan.model import Plan
    from hypernodes.execution.scheduler.item_lookup import Block, KnownItem
    from hypernodes.execution.scheduler.items import Rows
    from hypernodes.execution.scheduler.state import Parent, RunState

_ITEM_HOOKS: Final = frozenset(
    ("on_map_item_start", "on_node_cached", "on_map_item_cached", "on_map_item_end")
)
_NOTHING: Final[Mapping[str, Any]] = {}

STREAM_BYTES: Final = 64 << 20
"""About how many bytes the items and rows of a stream may have together, beside one item for each worker."""


MAX_RETRIES: Final = 1000
"""How many items that wait for a retry make room for others: all of them are in memory."""


class MapRun(PlanExecution):
    """One plan over items: a sequence, or an iterator, from which items are drawn as there is room.

    The indices are those of the items in their map, where this is a chunk of one. With streamed rows only a
    bounded number of items is here at any time. If it returns here, remote values in its rows are brought
    here.
    """

    def __init__(
        self,
        run: RunState,
        plan: Plan,
        scope: Scope,
        parent: Parent,
        items: Columns | Iterator[Mapping[str, Any]],
        *,
        fixed: Values,
        identities: Mapping[str, bytes | None],
        common: Mapping[str, CommonValue] = _NOTHING,
        about: Any = None,
        on_error: OnError = "raise",
        indices: Sequence[int] | None = None,
        known: Mapping[int, Mapping[int, tuple[Any, ...]]] = _NOTHING,  # type: ignore[assignment]
        rows: Rows | None = None,
        returns_here: bool = False,
    ) -> None:
        super().__init__(run, plan, scope, parent, about)
        self.on_error = on_error
        self.items = ItemSource(items, indices)
        self.rows: Rows = CollectedRows(plan.outputs, self.items.total or 0) if rows is None else rows
        self.fixed = dict(fixed)
        self.identities = {**run.fingerprints.bound.get(plan.key, {}), **identities}
        self.common = {name: common.get(name) or CommonValue(value) for name, value in fixed.items()}
        self._is_chunk = indices is not None
        self._returns_here = returns_here
        self.lookup = ItemLookup(known, run.clock, is_chunk=self._is_chunk)
        self._is_prepared = False
        self.shared = SharedValues(
            run, plan, scope, fixed=self.fixed, common=self.common, identities=self.identities
        )
        self._children: dict[int, tuple[PlanRun, float]] = {}  # items that are run here, and since when
        self.chunks = SentChunks(self)
        self._is_sending = False  # it will be asked for its next chunk when the driver can send one
        self.pace = Pace(run, plan, self.items.total, is_chunk=self._is_chunk, is_stream=self.rows.is_stream)

    def begin(self, emit_as: str, inputs: Mapping[str, Any]) -> None:
        """Start the first items."""
        self.emitted_as = emit_as
        if "retry_delay" in self.plan.needs:
            self.run.maps.add(self)
        self.emit("on_pipeline_start", emit_as, inputs)
        self.emit("on_map_start", self.items.total)
        self.run.later(self.refill)

    def refill(self) -> None:
        """Start as many items as there is room for."""
        if self.over:
            return
        if not self._is_prepared and self.rows.is_stream:
            self._prepare()  # items that are not looked up in blocks are not drawn in blocks
        items, lookup = self.items, self.lookup
        if not items.is_exhausted:
            lookup.add(self._draw())
        if items.is_exhausted and not items:
            if items.error is None:
                self._end()
            else:
                self.fail(items.error)
            return
        while (lookup.waiting or lookup.unknown) and self.shared.computing is None:
            if not self._is_prepared:
                self._prepare()
            if lookup.unknown and not lookup.is_used:
                lookup.start_all()
            if not lookup.waiting:  # perhaps no item needs the target: then it is not even asked for its size
                self._look_up()
                return
            if self.chunks.under_way + len(self._children) >= self.pace.window + min(
                self.run.retries, MAX_RETRIES
            ):
                return
            size = 1
            if self.pace.sends_chunks:
                size = self.pace.next_size(len(lookup.waiting) + len(lookup.unknown), items.drawn)
            if lookup.unknown and len(lookup.waiting) < size:
                self._look_up()
                return
            is_spread = self.pace.spreads(len(items))
            positions = lookup.waiting.take(size if self.pace.sends_chunks and not is_spread else 1)
            if needing := self.shared.needing(positions):
                if self.shared.error is None:
                    lookup.waiting.add_first(positions)
                    self.shared.compute(self)
                    return
                self.lose(needing, self.shared.error)
                if not (positions := [position for position in positions if position not in needing]):
                    continue
            if is_spread or self._long_items:
                long = positions if is_spread else [at for at in positions if at in self._long_items]
                for position in long:
                    self._start_item(position, self.plan.spread_plan)
                if not (positions := [position for position in positions if position not in long]):
                    continue
            if self.pace.sends_chunks:
                self.chunks.send(positions)
                if not self._is_sending:
                    self._is_sending = True
                    self.run.senders.append(self._send_next)
                return
            self._start_item(positions[0])

    @cached_property
    def _long_items(self) -> frozenset[int]:
        whole = self.items.whole
        return frozenset() if whole is None or self._is_chunk else self.pace.long_items(whole)

    def _send_next(self) -> None:
        self._is_sending = False
        self.refill()

    def _prepare(self) -> None:
        """Identify what all items have in common, once, and see whether items can be looked up."""
        self._is_prepared = True
        signer = self.run.signer(self.plan)
        self.identities |= sign_item(self.plan, signer, self.fixed, self.identities).identities
        if self.plan.cache is not None:
            self.lookup.use(CacheLookup(self.plan, signer, self.fixed, self.identities))

    def _draw(self) -> range:
        """Draw all items, if rows are kept anyway; of a stream as many as there is room for."""
        if not self.rows.is_stream:
            return self.items.draw_all()
        least = FIRST_BLOCK * 2 if self.lookup.is_used or not self._is_prepared else 2
        here = len(self.items) + self.rows.waiting
        return self.items.draw(
            self.pace.most_items(least) - here,
            STREAM_BYTES - self.items.nbytes - self.rows.nbytes,
            self.pace.least_items - here,
        )

    # --------------------------------------------------------------------------- items that are known

    def _look_up(self) -> None:
        if self.lookup.is_looking_up:
            return
        block, cache = self.lookup.next_block(self.items), self.plan.cache
        if block is not None and cache is not None:
            key = self.run.key_for(self, block)
            self.run.jobs.append(LookUp(key, cache, block.wanted, block.upstream))
        else:  # no item of the block can be signed yet, so that they are started
            self.run.later(self.refill)

    def _looked_up(self, block: Block, found: Found) -> None:
        """Put the rows of items that are known, and start others."""
        if found.absent:
            self.run.note_absent(found.absent)
        emits = not self.plan.subscribed.isdisjoint(_ITEM_HOOKS)
        drop, put = self.items.drop, self.rows.put
        for item in self.lookup.take(block, found, self.items):
            self.hits += len(item.signatures)
            if emits:
                self._emit_known(item)
            drop((item.position,))
            put(item.position, item.outputs)
        if self.shared.are_missing and (cache := self.plan.cache) is not None:
            for position in block.positions:
                if (signed := self.lookup.waiting_item(position)) is not None:
                    self.shared.look_at(position, signed, found.absent if cache.has_quick_contains else None)
        self.run.later(self.refill)

    def _emit_known(self, item: KnownItem) -> None:
        subscribed = self.plan.subscribed
        index = self.items.index(item.position)
        emitted: list[tuple[str, tuple[Any, ...], str | None]] = [("on_map_item_start", (index,), None)]
        for step, signature in zip(self.lookup.steps, item.signatures, strict=True):
            emitted.append(("on_node_cached", (step.name, signature.hex()), signature.hex()))
        emitted.append(("on_map_item_cached", (index, self.lookup.signature_of(item).hex()), None))
        emitted.append(("on_map_item_end", (index, item.seconds), None))
        scope, when, worker = self.scope.of_item(index), time(), current_worker()
        self.run.events += [
            Event(hook, arguments, scope, when, worker, signature)
            for hook, arguments, signature in emitted
            if hook in subscribed
        ]

    def _put(self, position: int, row: Any) -> None:
        self.items.drop((position,))
        self.rows.put(position, row)

    def shared_values_ended(self, child: PlanExecution, error: BaseException | None) -> None:
        """Go on with the items, now that what they share is there; or fail, or fail those that need it."""
        self.count_of(child)
        self.chunks.forget_context()
        if error is not None and self.on_error == "raise":
            self.fail(error)
        self.run.later(self.refill)

    # ------------------------------------------------------------------------- items that run here

    def _start_item(self, position: int, plan: Plan | None = None) -> None:
        index, plan = self.items.index(position), plan or self.plan
        child = PlanRun(
            self.run,
            without_shared(plan) if self.shared.are_there else plan,
            self.scope.of_item(index),
            self,
            {**self.fixed, **self.items[position]},
            identities=self.identities,
            common=self.common,
            signed=self.lookup.signed(position),
            about=position,
            batches=self if self._is_chunk else None,
            returns_here=self._returns_here,
        )
        self._children[position] = (child, self.run.clock())
        child.emit("on_map_item_start", index)
        child.begin()

    def child_finished(self, child: PlanExecution, result: Values) -> None:
        """Put the outputs of an item."""
        if self.over:
            return
        if isinstance(child, PlanRun) and (signature := child.cached_signature) is not None:
            child.emit("on_map_item_cached", self.items.index(child.about), signature)
        self._item_done(child, result)

    def child_failed(self, child: PlanExecution, error: BaseException) -> None:
        """Put the error of an item, or fail with it."""
        if self.over:
            return
        if self.on_error == "return":
            self._item_done(child, Failure(error))
        else:
            self._children.pop(child.about, None)
            self.count_of(child)
            self.fail(error)

    def _item_done(self, child: PlanExecution, row: Any) -> None:
        position = child.about
        self.count_of(child)
        _, started = self._children.pop(position)
        seconds = self.run.clock() - started
        child.emit("on_map_item_end", self.items.index(position), seconds)
        self.pace.measure(1, seconds)
        self._put(position, row)
        self.lookup.done(position)
        self.run.later(self.refill)

    def job_begins(self, about: Block) -> None:
        """Do nothing: a look-up has no events."""

    def look_again(self, about: Block) -> None:
        """Do nothing: only calls are made once for several runs."""

    def job_done(self, about: Block, outcome: Found) -> None:
        """Go on with what a look-up has found."""
        self._looked_up(about, outcome)

    def job_failed(self, about: Block, error: BaseException) -> None:
        """Fail with a look-up."""
        del about
        self.fail(error)

    def lose(self, positions: Sequence[int], error: BaseException) -> None:
        """Put an error into the rows of items; the events of their calls are lost with the worker."""
        for position in positions:
            self.emit_lost(position, error)
            self._put(position, Failure(error))
            self.lookup.done(position)
        self.run.later(self.refill)

    def emit_lost(self, position: int, error: BaseException, *, has_run: bool = False) -> None:
        """Emit the error of an item that has not run, or whose result is lost."""
        index = self.items.index(position)
        scope = self.scope.of_item(index)
        emitted = [Event.now("on_error", (self.plan.path[-1], error), scope, about="item")]
        if not has_run:
            emitted.insert(0, Event.now("on_map_item_start", (index,), scope))
            emitted.append(Event.now("on_map_item_end", (index, 0.0), scope))
        self.run.events += [event for event in emitted if event.hook in self.plan.subscribed]

    # ------------------------------------------------------------------------------------- the end

    def stop(self, error: BaseException) -> None:
        """End before all items are done, since the stream was closed."""
        if not self.over:
            self._abandon_children(error)
            self._end()

    def _abandon_children(self, error: BaseException) -> None:
        self.pace.close()
        self.chunks.close()
        for child, _ in self._children.values():
            child.abandon(error)
            self.count_of(child)
        for child in self.shared.abandon(error):
            self.count_of(child)
        self._children.clear()

    def _end(self) -> None:
        self.over = True
        self.pace.close()
        self.chunks.close()
        seconds = self.run.clock() - self.started
        rows = self.rows.all()
        if self.emitted_as is not None:
            self.emit("on_map_end", seconds)
            if "on_pipeline_end" in self.plan.subscribed:
                good = rows
                if not isinstance(rows, Columns):
                    good = [row for row in rows if not isinstance(row, Failure)]
                columns = column_lists(good, self.plan.outputs)
                self.emit("on_pipeline_end", self.emitted_as, columns, seconds)
        self.parent.child_finished(self, rows)
