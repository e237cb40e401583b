"""A plan over columns: its steps in stages, each of which goes over many items before the next does.

Plain functions that follow one another are one stage, since handing columns on costs more than most calls.
A node with a batch function, an async one, and one that takes something of its own of a machine are stages
of their own:

    a = f(x)  ─┐                      ┌─ d = h(c)   plain
    b = g(a)  ─┴─▶ c = k(b), batch ───┴─ e = i(c)
    plain                             └─▶ w = j(c), async
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from hypernodes.callbacks.event import Scope
from hypernodes.execution.batched import call_batch, values
from hypernodes.execution.drive import drive, drive_on_loop
from hypernodes.execution.invoke import attempt, is_straight, straight_over
from hypernodes.execution.run import Run
from hypernodes.execution.signature import read_codes
from hypernodes.execution.steps import CallStep, NestedStep, Plan, Step
from hypernodes.resources import Resources

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from hypernodes.execution.invoke import InThread

Kind: TypeAlias = Literal["plain", "batch", "async", "apart"]


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """Some steps of a plan.

    Attributes:
        kind: How it is computed.
        plan: The steps, as a plan of their own.
        takes: The values it needs that differ from item to item.
        makes: The values that are needed of it.
        resources: What a worker of it takes of a cluster.
    """

    kind: Kind
    plan: Plan
    takes: tuple[str, ...]
    makes: tuple[str, ...]
    resources: Resources

    @property
    def name(self) -> str:
        """The names of its nodes."""
        return "_".join(step.name for step in self.plan.steps)


def split(plan: Plan, fixed: Collection[str], *, finely: bool = False) -> list[Stage]:
    """Return the stages of a plan, in an order in which each comes after what it needs.

    Args:
        plan: The plan.
        fixed: The inputs that are the same for all items.
        finely: Whether plain functions that need nothing of each other are stages of their own, so that what
            nobody asks for in the end can be left out.
    """
    kinds = {step.index: _kind(step, fixed) for step in plan.steps}
    levels: dict[int, int] = {}
    groups: dict[tuple[int, int], list[Step]] = {}
    for step in plan.steps:
        level = 0
        for _, name in step.arguments:
            producer = plan.producers.get(name)
            if producer is not None:
                both_plain = kinds[producer.index] == "plain" and kinds[step.index] == "plain"
                level = max(level, levels[producer.index] + (not both_plain))
        levels[step.index] = level
        apart = -1 if kinds[step.index] == "plain" else step.index
        groups.setdefault((level, apart), []).append(step)
    if finely:
        groups = {
            (level, apart if apart >= 0 else -1 - part[0].index): part
            for (level, apart), steps in groups.items()
            for part in _connected(plan, steps)
        }
    stages = []
    for (_, apart), steps in sorted(groups.items(), key=lambda item: item[0]):
        own = {step.index for step in steps}
        wanted = set(plan.outputs).union(
            *({name for _, name in step.arguments} for step in plan.steps if step.index not in own)
        )
        makes = tuple(name for step in steps for name in step.outputs if name in wanted)
        part = _part(plan, steps, makes)
        takes = tuple(name for name in part.inputs if name not in fixed and name not in part.bound)
        resources = Resources()
        for step in steps:
            resources = resources.with_most_of(_resources(step))
        stages.append(Stage("plain" if apart < 0 else kinds[apart], part, takes, makes, resources))
    return stages


def _connected(plan: Plan, steps: Sequence[Step]) -> list[list[Step]]:
    """Return the groups of steps of which one takes what another makes."""
    groups: list[list[Step]] = []
    for step in steps:
        makers = {plan.producers[name].index for _, name in step.arguments if name in plan.producers}
        joined = [group for group in groups if any(other.index in makers for other in group)]
        groups = [group for group in groups if group not in joined]
        groups.append(sorted([*(other for group in joined for other in group), step], key=lambda s: s.index))
    return groups


def whole(plan: Plan, fixed: Collection[str]) -> Stage:
    """Return a plan as one stage, which looks up and stores what it may cache."""
    takes = tuple(name for name in plan.inputs if name not in fixed and name not in plan.bound)
    resources = Resources()
    for step in plan.steps:
        resources = resources.with_most_of(_resources(step))
    return Stage("async" if plan.awaits else "plain", plan, takes, plan.outputs, resources)


def once(plan: Plan) -> Plan:
    """Return a plan as it is where there is one item only: batch functions are for more."""
    steps = tuple(
        replace(step, batch=None) if isinstance(step, CallStep) and step.batch is not None else step
        for step in plan.steps
    )
    return replace(
        plan,
        steps=steps,
        producers={name: step for step in steps for name in step.outputs if name is not None},
    )


def alone(plan: Plan, step: CallStep) -> Stage:
    """Return one step of a plan as a stage, of which all that it takes is fixed and nothing is watched."""
    makes = tuple(name for name in step.outputs if name is not None)
    part = replace(
        _part(plan, [replace(step, batch=None)], makes),
        cache=None,
        hears=frozenset(),
        node_lane=None,
        map_lane=None,
        shipped=None,
    )
    return Stage("async" if step.is_async else "plain", part, (), makes, step.resources)


def is_watched(plan: Plan) -> bool:
    """Whether anything must happen between the calls of a plan, or of one nested in it."""
    return any(
        inner.cache is not None or inner.hears or inner.node_lane is not None or inner.map_lane is not None
        for inner in plan.tree()
    )


def compute(
    stage: Stage,
    columns: Mapping[str, Any],
    fixed: Mapping[str, Any],
    numbers: Sequence[int],
    within: Scope | None = None,
) -> dict[str, Any]:
    """Go over items.

    Args:
        stage: The stage; none that is async.
        columns: Lists or Arrow arrays, by name, of what the stage takes.
        fixed: What all items have in common.
        numbers: The index of each item.
        within: Where it is, where that is not the outermost map.

    Returns:
        Lists by name of what the stage makes; a batch function's arrays as they are.
    """
    plan = stage.plan
    scope = within or Scope(plan.key, plan.path)
    given = {**plan.bound, **fixed}
    if stage.kind == "batch":
        (step,) = plan.steps
        assert isinstance(step, CallStep)  # noqa: S101
        varying = {parameter: columns[name] for parameter, name in step.arguments if name in stage.takes}
        others = {parameter: given[name] for parameter, name in step.arguments if name not in stage.takes}
        made = dict(zip(step.outputs, call_batch(step, varying, others, numbers, scope), strict=True))
        return {name: made[name] for name in stage.makes}
    columns = {name: values(columns[name]) for name in stage.takes}
    if stage.takes and is_straight(plan):
        return straight_over(plan, stage.takes)(columns, fixed, scope.items, numbers)
    run = _run(stage, columns, given, numbers, scope)
    drive(run, _Nobody(), list.clear)
    return _columns(stage, run)


class Ended(Exception):  # noqa: N818  it stands for another one
    """Carries an error out of a task or a generator that it cannot leave as itself."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error


async def compute_on_loop(
    stage: Stage,
    columns: Mapping[str, Any],
    fixed: Mapping[str, Any],
    numbers: Sequence[int],
    in_thread: InThread,
    at_once: int,
    within: Scope | None = None,
) -> dict[str, Any]:
    """Go over items on an event loop, several at once.

    Args:
        stage: The stage.
        columns: What it takes, as in `compute`.
        fixed: What all items have in common.
        numbers: The index of each item.
        in_thread: Calls plain functions beside the loop.
        at_once: How many items are under way at a time.
        within: Where it is, where that is not the outermost map.

    Returns:
        Lists by name of what the stage makes.
    """
    plan = stage.plan
    scope = within or Scope(plan.key, plan.path)
    given = {**plan.bound, **fixed}
    columns = {name: values(columns[name]) for name in stage.takes}
    room = asyncio.Semaphore(at_once)
    (step, *others) = plan.steps

    async def one(at: int) -> tuple[Any, ...]:
        try:
            return await computed(at)
        except (KeyboardInterrupt, SystemExit) as error:
            raise Ended(error) from None

    async def computed(at: int) -> tuple[Any, ...]:
        async with room:
            number = numbers[at]
            if not others and isinstance(step, CallStep) and plan.cache is None:
                source = {
                    name: columns[name][at] if name in columns else given[name] for _, name in step.arguments
                }
                arguments = {parameter: source[name] for parameter, name in step.arguments}
                outcome = await attempt(step, arguments, scope.of_item(number), in_thread)
                if outcome.error is not None:
                    raise Ended(outcome.error)
                made = dict(zip(step.outputs, outcome.outputs, strict=True))
                return tuple(made[name] for name in stage.makes)
            item = {name: [column[at]] for name, column in columns.items()}
            run = _run(stage, item, given, [number], scope)
            await drive_on_loop(run, in_thread, _Nobody())
            if run.error is not None:
                stage.plan.flush()
                raise Ended(run.error)
            return tuple(column[0] for column in _columns(stage, run).values())

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(at)) for at in range(len(numbers))]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    rows = [task.result() for task in tasks]
    return {name: [row[at] for row in rows] for at, name in enumerate(stage.makes)}


def _run(
    stage: Stage,
    columns: Mapping[str, list[Any]],
    given: Mapping[str, Any],
    numbers: Sequence[int],
    scope: Scope,
) -> Run:
    plan = stage.plan
    items = [{name: column[at] for name, column in columns.items()} for at in range(len(numbers))]
    return Run.over_batch(
        plan,
        scope,
        items,
        numbers=numbers,
        fixed=given,
        identities={},
        codes=read_codes(plan),
        on_error="raise",
    )


def over_columns(
    plan: Plan,
    columns: Mapping[str, list[Any]],
    fixed: Mapping[str, Any],
    numbers: Sequence[int],
    within: Scope,
) -> list[dict[str, Any]]:
    """Go over items with a plan that has batch functions, and return a row of outputs for each."""
    known: dict[str, Any] = dict(columns)
    for stage in split(plan, fixed):
        known |= compute(stage, {name: known[name] for name in stage.takes}, fixed, numbers, within)
    made = [
        values(known[name]) if name in known else [{**plan.bound, **fixed}[name]] * len(numbers)
        for name in plan.outputs
    ]
    return [dict(zip(plan.outputs, row, strict=True)) for row in zip(*made, strict=True)]


def has_batch(plan: Plan) -> bool:
    """Whether any of its own steps has a batch function."""
    return any(isinstance(step, CallStep) and step.batch is not None for step in plan.steps)


def _columns(stage: Stage, run: Run) -> dict[str, list[Any]]:
    stage.plan.flush()
    if run.error is not None:
        raise run.error
    return {name: [row[name] for row in run.result] for name in stage.makes}


class _Nobody:
    """Sends nothing: there is nowhere else to go."""

    def send(self, job: Any) -> Any:
        raise AssertionError(f"{job!r} belongs to another executor")

    def receive(self, job: Any, future: Any) -> Any:
        raise AssertionError(f"{job!r} was never sent: {future!r}")

    def here(self, batch: Any) -> Any:
        raise AssertionError(f"{batch!r} is told in numbers, and nobody listens")

    def wait(self, completed: Any) -> Any:
        return completed.get()

    def close(self) -> None:
        pass


def _kind(step: Step, fixed: Collection[str]) -> Kind:
    if isinstance(step, NestedStep):
        return "async" if step.inner.awaits else "apart" if _resources(step) != Resources() else "plain"
    if step.batch is not None and any(name not in fixed for _, name in step.arguments):
        return "batch"
    if step.is_async:
        return "async"
    return "plain" if step.resources == Resources() else "apart"


def _resources(step: Step) -> Resources:
    if isinstance(step, CallStep):
        return step.resources
    resources = Resources()
    for inner in step.inner.steps:
        resources = resources.with_most_of(_resources(inner))
    return resources


def _part(plan: Plan, steps: Sequence[Step], makes: tuple[str, ...]) -> Plan:
    made = {name for step in steps for name in step.outputs}
    inputs = sorted({name for step in steps for _, name in step.arguments if name not in made})
    ordered = tuple(replace(step, index=index) for index, step in enumerate(steps))
    return replace(
        plan,
        inputs=tuple(inputs),
        steps=ordered,
        outputs=makes,
        bound={name: plan.bound[name] for name in inputs if name in plan.bound},
        producers={name: step for step in ordered for name in step.outputs if name is not None},
        awaits=any(step.inner.awaits if isinstance(step, NestedStep) else step.is_async for step in ordered),
        compiled=None,
        compiled_on_loop=None,
        compiled_over=None,
        told=plan.told,
        reach=None if all(inner.cache is None for inner in plan.tree()) else plan.code_reach(),
    )
