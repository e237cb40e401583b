"""Plans derived from a plan: as it runs inside a chunk or outside of one, for one item, with other events."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hypernodes.execution.plan.model import CallStep, NestedStep, Plan
from hypernodes.execution.plan.needs import AGGREGATED

if TYPE_CHECKING:
    from collections.abc import Callable

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
