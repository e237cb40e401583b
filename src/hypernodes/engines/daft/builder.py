"""From the stages of a query to the UDFs of a data frame, serialized where other processes run them."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, Any, Final

import daft
from daft import DataFrame, DataType, Expression, Series, col

from hypernodes._compat.daft import can_await_udfs, in_processes, name_udf
from hypernodes.engines.daft.columns import column_type_of_output
from hypernodes.engines.daft.lifeline import end_with_driver
from hypernodes.engines.daft.transport import InputColumn, OutputColumn, Transport, misfit_column
from hypernodes.engines.daft.udf import REPORT, StageTask, StageUdf
from hypernodes.exceptions import UnpackError, listing
from hypernodes.execution.current import OCCUPIED, OTHER_PROCESS
from hypernodes.execution.targets.diagnose import unsent
from hypernodes.execution.targets.same_code import check_code, unpickling, with_code
from hypernodes.serialization.broadcast import (
    BROADCAST_MIN_BYTES,
    Broadcast,
    PlacedValue,
    broadcast,
    run_name,
)
from hypernodes.serialization.pickling import Serialized, serialize
from hypernodes.serialization.warning_filters import broadcast_filters, warning_filters

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractContextManager

    from hypernodes.engines.daft.spec import QueryOptions, QuerySpec
    from hypernodes.execution.stages import Stage

MAX_COROUTINES: Final = 10
"""How many coroutines of an async UDF run at once by default, as with the executor ``"async"``."""
MAX_NAMED_NODES: Final = 4
"""How many nodes the name of a stage lists, so that a printed plan stays readable."""


@dataclass
class QueryBuilder:
    """Adds the stages of a query to a data frame, as columns."""

    _spec: QuerySpec
    frame: DataFrame
    _dtypes: dict[str, DataType | None]
    _transport: Transport
    _options: QueryOptions
    _first_column: str  # UDFs take it first; it tells how many rows there are

    def __post_init__(self) -> None:
        self.reports: list[Expression] = []  # the columns that bring reports to the driver
        self.values: dict[str, tuple[Expression, ...]] = {name: (col(name),) for name in self._dtypes}

    def add_stages(self) -> None:
        """Add every stage of the query."""
        for stage in self._spec.stages:
            self._add(stage)

    def _add(self, stage: Stage) -> None:
        reporting = self._transport.reporting
        task = self._task(stage)
        fields: dict[str, DataType] = {}
        for output in task.outputs:
            name, dtype = output.name, output.dtype
            self._dtypes[name] = dtype
            fields[name] = self._transport.object_type if dtype is None else dtype
            if dtype is not None and reporting is not None:
                fields[misfit_column(name)] = reporting.object_type
        if reporting is not None:
            fields[REPORT] = reporting.object_type
        is_struct = len(fields) > 1
        returned = DataType.struct(fields) if is_struct else next(iter(fields.values()))
        arguments: list[Expression] = [part for name in stage.takes for part in self.values[name]]
        if reporting is not None or not arguments:
            arguments.insert(0, col(self._first_column))
        column = self._column_name(stage)
        udf = self._daft_udf(task, returned, column)
        self.frame = self.frame.with_column(column, udf(*arguments))
        parts = {name: col(column).get(name) if is_struct else col(column) for name in fields}
        for output in task.outputs:
            names = (output.name, misfit_column(output.name))
            self.values[output.name] = tuple(parts[name] for name in names if name in parts)
        if reporting is not None:
            self.reports.append(parts[REPORT].alias(column))

    def _task(self, stage: Stage) -> StageTask:
        spec = self._spec
        streams = self._transport.reporting is None
        inputs = stage.plan.inputs
        shared = spec.shared if spec.shared is not None and spec.shared.needed_by(stage) else None
        if shared is not None:
            inputs += shared.plan.inputs
        return StageTask(
            stage=stage,
            inputs=tuple(
                InputColumn(name, self._dtypes[name], name in spec.computed) for name in stage.takes
            ),
            outputs=tuple(
                OutputColumn(
                    name,
                    column_type_of_output(stage.plan, name, exactly=not streams),
                    stage.plan.producers[name].name,
                )
                for name in stage.makes
                if name in spec.readers or (streams and name in spec.outputs)
            ),
            results=tuple(name for name in stage.makes if name in spec.outputs),
            fixed={name: spec.fixed[name] for name in inputs if name in spec.fixed},
            shared=shared,
            indices=spec.indices,
            scope=spec.scope,
            context=spec.context,
            signed=spec.signed,
            max_concurrent=self._options.concurrency or MAX_COROUTINES,
        )

    def _column_name(self, stage: Stage) -> str:
        """Return a name for the column of a stage: the names of its nodes, as a call."""
        steps = [step.name for step in stage.plan.steps]
        name = "_".join(
            steps if len(steps) <= MAX_NAMED_NODES else [*steps[: MAX_NAMED_NODES - 1], "…", steps[-1]]
        )
        taken = self.frame.column_names
        return next(name for name in (f"{name}{'+' * more}()" for more in count()) if name not in taken)

    def _daft_udf(self, task: StageTask, returned: DataType, column: str) -> Callable[..., Expression]:
        options, stage, transport = self._options, task.stage, self._transport
        on_ray = options.runner == "ray"
        udf: SerializedUdf | StageUdf
        if options.is_remote:
            udf = SerializedUdf(task, transport, options.place, sends_code=options.sends_code)
        else:
            udf = StageUdf(task, transport)
        is_async = stage.kind == "async" and can_await_udfs(options.runner)
        function = _as_function(udf, stage.plan.path[-1], column.removesuffix("()"), is_async=is_async)
        resources = stage.resources
        # On Ray, a UDF with processes of its own holds their CPUs until the query ends. If each had some by
        # default, several such stages would wait for each other forever.
        has_processes = options.concurrency is not None or bool(resources.custom)
        cpus = 0 if resources.num_cpus is None and has_processes and on_ray else resources.num_cpus
        made: Any = daft.func.batch(
            return_dtype=returned,
            cpus=cpus,
            gpus=resources.num_gpus or 0,
            use_process=False,
            batch_size=options.batch_size or (None if stage.kind == "batch" else options.plain_batch_size),
            ray_options={"resources": dict(resources.custom)} if on_ray and resources.custom else None,
        )(function)
        if options.concurrency is not None and stage.kind != "async":
            made = in_processes(made, options.concurrency)
        daft_udf: Callable[..., Expression] = made
        return daft_udf


_keys: Final = count()


class SerializedUdf:
    """A stage as a function of columns, for other processes."""

    def __init__(
        self,
        task: StageTask,
        transport: Transport,
        place: Callable[[Serialized], PlacedValue],
        *,
        sends_code: bool = False,
    ) -> None:
        self._transport = transport
        self._key = next(_keys)
        self._computes = listing(sorted({step.name for step in task.stage.plan.calls()}))
        self._large: dict[str, Broadcast] = {}
        run = run_name()
        try:
            for name, value in task.fixed.items():
                serialized = serialize(value)
                if serialized.size >= BROADCAST_MIN_BYTES:
                    self._large[name] = broadcast(serialized, place, run)
            small = {name: value for name, value in task.fixed.items() if name not in self._large}
            with with_code() if sends_code else nullcontext():
                self._task = broadcast(serialize(replace(task, fixed=small)), place, run)
            self._filters = broadcast_filters(place)
        except Exception as failure:
            plan = task.stage.plan
            raise unsent(plan.calls(), task.fixed, repr(plan.label), failure) from failure

    def __call__(self, *series: Series) -> Series:
        """Compute the stage for the items of some rows."""
        token = OCCUPIED.set(OCCUPIED.get() | {OTHER_PROCESS})
        try:
            with warning_filters(self._filters), self._watched(series[0]):
                return self._deserialized()(*series)
        finally:
            OCCUPIED.reset(token)

    async def on_loop(self, *series: Series) -> Series:
        """Compute the stage for the items of some rows, several items at once."""
        OCCUPIED.set(OCCUPIED.get() | {OTHER_PROCESS})  # This is in the context of the coroutine only.
        with warning_filters(self._filters), self._watched(series[0]):
            return await self._deserialized().on_loop(*series)

    def _watched(self, first: Series) -> AbstractContextManager[None]:
        return self._transport.watched(self._key, first, self._computes)

    def _deserialized(self) -> StageUdf:
        end_with_driver(self._transport.lifeline)
        try:
            with unpickling("what all rows have in common"):
                task: StageTask = self._task.get()
                large = {name: value.get() for name, value in self._large.items()}
            for signed in (task.context, task.signed):
                if signed is not None:
                    check_code(signed)
        except UnpackError as error:
            self._transport.raise_error(error)
        return StageUdf(replace(task, fixed={**task.fixed, **large}), self._transport, is_remote=True)


def _as_function(
    udf: StageUdf | SerializedUdf, pipeline: str, name: str, *, is_async: bool
) -> Callable[..., Any]:
    """Return a UDF as a plain or a coroutine function, under the name that Daft shows in plans."""
    function: Callable[..., Series | Awaitable[Series]]
    if is_async:

        async def function(*series: Series) -> Series:
            return await udf.on_loop(*series)

    else:

        def function(*series: Series) -> Series:
            return udf(*series)

    name_udf(function, pipeline, name)
    return function
