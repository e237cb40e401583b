"""The event dispatcher of a run: the callbacks of every plan in the tree, and metadata of its pipelines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias
from weakref import WeakKeyDictionary

from hypernodes.callbacks.base import CallbackContext, run_of
from hypernodes.callbacks.dispatch import EventDispatcher, Subscriptions
from hypernodes.callbacks.event import RunContext, Scope
from hypernodes.execution.plan.model import NestedStep, Plan
from hypernodes.executors.aliases import SEQUENTIAL

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hypernodes.execution.plan.build import PreparedPlan

Path: TypeAlias = tuple[str, ...]


_known: Final[WeakKeyDictionary[PreparedPlan, tuple[Subscriptions, Mapping[Path, dict[str, Any]]]]] = (
    WeakKeyDictionary()
)


def dispatcher_of(prepared: PreparedPlan, around: CallbackContext | None = None) -> EventDispatcher:
    """Return the dispatcher for a run of a plan and of those nested in it."""
    if (known := _known.get(prepared)) is None:
        plans = list(prepared.plan.tree())
        executors = dict(_executors(prepared.plan, SEQUENTIAL))
        known = _known[prepared] = (
            Subscriptions({Scope(plan.key, plan.path): prepared.callbacks[plan.key] for plan in plans}),
            {plan.path: _metadata(plan, executors[plan.path]) for plan in plans},
        )
    subscriptions, pipelines = known
    if around is None:
        run = RunContext(pipelines)
    else:
        outer = run_of(around)
        run = RunContext({**outer.pipelines, **pipelines}, outer.state)
    return EventDispatcher(subscriptions, run)


def _metadata(plan: Plan, executor: str) -> dict[str, Any]:
    """Return what `CallbackContext.get_pipeline_metadata` returns for the pipeline of a plan."""
    return {
        "name": plan.path[-1],
        "pipeline_name": plan.path[-1],
        "node_ids": [step.name for step in plan.steps],
        "nested": [step.name for step in plan.steps if isinstance(step, NestedStep)],
        "total": len(plan.steps),
        "total_nodes": len(plan.steps),
        "executor": executor,
        "engine": plan.engine,
        "cache": "" if plan.cache is None else repr(plan.cache),
        "needs": {
            step.name: tuple(
                plan.producers[name].name for _, name in step.arguments if name in plan.producers
            )
            for step in plan.steps
        },
    }


def _executors(plan: Plan, outer: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield for each pipeline of a plan the name of the executor that makes the calls of its nodes."""
    if plan.map_target is not None:
        outer = plan.map_target.label
    plan = plan.chunk_plan or plan
    yield plan.path, outer if plan.node_target is None else plan.node_target.label
    for step in plan.steps:
        if isinstance(step, NestedStep):
            yield from _executors(step.inner, outer)
