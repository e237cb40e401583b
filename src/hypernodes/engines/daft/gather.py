"""The jobs of a run as Daft queries: all that can be sent is gathered, and goes into one."""

from __future__ import annotations

from bisect import bisect_right
from concurrent.futures import Future
from dataclasses import replace
from itertools import accumulate
from math import ceil
from typing import TYPE_CHECKING, Any, Final

from hypernodes.engines.daft.query import PARTS, Job, over_items, stages_of, workers
from hypernodes.engines.daft.results import Results
from hypernodes.execution.invoke import UNKNOWN, attempt, now
from hypernodes.execution.jobs import Batch, BatchOutcome, Call, Failure, Outcome
from hypernodes.execution.lane import Lane
from hypernodes.execution.stages import Ended, alone, is_watched, whole
from hypernodes.execution.worker import Sweeping, unpack_batch
from hypernodes.portable import Packed, fetched
from hypernodes.resources import Resources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from hypernodes.callbacks.event import Event
    from hypernodes.engines.daft.query import Options
    from hypernodes.engines.daft.wire import Report
    from hypernodes.execution import jobs

_AT_MOST: Final = 1024  # items of which something is heard together


class DaftLane(Lane):
    """Daft as work sees it.

    Args:
        options: How queries are run; asked for when the first one is made.
    """

    def __init__(self, options: Callable[[], Options]) -> None:
        super().__init__("daft")
        self._options = options

    @property
    def gathers(self) -> bool:
        """A query is made of all items at once."""
        return True

    @property
    def is_remote(self) -> bool:
        """Whether other processes compute."""
        return self._options().is_far

    @property
    def places(self) -> bool:
        """Nothing stays where it was made."""
        return False

    @property
    def retries(self) -> int:
        """Ray, or nobody, tries again."""
        return 0

    @property
    def workers(self) -> int:
        """How many CPUs compute."""
        return workers(self._options())

    def gatherer(self) -> Gathering:
        """Return who makes queries of jobs."""
        return Gathering(self._options(), self.block)

    def block(self, total: int | None) -> int:
        """Return how many items make a job."""
        options = self._options()
        if options.batch_size is not None:
            return options.batch_size
        return _AT_MOST if total is None else max(1, min(_AT_MOST, ceil(total / (self.workers * PARTS))))

    def shutdown(self, *, at_once: bool = False) -> None:
        """Nothing was made."""
        del at_once

    def __repr__(self) -> str:
        return "'daft'"


class Gathering:
    """Gathers jobs, and makes queries of them.

    Args:
        options: How they are run.
        block: How many of a number of items a UDF is to get at once.
    """

    def __init__(self, options: Options, block: Callable[[int | None], int]) -> None:
        self._options = options
        self._block = block
        self._waiting: list[tuple[jobs.Job, Future[Any]]] = []
        self._running: Iterator[None] | None = None

    def send(self, job: jobs.Job) -> Future[Outcome | BatchOutcome]:
        """Take a job."""
        future: Future[Any] = Future()
        self._waiting.append((job, future))
        return future

    def advance(self) -> bool:
        """Go on until there is news; ``False`` if there is nothing to do."""
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
        batches, others = [], []
        for job, its in self._waiting:
            if isinstance(job, Batch) and job.sweep is first.sweep:
                batches.append((job, its))
            else:
                others.append((job, its))
        self._waiting = others
        return self._map([job for job, _ in batches], [its for _, its in batches])

    def _call(self, call: Call, future: Future[Any]) -> Iterator[None]:
        """Make one call: a query of one row, if it asks for more than any process has."""
        if call.step.resources == Resources():
            future.set_result(now(attempt(call.step, call.arguments, call.frame.scope)))
            return
        stage = alone(call.frame.plan, call.step)
        items = call.frame.scope.items
        job = Job(
            [stage],
            stage.makes,
            {name: fetched(call.arguments[parameter]) for parameter, name in call.step.arguments},
            numbers=[items[-1] if items else UNKNOWN],
            within=replace(call.frame.scope, items=items[:-1]),
        )
        results = Results(job)
        try:
            for report in over_items(job, {}, 1, self._options):
                _check(report)
                results.add(report)
                yield
        except Exception as raised:
            future.set_result(Outcome((), raised.error if isinstance(raised, Ended) else raised))
            return
        columns = results.columns(1)
        outputs = tuple(columns[name][0] if name else None for name in call.step.outputs)
        future.set_result(Outcome(outputs))

    def _map(self, batches: Sequence[Batch], futures: Sequence[Future[Any]]) -> Iterator[None]:
        """Run the batches of one map."""
        sweeping = Sweeping.of(batches[0])
        fixed = {name: fetched(value) for name, value in sweeping.fixed.items()}
        items = [item for batch in batches for item in batch.items]
        columns = {name: [item[name] for item in items] for name in items[0]}
        staged = sweeping.on_error == "raise" and not is_watched(sweeping.plan)
        job = Job(
            stages_of(sweeping.plan, fixed) if staged else [whole(sweeping.plan, fixed)],
            sweeping.plan.outputs,
            fixed,
            numbers=[number for batch in batches for number in batch.numbers],
            within=sweeping.scope,
            sweeping=None if staged else replace(sweeping, fixed={}),
        )
        options = self._options
        if not staged:
            options = replace(options, batch_size=self._block(len(items)))
        reports = over_items(job, columns, len(items), options)
        try:
            yield from (
                self._in_stages(job, columns, batches, futures, reports)
                if staged
                else self._whole(batches, futures, reports)
            )
        except Exception as raised:
            error = raised.error if isinstance(raised, Ended) else raised
            for future in futures:
                if not future.done():
                    future.set_exception(error)

    def _in_stages(
        self,
        job: Job,
        given: dict[str, list[Any]],
        batches: Sequence[Batch],
        futures: Sequence[Future[Any]],
        reports: Iterator[Any],
    ) -> Iterator[None]:
        results = Results(job, given)
        for report in reports:
            _check(report)
            results.add(report)
            yield
        total = sum(len(batch.at) for batch in batches)
        columns = results.columns(total)
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        start = 0
        for batch, future in zip(batches, futures, strict=True):
            end = start + len(batch.at)
            future.set_result(BatchOutcome(rows[start:end], [], 0.0))
            start = end

    def _whole(
        self, batches: Sequence[Batch], futures: Sequence[Future[Any]], reports: Iterator[Any]
    ) -> Iterator[None]:
        starts = [0, *accumulate(len(batch.at) for batch in batches)]
        rows: list[dict[int, Any]] = [{} for _ in batches]
        events: list[Event] = []
        for report in reports:
            _check(report)
            told = report.outcome
            outcome: BatchOutcome = unpack_batch(told) if isinstance(told, Packed) else told
            events += outcome.events
            seconds = outcome.seconds / max(1, len(outcome.rows))
            for place, row in zip(report.places, outcome.rows, strict=False):  # an error may end it early
                at = bisect_right(starts, place) - 1
                rows[at][place - starts[at]] = row
                failed = isinstance(row, Failure) and batches[at].sweep.on_error == "raise"
                if failed or len(rows[at]) == len(batches[at].at):
                    made = [row] if failed else [rows[at][index] for index in range(len(rows[at]))]
                    futures[at].set_result(BatchOutcome(made, events, seconds * len(made)))
                    events, rows[at] = [], {}
                    if failed:
                        return
            yield


def _check(report: Report) -> None:
    """Raise what has ended a query, in a form that can leave a generator."""
    if isinstance(report.error, Exception):
        raise Ended(report.error)
    if report.error is not None:
        raise report.error
