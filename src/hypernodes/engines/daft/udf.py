"""What Daft calls: a stage of a plan, as a function of columns."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from itertools import count
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakValueDictionary

from hypernodes.engines.daft.columns import as_inferred
from hypernodes.engines.daft.wire import Away, Made, Report, Taken, Wire
from hypernodes.exceptions import DaftError, HintError
from hypernodes.execution.batched import values
from hypernodes.execution.invoke import UNKNOWN, locate, now
from hypernodes.execution.jobs import BatchOutcome, Failure
from hypernodes.execution.lane import A_PROCESS, BUSY
from hypernodes.execution.parcel import OWN_PARCEL, Parcel, parcel_of
from hypernodes.execution.signature import read_codes
from hypernodes.execution.stages import Ended, Stage, compute, compute_on_loop, has_batch
from hypernodes.execution.worker import BatchTask, Sweeping, calls_of, not_returned, not_sent, pack_batch
from hypernodes.executors.loops import resolve
from hypernodes.portable import dumps, pack

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

    from daft import Series

    from hypernodes.callbacks.event import Scope
    from hypernodes.portable import Packed, Shared

IN_DAFT: Final = -1
"""Stands in `BUSY` where Daft has called: what is computed there is part of its query already."""

_SHORT: Final = 0.01  # seconds; parts that took no longer may be larger
_GROWTH: Final = 8

_OF_FIRST_PARTITION: Final = 1 << 36  # Daft numbers the rows of each further partition from a multiple of it


@dataclass(frozen=True, slots=True)
class Task:
    """What the calls of a UDF have in common.

    Attributes:
        stage: What is computed.
        taken: What it takes for each item.
        made: What it makes for other stages.
        returned: What it makes for the driver.
        fixed: What all items have in common.
        numbers: The index of each item, by its place in the query; by default they are the same.
        within: Where it is, where that is not the outermost map.
        sweeping: For items that are run whole, what they have in common, less what is fixed.
        at_once: How many coroutines run at a time.
        has_places: Whether the first column has the places of the items.
    """

    stage: Stage
    taken: tuple[Taken, ...]
    made: tuple[Made, ...]
    returned: tuple[str, ...]
    fixed: Mapping[str, Any]
    numbers: Sequence[int] | None = None
    within: Scope | None = None
    sweeping: Sweeping | None = None
    at_once: int = 1
    has_places: bool = True

    def numbers_of(self, places: Sequence[int]) -> Sequence[int]:
        """Return the indices of some items."""
        if not self.has_places:
            return [UNKNOWN] * len(places)
        if self.numbers is not None:
            return [self.numbers[place] for place in places]
        if isinstance(places, range):
            return places if places.stop <= _OF_FIRST_PARTITION else [UNKNOWN] * len(places)
        return [place if place < _OF_FIRST_PARTITION else UNKNOWN for place in places]


class Udf:
    """A stage as a function of columns.

    Args:
        task: What its calls have in common.
        wire: How values come and go.
        is_sent: Whether it has come to this process from another one.
    """

    def __init__(self, task: Task, wire: Wire, *, is_sent: bool = False) -> None:
        self.task = task
        self.is_sent = is_sent
        self._wire = wire
        self._sweeping = task.sweeping and replace(task.sweeping, fixed=dict(task.fixed))
        self._key = next(_keys)
        if not is_sent:
            _udfs[self._key] = self

    def __call__(self, *series: Series) -> Series:
        """Go over the items of some rows."""
        if self.task.stage.kind == "async":
            made: Series = resolve(self.on_loop(*series))
            return made
        places = self._places(series[0])
        busy = BUSY.set(BUSY.get() | {IN_DAFT})
        try:
            self._wire.enter()
            columns = self._taken(series, places)
            numbers = self.task.numbers_of(places)
            if self._sweeping is not None:
                batch = _batch(self._read(self._sweeping), columns, numbers)
                return self._told(places, [batch], self._outcomes(batch))
            return self._returned(places, self._made(columns, numbers))
        except BaseException as error:
            self._wire.fail(error)
        finally:
            self._wire.leave()
            BUSY.reset(busy)

    async def on_loop(self, *series: Series) -> Series:
        """Go over the items of some rows, several at once."""
        places = self._places(series[0])
        BUSY.set(BUSY.get() | {IN_DAFT})  # in a coroutine's own context
        try:
            self._wire.enter()
            columns = self._taken(series, places)
            numbers = self.task.numbers_of(places)
            if self._sweeping is not None:
                whole = _batch(self._read(self._sweeping), columns, numbers)
                batches = [
                    replace(whole, numbers=[number], items=[item])
                    for number, item in zip(numbers, whole.items, strict=True)
                ]
                room = asyncio.Semaphore(self.task.at_once)
                return self._told(
                    places, batches, await asyncio.gather(*(_awaited(batch, room) for batch in batches))
                )
            made = await compute_on_loop(
                self.task.stage,
                columns,
                self.task.fixed,
                numbers,
                asyncio.to_thread,
                self.task.at_once,
                self.task.within,
            )
            return self._returned(places, made)
        except Ended as ended:
            self._wire.fail(ended.error)
        except BaseException as error:
            self._wire.fail(error)
        finally:
            self._wire.leave()

    def _read(self, sweeping: Sweeping) -> Sweeping:
        """Return what items that are run whole have in common, with the code as it is now.

        A lazy data frame is computed some time after it was made.
        """
        if self.task.has_places or self.is_sent:
            return sweeping
        return replace(sweeping, codes=read_codes(self.task.stage.plan))

    def _taken(self, series: Sequence[Series], places: Sequence[int]) -> dict[str, Any]:
        """Return what is taken for each item; the first column may be there for the places only."""
        others = series if self.task.taken and not self.task.has_places else series[1:]
        columns = self._wire.take(self.task.taken, others, places)
        if self.task.stage.kind == "batch":
            columns = {name: as_inferred(column) for name, column in columns.items()}
        return columns

    def _made(self, columns: Mapping[str, Any], numbers: Sequence[int]) -> Mapping[str, Any]:
        task = self.task
        if task.stage.kind == "batch":
            return compute(task.stage, columns, task.fixed, numbers, task.within)
        made: dict[str, list[Any]] = {name: [] for name in task.stage.makes}
        for part in self._parts(len(numbers)):
            taken = {name: column[part] for name, column in columns.items()}
            computed = compute(task.stage, taken, task.fixed, numbers[part], task.within)
            for name, column in computed.items():
                made[name] += column
        return made

    def _outcomes(self, whole: BatchTask) -> list[BatchOutcome]:
        if has_batch(whole.sweeping.plan):
            return [_outcome(whole)]
        raises, outcomes = whole.sweeping.on_error == "raise", []
        for part in self._parts(len(whole.numbers)):
            outcome = _outcome(replace(whole, numbers=whole.numbers[part], items=whole.items[part]))
            outcomes.append(outcome)
            if raises and any(isinstance(row, Failure) for row in outcome.rows):
                break
        return outcomes

    def _parts(self, total: int) -> Iterator[slice]:
        """Yield the parts in which items are computed, so that they can be stopped; first ones are small."""
        start, size = 0, 1
        while start < total:
            began = perf_counter()
            yield slice(start, start + size)
            start += size
            if perf_counter() - began < _SHORT:
                size *= _GROWTH
            self._wire.check()

    def _places(self, first: Series) -> Sequence[int]:
        if not self.task.has_places:
            return range(len(first))
        if not len(first):
            return range(0)
        array = first.to_arrow()
        start, end, length = array[0].as_py(), array[-1].as_py(), len(array)
        if end - start == length - 1 and (length < 3 or _ascends(array)):
            return range(start, end + 1)
        places: list[int] = array.to_pylist()
        return places

    def _returned(self, places: Sequence[int], made: Mapping[str, Any]) -> Series:
        misfits: list[HintError] = []
        columns = self._wire.give(self.task.made, made, places, misfits)
        if self.task.has_places:
            outputs = {name: values(made[name]) for name in self.task.returned}
            columns[REPORT] = self._reported(Report(places, outputs, misfits=tuple(misfits)))
        return _together(columns)

    def _reported(self, report: Report) -> Series:
        try:
            return self._wire.report(report)
        except Exception as failure:
            raise self._not_returned(report, failure) from failure

    def _not_returned(self, report: Report, failure: Exception) -> Exception:
        plan, within = self.task.stage.plan, self.task.within
        around = () if within is None else within.items
        for name, column in report.outputs.items():
            for number, value in zip(self.task.numbers_of(report.places), column, strict=True):
                try:
                    dumps(value)
                except Exception as failed:
                    error = not_returned({name: value}, failed)
                    locate(error, plan.producers[name].name, plan.path, (*around, number), {})
                    return error
        return failure

    def _told(
        self, places: Sequence[int], batches: Sequence[BatchTask], outcomes: Sequence[BatchOutcome]
    ) -> Series:
        rows: list[Any] = []
        for outcome in outcomes:
            rows += outcome.rows
        outcome = BatchOutcome(
            rows,
            [event for outcome in outcomes for event in outcome.events],
            sum(outcome.seconds for outcome in outcomes),
        )
        if not self.task.has_places:
            self.task.stage.plan.flush()
            return self._returned(places, _columns(outcome.rows, self.task.stage.makes))
        told: Any = outcome
        if isinstance(self._wire, Away):
            whole = replace(
                batches[0],
                numbers=[number for batch in batches for number in batch.numbers],
                items=[item for batch in batches for item in batch.items],
            )
            told = pack_batch(whole, outcome)
        else:
            self.task.stage.plan.flush()
        return self._wire.report(Report(places, outcome=told))

    def __reduce__(self) -> tuple[Any, ...]:
        return _found, (self._key,)  # it is only ever asked for within this process


REPORT: Final = "for the driver"

_keys: Iterator[int] = count()
_udfs: WeakValueDictionary[int, Udf] = WeakValueDictionary()


def _found(key: int) -> Udf:
    try:
        return _udfs[key]
    except KeyError:
        raise DaftError(
            "this query was made for Daft's native runner in another process. Make it anew where it is run."
        ) from None


def _ascends(array: Any) -> bool:
    import pyarrow.compute as pc  # noqa: PLC0415

    return bool(pc.all(pc.equal(pc.pairwise_diff(array), 1)).as_py())


def _together(columns: Mapping[str, Series]) -> Series:
    """Return columns as one, which has a field for each."""
    if len(columns) == 1:
        return next(iter(columns.values()))
    from daft import col  # noqa: PLC0415
    from daft.expressions import ExpressionsProjection  # noqa: PLC0415
    from daft.functions import to_struct  # noqa: PLC0415
    from daft.recordbatch import RecordBatch  # noqa: PLC0415

    batch = RecordBatch.from_pydict(dict(columns))
    struct = ExpressionsProjection([to_struct(*map(col, columns))])
    return batch.eval_expression_list(struct).get_column(0)


def _batch(sweeping: Sweeping, columns: Mapping[str, Any], numbers: Sequence[int]) -> BatchTask:
    lists = {name: values(column) for name, column in columns.items()}
    items = [{name: column[at] for name, column in lists.items()} for at in range(len(numbers))]
    return BatchTask(sweeping, list(numbers), items)


def _columns(rows: list[Any], names: Sequence[str]) -> dict[str, list[Any]]:
    failure = next((row for row in rows if isinstance(row, Failure)), None)
    if failure is not None:
        raise failure.error
    return {name: [row[name] for row in rows] for name in names}


def _outcome(batch: BatchTask) -> BatchOutcome:
    outcome = now(batch.carry_out(None))
    assert isinstance(outcome, BatchOutcome)  # noqa: S101
    return outcome


async def _awaited(batch: BatchTask, room: asyncio.Semaphore) -> BatchOutcome:
    async with room:
        try:
            outcome = await batch.carry_out(asyncio.to_thread)
        except (KeyboardInterrupt, SystemExit) as error:
            raise Ended(error) from None  # as itself it would end the event loop
    assert isinstance(outcome, BatchOutcome)  # noqa: S101
    return outcome


# ------------------------------------------------------------------------------ in another process


class SentUdf:
    """A stage on its way to other processes, in each of which it is unpacked once.

    Args:
        task: What its calls have in common.
        wire: How values come and go.
        share: Places what is large where every worker finds it.

    Raises:
        TransportError: A function or a fixed input cannot be pickled.
    """

    def __init__(self, task: Task, wire: Wire, share: Callable[[Packed], Shared]) -> None:
        self._wire = wire
        self._large: dict[str, Parcel] = {}
        try:
            for name, value in task.fixed.items():
                packed = pack(value)
                if packed.size >= OWN_PARCEL:
                    self._large[name] = parcel_of(packed, share)
            small = {name: value for name, value in task.fixed.items() if name not in self._large}
            self._parcel = parcel_of(pack(replace(task, fixed=small)), share)
        except Exception as failure:
            plan = task.stage.plan
            raise not_sent(calls_of(plan), task.fixed, repr(plan.label), failure) from failure

    def _here(self) -> Udf:
        task: Task = self._parcel.unpack()
        large = {name: parcel.unpack() for name, parcel in self._large.items()}
        return Udf(replace(task, fixed={**task.fixed, **large}), self._wire, is_sent=True)

    def __call__(self, *series: Series) -> Series:
        """Go over the items of some rows."""
        busy = BUSY.set(BUSY.get() | {A_PROCESS})
        try:
            return self._here()(*series)
        finally:
            BUSY.reset(busy)

    async def on_loop(self, *series: Series) -> Series:
        """Go over the items of some rows, several at once."""
        BUSY.set(BUSY.get() | {A_PROCESS})
        return await self._here().on_loop(*series)


def function_of(udf: Udf | SentUdf, name: str, label: str, *, is_async: bool) -> Callable[..., Any]:
    """Return what is called as a plain function, under the name that Daft's plans are to show."""
    work: Callable[..., Series | Awaitable[Series]]
    if is_async:

        async def work(*series: Series) -> Series:
            return await udf.on_loop(*series)

    else:

        def work(*series: Series) -> Series:
            return udf(*series)

    work.__name__ = work.__qualname__ = name
    work.__module__ = label
    return work
