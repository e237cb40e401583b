"""The functions that Daft calls: a stage of a plan, as a function of columns."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from itertools import count
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakValueDictionary

from daft import Series

from hypernodes._compat.daft import ROWS_OF_FIRST_PARTITION, struct_series
from hypernodes.callbacks.event import Scope
from hypernodes.engines.daft.columns import as_inferred
from hypernodes.engines.daft.spec import KNOWN_RESULTS
from hypernodes.engines.daft.transport import InputColumn, OutputColumn, Report, ReportingTransport, Transport
from hypernodes.exceptions import DaftError, HintError
from hypernodes.execution.calls.batch import values
from hypernodes.execution.calls.location import UNKNOWN, locate, locate_output
from hypernodes.execution.current import OCCUPIED
from hypernodes.execution.items import columns_of_rows, execute_chunk, execute_items_on_loop, merged
from hypernodes.execution.jobs import Chunk, ChunkOutcome, Failure, MapContext, SignedStep
from hypernodes.execution.signature import fingerprint_plan
from hypernodes.execution.stages import Stage, compute, compute_on_loop
from hypernodes.execution.targets.diagnose import unreturned
from hypernodes.execution.targets.same_code import unreadable_input
from hypernodes.executors.context import own_context
from hypernodes.executors.loops import in_thread, run_awaitable
from hypernodes.mapping import Columns
from hypernodes.serialization.errors import ExceptionWrapper
from hypernodes.serialization.pickling import dumps
from hypernodes.serialization.salvage import Lost

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hypernodes.engines.daft.shared import SharedValues

IN_DAFT: Final = -1
"""Stands in `OCCUPIED` for code that Daft has called: pipelines that run there make no query of their own."""
REPORT: Final = "report to the driver"
"""The name of the struct field for reports. No output has it, since names of outputs are identifiers."""
FAST_SLICE_S: Final = 0.01
"""A slice of items that took less than this many seconds is followed by a larger one.

Between slices, a UDF checks whether its query was cancelled: short slices let Ctrl-C end it soon.
"""
SLICE_GROWTH: Final = 8
"""The factor by which slices grow, so that checks cost little where items are fast."""


@dataclass(frozen=True, slots=True)
class StageTask:
    """What the calls of a UDF have in common."""

    stage: Stage
    inputs: tuple[InputColumn, ...]  # the values that the stage takes for each item
    outputs: tuple[OutputColumn, ...]  # the values for other stages, or for the data frame
    results: tuple[str, ...]  # the names of those for the driver
    fixed: Mapping[str, Any]  # the values that are the same for all items
    indices: Sequence[int] | None = None  # of each item, by its position; by default the position itself
    scope: Scope | None = None  # of the map, if it is not the outermost one
    context: MapContext | None = None  # without what is fixed, if items are executed as chunks
    signed: SignedStep | None = None  # of a call that is made by itself
    max_concurrent: int = 1
    shared: SharedValues | None = None  # what is the same for all items, and is not computed yet


class StageUdf:
    """A stage as a function of columns.

    In a query that reports, the first column has the positions of the items. In a lazy data frame it is an
    input; if the stage has no inputs, it is any column, and only tells how many rows there are.
    """

    def __init__(self, task: StageTask, transport: Transport, *, is_remote: bool = False) -> None:
        self._task = task
        self._transport = transport
        self._reporting: ReportingTransport | None = transport.reporting
        self._context = task.context and replace(task.context, fixed=dict(task.fixed))
        self._is_remote = is_remote
        self._base = own_context()  # of the code that made the query, which Daft's threads do not have
        self._key = next(_keys)
        if not is_remote:
            _udfs[self._key] = self

    def __call__(self, *series: Series) -> Series:
        """Compute the stage for the items of some rows."""
        return own_context(self._base).run(self._call, *series)

    async def on_loop(self, *series: Series) -> Series:
        """Compute the stage for the items of some rows, several items at once."""
        loop = asyncio.get_running_loop()
        return await loop.create_task(self._call_on_loop(*series), context=own_context(self._base))

    def _call(self, *series: Series) -> Series:
        if self._task.stage.kind == "async":
            returned: Series = run_awaitable(self._call_on_loop(*series))
            return returned
        OCCUPIED.set(OCCUPIED.get() | {IN_DAFT})
        try:
            self._transport.begin_call()
            return self._return(series)
        except BaseException as error:  # Daft keeps what is raised here, with this frame: it has no values.
            self._transport.raise_error(error)
        finally:
            self._transport.end_call()

    async def _call_on_loop(self, *series: Series) -> Series:
        OCCUPIED.set(OCCUPIED.get() | {IN_DAFT})
        try:
            self._transport.begin_call()
            return await self._return_on_loop(series)
        except ExceptionWrapper as wrapper:
            self._transport.raise_error(wrapper.error)
        except BaseException as error:
            self._transport.raise_error(error)
        finally:
            self._transport.end_call()

    def _return(self, series: Sequence[Series]) -> Series:
        positions = self._positions(series[0])
        columns = self._inputs(series, positions)
        indices = self._indices(positions)
        if self._context is not None:
            chunk = _chunk(self._current(self._context), columns, indices)
            return self._return_outcomes(positions, chunk, self._execute(chunk))
        return self._return_columns(positions, columns, self._compute(columns, indices))

    async def _return_on_loop(self, series: Sequence[Series]) -> Series:
        positions = self._positions(series[0])
        columns = self._inputs(series, positions)
        indices = self._indices(positions)
        if self._context is not None:
            chunk = _chunk(self._current(self._context), columns, indices)
            outcomes = await execute_items_on_loop(chunk, self._task.max_concurrent)
            return self._return_outcomes(positions, chunk, outcomes)
        return self._return_columns(positions, columns, await self._compute_on_loop(columns, indices))

    # -------------------------------------------------------------------------------------- inputs

    def _positions(self, first: Series) -> Sequence[int]:
        """Return the positions of the items in the query, as a range if they are consecutive."""
        if self._reporting is None:
            return range(len(first))
        if not len(first):
            return range(0)
        array = first.to_arrow()
        start, end, length = array[0].as_py(), array[-1].as_py(), len(array)
        if end - start == length - 1 and (length < 3 or _is_consecutive(array)):
            return range(start, end + 1)
        positions: list[int] = array.to_pylist()
        return positions

    def _indices(self, positions: Sequence[int]) -> Sequence[int]:
        """Return the indices of the items in their map, as far as they are known."""
        if self._reporting is None:
            return [UNKNOWN] * len(positions)
        if (indices := self._task.indices) is not None:
            return [indices[position] for position in positions]
        if isinstance(positions, range) and positions.stop <= ROWS_OF_FIRST_PARTITION:
            return positions
        return [position if position < ROWS_OF_FIRST_PARTITION else UNKNOWN for position in positions]

    def _inputs(self, series: Sequence[Series], positions: Sequence[int]) -> dict[str, Any]:
        """Return the inputs of the stage as lists or Arrow arrays, by name."""
        inputs = self._task.inputs
        columns = series if inputs and self._reporting is None else series[1:]
        read = self._transport.read_inputs(inputs, columns, positions)
        if self._is_remote and self._context is None:
            self._check_inputs(read, positions)
        if self._task.stage.kind == "batch":
            return {name: as_inferred(column) for name, column in read.items()}
        return read

    def _check_inputs(self, columns: Mapping[str, Any], positions: Sequence[int]) -> None:
        """Raise the error of the first item that has an input which cannot be unpickled here."""
        for name, column in columns.items():
            for row, value in enumerate(column):
                if type(value) is Lost:
                    plan = self._task.stage.plan
                    scope = (self._task.scope or Scope(plan.key, plan.path)).of_item(
                        self._indices(positions)[row]
                    )
                    step = next(step for step in plan.steps if name in dict(step.arguments).values())
                    given = {
                        parameter: columns[argument][row]
                        for parameter, argument in step.arguments
                        if argument in columns
                    }
                    error = unreadable_input(name, value.error)
                    locate(error, step, scope, given)
                    raise error

    # ----------------------------------------------------------------------------------- computing

    def _current(self, context: MapContext) -> MapContext:
        """Return the context of the map with the fingerprints of the code as it is now.

        A lazy data frame may be computed long after it was made, and functions of this process may have
        changed since. Functions from another process come as they were when their fingerprints were taken.
        """
        if self._reporting is not None or self._is_remote:
            return context
        return replace(context, fingerprints=fingerprint_plan(self._task.stage.plan))

    def _compute(self, columns: Mapping[str, Any], indices: Sequence[int]) -> Mapping[str, Any]:
        stage, shared = self._task.stage, self._task.shared
        fixed = self._task.fixed
        if shared is None:
            return self._compute_with(fixed, columns, indices)
        if (values_of_all := shared.get(stage, fixed)) is not None:
            return self._compute_with({**fixed, **values_of_all}, columns, indices)
        return _joined(
            stage,
            [
                self._compute_with({**fixed, **shared.of_row(stage, fixed)}, *row)
                for row in _rows(columns, indices)
            ],
        )

    def _compute_with(
        self, fixed: Mapping[str, Any], columns: Mapping[str, Any], indices: Sequence[int]
    ) -> Mapping[str, Any]:
        task = self._task
        if task.stage.kind == "shared":
            return {name: [fixed[name]] * len(indices) for name in task.stage.makes}
        if task.stage.kind == "batch":
            return compute(task.stage, columns, fixed, indices, task.scope)
        parts = []
        for part in self._slices(len(indices)):
            taken = {name: column[part] for name, column in columns.items()}
            parts.append(compute(task.stage, taken, fixed, indices[part], task.scope))
        return _joined(task.stage, parts)

    async def _compute_on_loop(self, columns: Mapping[str, Any], indices: Sequence[int]) -> Mapping[str, Any]:
        task, shared = self._task, self._task.shared
        options = (in_thread, task.max_concurrent, task.scope)
        fixed = task.fixed
        if shared is None:
            return await compute_on_loop(task.stage, columns, fixed, indices, *options)
        if (values_of_all := await in_thread(shared.get, task.stage, fixed)) is not None:
            return await compute_on_loop(task.stage, columns, {**fixed, **values_of_all}, indices, *options)
        parts = []
        for row in _rows(columns, indices):
            of_row = await in_thread(shared.of_row, task.stage, fixed)
            parts.append(await compute_on_loop(task.stage, row[0], {**fixed, **of_row}, row[1], *options))
        return _joined(task.stage, parts)

    def _execute(self, chunk: Chunk) -> list[ChunkOutcome]:
        if chunk.context.plan.has_batch:
            return [execute_chunk(chunk)]
        raises = chunk.context.on_error == "raise"
        outcomes: list[ChunkOutcome] = []
        try:
            for part in self._slices(len(chunk.indices)):
                outcomes.append(execute_chunk(chunk.part(part.start, part.stop)))
                if raises and any(isinstance(row, Failure) for row in outcomes[-1].rows):
                    break
            return list(outcomes)
        finally:
            outcomes.clear()  # the frame of a function that has raised refers to this frame

    def _slices(self, total: int) -> Iterator[slice]:
        """Yield slices of the items, small ones first; check after each whether the query was cancelled."""
        start, size = 0, 1
        while start < total:
            started = perf_counter()
            yield slice(start, start + size)
            start += size
            if perf_counter() - started < FAST_SLICE_S:
                size *= SLICE_GROWTH
            self._transport.check_cancelled()

    # ------------------------------------------------------------------------------------- outputs

    def _return_columns(
        self, positions: Sequence[int], columns: Mapping[str, Any], computed: Mapping[str, Any]
    ) -> Series:
        try:
            written, hint_errors = self._transport.write_outputs(self._task.outputs, computed, positions)
        except HintError:
            raise
        except Exception as failure:
            made = {output.name: values(computed[output.name]) for output in self._task.outputs}
            raise self._unreturned(Report(positions, made), columns, failure) from failure
        if self._reporting is not None:
            outputs = {name: values(computed[name]) for name in self._task.results}
            report = Report(positions, outputs, hint_errors=hint_errors)
            try:
                written[REPORT] = self._reporting.write_report(report)
            except Exception as failure:
                raise self._unreturned(report, columns, failure) from failure
        return next(iter(written.values())) if len(written) == 1 else struct_series(written)

    def _unreturned(self, report: Report, columns: Mapping[str, Any], failure: Exception) -> Exception:
        """Return the error that says which output of which item cannot be pickled."""
        plan, scope = self._task.stage.plan, self._task.scope
        outer_items = () if scope is None else scope.items
        for name, column in report.outputs.items():
            for row, value in enumerate(column):
                try:
                    dumps(value)
                except Exception as failed:
                    error = unreturned({name: value}, failed)
                    index = self._indices(report.positions)[row]
                    item_scope = Scope(plan.key, plan.path, (*outer_items, index))
                    of_row = {known: values(of_all)[row] for known, of_all in columns.items()}
                    of_row |= {known: of_all[row] for known, of_all in report.outputs.items()}
                    locate_output(error, plan, name, item_scope, {**self._task.fixed, **of_row})
                    return error
        return failure

    def _return_outcomes(
        self, positions: Sequence[int], chunk: Chunk, outcomes: Sequence[ChunkOutcome]
    ) -> Series:
        outcome = merged(outcomes)
        self._task.stage.plan.flush()
        if self._reporting is None:
            makes = self._task.stage.makes
            return self._return_columns(positions, {}, columns_of_rows(outcome.rows, makes))
        return self._reporting.write_outcome(positions, chunk, outcome)

    def __reduce__(self) -> tuple[Any, ...]:
        return _udf_of_this_process, (self._key,)  # Daft pickles its plan, and unpickles it in this process.


_keys: Final[Iterator[int]] = count()
_udfs: Final[WeakValueDictionary[int, StageUdf]] = WeakValueDictionary()


def _udf_of_this_process(key: int) -> StageUdf:
    try:
        return _udfs[key]
    except KeyError:
        raise DaftError(
            "this query was made for Daft's native runner in another process, where its functions are. Make "
            "the query in the process that runs it."
        ) from None


def _is_consecutive(array: Any) -> bool:
    import pyarrow.compute as pc  # It takes a tenth of the time in which a process of Daft starts.

    return bool(pc.all(pc.equal(pc.pairwise_diff(array), 1)).as_py())


def _rows(
    columns: Mapping[str, Any], indices: Sequence[int]
) -> Iterator[tuple[dict[str, Any], Sequence[int]]]:
    """Yield the columns and the index of each item."""
    for start in range(len(indices)):
        row = slice(start, start + 1)
        yield {name: column[row] for name, column in columns.items()}, indices[row]


def _joined(stage: Stage, parts: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the outputs of parts of the items as lists."""
    joined: dict[str, list[Any]] = {name: [] for name in stage.makes}
    for part in parts:
        for name in joined:
            joined[name] += values(part[name])
    return joined


def _chunk(context: MapContext, columns: Mapping[str, Any], indices: Sequence[int]) -> Chunk:
    lists = {name: values(column) for name, column in columns.items()}
    known = dict(enumerate(lists.pop(KNOWN_RESULTS, ())))
    return Chunk(0, context, list(indices), Columns(lists, len(indices)), known=known)
