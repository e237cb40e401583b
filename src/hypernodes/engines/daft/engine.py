"""DaftEngine: pipelines as Daft queries."""

from __future__ import annotations

from dataclasses import replace
from inspect import signature
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, Never

import daft
from daft import DataFrame

from hypernodes.arguments import error_of, flag, text, unknown_option, whole_number
from hypernodes.callbacks.event import Scope
from hypernodes.engine import OutputName, output_names
from hypernodes.engines.daft.columns import exact_series
from hypernodes.engines.daft.query import Results, lazy_frame, query_frame, query_items
from hypernodes.engines.daft.runner import Runner, ensure_runner, import_daft, request_runner
from hypernodes.engines.daft.shared import SharedValues
from hypernodes.engines.daft.spec import QueryOptions, QuerySpec, stages_of
from hypernodes.engines.daft.target import DaftTarget
from hypernodes.engines.daft.udf import IN_DAFT
from hypernodes.engines.scheduled import ScheduledEngine
from hypernodes.exceptions import DaftError, InputError, WorkerDiedError
from hypernodes.execution.calls.location import UNKNOWN
from hypernodes.execution.current import OCCUPIED, OTHER_PROCESS
from hypernodes.execution.jobs import MapContext, OnError
from hypernodes.execution.plan.build import build_plan
from hypernodes.execution.plan.needs import MAP_TARGET, NESTED_MAP, NODE_TARGET
from hypernodes.execution.plan.placement import Placement
from hypernodes.execution.plan.variants import shared_part, without_batch, without_shared
from hypernodes.execution.signature import fingerprint_plan
from hypernodes.execution.stages import (
    as_single_stage,
    asks_for_resources,
    can_be_staged,
    stages_of_shared,
)
from hypernodes.mapping import Columns
from hypernodes.text import identifier
from hypernodes.user_warnings import warn_user

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hypernodes.callbacks.base import CallbackContext
    from hypernodes.execution.plan.model import Plan
    from hypernodes.execution.plan.settings import Plannable


class DaftEngine(ScheduledEngine):
    """Run pipelines as Daft queries: items are rows, nodes are expressions of one lazy plan.

    Plain functions that follow one another become one UDF over batches of rows. A node with a batch function,
    an async one, or one that asks for resources becomes a UDF of its own. With a cache, callbacks or
    ``on_error="return"``, the whole pipeline is one UDF, which reads and writes the cache and emits events as
    with every other engine.

    Args:
        collect: Whether `Pipeline.map` returns lists; otherwise it returns a lazy `daft.DataFrame` of the
            outputs, which is computed when it is collected, shown or written.
        show_plan: Whether to print Daft's plan before a query is run.
        debug: Whether to run everything in the calling thread, item by item, so that a debugger and a
            traceback show the functions and nothing of Daft.
        runner: ``"native"`` for this machine, ``"ray"`` for a cluster; ``None`` for the runner that Daft
            chooses by itself: Ray's if this process is connected to Ray when Daft is first used.
        address: The address of the Ray cluster, if this process is not connected to one yet.
        batch_size: How many rows a UDF gets at most; by default Daft decides.
        concurrency: In how many processes each UDF runs, and how many coroutines of an async one run at once;
            by default UDFs run in threads of Daft, with 10 coroutines at once.

    Raises:
        DaftError: Daft cannot be imported, or is too old, or this process uses another runner already.
        ValueError: The value of an option is out of its range.

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
        **unknown: Never,
    ) -> None:
        if unknown:
            raise unknown_option("DaftEngine", unknown)
        for name, value in (("collect", collect), ("show_plan", show_plan), ("debug", debug)):
            flag(name, value, where="DaftEngine")
        if runner is not None and (not isinstance(runner, str) or runner not in ("native", "ray")):
            raise error_of("runner", "'native', 'ray' or None", runner, where="DaftEngine")
        for name, number in (("batch_size", batch_size), ("concurrency", concurrency)):
            if number is not None:
                whole_number(name, number, 1, where="DaftEngine")
        if address is not None:
            text("address", address, where="DaftEngine")
        if runner == "native" and address is not None:
            raise ValueError(
                f"address={address!r} is the address of a Ray cluster, and runner='native' uses no cluster"
            )
        import_daft()
        if runner is None and address is not None:
            runner = "ray"
        if runner is not None:
            request_runner(runner)
        self.collect = collect
        self.show_plan = show_plan
        self.debug = debug
        self.runner = runner
        self.address = address
        self.batch_size = batch_size
        self.concurrency = concurrency
        self._made_target: DaftTarget | None = None
        self._lock = Lock()
        super().__init__()

    @property
    def is_lazy(self) -> bool:
        """Whether maps return lazy data frames."""
        return not self.collect

    @property
    def _runs_inline(self) -> bool:
        """Whether to make no query: for debugging, or since this code is a part of a query already."""
        return self.debug or not OCCUPIED.get().isdisjoint((IN_DAFT, OTHER_PROCESS))

    @property
    def _target(self) -> DaftTarget:
        """The execution target; it is made when first needed, which is when Daft chooses its runner."""
        with self._lock:
            if self._made_target is None:
                runner = ensure_runner(self.address)
                options = QueryOptions(runner, self.batch_size, self.concurrency, self.show_plan)
                self._made_target = DaftTarget(options)
                self._targets.append(self._made_target)
            return self._made_target

    def placement(self) -> Placement:
        """Return where calls and map items go."""
        if self._runs_inline:
            return Placement()
        target = self._target
        # On Ray, a call that asks for a GPU must get to one. Otherwise single calls run in the driver.
        return Placement(target.ref if target.options.runner == "ray" else None, target.ref)

    def run(
        self,
        pipeline: Plannable,
        inputs: Mapping[str, Any],
        output_name: OutputName = None,
        _ctx: CallbackContext | None = None,
    ) -> dict[str, Any]:
        """Compute the outputs asked for, once. See `Engine.run`."""
        if self._runs_inline or _ctx is not None:
            return super().run(pipeline, inputs, output_name, _ctx)
        plan = self._query_plan(pipeline, output_names(output_name), tuple(inputs), None)
        # The items of a nested map are rows of a query of their own, so that several workers compute them.
        if not can_be_staged(plan) or NESTED_MAP in plan.needs:
            return super().run(pipeline, inputs, output_name)
        fixed = {**plan.bound, **inputs}
        spec = QuerySpec(stages_of(without_batch(plan), fixed), plan.outputs, fixed, indices=[UNKNOWN])
        results = Results(spec)
        results.add_all(query_items(spec, {}, 1, self._target.options))
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
        returns_errors = self.collect and on_error == "return"
        is_inline = self._runs_inline and bool(items)
        if is_inline or returns_errors or _ctx is not None or not isinstance(items, Columns):
            rows = super().map(pipeline, items, inputs, output_name, _ctx, on_error=on_error)
            try:
                return rows if self.collect else _frame_from_rows(rows)
            finally:
                del rows  # the tracebacks of errors in them refer to this frame
        names, wanted = tuple(items.columns), output_names(output_name)
        if not self.collect:
            frame = _frame_from_rows(items)
            return self._lazy_frame(pipeline, frame, names, inputs, wanted, on_error)
        plan = self._query_plan(pipeline, wanted, (*names, *inputs), names)
        if not can_be_staged(plan) or plan.shared:
            return super().map(pipeline, items, inputs, output_name, on_error=on_error)
        spec = _staged(plan, inputs)
        results = Results(spec, items.columns)
        try:
            results.add_all(query_items(spec, items.columns, len(items), self._target.options))
        except WorkerDiedError:  # Items in smaller parts, until the one that is to blame is alone.
            return super().map(pipeline, items, inputs, output_name, on_error=on_error)
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
        """Compute over the rows of a Daft data frame where they are. See `Engine.map_frame`."""
        if self._runs_inline or not isinstance(frame, DataFrame):
            return None
        frame = _with_normalized_names(frame)
        if not self.collect:
            return self._lazy_frame(pipeline, frame, names, {}, output_names(output_name), on_error)
        plan = self._query_plan(pipeline, output_names(output_name), names, names)
        if not can_be_staged(plan) or plan.shared or on_error == "return":
            return None
        if not set(names).isdisjoint(plan.outputs):
            return None
        spec = _staged(plan, {})
        if not spec.columns_needed:
            return None  # Without a column, a query does not know how many rows there are.
        results = Results(spec)
        try:
            results.add_all(query_frame(spec, frame, self._target.options))
        except WorkerDiedError:  # As items, which are computed again in smaller parts.
            return None
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
        wanted, kept = output_names(output_name), frame.column_names
        return self._lazy_frame(
            pipeline, _with_normalized_names(frame), names, {}, wanted, "raise", kept=kept
        )

    def _lazy_frame(
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
                f"outputs, which the typed columns of a lazy data frame cannot hold. Use "
                f"DaftEngine(collect=True)."
            )
        plan = self._query_plan(pipeline, output_name, (*names, *inputs), names)
        if any(inner.subscribed for inner in plan.tree()):
            warn_user(
                f"pipeline {pipeline.pipeline_id!r}: callbacks get no events from a lazy data frame, which "
                f"another process may compute."
            )
        if not plan.needs.isdisjoint((NODE_TARGET, MAP_TARGET)):
            raise DaftError(
                f"pipeline {pipeline.pipeline_id!r}: a pipeline nested in it has an executor of its own, "
                f"which a lazy data frame cannot take along. Leave it out, or use DaftEngine(collect=True)."
            )
        has_cache = any(inner.cache is not None for inner in plan.tree())
        if has_cache:
            spec = _as_chunks(plan, inputs)
        elif plan.shared and not (self._target.options.is_remote and asks_for_resources(shared_part(plan))):
            spec = _with_shared(plan, inputs)
        else:
            spec = _staged(plan, inputs, finely=True)
        # A column with the name of an output that is computed gives way to it.
        others = [name for name in kept if name not in plan.outputs or name not in plan.producers]
        return lazy_frame(spec, frame, self._target.options, others)

    def _query_plan(
        self,
        pipeline: Plannable,
        output_name: tuple[str, ...] | None,
        given: tuple[str, ...],
        mapped: tuple[str, ...] | None,
    ) -> Plan:
        """Return the plan of a pipeline as a query computes it: nothing in it goes to another target."""
        key = (pipeline.token, "query", mapped, output_name, given)
        if (prepared := self._plans.get(key)) is None:
            # The plan is made as if within a query, so that nested pipelines with a DaftEngine make none.
            token = OCCUPIED.set(OCCUPIED.get() | {IN_DAFT})
            try:
                prepared = build_plan(
                    pipeline, given, output_name, Placement(), mapped=mapped is not None, varying=mapped or ()
                )
            finally:
                OCCUPIED.reset(token)
            self._plans.put(pipeline, key, prepared)
        return prepared.plan

    def __reduce__(self) -> tuple[Any, ...]:
        return _engine_with, ({name: value for name, value in vars(self).items() if name in _DEFAULTS},)

    def __repr__(self) -> str:
        shown = (
            f"{name}={getattr(self, name)!r}"
            for name, default in _DEFAULTS.items()
            if getattr(self, name) != default
        )
        return f"DaftEngine({', '.join(shown)})"


def _with_normalized_names(frame: DataFrame) -> DataFrame:
    """Return a data frame that has its columns also by their names as Python reads them."""
    others = {identifier(name): daft.col(name) for name in frame.column_names if identifier(name) != name}
    return frame.with_columns(others) if others else frame


def _staged(plan: Plan, inputs: Mapping[str, Any], *, finely: bool = False) -> QuerySpec:
    """Return the query that computes a plan stage by stage."""
    fixed = {**plan.bound, **inputs}
    return QuerySpec(stages_of(plan, fixed, finely=finely), plan.outputs, fixed)


def _with_shared(plan: Plan, inputs: Mapping[str, Any]) -> QuerySpec:
    """Return the query whose rows take values that are the same for all of them."""
    fixed = {**plan.bound, **inputs}
    once, rest = shared_part(plan), without_shared(plan)
    stages = stages_of(rest, {*fixed, *plan.shared}, finely=True)
    stages += stages_of_shared(once, plan.outputs)
    return QuerySpec(stages, plan.outputs, fixed, shared=SharedValues(once))


def _as_chunks(plan: Plan, inputs: Mapping[str, Any]) -> QuerySpec:
    """Return the query that executes batches of rows as chunks, by the general path."""
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
    stages = [as_single_stage(plan, fixed)] if plan.steps else []  # Without steps, every output was given.
    return QuerySpec(stages, plan.outputs, fixed, context=context)


def _frame_from_rows(rows: Sequence[Mapping[str, Any]]) -> DataFrame:
    columns = (
        rows.columns if isinstance(rows, Columns) else {name: [row[name] for row in rows] for name in rows[0]}
    )
    series: dict[str, Any] = {name: exact_series(column) for name, column in columns.items()}
    return daft.from_pydict(series)


_DEFAULTS: Final = {
    name: parameter.default
    for name, parameter in signature(DaftEngine).parameters.items()
    if parameter.kind is not parameter.VAR_KEYWORD
}


def _engine_with(options: dict[str, Any]) -> DaftEngine:
    """Return an engine with some options, for unpickling.

    The other process may use another runner. That is no error: what it computes runs inline.
    """
    engine = DaftEngine(**{**options, "runner": None, "address": None})
    engine.runner, engine.address = options["runner"], options["address"]
    return engine
