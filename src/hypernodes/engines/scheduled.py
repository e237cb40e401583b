"""What engines have in common that use the scheduler: it is driven in the thread of the caller."""

from __future__ import annotations

from abc import abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from hypernodes._compat.asyncio import running_loop
from hypernodes._compat.nest_asyncio import can_reenter
from hypernodes.callbacks.event import Scope
from hypernodes.engine import Engine, OutputName, output_names
from hypernodes.engines.dispatcher import dispatcher_of
from hypernodes.engines.plan_cache import PlanCache
from hypernodes.exceptions import ClusterConnectionError, NodeAbandonedError
from hypernodes.execution.changed_code import warn_of_changed_code
from hypernodes.execution.compiled.codegen import (
    compiled,
    compiled_and_watched,
    compiled_for_items,
    compiled_over_columns,
)
from hypernodes.execution.compiled.watched import Watch
from hypernodes.execution.current import CURRENT_CALL, OCCUPIED
from hypernodes.execution.driver import Completed, proceed
from hypernodes.execution.jobs import Failure, OnError
from hypernodes.execution.kept_fingerprints import fingerprints_of
from hypernodes.execution.plan.build import PreparedPlan, build_plan
from hypernodes.execution.scheduler.items import StreamedRows
from hypernodes.execution.scheduler.map_run import MapRun
from hypernodes.execution.scheduler.run import Run
from hypernodes.executors.loops import ASYNC_CALLER, AsyncCaller, run_in_thread_reentrant
from hypernodes.executors.settled import raisable
from hypernodes.mapping import Columns, ItemStream
from hypernodes.raw_errors import is_a, without_frame

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from hypernodes.callbacks.base import CallbackContext
    from hypernodes.callbacks.dispatch import EventDispatcher
    from hypernodes.execution.plan.model import Plan
    from hypernodes.execution.plan.placement import Placement, TargetRef
    from hypernodes.execution.plan.settings import Plannable
    from hypernodes.execution.target import ExecutionTarget

T = TypeVar("T")


class ScheduledEngine(Engine):
    """Runs pipelines node by node, and sends to its execution targets what it does not do here."""

    def __init__(self, targets: Sequence[ExecutionTarget] = (), own: Sequence[ExecutionTarget] = ()) -> None:
        """Make an engine whose placements name some targets, of which it shuts down its own."""
        self._plans = PlanCache()
        self._targets = list(targets)
        self._own = list(own)

    @abstractmethod
    def placement(self) -> Placement:
        """Return where calls and map items go."""

    def targets(self) -> Sequence[ExecutionTarget]:
        """Return the execution targets that placements of this engine name."""
        return self._targets

    def shutdown(self, wait: bool = True) -> None:  # noqa: FBT001, FBT002  as `concurrent.futures.Executor` has it
        """Shut down the executors that aliases stand for; they are made again when needed again.

        Args:
            wait: Whether to wait until running work has ended.
        """
        shut_down(self._own, wait=wait)

    def run(
        self,
        pipeline: Plannable,
        inputs: Mapping[str, Any],
        output_name: OutputName = None,
        _ctx: CallbackContext | None = None,
    ) -> dict[str, Any]:
        """Compute the outputs asked for, once. See `Engine.run`."""
        if type(output_name) is not tuple:
            output_name = output_names(output_name)
        prepared = self._prepared(pipeline, output_name, tuple(inputs), None, _ctx)
        if (compute := compiled(prepared.plan)) is not None:
            # In a worker, a target of a nested pipeline may count as "here"; elsewhere it must not.
            # A coroutine that awaits the run needs another form of the plan.
            if not (self._targets or OCCUPIED.get() or ASYNC_CALLER.get() or _ctx):
                pipeline.remember_compiled(self, (output_name, *inputs), compute)
            outputs: dict[str, Any] = compute(inputs, () if _ctx is None else _ctx.item_path)
            return outputs
        if (compute := compiled_and_watched(prepared.plan)) is not None:
            # No local variable knows the callbacks: they may keep an error, whose traceback has this frame.
            return compute(inputs, () if _ctx is None else _ctx.item_path, watch_of(prepared, _ctx))

        def work() -> dict[str, Any]:
            dispatcher = dispatcher_of(prepared, _ctx)
            run = Run.once(
                prepared.plan,
                inputs,
                fingerprints=fingerprints_of(prepared.plan),
                target_info=prepared_targets(prepared),
                scope=scope_of(prepared.plan, dispatcher, _ctx),
            )
            result: dict[str, Any] = self._complete(prepared, run, dispatcher)
            return result

        return _on_the_right_thread(prepared.plan, work)

    def map(
        self,
        pipeline: Plannable,
        items: Sequence[Mapping[str, Any]],
        inputs: Mapping[str, Any],
        output_name: OutputName = None,
        _ctx: CallbackContext | None = None,
        *,
        on_error: OnError = "raise",
    ) -> Sequence[Any]:
        """Compute the outputs asked for, for each item. See `Engine.map`."""
        names = tuple(items[0]) if items else ()
        prepared = self._prepared(pipeline, output_names(output_name), tuple(inputs), names, _ctx)
        plan = prepared.plan
        columns = Columns.of(items, names)
        is_plain = plan.map_target is None and on_error == "raise" and columns.indices is None
        if is_plain and (compute := compiled_over_columns(plan, names)) is not None:
            return Columns(compute(columns.columns, inputs, () if _ctx is None else _ctx.item_path))

        def work() -> Sequence[Any]:
            dispatcher = dispatcher_of(prepared, _ctx)
            run = Run.over_items(
                plan,
                columns,
                inputs,
                fingerprints=fingerprints_of(plan),
                target_info=prepared_targets(prepared),
                scope=scope_of(plan, dispatcher, _ctx),
                on_error=on_error,
            )
            # No local variable holds the rows: since Python 3.12, the traceback of an error keeps this frame.
            return _with_errors(self._complete(prepared, run, dispatcher))

        return _on_the_right_thread(plan, work)

    def imap(
        self,
        pipeline: Plannable,
        items: Iterator[Mapping[str, Any]],
        names: tuple[str, ...],
        inputs: Mapping[str, Any],
        output_name: OutputName = None,
        *,
        on_error: OnError = "raise",
        ordered: bool = True,
    ) -> Iterator[tuple[int, Any]]:
        """Compute the outputs asked for, item by item, as they are taken. See `Engine.imap`."""
        prepared = self._prepared(pipeline, output_names(output_name), tuple(inputs), names, None)
        plan = prepared.plan
        if plan.map_target is None and (compute := compiled_for_items(plan)) is not None:
            return _one_by_one(compute, items, inputs, on_error)
        rows = self._stream(prepared, items, inputs, on_error, StreamedRows(in_order=ordered))
        loop = running_loop() if plan.awaits else None
        return rows if loop is None or not can_reenter(loop) else _advanced_beside(loop, rows)

    def _stream(
        self,
        prepared: PreparedPlan,
        items: Iterator[Mapping[str, Any]],
        inputs: Mapping[str, Any],
        on_error: OnError,
        rows: StreamedRows,
    ) -> Iterator[tuple[int, Any]]:
        dispatcher = dispatcher_of(prepared)
        run = Run.over_items(
            prepared.plan,
            items,
            inputs,
            fingerprints=fingerprints_of(prepared.plan),
            target_info=prepared_targets(prepared),
            scope=scope_of(prepared.plan, dispatcher),
            on_error=on_error,
            rows=rows,
        )
        try:
            for _ in self._proceed(prepared, run, dispatcher):
                if rows.has_ready:
                    yield from rows.take()
                    run.refill()
            yield from rows.take()
            error = run.error
        finally:
            run.close()
            rows.clear()  # Since Python 3.12, the traceback of an error keeps this frame.
            if isinstance(items, ItemStream):
                items.close()
        if error is not None:
            try:
                raise raisable(error)
            finally:
                del error  # the traceback refers to this frame

    def _prepared(
        self,
        pipeline: Plannable,
        output_name: tuple[str, ...] | None,
        given: tuple[str, ...],
        mapped: tuple[str, ...] | None,
        ctx: CallbackContext | None,
    ) -> PreparedPlan:
        """Return the plan for some inputs and outputs, which is made once."""
        key = (pipeline.token, OCCUPIED.get(), mapped, output_name, given)
        prepared = self._plans.get(key) if ctx is None else None
        if prepared is None:
            prepared = build_plan(
                pipeline,
                (*(mapped or ()), *given),
                output_name,
                self.placement(),
                parents=() if ctx is None else ctx.hierarchy_path,
                mapped=mapped is not None,
                varying=mapped or (),
            )
            if self not in prepared.engines:
                prepared.engines.append(self)
            if ctx is None:
                self._plans.put(pipeline, key, prepared)
        return prepared

    def _complete(self, prepared: PreparedPlan, run: Run, dispatcher: EventDispatcher) -> Any:
        """Drive a run to its end, and return its result or raise its error."""
        try:
            for _ in self._proceed(prepared, run, dispatcher):
                pass
        except BaseException:
            run.close()
            raise
        return run.finish()

    def _proceed(self, prepared: PreparedPlan, run: Run, dispatcher: EventDispatcher) -> Iterator[None]:
        """Drive a run to its end, and stop wherever there is nothing to do but wait."""
        completed = Completed()
        if (caller := ASYNC_CALLER.get()) is not None:
            caller.on_cancel(partial(completed.put, None))
        try:
            targets = prepared_targets(prepared)
            yield from proceed(run, targets, dispatcher, completed, put=dispatcher.put)
        except BaseException as error:
            if is_a(error, (KeyboardInterrupt, SystemExit)):
                for engine in _scheduled(prepared):
                    shut_down(engine._own, at_once=True)
            if is_a(error, GeneratorExit) and isinstance(run.root, MapRun) and run.root.rows.is_stream:
                run.root.stop(NodeAbandonedError("the stream was closed before all items were taken"))
            else:
                run.abandon(error)
            dispatcher(run.events)
            raise
        finally:
            # A run within a call is a part of another run.
            prepared.plan.finish() if CURRENT_CALL.get() is None else prepared.plan.flush()
        if run.executed:
            warn_of_changed_code(prepared.plan, run.fingerprints)
        for engine in _scheduled(prepared):
            # An executor that has lost its cluster, or whose workers cannot be started, takes no more work:
            # the next run makes another one. An executor that has lost a worker goes on.
            if is_a(run.error, ClusterConnectionError) or any(own.is_broken for own in engine._own):
                engine.shutdown()


def watch_of(prepared: PreparedPlan, around: CallbackContext | None) -> Watch:
    """Return where the events of a compiled plan go."""
    dispatcher = dispatcher_of(prepared, around)
    return Watch(dispatcher.put, dispatcher.run)


def scope_of(plan: Plan, dispatcher: EventDispatcher, around: CallbackContext | None = None) -> Scope:
    """Return the place of a plan in a run, which may be a part of another run."""
    return Scope(plan.key, plan.path, () if around is None else around.item_path, dispatcher.run)


def prepared_targets(prepared: PreparedPlan) -> Callable[[TargetRef], ExecutionTarget]:
    """Return a function from references in a plan to the execution targets of its engines."""

    def target_of(ref: TargetRef) -> ExecutionTarget:
        for engine in _scheduled(prepared):
            for target in engine.targets():
                if target.ref == ref:
                    return target
        raise LookupError(f"no engine of the plan has the target {ref!r}")

    return target_of


def _scheduled(prepared: PreparedPlan) -> list[ScheduledEngine]:
    return [engine for engine in prepared.engines if isinstance(engine, ScheduledEngine)]


def _one_by_one(
    compute: Callable[..., dict[str, Any]],
    items: Iterator[Mapping[str, Any]],
    inputs: Mapping[str, Any],
    on_error: OnError,
) -> Iterator[tuple[int, Any]]:
    for index, item in enumerate(items):
        # No local variable holds the row: the traceback of an error keeps this frame.
        yield index, _row(compute, {**inputs, **item}, index, on_error)


def _row(
    compute: Callable[..., dict[str, Any]], inputs: dict[str, Any], index: int, on_error: OnError
) -> Any:
    try:
        return compute(inputs, (index,))
    except Exception as error:
        if on_error == "return":
            return without_frame(error)
        if is_a(error, StopIteration):
            raise raisable(error) from error
        raise


def _with_errors(rows: Sequence[Any]) -> Sequence[Any]:
    if isinstance(rows, Columns):
        return rows
    return [row.error if isinstance(row, Failure) else row for row in rows]


def _on_the_right_thread(plan: Plan, work: Callable[[], T]) -> T:
    """Work in this thread; or, if it has a loop that coroutines of the plan need, beside that loop."""
    loop = running_loop() if plan.awaits else None
    if loop is None or not can_reenter(loop):
        return work()
    return run_in_thread_reentrant(loop, work)


def _advanced_beside(loop: asyncio.AbstractEventLoop, rows: Iterator[T]) -> Iterator[T]:
    """Advance an iterator beside a loop that its coroutines need."""
    caller, end = AsyncCaller(loop), object()
    while (row := run_in_thread_reentrant(loop, partial(next, rows, end), caller)) is not end:
        yield row


def shut_down(targets: Sequence[ExecutionTarget], *, wait: bool = True, at_once: bool = False) -> None:
    """Shut down the executors that targets have made."""
    for target in targets:
        target.shutdown(wait=wait, at_once=at_once)
