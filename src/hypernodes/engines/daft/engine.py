"""DaftEngine: pipelines as Daft queries."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import cached_property
from inspect import signature
from typing import TYPE_CHECKING, Any, Final

from hypernodes.callbacks.event import Scope
from hypernodes.engine import output_names
from hypernodes.engines.daft.columns import exact
from hypernodes.engines.daft.query import Job, Options, over_frame, over_items, stages_of, through
from hypernodes.engines.daft.results import Results
from hypernodes.engines.daft.runner import bind, claim, imported
from hypernodes.engines.daft.target import DaftTarget
from hypernodes.engines.daft.udf import IN_DAFT
from hypernodes.engines.scheduled import ScheduledEngine
from hypernodes.exceptions import DaftError, InputError
from hypernodes.execution.calls.location import UNKNOWN
from hypernodes.execution.current import OCCUPIED, OTHER_PROCESS
from hypernodes.execution.jobs import MapContext
from hypernodes.execution.plan.build import build_plan
from hypernodes.execution.plan.needs import MAP_TARGET, NESTED_MAP, NODE_TARGET
from hypernodes.execution.plan.placement import Placement
from hypernodes.execution.plan.variants import without_batch
from hypernodes.execution.signature import fingerprint_plan
from hypernodes.execution.stages import as_single_stage, can_be_staged
from hypernodes.mapping import Columns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from daft import DataFrame

    from hypernodes.callbacks.base import CallbackContext
    from hypernodes.engine import OutputName
    from hypernodes.engines.daft.runner import Runner
    from hypernodes.execution.jobs import OnError
    from hypernodes.execution.plan.build import Plannable, PreparedPlan
    from hypernodes.execution.plan.model import Plan


class DaftEngine(ScheduledEngine):
    """Run pipelines as Daft queries: items are rows, nodes are expressions of one lazy plan.

    Plain functions that follow one another become one UDF over batches of rows; a node with a batch
    function, an async one, or one with resources of its own becomes a UDF by itself. With a cache, callbacks
    or ``on_error="return"``, the whole pipeline is one UDF, which looks up, stores and tells as it does
    everywhere.

    Args:
        collect: Whether `Pipeline.map` returns lists; else a lazy `daft.DataFrame` of the outputs, of which
            nothing is computed until somebody asks.
        show_plan: Whether Daft's plan is printed before a query is run.
        debug: Whether everything is run right here, item by item, so that a debugger and a traceback see the
            functions and nothing else.
        runner: ``"native"`` for this machine, ``"ray"`` for a cluster; ``None`` for the one that Daft takes
            by itself: Ray's if this process is connected to Ray when Daft is first used.
        address: The Ray cluster, if this process is connected to none yet.
        batch_size: How many rows a UDF gets at most; by default Daft decides.
        concurrency: In how many processes each UDF runs (and how many coroutines of an async one at once); by
            default in Daft's own threads, and 10 at once.

    Raises:
        DaftError: Daft cannot be imported, or is too old, or this process has another runner already.
        ValueError: An option that is out of its range.

    Example:
        >>> from hypernodes import Pipeline, node
        >>> @node(output_name="square")
        ... def square(x: int) -> int:
        ...     return x * x
        >>> pipeline = Pipeline([square], engine=DaftEngine(runner="native"))
        >>> pipeline.map({"x": [1, 2, 2**40]}, map_over="x")
        {'square': [1, 4, 1208925819614629174706176]}
    """

    def __init__(
        self,
        *,
        collect: bool = True,
        show_plan: bool = False,
        debug: bool = False,
        runner: Runner | None = None,
        address: str | None = None,
        batch_size: int | None = None,
        concurrency: int | None = None,
    ) -> None:
        if runner not in (None, "native", "ray"):
            raise ValueError(f"runner is 'native', 'ray' or None, not {runner!r}")
        for name, value in (("batch_size", batch_size), ("concurrency", concurrency)):
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise ValueError(f"{name} must be a number of 1 or more, not {value!r}")
        if runner == "native" and address is not None:
            raise ValueError(f"address={address!r} is a Ray cluster's, and runner='native' uses none")
        imported()
        if runner is None and address is not None:
            runner = "ray"
        if runner is not None:
            claim(runner)
        self.collect = collect
        self.show_plan = show_plan
        self.debug = debug
        self.runner = runner
        self.address = address
        self.batch_size = batch_size
        self.concurrency = concurrency
        self._target = DaftTarget(lambda: self._options)
        super().__init__([self._target])

    @cached_property
    def _options(self) -> Options:
        return Options(bind(self.address), self.batch_size, self.concurrency, self.show_plan)

    @property
    def is_lazy(self) -> bool:
        """Whether maps return data frames of which nothing is computed yet."""
        return not self.collect

    @property
    def _is_here(self) -> bool:
        """Whether all is done right here: to debug it, or since this is a part of a query already."""
        return self.debug or not OCCUPIED.get().isdisjoint((IN_DAFT, OTHER_PROCESS))

    def placement(self) -> Placement:
        """Return where calls and map items go."""
        if self._is_here:
            return Placement()
        # A call that asks for a GPU must get to one; all other calls of a run that is no map are made here.
        target = self._target.ref
        return Placement(target if self._options.runner == "ray" else None, target)

    def run(
        self,
        pipeline: Plannable,
        inputs: Mapping[str, Any],
        output_name: OutputName = None,
        _ctx: CallbackContext | None = None,
    ) -> dict[str, Any]:
        """Compute the outputs asked for, once. See `Engine.run`."""
        if self._is_here or _ctx is not None:
            return super().run(pipeline, inputs, output_name, _ctx)
        prepared = self._flat(pipeline, output_names(output_name), tuple(inputs), None)
        plan = prepared.plan
        # The items of a nested map are rows of a query of their own, so that they are spread out.
        if not can_be_staged(plan) or NESTED_MAP in plan.needs:
            return super().run(pipeline, inputs, output_name)
        fixed = {**plan.bound, **inputs}
        job = Job(stages_of(without_batch(plan), fixed), plan.outputs, fixed, indices=[UNKNOWN])
        results = Results(job)
        for report in over_items(job, {}, 1, self._options):
            results.add(report)
        return {name: column[0] for name, column in results.columns(1).items()}

    def map(
        self,
        pipeline: Plannable,
        items: Sequence[Mapping[str, Any]],
        inputs: Mapping[str, Any],
        output_name: OutputName = None,
        _ctx: CallbackContext | None = None,
        *,
        on_error: OnError = "raise",
    ) -> Any:
        """Compute the outputs asked for, for each item. See `Engine.map`."""
        returns = self.collect and on_error == "return"
        if (self._is_here and items) or returns or _ctx is not None or not isinstance(items, Columns):
            rows = super().map(pipeline, items, inputs, output_name, _ctx, on_error=on_error)
            return rows if self.collect else _frame_of(rows)
        names, wanted = tuple(items.columns), output_names(output_name)
        if not self.collect:
            frame = _frame_of(items)
            return self._lazy(pipeline, frame, names, inputs, wanted, on_error)
        plan = self._flat(pipeline, wanted, (*names, *inputs), names).plan
        if not can_be_staged(plan):
            return super().map(pipeline, items, inputs, output_name, on_error=on_error)
        job = self._job(plan, inputs)
        results = Results(job, items.columns)
        for report in over_items(job, items.columns, len(items), self._options):
            results.add(report)
        return Columns(results.columns(len(items)))

    def map_frame(
        self,
        pipeline: Plannable,
        frame: Any,
        names: tuple[str, ...],
        output_name: OutputName = None,
        *,
        on_error: OnError = "raise",
    ) -> Any:
        """Compute over the rows of a Daft data frame, where they are. See `Engine.map_frame`."""
        if self._is_here or not isinstance(frame, imported().DataFrame):
            return None
        if not self.collect:
            return self._lazy(pipeline, frame, names, {}, output_names(output_name), on_error)
        plan = self._flat(pipeline, output_names(output_name), names, names).plan
        if not can_be_staged(plan) or on_error == "return" or not set(names).isdisjoint(plan.outputs):
            return None
        job = self._job(plan, {})
        if job.made.issuperset(job.takers):  # nothing depends on the rows
            return None
        results = Results(job)
        for report in over_frame(job, frame, self._options):
            results.add(report)
        return results.columns()

    def add_columns(
        self,
        pipeline: Plannable,
        frame: DataFrame,
        names: tuple[str, ...],
        output_name: OutputName = None,
    ) -> DataFrame:
        """Return a lazy data frame that has the outputs asked for as further columns.

        Args:
            pipeline: The pipeline.
            frame: The data frame.
            names: Those of its columns that are inputs.
            output_name: The outputs wanted, or ``None`` for every one.
        """
        return self._lazy(pipeline, frame, names, {}, output_names(output_name), "raise", frame.column_names)

    def _lazy(
        self,
        pipeline: Plannable,
        frame: DataFrame,
        names: tuple[str, ...],
        inputs: Mapping[str, Any],
        output_name: tuple[str, ...] | None,
        on_error: OnError,
        kept: Sequence[str] = (),
    ) -> DataFrame:
        if on_error == "return":
            raise InputError(
                f"pipeline {pipeline.pipeline_id!r}: on_error='return' puts exceptions in the place of "
                f"outputs, and a data frame that is computed later has no place for them. Use "
                f"DaftEngine(collect=True)."
            )
        plan = self._flat(pipeline, output_name, (*names, *inputs), names).plan
        if any(inner.subscribed for inner in plan.tree()):
            warnings.warn(
                f"pipeline {pipeline.pipeline_id!r}: callbacks get no events of a data frame that is "
                f"computed later.",
                stacklevel=4,
            )
        if not plan.needs.isdisjoint((NODE_TARGET, MAP_TARGET)):
            raise DaftError(
                f"pipeline {pipeline.pipeline_id!r}: a pipeline nested in it has an executor of its own, "
                f"which does not travel with a data frame. Leave it out, or use DaftEngine(collect=True)."
            )
        if all(inner.cache is None for inner in plan.tree()):
            return through(self._job(plan, inputs, finely=True), frame, self._options, kept)
        fixed = {**plan.bound, **inputs}
        context = MapContext(
            plan=replace(plan, bound={}),
            fingerprints=fingerprint_plan(plan),
            fixed={},
            common={},
            identities={},
            scope=Scope(plan.key, plan.path),
            on_error="raise",
        )
        stages = (
            [as_single_stage(plan, fixed)] if plan.steps else []
        )  # Without steps, every output was given.
        job = Job(stages, plan.outputs, fixed, context=context)
        return through(job, frame, self._options, kept)

    def _job(self, plan: Plan, inputs: Mapping[str, Any], *, finely: bool = False) -> Job:
        fixed = {**plan.bound, **inputs}
        return Job(stages_of(plan, fixed, finely=finely), plan.outputs, fixed)

    def _flat(
        self,
        pipeline: Plannable,
        output_name: tuple[str, ...] | None,
        given: tuple[str, ...],
        mapped: tuple[str, ...] | None,
    ) -> PreparedPlan:
        """Return the plan as a query computes it, in which no call goes to another place."""
        key = (pipeline.token, "flat", mapped, output_name, given)
        prepared = self._plans.get(key)
        if prepared is None:
            occupied = OCCUPIED.set(OCCUPIED.get() | {IN_DAFT})
            try:
                prepared = build_plan(pipeline, given, output_name, Placement(), mapped=mapped is not None)
            finally:
                OCCUPIED.reset(occupied)
            self._plans.put(pipeline, key, prepared)
        return prepared

    def __reduce__(self) -> tuple[Any, ...]:
        return _made, ({name: value for name, value in vars(self).items() if name in _DEFAULTS},)

    def __repr__(self) -> str:
        shown = (
            f"{name}={getattr(self, name)!r}"
            for name, default in _DEFAULTS.items()
            if getattr(self, name) != default
        )
        return f"DaftEngine({', '.join(shown)})"


def _frame_of(rows: Sequence[Mapping[str, Any]]) -> DataFrame:
    columns = (
        rows.columns if isinstance(rows, Columns) else {name: [row[name] for row in rows] for name in rows[0]}
    )
    frame: DataFrame = imported().from_pydict({name: exact(column) for name, column in columns.items()})
    return frame


_DEFAULTS: Final = {name: parameter.default for name, parameter in signature(DaftEngine).parameters.items()}


def _made(options: dict[str, Any]) -> DaftEngine:
    # In another process, which may have another runner; what is computed there stays there.
    engine = DaftEngine(**{**options, "runner": None, "address": None})
    engine.runner, engine.address = options["runner"], options["address"]
    return engine
