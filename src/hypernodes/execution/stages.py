"""A plan over columns, stage by stage: each stage goes over many items before the next one does.

Plain functions that follow one another are one stage, since handing columns on costs more than most calls. A
node with a batch function, an async one, and one that asks for resources are stages of their own:

    a = f(x)  ─┐                      ┌─ d = h(c)   plain
    b = g(a)  ─┴─▶ c = k(b), batch ───┴─ e = i(c)
    plain                             └─▶ w = j(c), async
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from hypernodes.callbacks.event import Scope
from hypernodes.execution.calls.batch import call_batch, values
from hypernodes.execution.calls.call import call_node_on_loop
from hypernodes.execution.compiled.codegen import compiled_over_columns
from hypernodes.execution.driver import drive
from hypernodes.execution.driver_on_loop import drive_on_loop
from hypernodes.execution.jobs import MapContext
from hypernodes.execution.plan.model import CallStep, NestedStep, Plan, Step
from hypernodes.execution.plan.needs import STAGES
from hypernodes.execution.plan.variants import part_of
from hypernodes.execution.scheduler.run import Run, no_targets
from hypernodes.execution.signature import fingerprint_plan
from hypernodes.executors.context import can_share, own_context
from hypernodes.mapping import Columns, column_lists
from hypernodes.resources import Resources
from hypernodes.serialization.errors import ExceptionWrapper

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from hypernodes.execution.calls.call import InThread

Kind: TypeAlias = Literal["plain", "batch", "async", "apart", "shared"]


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """Some steps of a plan that go over many items together."""

    kind: Kind
    plan: Plan  # the steps, as a plan of their own
    takes: tuple[str, ...]  # its inputs that differ from item to item
    makes: tuple[str, ...]  # its outputs that other stages or the caller need
    resources: Resources  # what a worker that computes it takes of a cluster

    @property
    def name(self) -> str:
        """The names of its nodes."""
        return "_".join(step.name for step in self.plan.steps)


def split(plan: Plan, fixed: Collection[str], *, finely: bool = False) -> list[Stage]:
    """Return the stages of a plan, in an order in which each comes after what it needs.

    Finely, plain functions that are not connected are stages of their own, so that those whose outputs are
    not used in the end can be left out.
    """
    kinds = {step.index: _kind(step, fixed) for step in plan.steps}
    groups = _grouped(plan, {index: -1 if kind == "plain" else index for index, kind in kinds.items()})
    if finely:
        groups = {
            (level, apart if apart >= 0 else -1 - part[0].index): part
            for (level, apart), steps in groups.items()
            for part in _connected(plan, steps)
        }
    return [
        _stage(plan, fixed, steps, "plain" if apart < 0 else kinds[apart])
        for (_, apart), steps in sorted(groups.items(), key=lambda item: item[0])
    ]


def stages_of_shared(plan: Plan, names: Collection[str]) -> list[Stage]:
    """Return a stage for each output that has the same value in all rows; `plan` computes that value."""
    return [
        Stage("shared", replace(plan, outputs=(name,)), (), (name,), Resources())
        for name in names
        if name in plan.outputs
    ]


def asks_for_resources(plan: Plan) -> bool:
    """Whether a step of a plan, or of one within it, asks for resources."""
    return any(_resources(step) != Resources() for step in plan.steps)


def split_by_resources(plan: Plan, fixed: Collection[str]) -> list[Stage]:
    """Return the stages of a plan whose steps ask for the same resources, in the order of `split`."""
    asked = [_resources(step) for step in plan.steps]
    groups = _grouped(plan, {step.index: asked.index(_resources(step)) for step in plan.steps})
    ordered = sorted(groups.items(), key=lambda item: item[0])
    return [_stage(plan, fixed, steps, "plain") for _, steps in ordered]


def _grouped(plan: Plan, group_of: Mapping[int, int]) -> dict[tuple[int, int], list[Step]]:
    """Return the steps of each stage by its level and group; each level needs only lower ones.

    `group_of` has a group for the index of each step. Steps of one group may be in one stage.
    """
    levels: dict[int, int] = {}
    groups: dict[tuple[int, int], list[Step]] = {}
    for step in plan.steps:
        level, group = 0, group_of[step.index]
        for _, name in step.arguments:
            if (producer := plan.producers.get(name)) is not None:
                level = max(level, levels[producer.index] + (group_of[producer.index] != group))
        levels[step.index] = level
        groups.setdefault((level, group), []).append(step)
    return groups


def _stage(plan: Plan, fixed: Collection[str], steps: Sequence[Step], kind: Kind) -> Stage:
    own = {step.index for step in steps}
    wanted = set(plan.outputs).union(
        *({name for _, name in step.arguments} for step in plan.steps if step.index not in own)
    )
    makes = tuple(name for step in steps for name in step.outputs if name in wanted)
    part = part_of(plan, steps, makes)
    takes = tuple(name for name in part.inputs if name not in fixed and name not in part.bound)
    resources = Resources()
    for step in steps:
        resources = resources.maximum(_resources(step))
    return Stage(kind, part, takes, makes, resources)


def _connected(plan: Plan, steps: Sequence[Step]) -> list[list[Step]]:
    """Return the groups of steps that are connected: one takes the output of another."""
    groups: list[list[Step]] = []
    for step in steps:
        makers = {plan.producers[name].index for _, name in step.arguments if name in plan.producers}
        joined = [group for group in groups if any(other.index in makers for other in group)]
        groups = [group for group in groups if group not in joined]
        groups.append(sorted([*(other for group in joined for other in group), step], key=lambda s: s.index))
    return groups


def as_single_stage(plan: Plan, fixed: Collection[str]) -> Stage:
    """Return a whole plan as one stage, in which the general path looks up and stores what may be cached.

    The stage makes only what its steps compute: an output whose value was given is an input of the query.
    """
    takes = tuple(name for name in plan.inputs if name not in fixed and name not in plan.bound)
    makes = tuple(name for name in plan.outputs if name in plan.producers)
    resources = Resources()
    for step in plan.steps:
        resources = resources.maximum(_resources(step))
    plan = replace(plan, outputs=makes)
    return Stage("async" if plan.awaits else "plain", plan, takes, makes, resources)


def as_call_stage(step: CallStep, scope: Scope) -> Stage:
    """Return one step as a stage whose inputs are all fixed, for a single call."""
    single = replace(step, index=0, options=replace(step.options, batch=None))
    makes = tuple(name for name in step.outputs if name is not None)
    inputs = tuple(sorted({name for _, name in step.arguments}))
    plan = Plan(key=scope.plan, path=scope.path, inputs=inputs, steps=(single,), outputs=makes, bound={})
    return Stage("async" if step.is_async else "plain", plan, (), makes, step.options.resources)


def can_be_staged(plan: Plan) -> bool:
    """Whether nothing has to happen between the calls of a plan, so that it can go over columns."""
    return plan.map_target is None and plan.needs <= STAGES


def compute(
    stage: Stage,
    columns: Mapping[str, Any],
    fixed: Mapping[str, Any],
    indices: Sequence[int],
    scope: Scope | None = None,
) -> dict[str, Any]:
    """Go over items; return lists of the outputs by name, and the arrays of a batch function as they are."""
    plan = stage.plan
    scope = scope or Scope(plan.key, plan.path)
    given = {**plan.bound, **fixed}
    if stage.kind == "batch":
        step: Any = plan.steps[0]
        varying = {parameter: columns[name] for parameter, name in step.arguments if name in stage.takes}
        others = {parameter: given[name] for parameter, name in step.arguments if name not in stage.takes}
        made = dict(zip(step.outputs, call_batch(step, varying, others, indices, scope), strict=True))
        return {name: made[name] for name in stage.makes}
    columns = {name: values(columns[name]) for name in stage.takes}
    compute_columns = compiled_over_columns(plan, stage.takes, is_isolated=True) if stage.takes else None
    if compute_columns is not None:
        return _compute_isolated(compute_columns, stage, columns, fixed, indices, scope)
    run = _run(stage, columns, given, indices, scope)
    drive(run, no_targets)
    return _columns(stage, run)


def _compute_isolated(
    compute_columns: Callable[..., dict[str, list[Any]]],
    stage: Stage,
    columns: Mapping[str, list[Any]],
    fixed: Mapping[str, Any],
    indices: Sequence[int],
    scope: Scope,
) -> dict[str, Any]:
    """Go over items, in another context behind each item that has changed its own."""
    remaining = {name: iter(column) for name, column in columns.items()}
    numbers = iter(indices)
    made: dict[str, list[Any]] = {name: [] for name in stage.plan.outputs}
    while len(made[stage.plan.outputs[0]]) < len(indices):
        own = own_context()
        each = numbers if can_share(own) else islice(numbers, 1)
        own.run(compute_columns, remaining, fixed, scope.items, each, made)
    return made


async def compute_on_loop(
    stage: Stage,
    columns: Mapping[str, Any],
    fixed: Mapping[str, Any],
    indices: Sequence[int],
    in_thread: InThread,
    max_concurrent: int,
    scope: Scope | None = None,
) -> dict[str, Any]:
    """Go over items on an event loop, several at once."""
    plan = stage.plan
    scope = scope or Scope(plan.key, plan.path)
    given = {**plan.bound, **fixed}
    columns = {name: values(columns[name]) for name in stage.takes}
    room = asyncio.Semaphore(max_concurrent)
    (step, *others) = plan.steps

    async def one(position: int) -> tuple[Any, ...]:
        try:
            async with room:
                return await computed(position)
        except (KeyboardInterrupt, SystemExit) as error:
            raise ExceptionWrapper(error) from None

    async def computed(position: int) -> tuple[Any, ...]:
        index = indices[position]
        if not others and isinstance(step, CallStep) and plan.needs <= STAGES:
            source = {
                name: columns[name][position] if name in columns else given[name]
                for _, name in step.arguments
            }
            arguments = {parameter: source[name] for parameter, name in step.arguments}
            outcome = await call_node_on_loop(step, arguments, scope.of_item(index), in_thread)
            if outcome.error is not None:
                try:
                    raise ExceptionWrapper(outcome.error)
                finally:
                    del outcome  # the traceback of the error refers to this frame
            made = dict(zip(step.outputs, outcome.outputs, strict=True))
            return tuple(made[name] for name in stage.makes)
        item = {name: [column[position]] for name, column in columns.items()}
        run = _run(stage, item, given, [index], scope)
        await drive_on_loop(run, in_thread)
        if run.error is not None:
            plan.flush()
            try:
                raise ExceptionWrapper(run.error)
            finally:
                run.close()  # the traceback of the error refers to this frame
        return tuple(column[0] for column in _columns(stage, run).values())

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(one(position), context=own_context()) for position in range(len(indices))
            ]
    except BaseExceptionGroup as errors:
        try:
            raise errors.exceptions[0] from None
        finally:
            del group, tasks  # the traceback of the error refers to this frame
    rows = [task.result() for task in tasks]
    return {name: [row[position] for row in rows] for position, name in enumerate(stage.makes)}


def _run(
    stage: Stage,
    columns: Mapping[str, list[Any]],
    given: Mapping[str, Any],
    indices: Sequence[int],
    scope: Scope,
) -> Run:
    plan = stage.plan
    items = Columns(dict(columns), len(indices))
    context = MapContext(plan, fingerprint_plan(plan), dict(given), {}, {}, scope, "raise")
    return Run.over_chunk(context, indices, items, {})


def compute_stages(
    plan: Plan,
    columns: Mapping[str, list[Any]],
    fixed: Mapping[str, Any],
    indices: Sequence[int],
    scope: Scope,
) -> Columns:
    """Go over items with a plan that has batch functions, and return a row of outputs for each."""
    known: dict[str, Any] = dict(columns)
    for stage in split(plan, fixed):
        known |= compute(stage, {name: known[name] for name in stage.takes}, fixed, indices, scope)
    return Columns(
        {
            name: values(known[name]) if name in known else [{**plan.bound, **fixed}[name]] * len(indices)
            for name in plan.outputs
        }
    )


def _columns(stage: Stage, run: Run) -> dict[str, list[Any]]:
    stage.plan.flush()
    return column_lists(run.finish(), stage.makes)


def _kind(step: Step, fixed: Collection[str]) -> Kind:
    if isinstance(step, NestedStep):
        return "async" if step.inner.awaits else "apart" if _resources(step) != Resources() else "plain"
    if step.options.batch is not None and any(name not in fixed for _, name in step.arguments):
        return "batch"
    if step.is_async:
        return "async"
    return "plain" if step.options.resources == Resources() else "apart"


def _resources(step: Step) -> Resources:
    if isinstance(step, CallStep):
        return step.options.resources
    resources = Resources()
    for inner in step.inner.steps:
        resources = resources.maximum(_resources(inner))
    return resources
