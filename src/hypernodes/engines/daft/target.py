"""Daft as an execution target: the jobs of a run are gathered, and executed together as queries."""

from __future__ import annotations

from bisect import bisect_right
from concurrent.futures import Future
from dataclasses import replace
from itertools import accumulate
from math import ceil
from typing import TYPE_CHECKING, Any, Final

from hypernodes.engines.daft.query import PARTS, Job, over_items, stages_of, workers
from hypernodes.engines.daft.results import Results
from hypernodes.execution.calls.call import call_node
from hypernodes.execution.calls.location import UNKNOWN
from hypernodes.execution.jobs import Call, Chunk, ChunkOutcome, Failure, Outcome
from hypernodes.execution.plan.placement import Capabilities, TargetRef
from hypernodes.execution.stages import ErrorCarrier, as_call_stage, as_single_stage, can_be_staged
from hypernodes.execution.target import ExecutionTarget, Session
from hypernodes.execution.targets.serialize import SerializedChunkOutcome, deserialize_chunk_outcome
from hypernodes.resources import Resources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from hypernodes.callbacks.event import Event
    from hypernodes.engines.daft.query import Options
    from hypernodes.engines.daft.wire import Report
    from hypernodes.execution.jobs import MapContext

MAX_CHUNK_ITEMS: Final = 1024
"""Items whose rows and events come back together."""


class DaftTarget(ExecutionTarget):
    """Daft as an execution target.

    Args:
        options: How queries are run; asked for when the first one is made.
    """

    def __init__(self, options: Callable[[], Options]) -> None:
        self._options = options
        self._id = TargetRef.new("daft", Capabilities(gathers=True)).id

    @property
    def ref(self) -> TargetRef:  # type: ignore[override]  # what it can do is known once Daft has a runner
        """Names it in plans."""
        return TargetRef(self._id, "daft", Capabilities(serializes=self._options().is_far, gathers=True))

    @property
    def workers(self) -> int:
        """How many CPUs compute."""
        return workers(self._options())

    def chunk_items(self, total: int | None) -> int:
        """Return how many items make a chunk.

        Args:
            total: How many items there are, if that is known.
        """
        options = self._options()
        if options.batch_size is not None:
            return options.batch_size
        if total is None:
            return MAX_CHUNK_ITEMS
        return max(1, min(MAX_CHUNK_ITEMS, ceil(total / (self.workers * PARTS))))

    def open(self) -> Session:
        """Return the target for one run, whose jobs are gathered."""
        return DaftSession(self._options(), self.chunk_items)

    def submit(self, job: Call | Chunk) -> Future[Any]:
        """Refuse a job outside of any run: jobs are gathered for the queries of one."""
        raise NotImplementedError(f"{job!r} belongs to a run: use open()")

    def __repr__(self) -> str:
        return "'daft'"


class DaftSession(Session):
    """Gathers the jobs of one run, and executes those that are ready as a query.

    Args:
        options: How queries are run.
        chunk_items: How many of a number of items a UDF is to get at once.
    """

    def __init__(self, options: Options, chunk_items: Callable[[int | None], int]) -> None:
        self._options = options
        self._chunk_items = chunk_items
        self._waiting: list[tuple[Call | Chunk, Future[Any]]] = []
        self._running: Iterator[None] | None = None

    def submit(self, job: Call | Chunk) -> Future[Any]:
        """Keep a job until the run has nothing else to do."""
        future: Future[Any] = Future()
        self._waiting.append((job, future))
        return future

    def assist(self) -> bool:
        """Go on with a query until there is news; ``False`` if there is nothing to do."""
        if self._running is None:
            if not self._waiting:
                return False
            self._running = self._next_query()
        try:
            next(self._running)
        except StopIteration:
            self._running = None
        return True

    def close(self) -> None:
        """End the query that is under way, and make no other."""
        self._waiting.clear()
        if self._running is not None:
            self._running.close()  # type: ignore[attr-defined]
            self._running = None

    def _next_query(self) -> Iterator[None]:
        first, future = self._waiting[0]
        if isinstance(first, Call):
            del self._waiting[0]
            return self._call(first, future)
        chunks: list[tuple[Chunk, Future[Any]]] = []
        others: list[tuple[Call | Chunk, Future[Any]]] = []
        for job, its in self._waiting:
            if isinstance(job, Chunk) and job.context is first.context:
                chunks.append((job, its))
            else:
                others.append((job, its))
        self._waiting = others
        return self._map(first.context, [job for job, _ in chunks], [its for _, its in chunks])

    def _call(self, call: Call, future: Future[Any]) -> Iterator[None]:
        """Make one call: a query of one row, if it asks for more than any process has."""
        step, scope = call.step, call.scope
        if step.options.resources == Resources():
            future.set_result(call_node(step, call.arguments, scope))
            return
        stage = as_call_stage(step, scope)
        items = scope.items
        job = Job(
            [stage],
            stage.makes,
            {name: call.arguments[parameter] for parameter, name in step.arguments},
            indices=[items[-1] if items else UNKNOWN],
            scope=replace(scope, items=items[:-1]),
        )
        results = Results(job)
        try:
            for report in over_items(job, {}, 1, self._options):
                _check(report)
                results.add(report)
                yield
        except Exception as raised:
            future.set_result(Outcome((), raised.error if isinstance(raised, ErrorCarrier) else raised))
            return
        columns = results.columns(1)
        outputs = tuple(columns[name][0] if name else None for name in step.outputs)
        future.set_result(Outcome(outputs))

    def _map(
        self, context: MapContext, chunks: Sequence[Chunk], futures: Sequence[Future[Any]]
    ) -> Iterator[None]:
        """Run the chunks of one map."""
        plan, fixed = context.plan, dict(context.fixed)
        items = [item for chunk in chunks for item in chunk.items]
        columns = {name: [item[name] for item in items] for name in items[0]}
        is_staged = context.on_error == "raise" and can_be_staged(plan)
        job = Job(
            stages_of(plan, fixed) if is_staged else [as_single_stage(plan, fixed)],
            plan.outputs,
            fixed,
            indices=[index for chunk in chunks for index in chunk.indices],
            scope=context.scope,
            context=None if is_staged else replace(context, fixed={}, common={}),
        )
        options = self._options
        if not is_staged:
            options = replace(options, batch_size=self._chunk_items(len(items)))
        reports = over_items(job, columns, len(items), options)
        try:
            yield from (
                self._in_stages(job, columns, chunks, futures, reports)
                if is_staged
                else self._whole(context, chunks, futures, reports)
            )
        except Exception as raised:
            error = raised.error if isinstance(raised, ErrorCarrier) else raised
            for future in futures:
                if not future.done():
                    future.set_exception(error)

    def _in_stages(
        self,
        job: Job,
        given: dict[str, list[Any]],
        chunks: Sequence[Chunk],
        futures: Sequence[Future[Any]],
        reports: Iterator[Any],
    ) -> Iterator[None]:
        results = Results(job, given)
        for report in reports:
            _check(report)
            results.add(report)
            yield
        total = sum(len(chunk.items) for chunk in chunks)
        columns = results.columns(total)
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        start = 0
        for chunk, future in zip(chunks, futures, strict=True):
            end = start + len(chunk.items)
            future.set_result(ChunkOutcome(rows[start:end], executed=1))
            start = end

    def _whole(
        self,
        context: MapContext,
        chunks: Sequence[Chunk],
        futures: Sequence[Future[Any]],
        reports: Iterator[Any],
    ) -> Iterator[None]:
        starts = [0, *accumulate(len(chunk.items) for chunk in chunks)]
        rows: list[dict[int, Any]] = [{} for _ in chunks]
        events: list[Event] = []
        executed = hits = 0
        for report in reports:
            _check(report)
            outcome: ChunkOutcome = (
                deserialize_chunk_outcome(report.outcome)
                if isinstance(report.outcome, SerializedChunkOutcome)
                else report.outcome
            )
            events += outcome.events
            executed += outcome.executed
            hits += outcome.hits
            seconds = outcome.seconds / max(1, len(outcome.rows))
            for place, row in zip(report.places, outcome.rows, strict=False):  # an error may end it early
                at = bisect_right(starts, place) - 1
                rows[at][place - starts[at]] = row
                has_failed = isinstance(row, Failure) and context.on_error == "raise"
                if has_failed or len(rows[at]) == len(chunks[at].items):
                    made = [row] if has_failed else [rows[at][index] for index in range(len(rows[at]))]
                    futures[at].set_result(
                        ChunkOutcome(made, events, seconds * len(made), executed=executed, hits=hits)
                    )
                    events, rows[at], executed, hits = [], {}, 0, 0
                    if has_failed:
                        return
            yield


def _check(report: Report) -> None:
    """Raise what has ended a query, in a form that can leave a generator."""
    if isinstance(report.error, Exception):
        raise ErrorCarrier(report.error)
    if report.error is not None:
        raise report.error
