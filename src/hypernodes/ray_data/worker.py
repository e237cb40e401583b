"""What the workers of Ray Data call: a stage of a pipeline, as a function of tables."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, TypeVar

import pyarrow as pa

from hypernodes.exceptions import HintError, MapError
from hypernodes.execution.calls.location import UNKNOWN, locate_output
from hypernodes.execution.current import OCCUPIED, OTHER_PROCESS
from hypernodes.execution.items import columns_of_rows, execute_chunk, execute_items_on_loop, merged
from hypernodes.execution.jobs import Failure
from hypernodes.execution.targets.diagnose import unreturned
from hypernodes.execution.targets.serialize_jobs import deserialize_job
from hypernodes.executors.context import own_context
from hypernodes.executors.loops import run_awaitable
from hypernodes.iterators import can_be_shared
from hypernodes.mapping import Columns
from hypernodes.ray_data.columns import list_of
from hypernodes.serialization.errors import ExceptionWrapper, as_remote_error
from hypernodes.serialization.pickling import is_serializable
from hypernodes.serialization.warning_filters import warning_filters
from hypernodes.text import described

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from hypernodes.execution.jobs import Chunk, ChunkOutcome, MapContext
    from hypernodes.execution.targets.serialize_jobs import SerializedJob
    from hypernodes.ray_data.columns import OutputColumn

T = TypeVar("T")

MAX_COROUTINES: Final = 10
"""How many coroutines of a worker run at once, as with the executor ``"async"``."""
FAST_SLICE_S: Final = 0.01
"""A slice of rows that took less than this many seconds is followed by a larger one.

What a slice returns is in the memory of the worker until Ray Data takes it, so that a slice of slow or large
rows should be small.
"""
SLICE_GROWTH: Final = 8
MAX_SHARED_VALUES: Final = 16
"""The maps whose values for all rows a worker process keeps."""


@dataclass(frozen=True, slots=True)
class StageTask:
    """What the calls of a stage have in common; it travels to the workers."""

    job: SerializedJob  # a chunk without items
    shared: SerializedJob | None  # what is computed once in each process, as a chunk of one item
    shared_key: str  # of this data set: what another one has computed may be out of date
    takes: tuple[tuple[str, str], ...]  # pairs of an input and its column
    makes: tuple[OutputColumn, ...]
    columns: tuple[tuple[str, str], ...]  # of the table that is returned: pairs of a name and its column
    fixed: tuple[OutputColumn, ...]  # the columns that have one value in all rows
    max_rows: int  # that a batch function or coroutines get at once
    error_column: str | None = None  # of the errors of rows that failed; ``None`` if errors are raised


class StageFunction:
    """A stage as a function of tables. Ray Data calls an instance, or makes one in each actor."""

    def __init__(self, task: StageTask) -> None:
        self._task = task

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        """Yield tables of the outputs of some rows each."""
        chunk = self._guarded(self._chunk)
        for start, end in _slices(table.num_rows, chunk.context, self._task.max_rows):
            yield self._guarded(self._mapped, chunk, table.slice(start, end - start))

    def _guarded(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function with the warning filters of the driver; errors are those that Ray hands on."""
        try:
            with warning_filters(self._task.job.filters):
                return own_context().run(_occupied, function, *args)
        except ExceptionWrapper as wrapper:
            raise _raisable(wrapper.error) from wrapper.error
        except BaseException as error:
            if (raisable := _raisable(error)) is error:
                raise
            raise raisable from error

    def _chunk(self) -> Chunk:
        job: Any = deserialize_job(self._task.job)
        chunk: Chunk = job
        if self._task.shared is None:
            return chunk
        return _with_fixed(chunk, _shared_values(self._task.shared, self._task.shared_key))

    def _mapped(self, chunk: Chunk, table: pa.Table) -> pa.Table:
        """Return the table of the outputs of some rows."""
        task, total = self._task, table.num_rows
        for name, column in task.takes:
            if column not in table.schema.names:
                raise MapError(
                    f"pipeline {chunk.context.plan.label!r}: some rows of the data set have no column "
                    f"{column!r}, which is the input {name!r}."
                )
        items = Columns({name: list_of(table.column(column)) for name, column in task.takes}, total)
        chunk = replace(chunk, indices=[UNKNOWN] * total, items=items)
        fixed = chunk.context.fixed
        computed, errors = self._computed_by_row(chunk) if self._uses_up(fixed) else self._computed(chunk)
        made = {output.column: self._array(output, computed[output.name], chunk) for output in task.makes}
        made |= {
            output.column: self._array(output, [fixed[output.name]] * total, chunk) for output in task.fixed
        }
        if task.error_column is not None:
            made[task.error_column] = pa.array(errors, pa.large_string())
        return pa.table(
            {
                name: made[column] if column in made else _column(table, column)
                for name, column in task.columns
            }
        )

    def _uses_up(self, fixed: Mapping[str, Any]) -> bool:
        """Whether rows would use up a value that is the same for all of them, such as an open file."""
        return self._task.shared is not None and not can_be_shared(fixed.values())

    def _computed_by_row(self, chunk: Chunk) -> tuple[Mapping[str, list[Any]], Sequence[str | None]]:
        """Do the same as `_computed`, with values for each row that are computed for it."""
        computed: dict[str, list[Any]] = {output.name: [] for output in self._task.makes}
        errors: list[str | None] = []
        job: Any = self._task.shared
        for position in range(len(chunk.indices)):
            row = _with_fixed(chunk.part(position, position + 1), _compute_shared(job))
            of_row, errors_of_row = self._computed(row)
            errors += errors_of_row
            for name in computed:
                computed[name] += of_row[name]
        return computed, errors

    def _computed(self, chunk: Chunk) -> tuple[Mapping[str, list[Any]], Sequence[str | None]]:
        """Return the outputs of rows by name, and their errors, if errors are returned."""
        names = [output.name for output in self._task.makes]
        if not chunk.indices or not chunk.context.plan.steps:
            return {name: [] for name in names}, [None] * len(chunk.indices)
        rows = _execute(chunk).rows
        chunk.context.plan.flush()
        if self._task.error_column is None:
            return columns_of_rows(rows, names), ()
        failed = [row.error if isinstance(row, Failure) else None for row in rows]
        outputs = {name: [None if isinstance(row, Failure) else row[name] for row in rows] for name in names}
        return outputs, [None if error is None else described(error) for error in failed]

    def _array(self, output: OutputColumn, column: Sequence[Any], chunk: Chunk) -> Any:
        try:
            return output.array(column)
        except HintError:
            raise
        except Exception as failure:
            for row, value in enumerate(column):
                if not is_serializable(value):
                    context, given = chunk.context, chunk.items[row]
                    error = unreturned({output.name: value}, failure)
                    locate_output(error, context.plan, output.name, context.scope, {**context.fixed, **given})
                    raise error from failure
            raise


def _occupied(function: Callable[..., T], *args: Any) -> T:
    """Call a function; nested engines do not multiply this process."""
    OCCUPIED.set(OCCUPIED.get() | {OTHER_PROCESS})  # in a context of its own
    return function(*args)


def _column(table: pa.Table, name: str) -> Any:
    if name in table.schema.names:
        return table.column(name)
    return pa.nulls(table.num_rows)  # Other rows of the data set have it.


def _slices(total: int, context: MapContext, max_rows: int) -> Iterator[tuple[int, int]]:
    """Yield the ends of slices of rows; without rows one, which has the columns of the outputs.

    A batch function and coroutines get many rows at once. Otherwise small slices come first.
    """
    start, size = 0, max_rows if context.plan.has_batch or context.plan.awaits else 1
    while start < total or not start:
        end = min(total, start + size)
        started = perf_counter()
        yield start, end
        if not total:
            return
        start = end
        if perf_counter() - started < FAST_SLICE_S:
            size = min(max_rows, size * SLICE_GROWTH)


def _execute(chunk: Chunk) -> ChunkOutcome:
    if chunk.context.plan.awaits and not chunk.context.plan.has_batch:
        return merged(run_awaitable(execute_items_on_loop(chunk, MAX_COROUTINES)))
    return execute_chunk(chunk)


def _raisable(error: BaseException) -> Exception:
    """Return an error that Ray hands on: it would end the worker for a SystemExit, and call it again."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration | StopAsyncIteration):
        return error
    return as_remote_error(error)


def _with_fixed(chunk: Chunk, values: Mapping[str, Any]) -> Chunk:
    fixed = {**chunk.context.fixed, **values}
    return replace(chunk, context=replace(chunk.context, fixed=fixed))


_values: Final[OrderedDict[str, Mapping[str, Any]]] = OrderedDict()
_lock: Final = threading.RLock()


def _compute_shared(job: SerializedJob) -> Mapping[str, Any]:
    chunk: Any = deserialize_job(job)
    chunk = replace(chunk, indices=[UNKNOWN], items=Columns({}, 1))
    computed = columns_of_rows(_execute(chunk).rows, chunk.context.plan.outputs)
    return {name: column[0] for name, column in computed.items()}


def _shared_values(job: SerializedJob, key: str) -> Mapping[str, Any]:
    """Return the values that are the same for all rows, which this process computes once."""
    with _lock:
        if key not in _values:
            _values[key] = _compute_shared(job)
            while len(_values) > MAX_SHARED_VALUES:
                _values.popitem(last=False)
        _values.move_to_end(key)
        return _values[key]
