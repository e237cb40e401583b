"""What engines have in common whose work goes along lanes."""

from __future__ import annotations

from abc import abstractmethod
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from hypernodes.callbacks.announce import Announcer
from hypernodes.callbacks.event import Event, Scope
from hypernodes.engines.base import Engine
from hypernodes.exceptions import ClusterConnectionError
from hypernodes.execution.drive import proceed
from hypernodes.execution.invoke import straight, straight_over
from hypernodes.execution.jobs import Failure
from hypernodes.execution.lane import BUSY
from hypernodes.execution.plan import build_plan
from hypernodes.execution.run import Run
from hypernodes.execution.signature import read_codes
from hypernodes.execution.steps import NestedStep
from hypernodes.execution.sweep import Streamed
from hypernodes.execution.worker import Dispatch
from hypernodes.executors.aliases import SEQUENTIAL
from hypernodes.executors.loops import HOME, Home, beside, can_reenter, running_loop
from hypernodes.executors.settled import raisable
from hypernodes.mapping import Columns

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from hypernodes.callbacks import CallbackContext
    from hypernodes.execution.drive import Completed
    from hypernodes.execution.jobs import OnError
    from hypernodes.execution.lane import Lane, Lanes
    from hypernodes.execution.steps import Plan
    from hypernodes.pipeline import Pipeline

T = TypeVar("T")


class LanedEngine(Engine):
    """Runs pipelines node by node, and sends what it does not do right here along its lanes."""

    _in_use: list[Lane]

    @abstractmethod
    def lanes(self) -> Lanes:
        """Return where nodes and items go."""

    def shutdown(self) -> None:
        """Shut down the executors that aliases stand for; they are made again when needed again."""
        shut_down(self._in_use)

    def run(
        self,
        pipeline: Pipeline,
        inputs: Mapping[str, Any],
        output_name: tuple[str, ...] | None = None,
        _ctx: CallbackContext | None = None,
    ) -> dict[str, Any]:
        """Compute the outputs asked for, once. See `Engine.run`."""
        plan = pipeline.plans.get((self, BUSY.get(), output_name, *inputs))
        if plan is None or _ctx is not None:
            plan = self._plan(pipeline, output_name, tuple(inputs), _ctx)
        if plan.compiled:
            # In a worker, a nested pipeline's executor may count as "right here"; elsewhere it must not.
            if pipeline.effective_engine is self and not self._in_use and not BUSY.get() and _ctx is None:
                pipeline.straight[(output_name, *inputs)] = plan.compiled
            outputs: dict[str, Any] = plan.compiled(inputs)
            return outputs

        def work() -> dict[str, Any]:
            announce = announcer(plan)
            run = Run.of(plan, inputs, read_codes(plan), announce.around)
            result: dict[str, Any] = self._carry_through(plan, run, announce)
            return result

        return _on_the_right_thread(plan, work)

    def map(
        self,
        pipeline: Pipeline,
        items: Sequence[Mapping[str, Any]],
        inputs: Mapping[str, Any],
        output_name: tuple[str, ...] | None = None,
        _ctx: CallbackContext | None = None,
        *,
        on_error: OnError = "raise",
    ) -> Sequence[Any]:
        """Compute the outputs asked for, for each item. See `Engine.map`."""
        names = tuple(items[0]) if items else ()
        plan = pipeline.plans.get((self, BUSY.get(), "map", names, output_name, *inputs))
        if plan is None or _ctx is not None:
            plan = self._plan(pipeline, output_name, (*names, *inputs), _ctx, names)
        if plan.compiled and plan.map_lane is None and on_error == "raise":
            if isinstance(items, Columns):
                return Columns(straight_over(plan, names)(items.columns, inputs))
            compute = plan.compiled
            every = [{**inputs, **item} for item in items] if inputs else items
            return [compute(item, (index,)) for index, item in enumerate(every)]

        def work() -> list[Any]:
            announce = announcer(plan)
            run = Run.over_items(
                plan, items, inputs, codes=read_codes(plan), around=announce.around, on_error=on_error
            )
            rows = self._carry_through(plan, run, announce)
            return [row.error if isinstance(row, Failure) else row for row in rows]

        return _on_the_right_thread(plan, work)

    def imap(
        self,
        pipeline: Pipeline,
        items: Iterator[Mapping[str, Any]],
        names: tuple[str, ...],
        inputs: Mapping[str, Any],
        output_name: tuple[str, ...] | None = None,
        *,
        on_error: OnError = "raise",
        ordered: bool = True,
    ) -> Iterator[tuple[int, Any]]:
        """Compute the outputs asked for, item by item, as they are taken. See `Engine.imap`."""
        plan = pipeline.plans.get((self, BUSY.get(), "map", names, output_name, *inputs))
        if plan is None:
            plan = self._plan(pipeline, output_name, (*names, *inputs), None, names)
        if plan.compiled and plan.map_lane is None:
            return _one_by_one(plan.compiled, items, inputs, on_error)
        rows = self._stream(plan, items, inputs, on_error, Streamed(in_order=ordered))
        loop = running_loop() if plan.awaits else None
        return rows if loop is None or not can_reenter(loop) else _advanced_beside(loop, rows)

    def _stream(
        self,
        plan: Plan,
        items: Iterator[Mapping[str, Any]],
        inputs: Mapping[str, Any],
        on_error: OnError,
        rows: Streamed,
    ) -> Iterator[tuple[int, Any]]:
        announce = announcer(plan)
        run = Run.over_items(
            plan, items, inputs, codes=read_codes(plan), around=announce.around, on_error=on_error, rows=rows
        )
        assert run.root is not None  # noqa: S101
        for _ in self._proceed(plan, run, announce):
            for at, row in rows.take():
                yield at, row.error if isinstance(row, Failure) else row
                run.later(run.root.refill)
        for at, row in rows.take():
            yield at, row.error if isinstance(row, Failure) else row
        if run.error is not None:
            raise raisable(run.error)

    def _plan(
        self,
        pipeline: Pipeline,
        output_name: tuple[str, ...] | None,
        given: tuple[str, ...],
        ctx: CallbackContext | None,
        mapped: tuple[str, ...] | None = None,
    ) -> Plan:
        around = () if ctx is None else ctx.hierarchy_path
        plan = build_plan(
            pipeline, given, output_name, self.lanes(), around=around, mapped=mapped is not None
        )
        straight(plan)
        if ctx is None:
            kind = () if mapped is None else ("map", mapped)
            fixed = given[len(mapped or ()) :]
            pipeline.plans[(self, BUSY.get(), *kind, output_name, *fixed)] = plan
        return plan

    def _carry_through(self, plan: Plan, run: Run, announce: Announcer) -> Any:
        """Drive a run to its end, and return its result or raise its error."""
        for _ in self._proceed(plan, run, announce):
            pass
        if run.error is not None:
            raise run.error
        return run.result

    def _proceed(self, plan: Plan, run: Run, announce: Announcer) -> Iterator[None]:
        """Drive a run to its end, and stop wherever there is nothing to do but wait."""
        completed: Completed = SimpleQueue()
        home = HOME.get()
        if home is not None:
            home.on_stop(lambda: completed.put(None))
        try:
            yield from proceed(run, Dispatch(), announce, completed)
        except BaseException as error:
            if isinstance(error, GeneratorExit) and run.root is not None and run.root.is_stream:
                run.root.stop()  # nobody wants the rest
                announce(run.events)
                raise
            if isinstance(error, KeyboardInterrupt):
                shut_down(self._in_use, at_once=True)
            scope = Scope(plan.key, plan.path)
            announce([Event.now("on_error", (plan.path[-1], error), scope, about="pipeline")])
            raise
        finally:
            plan.flush()
        if isinstance(run.error, ClusterConnectionError) or any(lane.is_broken for lane in self._in_use):
            # An executor that has lost its cluster, or whose workers cannot be started, takes no more work;
            # the next run gets another. (One that has lost a worker goes on.)
            shut_down(self._in_use)


def _one_by_one(
    compute: Callable[..., dict[str, Any]],
    items: Iterator[Mapping[str, Any]],
    inputs: Mapping[str, Any],
    on_error: OnError,
) -> Iterator[tuple[int, Any]]:
    for index, item in enumerate(items):
        try:
            row: Any = compute({**inputs, **item}, (index,))
        except Exception as error:
            if on_error == "raise":
                if isinstance(error, StopIteration):
                    raise raisable(error) from error
                raise
            row = error
        yield index, row


def announcer(plan: Plan) -> Announcer:
    """Return who tells the callbacks of a plan, and of those nested in it."""
    plans = list(plan.tree())
    executors = dict(_executors(plan, SEQUENTIAL))
    return Announcer(
        {Scope(inner.key, inner.path): inner.callbacks for inner in plans},
        {
            inner.path: {
                "name": inner.path[-1],
                "node_ids": [step.name for step in inner.steps],
                "nested": [step.name for step in inner.steps if isinstance(step, NestedStep)],
                "total": len(inner.steps),
                "executor": executors[inner.path],
                "engine": inner.engine,
                "cache": "" if inner.cache is None else repr(inner.cache),
                "needs": {
                    step.name: tuple(
                        inner.producers[name].name for _, name in step.arguments if name in inner.producers
                    )
                    for step in inner.steps
                },
            }
            for inner in plans
        },
    )


def _executors(plan: Plan, around: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """Say for each pipeline of a plan what makes the calls of its nodes."""
    if plan.map_lane is not None:
        around = plan.map_lane.label
    plan = plan.shipped or plan
    yield plan.path, around if plan.node_lane is None else plan.node_lane.label
    for step in plan.steps:
        if isinstance(step, NestedStep):
            yield from _executors(step.inner, around)


def _on_the_right_thread(plan: Plan, work: Callable[[], T]) -> T:
    """Work in this thread; or, where it has a loop that the work's coroutines need, beside that loop."""
    loop = running_loop() if plan.awaits else None
    if loop is None or not can_reenter(loop):
        return work()
    return beside(loop, work)


def _advanced_beside(loop: asyncio.AbstractEventLoop, rows: Iterator[T]) -> Iterator[T]:
    """Advance an iterator beside a loop that its coroutines need."""
    home, end = Home(loop), object()
    while (row := beside(loop, partial(next, rows, end), home)) is not end:
        yield row


def shut_down(lanes: list[Lane], *, at_once: bool = False) -> None:
    """Shut down the executors that lanes have made."""
    for lane in lanes:
        lane.shutdown(at_once=at_once)
