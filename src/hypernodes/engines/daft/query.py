"""A plan over items as a Daft query.

source       a column for each input that varies, and the places of the items
  │ UDF      one for each stage: a column that has a field for each value that others need,
  │  ⋮       and one for what comes back to the driver
select       what comes back, or the outputs as columns
"""

from __future__ import annotations

import os
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count
from math import ceil
from typing import TYPE_CHECKING, Any, Final, Literal

from hypernodes.engines.daft.columns import exact, hints_of, objects, type_of
from hypernodes.engines.daft.udf import REPORT, SentUdf, Task, Udf, function_of
from hypernodes.engines.daft.wire import Away, Here, Made, Report, Taken, Through, Wire, spare_of
from hypernodes.exceptions import DaftError, HyperNodesError, ResourcesError
from hypernodes.execution.plan.model import CallStep, NestedStep
from hypernodes.execution.stages import as_single_stage, split
from hypernodes.serialization.broadcast import InlineValue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from daft import DataFrame, DataType, Expression, Series

    from hypernodes.callbacks.event import Scope
    from hypernodes.execution.jobs import MapContext
    from hypernodes.execution.plan.model import Plan
    from hypernodes.execution.stages import Stage
    from hypernodes.serialization.broadcast import PlacedValue
    from hypernodes.serialization.pickling import Serialized

PLACES: Final = "item number"  # which is no name of an input: those are identifiers

_AT_ONCE: Final = 10  # coroutines, as with the executor "async"
PARTS: Final = 4  # for each worker, so that all end at about the same time
_MOST_STAGES: Final = 40
_NAMED: Final = 4  # nodes of a stage that its name has


@dataclass(frozen=True, slots=True)
class Options:
    """How an engine's queries are run.

    Attributes:
        runner: Who runs them.
        batch_size: How many rows a UDF gets at most.
        concurrency: How many processes each UDF has, and how many coroutines an async one.
        show_plan: Whether their plans are printed.
        plain_size: How many rows a UDF of plain functions gets, if there is no ``batch_size``.
    """

    runner: Literal["native", "ray"]
    batch_size: int | None = None
    concurrency: int | None = None
    show_plan: bool = False
    plain_size: int | None = None

    @property
    def is_far(self) -> bool:
        """Whether other processes compute."""
        return self.runner == "ray" or self.concurrency is not None

    def place(self, serialized: Serialized) -> PlacedValue:
        """Place what many calls have in common where each process finds it."""
        if self.runner != "ray":
            return InlineValue(serialized)
        from hypernodes.executors.ray.future import shared

        return shared(serialized, by_ray=False)


@dataclass(frozen=True)
class Job:
    """What a query is to compute.

    Attributes:
        stages: In an order in which each comes after what it needs.
        outputs: What is asked for.
        fixed: What all items have in common.
        indices: The index of each item, if that is not its place.
        scope: Where the map is, if it is not the outermost one.
        context: For items that are run whole, what they have in common.
    """

    stages: Sequence[Stage]
    outputs: tuple[str, ...]
    fixed: Mapping[str, Any]
    indices: Sequence[int] | None = None
    scope: Scope | None = None
    context: MapContext | None = None

    @cached_property
    def takers(self) -> Counter[str]:
        """How many stages take each value."""
        return Counter(name for stage in self.stages for name in stage.takes)

    @cached_property
    def made(self) -> set[str]:
        """What the stages make."""
        return {name for stage in self.stages for name in stage.makes}


def stages_of(plan: Plan, fixed: Mapping[str, Any], *, finely: bool = False) -> list[Stage]:
    """Return the stages of a plan, as many as Daft survives: at some 100 of them it ends the process."""
    if finely and len(found := split(plan, fixed, finely=True)) <= _MOST_STAGES:
        return found
    found = split(plan, fixed)
    return found if len(found) <= _MOST_STAGES else [as_single_stage(plan, fixed)]


def over_items(job: Job, columns: Mapping[str, list[Any]], total: int, options: Options) -> Iterator[Report]:
    """Run a query over items that are here, and yield what comes of them as it comes.

    Args:
        job: What to compute.
        columns: The inputs that vary.
        total: How many items there are.
        options: How to run it.
    """
    import daft

    takers = job.takers
    # Inputs stay: whoever has called has them all the same.
    wire: Wire = Away() if options.is_far else Here({**takers, **dict.fromkeys(columns, 0)})
    places = range(total)
    source: dict[str, Any] = {PLACES: _numbered(total)}
    dtypes: dict[str, DataType | None] = {}
    for name, column in columns.items():
        if name not in takers:
            continue
        series = exact(column)
        dtypes[name] = None if series.datatype().is_python() else series.datatype()
        source[name] = wire.put(name, column, places) if dtypes[name] is None else series
    frame = daft.from_pydict(source)
    if options.batch_size is None and options.runner == "native":
        # Daft would give few rows to one thread, however long a function takes.
        options = replace(options, plain_size=max(1, ceil(total / (workers(options) * PARTS))))
    if options.runner == "ray" and total > 1:
        frame = frame.into_partitions(min(total, workers(options)))
    yield from _collected(job, frame, dtypes, wire, options)


def _numbered(total: int) -> Series:
    import pyarrow as pa
    import pyarrow.compute as pc
    from daft import Series

    # An array of a range would make an int of each number first, which takes longer than most queries.
    return Series.from_arrow(pc.cumulative_sum(pa.repeat(pa.scalar(1, pa.int64()), total), start=-1))


def over_frame(job: Job, frame: DataFrame, options: Options) -> Iterator[Report]:
    """Run a query over the rows of a data frame, and yield what comes of them as it comes."""
    from daft.functions import monotonically_increasing_id

    wire: Wire = Away() if options.is_far else Here(job.takers)
    used = [name for name in job.takers if name not in job.made]
    frame = frame.select(*used).with_column(PLACES, monotonically_increasing_id())
    yield from _collected(job, frame, _dtypes(frame, used), wire, options)


def through(job: Job, frame: DataFrame, options: Options, kept: Sequence[str]) -> DataFrame:
    """Return a data frame with the outputs as columns; nothing is computed yet.

    Args:
        job: What to compute.
        frame: Where the inputs come from.
        options: How to compute it.
        kept: The columns that it is to keep.
    """
    names = frame.column_names
    used = [name for name in job.takers if name not in job.made]
    built = _Building(job, frame, _dtypes(frame, used), Through(far=options.is_far), options, names[0])
    built.add_stages()
    outputs = [name for name in job.outputs if name not in kept]
    final = built.frame.select(
        *kept,
        *(built.values[name][0].alias(name) for name in outputs if name in job.made),
        *(name for name in outputs if name not in job.made and name in names),
        *(
            _same_for_all(job.fixed[name], names[0]).alias(name)
            for name in outputs
            if name not in job.made and name not in names
        ),
    ).select(*kept, *outputs)
    if options.show_plan:
        show(final)
    return final


def _same_for_all(value: Any, column: str) -> Expression:
    """Return an expression that has a value in every row, as it is."""
    import daft

    if not exact([value]).datatype().is_python():
        literal: Expression = daft.lit(value)
        return literal

    @daft.func.batch(return_dtype=daft.DataType.python(), use_process=False)
    def repeated(rows: Series) -> Series:
        return objects([value] * len(rows))

    expression: Expression = repeated(daft.col(column))
    return expression


def workers(options: Options) -> int:
    """Return how many CPUs compute."""
    if options.runner != "ray":
        return os.cpu_count() or 4
    import ray

    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def _dtypes(frame: DataFrame, names: Sequence[str]) -> dict[str, DataType | None]:
    schema = frame.schema()
    return {name: schema[name].dtype for name in names}


def _collected(
    job: Job, frame: DataFrame, dtypes: Mapping[str, DataType | None], wire: Wire, options: Options
) -> Iterator[Report]:
    built = _Building(job, frame, dtypes, wire, options, PLACES)
    built.add_stages()
    final = built.frame.select(*built.reports)
    if options.show_plan:
        show(final)
    partitions = final.iter_partitions()
    try:
        for partition in partitions:
            yield from wire.arrived(_arrays(partition, final.column_names, wire))
        yield from wire.arrived([])
    except Exception as error:
        wire.stop()
        # Not raised here: a generator may not raise every error, and this one's context is its own.
        yield Report((), error=_explained(wire.failure(error)))
    except BaseException:  # an interrupt, or nobody wants the rest
        wire.stop()
        raise
    finally:
        with suppress(Exception):
            partitions.close()  # type: ignore[attr-defined]


def _arrays(partition: Any, names: Sequence[str], wire: Wire) -> list[Any]:
    if isinstance(wire, Here):
        return []
    if not hasattr(partition, "to_arrow"):
        import ray

        partition = ray.get(partition)
    table = partition.to_arrow()
    return [table.column(name) for name in names]


def _explained(error: BaseException) -> BaseException:
    """Return the error that says what to do, of one that Daft has raised by itself."""
    if isinstance(error, HyperNodesError) or not type(error).__module__.startswith("daft"):
        return error
    said = str(error)
    if " requested " in said and " found only " in said:
        return ResourcesError(
            f"{said}. Ask for less, @node(num_cpus=...), or use a larger machine or cluster."
        )
    return DaftError(f"Daft could not run the query: {said}")


def show(frame: DataFrame) -> None:
    """Print the plan of a data frame."""
    frame.explain(show_all=True)


class _Building:
    """A data frame to which stages are added.

    Args:
        first: The column that each UDF takes first.
    """

    def __init__(
        self,
        job: Job,
        frame: DataFrame,
        dtypes: Mapping[str, DataType | None],
        wire: Wire,
        options: Options,
        first: str,
    ) -> None:
        from daft import col

        self.frame = frame
        self.reports: list[Expression] = []
        self.values: dict[str, tuple[Expression, ...]] = {name: (col(name),) for name in dtypes}
        self._job = job
        self._dtypes = dict(dtypes)
        self._wire = wire
        self._options = options
        self._first = first
        self._made = job.made

    def add_stages(self) -> None:
        """Add every stage."""
        for stage in self._job.stages:
            self._add(stage)

    def _add(self, stage: Stage) -> None:
        from daft import DataType, col

        job, wire = self._job, self._wire
        passes = isinstance(wire, Through)
        later = job.takers
        made = tuple(
            Made(name, _dtype(stage.plan, name), stage.plan.producers[name].name)
            for name in stage.makes
            if name in later or (passes and name in job.outputs)
        )
        task = Task(
            stage=stage,
            taken=tuple(Taken(name, self._dtypes[name], name in self._made) for name in stage.takes),
            made=made,
            returned=tuple(name for name in stage.makes if name in job.outputs),
            fixed={name: job.fixed[name] for name in stage.plan.inputs if name in job.fixed},
            indices=job.indices,
            scope=job.scope,
            context=job.context,
            max_concurrent=self._options.concurrency or _AT_ONCE,
            has_places=not passes,
        )
        fields: dict[str, DataType] = {}
        for value in made:
            self._dtypes[value.name] = value.dtype
            fields[value.name] = wire.objects if value.dtype is None else value.dtype
            if value.dtype is not None and wire.has_spares:
                fields[spare_of(value.name)] = wire.spares
        if not passes:
            fields[REPORT] = wire.reports
        is_struct = len(fields) > 1
        returns = DataType.struct(fields) if is_struct else next(iter(fields.values()))
        column = self._column(stage)
        function = self._daft_function(task, returns, column)
        arguments: list[Expression] = [part for name in stage.takes for part in self.values[name]]
        if not (passes and arguments):  # else they say how many rows there are
            arguments.insert(0, col(self._first))
        self.frame = self.frame.with_column(column, function(*arguments))
        parts = {name: col(column).get(name) if is_struct else col(column) for name in fields}
        for value in made:
            spare = parts.get(spare_of(value.name))
            self.values[value.name] = (parts[value.name],) if spare is None else (parts[value.name], spare)
        if not passes:
            self.reports.append(parts[REPORT].alias(column))

    def _column(self, stage: Stage) -> str:
        """Return a name for the column that a stage makes."""
        steps = [step.name for step in stage.plan.steps]
        name = "_".join(steps if len(steps) <= _NAMED else [*steps[: _NAMED - 1], "…", steps[-1]])
        taken = self.frame.column_names
        return next(name for name in (f"{name}{'+' * more}()" for more in count()) if name not in taken)

    def _daft_function(self, task: Task, returns: DataType, column: str) -> Callable[..., Expression]:
        import daft

        options, stage = self._options, task.stage
        far = options.runner == "ray"
        # On Ray, Daft 0.7 loses rows behind an async UDF where a partition is empty: there its coroutines run
        # on an event loop of the worker's own.
        is_async = stage.kind == "async" and not far
        udf = SentUdf(task, self._wire, options.place) if options.is_far else Udf(task, self._wire)
        resources = stage.resources
        # What has processes of its own keeps its CPUs until the query ends: several such stages would wait
        # for each other if each had some by default.
        pooled = options.concurrency is not None or bool(resources.custom)
        cpus = 0 if resources.num_cpus is None and pooled and far else resources.num_cpus
        made = daft.func.batch(
            return_dtype=returns,
            cpus=cpus,
            gpus=resources.num_gpus or 0,
            use_process=False,
            batch_size=options.batch_size or (None if stage.kind == "batch" else options.plain_size),
            ray_options={"resources": dict(resources.custom)} if far and resources.custom else None,
        )(function_of(udf, column.removesuffix("()"), stage.plan.path[-1], is_async=is_async))
        if options.concurrency is not None and stage.kind != "async":
            made = made.with_concurrency(options.concurrency)
        function: Callable[..., Expression] = made
        return function


def _dtype(plan: Plan, name: str) -> DataType | None:
    """Return the type of the column for a value that a plan makes, by its node's hint."""
    return type_of(_hint(plan, name))


def _hint(plan: Plan, name: str) -> Any:
    step = plan.producers.get(name)
    match step:
        case CallStep():
            return hints_of(step.function, len(step.outputs))[step.outputs.index(name)]
        case NestedStep():
            inner = next(inner for inner, outer in step.results if outer == name)
            hint = _hint(step.inner, inner)
            return list[hint] if step.map_over and hint is not None else hint  # type: ignore[valid-type]
    return None
