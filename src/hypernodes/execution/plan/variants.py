"""Plans derived from a plan: as it runs inside a chunk or outside of one, for one item, with other events."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from hypernodes.execution.plan.model import CallStep, NestedStep, Plan
from hypernodes.execution.plan.needs import AGGREGATED

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from hypernodes.execution.plan.model import Step
    from hypernodes.execution.plan.placement import TargetRef


def inside_chunk(plan: Plan, at: TargetRef | None) -> Plan:
    """Return a plan as a worker of a target runs it: what would go to that target the worker does itself."""
    return _with_inner(
        replace(
            plan,
            node_target=None if plan.node_target == at else plan.node_target,
            map_target=None if plan.map_target == at else plan.map_target,
            chunk_plan=None if plan.map_target == at else plan.chunk_plan,
            spread_plan=None if plan.map_target == at else plan.spread_plan,
        ),
        lambda inner: inside_chunk(inner, at),
    )


def spread(plan: Plan, at: TargetRef) -> Plan:
    """Return a plan whose calls go to a target, where it would run them itself."""
    node_target = at if plan.node_target is None else plan.node_target
    return _with_inner(replace(plan, node_target=node_target), lambda inner: spread(inner, at))


def aggregated(plan: Plan) -> Plan:
    """Return a plan that emits one event for all items of a chunk, and otherwise only errors."""
    changed = replace(plan, subscribed=AGGREGATED) if plan.subscribed else plan
    return _with_inner(changed, aggregated)


def without_batch(plan: Plan) -> Plan:
    """Return a plan for a single item: batch functions are for several."""
    return replace(
        plan,
        steps=tuple(
            replace(step, options=replace(step.options, batch=None))
            if isinstance(step, CallStep) and step.options.batch is not None
            else step
            for step in plan.steps
        ),
    )


def with_shared(plan: Plan, varying: Collection[str]) -> Plan:
    """Return the plan of a map that knows which values are the same for all items, and computed once.

    A value within a nested plan has a name that tells the index of its step.
    """
    moving = set(varying)
    if not moving:
        return plan
    fixed: list[Step] = []
    inner: list[str] = []
    for step in plan.steps:
        if step.can_share and moving.isdisjoint(name for _, name in step.arguments):
            fixed.append(step)
            continue
        moving.update(name for name in step.outputs if name is not None)
        # With a cache, a nested plan is asked only for what the cache does not have.
        if isinstance(step, NestedStep) and not step.map_over and not plan.caches():
            own = with_shared(step.inner, {name for name, outer in step.arguments if outer in moving})
            inner += (_shared_name(step, name) for name in own.shared)
    taken = {name for step in plan.steps if step not in fixed for _, name in step.arguments}
    needed = taken.union(plan.outputs)
    shared = (name for step in fixed for name in step.outputs if name is not None and name in needed)
    return replace(plan, shared=(*shared, *inner)) if fixed or inner else plan


def _shared_name(step: NestedStep, name: str) -> str:
    return f"{step.index}/{name}"


def shared_part(plan: Plan) -> Plan:
    """Return the part of the plan of a map that is computed once."""
    return _shared_and_rest(plan)[0]


def without_shared(plan: Plan) -> Plan:
    """Return the part of the plan of a map that is computed for each item; it takes the shared values."""
    return _shared_and_rest(plan)[1]


_known_splits: Final[WeakKeyDictionary[Plan, tuple[Plan, Plan]]] = WeakKeyDictionary()


def _shared_and_rest(plan: Plan) -> tuple[Plan, Plan]:
    if (parts := _known_splits.get(plan)) is None:
        parts = _known_splits[plan] = _split_shared(plan)
    return parts


def _split_shared(plan: Plan) -> tuple[Plan, Plan]:
    """Divide a plan into what is computed once, and what is computed for each item.

    A plan with a cache keeps all its steps, since their indices identify their code; it computes only what is
    asked for and not given.
    """
    shared = plan.shared
    if plan.caches():
        return replace(plan, outputs=shared, shared=(), chunk_plan=None), plan
    nested = {
        step.index: _split_shared_step(step, shared) for step in plan.steps if isinstance(step, NestedStep)
    }
    needed = set(shared)
    first: list[Step] = []
    rest: list[Step] = []
    for step in reversed(plan.steps):
        if not needed.isdisjoint(step.outputs):
            first.insert(0, step)
            needed.update(name for _, name in step.arguments)
            continue
        once, for_each = nested.get(step.index, (None, step))
        rest.insert(0, for_each)
        if once is not None:
            first.insert(0, once)
            needed.update(name for _, name in once.arguments)
    return part_of(plan, first, shared), part_of(plan, rest, plan.outputs)


def _split_shared_step(step: NestedStep, shared: Collection[str]) -> tuple[NestedStep | None, NestedStep]:
    """Divide a nested plan in the same way, if any of its values are shared."""
    names = tuple(name for name in _names(step.inner) if _shared_name(step, name) in shared)
    if not names or step.map_over:
        return None, step
    inner = replace(step.inner, shared=names)
    once, rest = shared_part(inner), without_shared(inner)
    given = tuple((name, _shared_name(step, name)) for name in names)
    arguments = [(name, outer) for name, outer in step.arguments if name in rest.inputs]
    return (
        replace(
            step,
            inner=once,
            arguments=tuple((name, outer) for name, outer in step.arguments if name in once.inputs),
            results=given,
        ),
        replace(step, inner=rest, arguments=(*arguments, *given)),
    )


def _names(plan: Plan) -> Iterator[str]:
    """Yield the names of what a plan makes, in nested plans, too, as `with_shared` names it."""
    yield from plan.producers
    for step in plan.steps:
        if isinstance(step, NestedStep) and not step.map_over:
            yield from (_shared_name(step, name) for name in _names(step.inner))


def part_of(plan: Plan, steps: Collection[Step], outputs: tuple[str, ...]) -> Plan:
    """Return some steps of a plan as a plan of their own, of which items are computed one by one."""
    made = {name for step in steps for name in step.outputs}
    taken = {name for step in steps for _, name in step.arguments} | set(outputs)
    inputs = tuple(sorted(taken - made))
    return replace(
        plan,
        inputs=inputs,
        steps=tuple(replace(step, index=index) for index, step in enumerate(steps)),
        outputs=outputs,
        bound={name: value for name, value in plan.bound.items() if name in inputs},
        reach=plan.code_reach() if plan.caches() else plan.reach,
        shared=(),
        chunk_plan=None,
    )


def _with_inner(plan: Plan, change: Callable[[Plan], Plan]) -> Plan:
    """Return a plan whose nested plans are changed."""
    if not any(isinstance(step, NestedStep) for step in plan.steps):
        return plan
    return replace(
        plan,
        steps=tuple(
            replace(step, inner=change(step.inner)) if isinstance(step, NestedStep) else step
            for step in plan.steps
        ),
    )
