"""What Daft calls: a stage of a plan, as a function of columns."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from itertools import count
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, cast
from weakref import WeakValueDictionary

from hypernodes.callbacks.event import Scope
from hypernodes.engines.daft.columns import as_inferred
from hypernodes.engines.daft.wire import Away, Made, Report, Taken, Wire
from hypernodes.exceptions import DaftError, HintError
from hypernodes.execution.calls.batch import values
from hypernodes.execution.calls.location import UNKNOWN, locate
from hypernodes.execution.current import OCCUPIED, OTHER_PROCESS
from hypernodes.execution.execute import execute, execute_on_loop
from hypernodes.execution.jobs import Chunk, ChunkOutcome, Failure, MapContext
from hypernodes.execution.signature import fingerprint_plan
from hypernodes.execution.stages import ErrorCarrier, Stage, compute, compute_on_loop
from hypernodes.execution.targets.diagnose import unreturned, unsent
from hypernodes.execution.targets.serialize import serialize_chunk_outcome
from hypernodes.executors.loops import resolve
from hypernodes.serialization.broadcast import BROADCAST_MIN_BYTES, Broadcast, broadcast
from hypernodes.serialization.pickling import dumps, serialize

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

    from daft import Series

    from hypernodes.serialization.broadcast import PlacedValue
    from hypernodes.serialization.pickling import Serialized

IN_DAFT: Final = -1
"""Stands in `OCCUPIED` where Daft has called: what is computed there is part of its query already."""

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
        indices: The index of each item, by its place in the query; by default they are the same.
        scope: Where the map is, if it is not the outermost one.
        context: For items that are run whole, what they have in common, less what is fixed.
        max_concurrent: How many coroutines run at a time.
        has_places: Whether the first column has the places of the items.
    """

    stage: Stage
    taken: tuple[Taken, ...]
    made: tuple[Made, ...]
    returned: tuple[str, ...]
    fixed: Mapping[str, Any]
    indices: Sequence[int] | None = None
    scope: Scope | None = None
    context: MapContext | None = None
    max_concurrent: int = 1
    has_places: bool = True

    def indices_of(self, places: Sequence[int]) -> Sequence[int]:
        """Return the indices of some items."""
        if not self.has_places:
            return [UNKNOWN] * len(places)
        if self.indices is not None:
            return [self.indices[place] for place in places]
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
        self._context = task.context and replace(task.context, fixed=dict(task.fixed))
        self._key = next(_keys)
        if not is_sent:
            _udfs[self._key] = self

    def __call__(self, *series: Series) -> Series:
        """Go over the items of some rows."""
        if self.task.stage.kind == "async":
            made: Series = resolve(self.on_loop(*series))
            return made
        places = self._places(series[0])
        occupied = OCCUPIED.set(OCCUPIED.get() | {IN_DAFT})
        try:
            self._wire.enter()
            columns = self._taken(series, places)
            indices = self.task.indices_of(places)
            if self._context is not None:
                chunk = _chunk(self._current(self._context), columns, indices)
                return self._reported_chunk(places, chunk, self._outcomes(chunk))
            return self._returned(places, self._made(columns, indices))
        except BaseException as error:
            self._wire.fail(error)
        finally:
            self._wire.leave()
            OCCUPIED.reset(occupied)

    async def on_loop(self, *series: Series) -> Series:
        """Go over the items of some rows, several at once."""
        places = self._places(series[0])
        OCCUPIED.set(OCCUPIED.get() | {IN_DAFT})  # in the context of this coroutine
        try:
            self._wire.enter()
            columns = self._taken(series, places)
            indices = self.task.indices_of(places)
            if self._context is not None:
                chunk = _chunk(self._current(self._context), columns, indices)
                items = [
                    replace(chunk, indices=[index], items=[item])
                    for index, item in zip(indices, chunk.items, strict=True)
                ]
                room = asyncio.Semaphore(self.task.max_concurrent)
                outcomes = await asyncio.gather(*(_awaited(item, room) for item in items))
                return self._reported_chunk(places, chunk, outcomes)
            made = await compute_on_loop(
                self.task.stage,
                columns,
                self.task.fixed,
                indices,
                asyncio.to_thread,
                self.task.max_concurrent,
                self.task.scope,
            )
            return self._returned(places, made)
        except ErrorCarrier as carrier:
            self._wire.fail(carrier.error)
        except BaseException as error:
            self._wire.fail(error)
        finally:
            self._wire.leave()

    def _current(self, context: MapContext) -> MapContext:
        """Return what items that are run whole have in common, with the code as it is now.

        A lazy data frame is computed some time after it was made.
        """
        if self.task.has_places or self.is_sent:
            return context
        return replace(context, fingerprints=fingerprint_plan(self.task.stage.plan))

    def _taken(self, series: Sequence[Series], places: Sequence[int]) -> dict[str, Any]:
        """Return what is taken for each item; the first column may be there for the places only."""
        others = series if self.task.taken and not self.task.has_places else series[1:]
        columns = self._wire.take(self.task.taken, others, places)
        if self.task.stage.kind == "batch":
            columns = {name: as_inferred(column) for name, column in columns.items()}
        return columns

    def _made(self, columns: Mapping[str, Any], indices: Sequence[int]) -> Mapping[str, Any]:
        task = self.task
        if task.stage.kind == "batch":
            return compute(task.stage, columns, task.fixed, indices, task.scope)
        made: dict[str, list[Any]] = {name: [] for name in task.stage.makes}
        for part in self._parts(len(indices)):
            taken = {name: column[part] for name, column in columns.items()}
            computed = compute(task.stage, taken, task.fixed, indices[part], task.scope)
            for name, column in computed.items():
                made[name] += column
        return made

    def _outcomes(self, chunk: Chunk) -> list[ChunkOutcome]:
        if chunk.context.plan.has_batch:
            return [_outcome(chunk)]
        raises, outcomes = chunk.context.on_error == "raise", []
        for part in self._parts(len(chunk.indices)):
            outcome = _outcome(replace(chunk, indices=chunk.indices[part], items=chunk.items[part]))
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
        plan, scope = self.task.stage.plan, self.task.scope
        around = () if scope is None else scope.items
        for name, column in report.outputs.items():
            for index, value in zip(self.task.indices_of(report.places), column, strict=True):
                try:
                    dumps(value)
                except Exception as failed:
                    error = unreturned({name: value}, failed)
                    where = Scope(plan.key, plan.path, (*around, index))
                    locate(error, plan.producers[name].name, where, {})
                    return error
        return failure

    def _reported_chunk(
        self, places: Sequence[int], chunk: Chunk, outcomes: Sequence[ChunkOutcome]
    ) -> Series:
        outcome = ChunkOutcome(
            [row for outcome in outcomes for row in outcome.rows],
            [event for outcome in outcomes for event in outcome.events],
            sum(outcome.seconds for outcome in outcomes),
            executed=sum(outcome.executed for outcome in outcomes),
            hits=sum(outcome.hits for outcome in outcomes),
        )
        self.task.stage.plan.flush()
        if not self.task.has_places:
            return self._returned(places, _columns(outcome.rows, self.task.stage.makes))
        sent: Any = outcome
        if isinstance(self._wire, Away):
            sent = serialize_chunk_outcome(chunk, outcome, 0)
        return self._wire.report(Report(places, outcome=sent))

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
    import pyarrow.compute as pc

    return bool(pc.all(pc.equal(pc.pairwise_diff(array), 1)).as_py())


def _together(columns: Mapping[str, Series]) -> Series:
    """Return columns as one, which has a field for each."""
    if len(columns) == 1:
        return next(iter(columns.values()))
    from daft import col
    from daft.expressions import ExpressionsProjection
    from daft.functions import to_struct
    from daft.recordbatch import RecordBatch

    batch = RecordBatch.from_pydict(dict(columns))
    struct = ExpressionsProjection([to_struct(*map(col, columns))])
    return batch.eval_expression_list(struct).get_column(0)


def _chunk(context: MapContext, columns: Mapping[str, Any], indices: Sequence[int]) -> Chunk:
    lists = {name: values(column) for name, column in columns.items()}
    items = [{name: column[position] for name, column in lists.items()} for position in range(len(indices))]
    return Chunk(0, context, list(indices), items)


def _columns(rows: Sequence[Any], names: Sequence[str]) -> dict[str, list[Any]]:
    failure = next((row for row in rows if isinstance(row, Failure)), None)
    if failure is not None:
        raise failure.error
    return {name: [row[name] for row in rows] for name in names}


def _outcome(chunk: Chunk) -> ChunkOutcome:
    outcome: Any = execute(chunk)
    return cast("ChunkOutcome", outcome)


async def _awaited(chunk: Chunk, room: asyncio.Semaphore) -> ChunkOutcome:
    async with room:
        try:
            outcome: Any = await execute_on_loop(chunk, asyncio.to_thread)
        except (KeyboardInterrupt, SystemExit) as error:
            raise ErrorCarrier(error) from None  # as itself it would end the event loop
    return cast("ChunkOutcome", outcome)


# ------------------------------------------------------------------------------ in another process


class SentUdf:
    """A stage on its way to other processes, in each of which it is deserialized once.

    Args:
        task: What its calls have in common.
        wire: How values come and go.
        place: Places a large value where every worker finds it.

    Raises:
        TransportError: A function or a fixed input cannot be pickled.
    """

    def __init__(self, task: Task, wire: Wire, place: Callable[[Serialized], PlacedValue]) -> None:
        self._wire = wire
        self._large: dict[str, Broadcast] = {}
        try:
            for name, value in task.fixed.items():
                serialized = serialize(value)
                if serialized.size >= BROADCAST_MIN_BYTES:
                    self._large[name] = broadcast(serialized, place)
            small = {name: value for name, value in task.fixed.items() if name not in self._large}
            self._task = broadcast(serialize(replace(task, fixed=small)), place)
        except Exception as failure:
            plan = task.stage.plan
            raise unsent(plan.calls(), task.fixed, repr(plan.label), failure) from failure

    def _here(self) -> Udf:
        task: Task = self._task.get()
        large = {name: value.get() for name, value in self._large.items()}
        return Udf(replace(task, fixed={**task.fixed, **large}), self._wire, is_sent=True)

    def __call__(self, *series: Series) -> Series:
        """Go over the items of some rows."""
        occupied = OCCUPIED.set(OCCUPIED.get() | {OTHER_PROCESS})
        try:
            return self._here()(*series)
        finally:
            OCCUPIED.reset(occupied)

    async def on_loop(self, *series: Series) -> Series:
        """Go over the items of some rows, several at once."""
        OCCUPIED.set(OCCUPIED.get() | {OTHER_PROCESS})
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
