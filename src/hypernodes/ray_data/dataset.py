"""From a pipeline and a data set of Ray Data to a lazy data set with its outputs.

dataset ─▶ select the columns needed ─▶ map_batches, once for each stage ─▶ dataset of the outputs

Nodes that ask for the same resources are one stage, so that rows stream from the CPUs to the GPUs and on.
With a cache or ``on_error="return"`` the whole pipeline is one stage, with the most of each resource.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, get_args
from uuid import uuid4

import pyarrow as pa
from ray.data import ActorPoolStrategy, TaskPoolStrategy

from hypernodes._compat.ray_data import GPU_ROWS, map_tables
from hypernodes.callbacks.event import Scope
from hypernodes.exceptions import HintWarning, InputError, MapError, listing
from hypernodes.execution.current import OCCUPIED, OTHER_PROCESS
from hypernodes.execution.jobs import Chunk, CommonValue, MapContext
from hypernodes.execution.plan.build import build_plan
from hypernodes.execution.plan.output_hints import hint_of_output
from hypernodes.execution.plan.placement import Placement
from hypernodes.execution.plan.variants import shared_part, without_shared
from hypernodes.execution.signature import fingerprint_plan
from hypernodes.execution.stages import as_single_stage, split_by_resources
from hypernodes.execution.targets.serialize_jobs import JobSerializer
from hypernodes.executors.ray.objects import place
from hypernodes.executors.ray.queues import check_hosts, count_slots, host_resources
from hypernodes.inputs import input_columns
from hypernodes.mapping import Columns
from hypernodes.ray_data.columns import OutputColumn, column_type
from hypernodes.ray_data.worker import StageFunction, StageTask
from hypernodes.tables import ROWS_PER_BATCH, column_names, remember_columns, table_of
from hypernodes.text import ascii_name, identifier
from hypernodes.user_warnings import warn_user

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ray.data import Dataset

    from hypernodes.execution.plan.model import Plan
    from hypernodes.execution.stages import Stage
    from hypernodes.execution.targets.serialize_jobs import SerializedJob
    from hypernodes.nested import OnError
    from hypernodes.resources import Resources

_COMPUTED: Final = "computed: "
"""Begins the names of columns between stages. No output has such a name, and hardly any column."""

MAX_RETRIES: Final = 3
"""How often rows are tried again whose worker has died, as with `RayExecutor`."""


def map_dataset(
    pipeline: Any,
    dataset: Any,
    map_over: str | Sequence[str] | None,
    output_name: tuple[str, ...] | None,
    on_error: OnError,
    *,
    error_column: str | None = None,
    keeps_columns: bool = False,
) -> Any:
    """Return a lazy data set of the outputs, or of all columns with the outputs."""
    where = f"pipeline {pipeline.pipeline_id!r}"
    table = table_of(dataset)
    assert table is not None  # It is a data set.
    varying, used = input_columns(table, map_over, pipeline.wiring, where)
    columns = {identifier(name): name for name in column_names(dataset)}
    names = {name: columns[name] for name in varying}
    if on_error == "return" and error_column is None:
        raise InputError(
            f"{where}: on_error='return' puts exceptions in the place of outputs, which the typed columns of "
            f"a data set cannot hold. Use map_table, which has a column for errors."
        )
    plan = _plan(pipeline, used, varying, output_name)
    if whole := [name for name in plan.inputs if name in used and name not in varying]:
        raise MapError(
            f"{where}: map_over leaves out {listing(whole)}, which would be the same for all rows, but a "
            f"column of a data set is not in memory. Name it in map_over, or leave it out of the data set: "
            f"dataset.drop_columns({whole!r})."
        )
    _check(plan, pipeline, where)
    stages = _Stages(plan, error_column if on_error == "return" else None)
    every = list(columns.values())
    read = {names[name] for name in plan.inputs if name in names}
    kept = [name for name in every if keeps_columns or name in read] or every[:1]
    result = dataset.select_columns(kept) if len(kept) < len(every) else dataset
    final = {name: name for name in kept} if keeps_columns else {}
    final |= {name: _source(name, plan, names) for name in plan.outputs}
    if stages.error_column is not None:
        final[stages.error_column] = stages.error_column
    return remember_columns(stages.mapped(result, kept, names, final), tuple(final))


def _source(output: str, plan: Plan, names: Mapping[str, str]) -> str:
    """Return the name that the column of an output has until it is complete."""
    if output in plan.bound:
        return output
    return names[output] if output in names else _COMPUTED + output


def _plan(
    pipeline: Any, given: tuple[str, ...], varying: tuple[str, ...], output_name: tuple[str, ...] | None
) -> Plan:
    # The plan is made as if in a worker, so that nested pipelines use no processes of their own there.
    token = OCCUPIED.set(OCCUPIED.get() | {OTHER_PROCESS})
    try:
        silent = pipeline.with_callbacks([])
        return build_plan(silent, given, output_name, Placement(), mapped=True, varying=varying).plan
    finally:
        OCCUPIED.reset(token)


def _check(plan: Plan, pipeline: Any, where: str) -> None:
    """Refuse what the workers of Ray Data cannot do, and warn of what they do not do."""
    for inner in plan.tree():
        for target in (inner.node_target, inner.map_target):
            if target is not None and not target.capabilities.worker_alias:
                raise MapError(
                    f"{where}: the pipeline {inner.label!r} in it has the executor {target.label}, which the "
                    f"workers of Ray Data cannot take along. Leave the engine out, or name an alias."
                )
    for step in plan.calls():
        if step.options.rate is not None or step.options.max_concurrent is not None:
            raise MapError(
                f"{where}: node {step.name!r} has a rate or max_concurrent, which holds for a whole run, but "
                f"the workers of Ray Data know nothing of each other. Use map with a RayExecutor."
            )
    if pipeline.effective_callbacks or any(inner.subscribed for inner in plan.tree()):
        warn_user(f"{where}: callbacks get no events from a lazy data set, which other processes compute.")


class _Stages:
    """The stages of a plan, as functions of tables."""

    def __init__(self, plan: Plan, error_column: str | None) -> None:
        self.error_column = error_column
        self._plan = plan
        self._hinted = {name: _column(plan, name) for name in plan.producers}
        has_cache = any(inner.cache is not None for inner in plan.tree())
        self._serializer = JobSerializer(place)
        self._shared: tuple[str, ...] = ()
        self._shared_job: SerializedJob | None = None
        self._shared_key = uuid4().hex
        # With a cache, what is the same for all rows comes from there.
        if plan.shared and not has_cache:
            self._shared = plan.shared
            self._shared_job = self._job(shared_part(plan))
            plan = without_shared(plan)
        known = (*plan.bound, *self._shared)
        if has_cache or error_column is not None:
            self._stages = [as_single_stage(plan, known)]
        else:
            self._stages = split_by_resources(plan, known) or [as_single_stage(plan, known)]

    def mapped(
        self, dataset: Dataset, columns: Sequence[str], names: Mapping[str, str], final: dict[str, str]
    ) -> Dataset:
        """Return a data set of the final columns, which are pairs of a name and the name of its source."""
        sources = dict(names)
        for number, stage in enumerate(self._stages, 1):
            is_last = number == len(self._stages)
            sources |= {name: _COMPUTED + name for name in stage.makes}
            later = {sources.get(name, "") for other in self._stages[number:] for name in other.takes}
            later |= set(final.values())
            present = [*columns, *(sources[name] for name in stage.makes)]
            passed = {name: name for name in present if name in later}
            columns = tuple(passed)
            dataset = self._add(dataset, stage, sources, final if is_last else passed, is_last=is_last)
        return dataset

    def _add(
        self,
        dataset: Dataset,
        stage: Stage,
        sources: Mapping[str, str],
        columns: Mapping[str, str],
        *,
        is_last: bool,
    ) -> Dataset:
        check_hosts(stage.resources, f"in node {stage.name!r} of pipeline {stage.plan.label!r}")
        fixed = [name for name in self._plan.outputs if name in self._plan.bound or name in self._shared]
        task = StageTask(
            job=self._job(stage.plan, fixed if is_last else ()),
            shared=self._shared_job,
            shared_key=self._shared_key,
            takes=tuple((name, sources[name]) for name in stage.takes),
            makes=tuple(self._output(name) for name in stage.makes),
            columns=tuple(columns.items()),
            fixed=tuple(self._output(name) for name in fixed) if is_last else (),
            error_column=self.error_column,
            max_rows=GPU_ROWS if stage.resources.num_gpus else ROWS_PER_BATCH,
        )
        name = stage.plan.label if len(self._stages) == 1 else f"{stage.plan.label}/{stage.name}"
        kind = type(ascii_name(f"hypernodes: {name}"), (StageFunction,), {})
        options = _options(stage.resources)
        if not stage.resources.num_gpus:
            retries = {"max_retries": MAX_RETRIES}
            return map_tables(dataset, kind(task), compute=TaskPoolStrategy(), retries=retries, **options)
        # Ray ends the process of a task that has had a GPU, and with it a model that was loaded.
        slots = max(1, count_slots(stage.resources.demand, host_resources()))
        actors = ActorPoolStrategy(min_size=1, max_size=slots)
        retries = {"max_task_retries": MAX_RETRIES}
        return map_tables(
            dataset, kind, fn_constructor_args=(task,), compute=actors, retries=retries, **options
        )

    def _output(self, name: str) -> OutputColumn:
        if name in self._plan.bound:
            return OutputColumn(name, name, f"input {name!r}")
        known = self._hinted.get(name) or OutputColumn(name, _COMPUTED + name, f"output {name!r}")
        # Values that only another stage takes come back as they are.
        is_object = name not in self._plan.outputs
        may_be_none = self.error_column is not None
        if is_object or (may_be_none and not isinstance(known.dtype, pa.DataType)):
            return replace(known, dtype=None)
        return known

    def _job(self, plan: Plan, others: Sequence[str] = ()) -> SerializedJob:
        """Serialize what all calls of a plan have in common; large inputs are placed once."""
        given = {name: self._plan.bound[name] for name in (*plan.inputs, *others) if name in self._plan.bound}
        context = MapContext(
            plan=replace(plan, bound={}),
            fingerprints=fingerprint_plan(plan),
            fixed=given,
            common={name: CommonValue(value) for name, value in given.items()},
            identities={},
            scope=Scope(plan.key, plan.path),
            on_error="raise" if self.error_column is None else "return",
        )
        return self._serializer.serialize(Chunk(0, context, [], Columns({}, 0)))


def _column(plan: Plan, name: str) -> OutputColumn:
    """Return the column of an output; warn of one that has a hint, and holds Python objects all the same."""
    hint = hint_of_output(plan, name)
    node_name = plan.producers[name].name
    dtype = None if hint is None else column_type(hint)
    if dtype is None and name in plan.outputs and hint not in (None, type(None), Any, object):
        shown = hint.__qualname__ if isinstance(hint, type) and not get_args(hint) else str(hint)
        warn_user(
            f"output {name!r} of node {node_name!r}: its column holds pickled Python objects, since Arrow "
            f"has no type for the hint {shown}. Other tools cannot read it from files. Use a hint such as "
            f"int, datetime.date, list[float], numpy.typing.NDArray[numpy.float64] or a TypedDict, or leave "
            f"it out.",
            HintWarning,
        )
    return OutputColumn(name, _COMPUTED + name, f"output {name!r} of node {node_name!r}", dtype)


def _options(resources: Resources) -> dict[str, Any]:
    """Return what a stage asks for, by the names of `map_batches`."""
    asked = {
        "num_cpus": resources.num_cpus,
        "num_gpus": resources.num_gpus,
        "memory": resources.memory,
        "resources": dict(resources.custom) or None,
    }
    return {name: amount for name, amount in asked.items() if amount is not None}
