"""From a pipeline to its plan, from the outputs backwards: once for each set of inputs, not for each run."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import count
from typing import TYPE_CHECKING, Any

from hypernodes.cache.bulk import as_bulk_cache
from hypernodes.callbacks.base import counts_items, hooks_of
from hypernodes.exceptions import (
    MissingInputError,
    UnknownInputError,
    UnknownOutputError,
    did_you_mean,
    listing,
)
from hypernodes.execution.plan.engine_call import EngineCall
from hypernodes.execution.plan.every_output import every_output
from hypernodes.execution.plan.model import CallStep, NestedStep, Plan, Step
from hypernodes.execution.plan.needs import BATCH_CALLS, COMPILED_ON_LOOP, NESTED_MAP
from hypernodes.execution.plan.settings import Plannable, PlannedEngine, Settings
from hypernodes.execution.plan.variants import aggregated, inside_chunk, spread, with_shared
from hypernodes.nested import NestedPipeline
from hypernodes.node import Node
from hypernodes.options import DEFAULTS
from hypernodes.parameters import by_position, takes_any_keyword

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from hypernodes.callbacks.base import PipelineCallback
    from hypernodes.execution.plan.placement import Placement, TargetRef
    from hypernodes.graph import Graph, Member


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class PreparedPlan:
    """A plan, with what stays in the driver when the plan travels."""

    plan: Plan
    # Of each plan in the tree, by its key.
    callbacks: dict[int, tuple[PipelineCallback, ...]] = field(default_factory=dict)
    # That pipelines in the tree name; their targets are those of the plan.
    engines: list[PlannedEngine] = field(default_factory=list)


def build_plan(
    pipeline: Plannable,
    given: Sequence[str],
    outputs: tuple[str, ...] | None,
    placement: Placement,
    *,
    parents: tuple[str, ...] = (),
    mapped: bool,
    varying: Collection[str] = (),
) -> PreparedPlan:
    """Plan a pipeline as the outermost one, for the names that have values and the outputs wanted.

    Of a map, `varying` are the inputs that vary from item to item. The parents are the ids of the pipelines
    around, where an engine is called within a run.
    """
    graph = pipeline.wiring
    known = (*graph.input_names, *graph.output_names)
    for name in given:
        if name not in known:
            raise UnknownInputError(
                f"pipeline {pipeline.pipeline_id!r}: unknown input {name!r}.{did_you_mean(name, known)} "
                f"The pipeline takes {listing(graph.input_names)}.{_hint_of_keywords(graph)}"
            )
    for name in outputs or ():
        if name not in graph.output_names:
            raise UnknownOutputError(
                f"pipeline {pipeline.pipeline_id!r}: unknown output {name!r}."
                f"{did_you_mean(name, graph.output_names)} The pipeline makes {listing(graph.output_names)}."
            )
    settings = replace(Settings(placement).of(pipeline), placement=placement)
    path = (*parents, pipeline.pipeline_id)
    tree = _PlanTree()
    builder = _Builder(tree, pipeline, settings, path, next(tree.keys))
    plan = tree.plan(builder, given, outputs, varying, mapped=mapped)
    return PreparedPlan(plan, tree.callbacks, tree.engines)


def _hint_of_keywords(graph: Graph) -> str:
    """Say which nodes take keywords of any name, where an input is unknown."""
    found = [
        member for member in graph.order if isinstance(member, Node) and takes_any_keyword(member.function)
    ]
    if not found:
        return ""
    return (
        f" The ** arguments of {listing([member.name for member in found])} are not wired: give the function "
        f"a parameter of that name."
    )


class _PlanTree:
    """What the builders of one tree of plans have in common."""

    def __init__(self) -> None:
        self.keys = count()
        self.callbacks: dict[int, tuple[PipelineCallback, ...]] = {}
        self.engines: list[PlannedEngine] = []

    def plan(
        self,
        builder: _Builder,
        given: Sequence[str],
        outputs: tuple[str, ...] | None,
        varying: Collection[str],
        *,
        mapped: bool,
    ) -> Plan:
        """Build a plan, and for a map decide whether its items travel in chunks."""
        plan = builder.build(given, outputs)
        if not mapped:
            return plan
        plan = with_shared(plan, varying)
        placement = builder.settings.placement
        at, chunk_plan, spread_plan = placement.map, None, None
        if at is not None:
            if _can_be_sent(plan, at):
                chunk_plan = inside_chunk(plan, at)
                if NESTED_MAP in plan.needs and at.capabilities.shares_work:
                    spread_plan = spread(plan, at)
            elif placement.node is None:
                # The items stay with the run, so that nothing waits in a worker; their calls go to the target
                # that was named for the items.
                plan = builder.with_placement(placement.with_calls_on_map_target()).build(given, outputs)
                plan = with_shared(plan, varying)
        if at is None or chunk_plan is not None:
            counted = self._aggregated(chunk_plan or plan, at)
            chunk_plan = counted or chunk_plan
            if at is None and chunk_plan is None and plan.is_watched and plan.compiles:
                chunk_plan = plan
        return plan if chunk_plan is None else replace(plan, chunk_plan=chunk_plan, spread_plan=spread_plan)

    def _aggregated(self, plan: Plan, at: TargetRef | None) -> Plan | None:
        """Return a plan whose items are only counted, if its callbacks do no more and a fast path can.

        A nested map may have more items in one item than in another; a nested pipeline with callbacks of its
        own owes them its own events.
        """
        if not (own := self.callbacks[plan.key]) or NESTED_MAP in plan.needs or plan.has_batch:
            return None
        if plan.shared:  # Not all of its nodes are called for each item.
            return None
        if any(self.callbacks[inner.key] != own for inner in plan.tree()):
            return None
        if not all(map(counts_items, own)) or any("node_context" in hooks_of(callback) for callback in own):
            return None
        counted = aggregated(plan)
        on_loop = at is not None and at.capabilities.runs_coroutines and counted.awaits
        return counted if (counted.needs <= COMPILED_ON_LOOP if on_loop else counted.compiles) else None


def _can_be_sent(plan: Plan, to: TargetRef) -> bool:
    """Whether whole items can run in a worker of a target without waiting there for one that may be full."""
    for inner in plan.tree():
        for target in (inner.node_target, inner.map_target):
            # A worker of `to` does itself what would go to `to`; and in another process it can make a target
            # of its own where the alias allows that.
            can_follow = (
                to.capabilities.serializes and target is not None and target.capabilities.worker_alias
            )
            if not (target is None or target == to or can_follow):
                return False
    for step in plan.calls():
        # A call that waits for a GPU should wait alone, while the rest of its item goes on.
        waits_alone = to.capabilities.places_calls and step.options.resources.is_scarce
        # What a service may be asked holds for the whole run, so that the driver hands out each call.
        if waits_alone or step.is_paced or isinstance(step.function, EngineCall):
            return False
    return True


class _Builder:
    """Builds one plan, from the outputs backwards."""

    def __init__(
        self, tree: _PlanTree, pipeline: Plannable, settings: Settings, path: tuple[str, ...], key: int
    ) -> None:
        self.tree = tree
        self.pipeline = pipeline
        self.graph = pipeline.wiring
        self.settings = settings
        self.path = path
        self.key = key
        self.used: set[str] = set()
        self.missing: list[tuple[str, str]] = []
        tree.callbacks[key] = settings.callbacks
        if (engine := pipeline.engine) is not None and engine not in tree.engines:
            tree.engines.append(engine)

    def with_placement(self, placement: Placement) -> _Builder:
        settings = replace(self.settings, placement=placement)
        return _Builder(self.tree, self.pipeline, settings, self.path, next(self.tree.keys))

    def build(self, given: Sequence[str], outputs: tuple[str, ...] | None) -> Plan:
        self.given = {*given, *self.pipeline.bound}
        wanted = every_output(self.graph, self.given) if outputs is None else outputs
        self.needed = {name for name in wanted if name not in self.given}
        self.used |= self.given.intersection(wanted)
        steps: list[Step] = []
        for member in reversed(self.graph.order):
            # `needed` grows on the way back, with what each step takes.
            if not self.needed.isdisjoint(member.output_names):
                steps += self._step(member)
        if self.missing:
            raise self._missing_error(given)
        ordered = tuple(replace(step, index=index) for index, step in enumerate(reversed(steps)))
        settings = self.settings
        return Plan(
            key=self.key,
            path=self.path,
            inputs=tuple(sorted(self.used)),
            steps=ordered,
            outputs=wanted,
            bound={name: value for name, value in self.pipeline.bound.items() if name not in given},
            cache=as_bulk_cache(settings.cache),
            subscribed=frozenset().union(*map(hooks_of, settings.callbacks)),
            node_target=settings.placement.node,
            map_target=settings.placement.map,
            engine=settings.engine,
        )

    def _available(self, name: str) -> bool:
        return name in self.given or name in self.graph.producers

    def _take(self, name: str) -> None:
        if name in self.given:
            self.used.add(name)
        else:
            self.needed.add(name)

    def _step(self, member: Member) -> list[Step]:
        """Return the step of a member; none if its inputs are missing, which is noted."""
        match member:
            case Node():
                return [self._call(member)]
            case NestedPipeline():
                step = self._nested(member)
                return [] if step is None else [step]

    def _call(self, node: Node[..., Any]) -> CallStep:
        arguments = []
        for parameter, name in node.arguments:
            if self._available(name):
                self._take(name)
                arguments.append((parameter, name))
            elif name not in node.optional:
                self.missing.append((name, node.name))
        step = CallStep(
            index=0,
            name=node.name,
            function=node.function,
            arguments=tuple(arguments),
            outputs=tuple(None if name in self.given else name for name in node.output_names),
            positional=by_position(node.positional, dict(arguments)),
            batch_positional=by_position(node.batch_positional, dict(arguments)),
            is_async=node.is_async,
            strict=self.settings.strict,
            can_share=node.options.cache and bool(node.arguments),
            options=node.options,
        )
        if step.options.batch is None or step.needs <= BATCH_CALLS:
            return step
        return replace(step, options=replace(step.options, batch=None))

    def _nested(self, node: NestedPipeline) -> Step | None:
        pipeline: Any = node.pipeline
        results = tuple((inner, outer) for inner, outer in node.results if outer in self.needed)
        # Values of its own outputs that are given go to the inner plan, as the inputs of a run of its own.
        given = {inner: outer for inner, outer in node.results if outer in self.given}
        mapped = tuple(inner for name in node.map_over for inner, outer in node.arguments if outer == name)
        takes = {
            inner: outer for inner, outer in node.arguments if inner in mapped or self._available(outer)
        } | given
        wanted = tuple(inner for inner, _ in results)
        try:
            path, key = (*self.path, node.name), next(self.tree.keys)
            builder = _Builder(self.tree, pipeline, self.settings.of(pipeline), path, key)
            inner = self.tree.plan(
                builder, tuple(takes), wanted, {*mapped, *given}, mapped=bool(node.map_over)
            )
        except MissingInputError as error:
            outer_of = dict(node.arguments)
            self.missing += [(outer_of[name], node.name) for name in error.names if name in outer_of]
            if not self.missing:
                raise
            return None
        beside = tuple(name for name in given if name in inner.inputs) if mapped else ()
        if beside:
            # The given lists tell how many items there are: a collection that no step takes is not needed. Of
            # a product, all collections are needed, or none.
            used = tuple(name for name in mapped if name in inner.inputs)
            mapped = used if node.map_mode == "zip" or not used else mapped
        missing = [(takes[name], node.name) for name in mapped if not self._available(takes[name])]
        if missing:
            self.missing += missing
            return None
        over = (*mapped, *beside)
        arguments = tuple(
            (name, outer) for name, outer in takes.items() if name in inner.inputs or name in over
        )
        for _, outer in arguments:
            self._take(outer)
        if (engine := pipeline.engine) is not None and engine.placement() is None:
            own = pipeline.with_cache(builder.settings.cache).with_callbacks(builder.settings.callbacks)
            call = EngineCall(
                engine,
                own.with_name(node.name),
                wanted,
                over,
                node.map_mode,
                beside,
                dict(arguments),
                node.on_error,
            )
            outputs = tuple(outer for _, outer in results)
            return CallStep(0, node.name, call, arguments, outputs, options=replace(DEFAULTS, cache=False))
        return NestedStep(0, node.name, inner, arguments, results, over, node.map_mode, beside, node.on_error)

    def _missing_error(self, given: Sequence[str]) -> MissingInputError:
        names = tuple(dict.fromkeys(name for name, _ in self.missing))
        users = "; ".join(f"{name!r} (for node {user!r})" for name, user in dict(self.missing).items())
        label = "/".join(self.path)
        spare = [name for name in given if name not in self.graph.input_names]
        hints = "".join(did_you_mean(name, spare or given) for name in names)
        return MissingInputError(
            f"pipeline {label!r}: missing input {users}. Given: {listing(given)}.{hints}",
            names,
        )
