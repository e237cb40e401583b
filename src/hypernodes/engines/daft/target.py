"""Daft as an execution target: the ready jobs of a run are collected, and executed together as queries."""

from __future__ import annotations

from bisect import bisect_right
from concurrent.futures import Future
from dataclasses import replace
from itertools import accumulate, chain
from math import ceil
from typing import TYPE_CHECKING, Any, Final

from hypernodes.engines.daft.query import BATCHES_PER_WORKER, Results, query_items
from hypernodes.engines.daft.spec import KNOWN_RESULTS, QueryOptions, QuerySpec, stages_of
from hypernodes.exceptions import OtherCodeError, TransportError, WorkerDiedError
from hypernodes.execution.calls.call import call_node
from hypernodes.execution.calls.location import UNKNOWN
from hypernodes.execution.jobs import (
    Call,
    Chunk,
    ChunkOutcome,
    Failure,
    JobKey,
    MapContext,
    Outcome,
    signed_step,
)
from hypernodes.execution.plan.placement import Capabilities
from hypernodes.execution.stages import as_call_stage, as_single_stage, can_be_staged
from hypernodes.execution.target import ExecutionTarget, Session
from hypernodes.execution.targets.diagnose import unsent_job
from hypernodes.mapping import Columns
from hypernodes.resources import Resources
from hypernodes.serialization.errors import ExceptionWrapper, unwrapped
from hypernodes.serialization.pickling import is_serializable

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from hypernodes.callbacks.event import Event
    from hypernodes.engines.daft.transport import Report
    from hypernodes.execution.jobs import RemoteJob

MAX_CHUNK_ITEMS: Final = 1024
"""How many items a chunk has at most: its events arrive when all of its items are done."""


class DaftTarget(ExecutionTarget):
    """Daft as an execution target."""

    def __init__(self, options: QueryOptions) -> None:
        super().__init__("daft", Capabilities(serializes=options.is_remote, gathers=True))
        self.options = options

    @property
    def workers(self) -> int:
        """How many CPUs compute."""
        return self.options.workers

    @property
    def max_retries(self) -> int:
        """How often an item is tried again whose process has ended while it was alone."""
        return 1

    def chunk_items(self, total: int | None) -> int:
        """Return how many items make a chunk."""
        if self.options.batch_size is not None:
            return self.options.batch_size
        if total is None:
            return MAX_CHUNK_ITEMS
        return max(1, min(MAX_CHUNK_ITEMS, ceil(total / (self.workers * BATCHES_PER_WORKER))))

    def open(self) -> Session:
        """Return the target for one run, whose jobs are collected."""
        return DaftSession(self)

    def submit(self, job: Call | Chunk) -> Future[Any]:
        """Refuse a job outside of a run: without a session, nothing runs the query of collected jobs."""
        raise NotImplementedError(f"{job!r} must be submitted to a session: use open()")


class DaftSession(Session):
    """Collects the jobs of one run, and executes those that are ready as a query."""

    def __init__(self, target: DaftTarget) -> None:
        self._target = target
        self._pending: list[tuple[Call | Chunk, Future[Any]]] = []
        # Chunks of a query whose process has ended, in parts that are queries of their own.
        self._parts: list[list[tuple[Chunk, Future[Any]]]] = []
        self._query: Generator[None] | None = None
        self._options = target.options
        self._sent_with_code: set[JobKey] = set()

    def submit(self, job: Call | Chunk) -> Future[Any]:
        """Collect a job; it is executed when the driver has nothing else to do."""
        future: Future[Any] = Future()
        self._pending.append((job, future))
        return future

    def send_code_with(self, job: RemoteJob) -> bool:
        """Send the user's modules along from now on; ``False`` if they went with this job already."""
        if job.key in self._sent_with_code:
            return False
        self._sent_with_code.add(job.key)
        self._options = replace(self._options, sends_code=True)
        return True

    def assist(self) -> bool:
        """Advance a query up to its next report; ``False`` if there is nothing to do."""
        if self._query is None:
            if not self._pending and not self._parts:
                return False
            self._query = self._next_query()
        try:
            next(self._query)
        except StopIteration:
            self._query = None
        return True

    def close(self) -> None:
        """End the running query, and drop the jobs of further ones."""
        self._pending.clear()
        self._parts.clear()
        if self._query is not None:
            self._query.close()
            self._query = None

    def _next_query(self) -> Generator[None]:
        """Return the execution of the oldest job, with all collected chunks of the same map."""
        if self._parts:
            return self._execute_chunks(self._parts.pop(0))
        first, future = self._pending[0]
        if isinstance(first, Call):
            del self._pending[0]
            return self._execute_call(first, future)
        chunks: list[tuple[Chunk, Future[Any]]] = []
        others: list[tuple[Call | Chunk, Future[Any]]] = []
        for job, its_future in self._pending:
            if isinstance(job, Chunk) and job.context is first.context:
                chunks.append((job, its_future))
            else:
                others.append((job, its_future))
        self._pending = others
        return self._execute_chunks(chunks)

    def _execute_call(self, call: Call, future: Future[Any]) -> Generator[None]:
        """Execute one call: in this thread, or as a query of one row if it asks for resources."""
        step, scope = call.step, call.scope
        if step.options.resources == Resources():
            future.set_result(call_node(step, call.arguments, scope))
            del future  # the frame of a function that has raised refers to this frame
            return
        stage = as_call_stage(step, scope)
        items = scope.items
        spec = QuerySpec(
            [stage],
            stage.makes,
            {name: call.arguments[parameter] for parameter, name in step.arguments},
            indices=[items[-1] if items else UNKNOWN],
            scope=replace(scope, items=items[:-1]),
            signed=signed_step(call.step, call.entry),
        )
        results = Results(spec)
        try:
            for report in query_items(spec, {}, 1, self._options):
                _raise_wrapped(report)
                results.add(report)
                yield
        except Exception as error:
            raised = unwrapped(error)
            if isinstance(raised, OtherCodeError):
                future.set_exception(raised)
            else:
                future.set_result(Outcome((), raised))
            return
        columns = results.columns(1)
        outputs = tuple(columns[name][0] if name else None for name in step.outputs)
        future.set_result(Outcome(outputs))

    def _execute_chunks(self, jobs: Sequence[tuple[Chunk, Future[Any]]]) -> Generator[None]:
        """Execute chunks of one map as a query: in stages, or by the general path as one stage."""
        chunks, futures = [chunk for chunk, _ in jobs], [future for _, future in jobs]
        context = chunks[0].context
        plan, fixed = context.plan, dict(context.fixed)
        total = sum(len(chunk.items) for chunk in chunks)
        columns = {
            name: list(chain.from_iterable(chunk.items.columns[name] for chunk in chunks))
            for name in chunks[0].items.columns
        }
        is_staged = context.on_error == "raise" and can_be_staged(plan)
        single = as_single_stage(plan, fixed)
        if any(chunk.known for chunk in chunks):
            columns[KNOWN_RESULTS] = _known_results(chunks)
            single = replace(single, takes=(*single.takes, KNOWN_RESULTS))
        spec = QuerySpec(
            stages_of(plan, fixed) if is_staged else [single],
            plan.outputs,
            fixed,
            indices=[index for chunk in chunks for index in chunk.indices],
            scope=context.scope,
            context=None if is_staged else replace(context, fixed={}, common={}),
        )
        options = self._options
        if not is_staged:
            options = replace(options, batch_size=self._target.chunk_items(total))
        reports = query_items(spec, columns, total, options)
        try:
            if is_staged:
                yield from _settle_at_end(Results(spec, columns), chunks, futures, reports)
            else:
                yield from _settle_each(context, chunks, futures, reports)
        except Exception as error:
            self._fail(chunks, futures, unwrapped(error))

    def _fail(self, chunks: Sequence[Chunk], futures: Sequence[Future[Any]], error: BaseException) -> None:
        """Fail the chunks of a query; if items of some cannot be pickled, only those chunks.

        The map that has sent such a chunk divides it, until the item that is to blame is alone. If a process
        has ended, any of the chunks may be to blame: each half is tried again by itself.
        """
        if isinstance(error, WorkerDiedError):
            left = [job for job in zip(chunks, futures, strict=True) if not job[1].done()]
            if len(left) > 1:
                middle = len(left) // 2
                self._parts += [left[:middle], left[middle:]]
                return
        unsent = {
            future: unsent_job(chunk, error.__cause__ if isinstance(error.__cause__, Exception) else error)
            for chunk, future in zip(chunks, futures, strict=True)
            if isinstance(error, TransportError) and not is_serializable(chunk.items)
        }
        for chunk, future in zip(chunks, futures, strict=True):
            if future.done():
                continue
            if not unsent or future in unsent:
                future.set_exception(unsent.get(future, error))
            else:
                self._pending.append((chunk, future))


def _known_results(chunks: Sequence[Chunk]) -> list[Any]:
    """Return for each item of some chunks what was found of it in a cache."""
    return [chunk.known.get(position, {}) for chunk in chunks for position in range(len(chunk.items))]


def _settle_at_end(
    results: Results, chunks: Sequence[Chunk], futures: Sequence[Future[Any]], reports: Iterator[Report]
) -> Iterator[None]:
    """Collect the columns of all chunks, and set the result of each."""
    for report in reports:
        _raise_wrapped(report)
        results.add(report)
        yield
    rows = Columns(results.columns(sum(len(chunk.items) for chunk in chunks)))
    start = 0
    for chunk, future in zip(chunks, futures, strict=True):
        end = start + len(chunk.items)
        future.set_result(ChunkOutcome(rows[start:end], executed=1))
        start = end


def _settle_each(
    context: MapContext, chunks: Sequence[Chunk], futures: Sequence[Future[Any]], reports: Iterator[Report]
) -> Iterator[None]:
    """Set the result of each chunk as soon as all of its rows have arrived, or the row that ends the map."""
    starts = [0, *accumulate(len(chunk.items) for chunk in chunks)]
    rows: list[dict[int, Any]] = [{} for _ in chunks]
    events: list[Event] = []
    executed = hits = 0
    for report in reports:
        _raise_wrapped(report)
        outcome = report.outcome or ChunkOutcome(())
        events += outcome.events
        executed += outcome.executed
        hits += outcome.hits
        seconds = outcome.seconds / max(1, len(outcome.rows))
        # There are fewer rows than positions if an error has ended the map.
        for position, row in zip(report.positions, outcome.rows, strict=False):
            number = bisect_right(starts, position) - 1
            of_chunk = rows[number]
            of_chunk[position - starts[number]] = row
            ends_map = isinstance(row, Failure) and context.on_error == "raise"
            if ends_map or len(of_chunk) == len(chunks[number].items):
                settled = [row] if ends_map else [of_chunk[index] for index in range(len(of_chunk))]
                futures[number].set_result(
                    ChunkOutcome(settled, events, seconds * len(settled), executed=executed, hits=hits)
                )
                events, rows[number], executed, hits = [], {}, 0, 0
                if ends_map:
                    return
        yield


def _raise_wrapped(report: Report) -> None:
    """Raise the error that has ended a query, in a form that can leave a generator."""
    if report.error is not None:
        try:
            raise ExceptionWrapper(report.error) if isinstance(report.error, Exception) else report.error
        finally:
            del report  # the traceback of the error refers to this frame
