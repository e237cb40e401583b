"""Run a query over items or over the rows of a data frame, and collect its results; or return it unrun.

source   a column for each input that varies, and one for the positions of the items
  │ UDF  one for each stage: a column of structs with a field for each value that others need,
  │  ⋮   and one for the report to the driver
select   the reports; or the outputs, as the columns of a lazy data frame
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import partial
from math import ceil
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, get_args

import daft
import pyarrow as pa
import pyarrow.compute as pc
from daft import DataFrame, DataType, Expression, Series
from daft.functions import monotonically_increasing_id

from hypernodes._compat.daft import (
    close_partitions,
    is_daft_error,
    is_dead_process,
    is_too_few_resources,
)
from hypernodes.callbacks.event import Scope
from hypernodes.engines.daft.builder import QueryBuilder
from hypernodes.engines.daft.call_marks import CallMarks
from hypernodes.engines.daft.columns import exact_series, inferred_type, object_series
from hypernodes.engines.daft.in_process_transport import InProcessTransport
from hypernodes.engines.daft.pickled_transport import PickledTransport
from hypernodes.engines.daft.runner import check_process
from hypernodes.engines.daft.streamed_transport import StreamedTransport
from hypernodes.engines.daft.transport import Report, ReportingTransport
from hypernodes.exceptions import (
    DaftError,
    HintWarning,
    HyperNodesError,
    ResourcesError,
    TransportError,
    UnpackError,
    WorkerDiedError,
    listing,
)
from hypernodes.execution.calls.location import locate_output, note
from hypernodes.execution.plan.output_hints import hint_of_output
from hypernodes.execution.targets.diagnose import unsent
from hypernodes.executors.exit_hook import ExitHook
from hypernodes.executors.loops import ASYNC_CALLER
from hypernodes.executors.ray.queues import check_hosts
from hypernodes.raw_errors import is_a
from hypernodes.serialization.pickling import is_serializable
from hypernodes.text import message_of
from hypernodes.user_warnings import warn_user

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from hypernodes.engines.daft.spec import QueryOptions, QuerySpec

POSITIONS: Final = "item position"
"""The name of the column of positions. An input cannot have it, since names of inputs are identifiers."""
BATCHES_PER_WORKER: Final = 4
"""How many batches of rows each worker gets, so that all workers end at about the same time."""


def query_items(
    spec: QuerySpec, columns: Mapping[str, list[Any]], total: int, options: QueryOptions
) -> Iterator[Report]:
    """Run a query over items in the memory of this process, and yield its reports as they arrive."""
    # The caller keeps the inputs in memory anyway, so the transport never releases them.
    transport = _reporting_transport(options, {**spec.readers, **dict.fromkeys(columns, 0)}, total)
    source: dict[str, Any] = {POSITIONS: _position_series(total)}
    dtypes: dict[str, DataType | None] = {}
    for name, column in columns.items():
        if name not in spec.readers:
            continue
        series = exact_series(column)
        is_typed = not series.datatype().is_python()
        dtypes[name] = series.datatype() if is_typed else None
        try:
            source[name] = series if is_typed else transport.write_objects(name, column, range(total))
        except Exception as failure:
            raise _unsent_item(spec, name, column, failure) from failure
    frame = daft.from_pydict(source)
    if options.batch_size is None and options.runner == "native":
        # Daft gives up to 131,072 rows to one thread, however long a function takes.
        size = max(1, ceil(total / (options.workers * BATCHES_PER_WORKER)))
        options = replace(options, plain_batch_size=size)
    if options.runner == "ray" and total > 1:
        frame = frame.into_partitions(min(total, options.workers))
    yield from _reports(spec, frame, dtypes, transport, options)


def _unsent_item(spec: QuerySpec, name: str, column: list[Any], failure: Exception) -> TransportError:
    """Return the error that says which item of an input cannot be pickled, and whose it is."""
    position = next((number for number, value in enumerate(column) if not is_serializable(value)), 0)
    index = position if spec.indices is None else spec.indices[position]
    plan = next(stage.plan for stage in spec.stages if name in stage.takes)
    readers = [step for step in plan.calls() if any(name == argument for _, argument in step.arguments)]
    pipeline = repr("/".join(plan.path))
    error = unsent(readers, {f"{name}[{index}]": column[position]}, f"{pipeline}, item {index}", failure)
    note(error, f"in item {index} of pipeline {pipeline}")
    return error


def query_frame(spec: QuerySpec, frame: DataFrame, options: QueryOptions) -> Iterator[Report]:
    """Run a query over the rows of a data frame, and yield its reports as they arrive."""
    transport = _reporting_transport(options, spec.readers)
    needed = spec.columns_needed
    frame = frame.select(*needed).with_column(POSITIONS, monotonically_increasing_id())
    yield from _reports(spec, frame, _dtypes(frame, needed), transport, options)


def lazy_frame(spec: QuerySpec, frame: DataFrame, options: QueryOptions, kept: Sequence[str]) -> DataFrame:
    """Return a data frame with the outputs, and the kept columns, of which nothing is computed yet."""
    names = frame.column_names
    dtypes = _dtypes(frame, spec.columns_needed)
    transport = StreamedTransport(is_remote=options.is_remote)
    _check_resources(spec, options)
    builder = QueryBuilder(spec, frame, dtypes, transport, options, names[0])
    builder.add_stages()
    outputs = [name for name in spec.outputs if name not in kept]
    _warn_of_objects(spec, outputs)
    given = [name for name in outputs if name not in spec.computed]
    result = builder.frame.select(
        *kept,
        *(builder.values[name][0].alias(name) for name in outputs if name in spec.computed),
        *(name for name in given if name in names),
        *(_constant(spec.fixed[name], names[0]).alias(name) for name in given if name not in names),
    ).select(*kept, *outputs)
    if options.show_plan:
        print_plan(result)
    return result


def _warn_of_objects(spec: QuerySpec, names: Sequence[str]) -> None:
    """Warn of the columns that have a hint, and hold Python objects all the same."""
    for stage in spec.stages:
        for name in stage.makes:
            hint = hint_of_output(stage.plan, name)
            if (
                name not in names
                or hint in (None, type(None), Any, object)
                or inferred_type(hint) is not None
            ):
                continue
            warn_user(
                f"output {name!r} of node {stage.plan.producers[name].name!r}: its column holds Python "
                f"objects, since Daft has no type for the hint {_name_of(hint)}. Other tools cannot read it "
                f"from files, and filters on it fail. Use a hint such as int, datetime.date, list[float], "
                f"numpy.typing.NDArray[numpy.float64] or a TypedDict, or leave it out.",
                HintWarning,
            )


def _check_resources(spec: QuerySpec, options: QueryOptions) -> None:
    """Raise an error for what no host of a Ray cluster has: Daft would wait for it, without a word."""
    if options.runner != "ray":
        return
    for stage in spec.stages:
        # Daft's functions have no option for memory.
        where = f"in node {stage.name!r} of pipeline {'/'.join(stage.plan.path)!r}"
        check_hosts(replace(stage.resources, memory=None), where)


def _name_of(hint: Any) -> str:
    return hint.__qualname__ if isinstance(hint, type) and not get_args(hint) else str(hint)


def print_plan(frame: DataFrame) -> None:
    """Print the plan of a data frame."""
    frame.explain(show_all=True)


def _reporting_transport(
    options: QueryOptions, readers: Mapping[str, int], total: int | None = None
) -> ReportingTransport:
    if not options.is_remote:
        return InProcessTransport(readers)
    return PickledTransport(CallMarks(total) if options.runner == "ray" else None)


def _position_series(total: int) -> Series:
    # pa.array(range(total)) makes an int of each position first, which takes longer than most queries.
    return Series.from_arrow(pc.cumulative_sum(pa.repeat(pa.scalar(1, pa.int64()), total), start=-1))


def _constant(value: Any, column: str) -> Expression:
    """Return an expression that has a value in every row, as many as a column has."""
    if not exact_series([value]).datatype().is_python():
        literal: Expression = daft.lit(value)
        return literal

    @daft.func.batch(return_dtype=daft.DataType.python(), use_process=False)
    def constant(rows: Series) -> Series:
        return object_series([value] * len(rows))

    expression: Expression = constant(daft.col(column))
    return expression


def _dtypes(frame: DataFrame, names: Sequence[str]) -> dict[str, DataType | None]:
    schema = frame.schema()
    return {name: schema[name].dtype for name in names}


def _reports(
    spec: QuerySpec,
    frame: DataFrame,
    dtypes: dict[str, DataType | None],
    transport: ReportingTransport,
    options: QueryOptions,
) -> Iterator[Report]:
    """Run a query, and yield its reports; the last one has the error, if there is one."""
    check_process()
    _check_resources(spec, options)
    builder = QueryBuilder(spec, frame, dtypes, transport, options, POSITIONS)
    builder.add_stages()
    result = builder.frame.select(*builder.reports)
    if options.show_plan:
        print_plan(result)
    partitions = Partitions(result.iter_partitions(), transport)
    last: list[Report] = []
    is_complete = False
    caller = ASYNC_CALLER.get()
    if caller is not None:
        caller.on_cancel(transport.stop)
    try:
        for partition in partitions:
            # No local variable holds a report: an error that Daft keeps may refer to this frame.
            yield from map(partial(_located, spec), transport.read_reports(partition))
        yield from transport.read_reports()
        is_complete = True
    except Exception as error:
        transport.stop()
        if caller is not None and caller.is_cancelled:
            caller.stop()
        original = transport.original_error(error)
        is_of_daft = original is error and not is_a(error, HyperNodesError)
        if is_of_daft and is_dead_process(error):
            last.append(Report((), error=_death(spec, error)))
        else:
            last.append(Report((), error=_explained(original)))
        del original
    finally:
        if caller is not None:
            caller.remove(transport.stop)
        if not is_complete:  # It has failed, or the user has interrupted it or takes no more reports.
            transport.stop()
        transport.close()
        partitions.close()
        transport.release()
    # The error is yielded, not raised: a generator cannot raise a StopIteration, and an error that is raised
    # above would get the one of Daft as its context. No variable of this frame refers to it meanwhile.
    while last:
        yield last.pop()


def _death(spec: QuerySpec, error: BaseException) -> WorkerDiedError:
    names = sorted({step.name for stage in spec.stages for step in stage.plan.calls()})
    return WorkerDiedError(f"a process of Daft has ended that computed {listing(names)}: {message_of(error)}")


def _located(spec: QuerySpec, report: Report) -> Report:
    """Note on the error of an output that cannot be unpickled here which node has made it, for which item."""
    error = report.error
    if not is_a(error, UnpackError) or error.output is None:
        return report
    plan = next(stage.plan for stage in spec.stages if error.output in stage.makes)
    index = report.positions[0] if spec.indices is None else spec.indices[report.positions[0]]
    scope = (spec.scope or Scope(plan.key, plan.path)).of_item(index)
    locate_output(error, plan, error.output, scope, spec.fixed)
    return report


def _explained(error: BaseException) -> BaseException:
    """Return an error that says what to do in place of one that Daft has raised by itself."""
    if is_a(error, HyperNodesError) or not is_daft_error(error):
        return error
    if is_too_few_resources(error):
        return ResourcesError(
            f"{error}. Ask for fewer, @node(num_cpus=...), or use a larger machine or cluster."
        )
    return DaftError(f"Daft could not run the query: {message_of(error)}")


class Partitions:
    """The partitions of the result of a query, as they are computed.

    A daemon thread that is within Daft when the program ends would abort the process (exit code 134). So the
    program first stops queries that a coroutine has abandoned, and waits until their threads have left Daft.
    """

    def __init__(self, partitions: Iterator[Any], transport: ReportingTransport) -> None:
        self._partitions = partitions
        self._transport = transport
        self._within_daft = Lock()
        exit_hook.register(self)

    def __iter__(self) -> Iterator[Any]:
        end = object()
        while True:
            with self._within_daft:
                partition = next(self._partitions, end)
            if partition is end:
                return
            yield partition

    def close(self) -> None:
        """End the query."""
        with self._within_daft, suppress(Exception):
            close_partitions(self._partitions)

    def end(self) -> None:
        """Stop the query, and wait until no thread is within Daft for it."""
        self._transport.stop()
        self.close()
        self._transport.close(timeout=None)


exit_hook: Final[ExitHook[Partitions]] = ExitHook(Partitions.end)


class Results:
    """Collects the outputs of a query from its reports, which arrive in any order."""

    def __init__(self, spec: QuerySpec, inputs: Mapping[str, list[Any]] | None = None) -> None:
        self._spec = spec
        self._inputs = inputs or {}
        self._parts: dict[str, list[tuple[Sequence[int], list[Any]]]] = {
            name: [] for name in spec.outputs if name in spec.computed
        }
        self._warned: set[str] = set()

    def add_all(self, reports: Iterable[Report]) -> None:
        """Add reports; see `add`."""
        report = None
        try:
            for report in reports:
                self.add(report)
        finally:
            del report  # the traceback of an error refers to this frame

    def add(self, report: Report) -> None:
        """Add a report; warn of each output that contradicts its hint, once."""
        if report.error is not None:
            try:
                raise report.error
            finally:
                del report  # the traceback of the error refers to this frame
        for name, column in report.outputs.items():
            self._parts[name].append((report.positions, column))
        for name, error in report.hint_errors.items():
            if name not in self._warned:
                self._warned.add(name)
                warn_user(f"{error} Until then, its values go as Python objects.", HintWarning)

    def columns(self, total: int | None = None) -> dict[str, list[Any]]:
        """Return all values of each output that was asked for."""
        computed = {name: _in_order(parts) for name, parts in self._parts.items()}
        if total is None:
            total = len(next(iter(computed.values()), ()))
        for name, column in computed.items():
            if len(column) != total:
                raise DaftError(
                    f"Daft returned output {name!r} for {len(column)} of {total} items, without an error. "
                    f"Please report it, with the pipeline; HyperNodesEngine runs the pipeline without Daft."
                )
        known = {**self._inputs, **computed}
        return {
            name: known[name] if name in known else [self._spec.fixed[name]] * total
            for name in self._spec.outputs
        }


def _in_order(parts: list[tuple[Sequence[int], list[Any]]]) -> list[Any]:
    """Return the values of all parts by position; each part has the positions of its values."""
    parts = sorted((part for part in parts if part[0]), key=lambda part: part[0][0])
    if len(parts) == 1 and isinstance(parts[0][0], range):
        return parts[0][1]
    ends = [positions[-1] for positions, _ in parts[:-1]]
    is_sorted = all(isinstance(positions, range) for positions, _ in parts) and all(
        end < positions[0] for end, (positions, _) in zip(ends, parts[1:], strict=True)
    )
    if is_sorted:
        return [value for _, column in parts for value in column]
    pairs = [pair for positions, column in parts for pair in zip(positions, column, strict=True)]
    return [value for _, value in sorted(pairs, key=lambda pair: pair[0])]
