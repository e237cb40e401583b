"""What must run for these outputs? Decided once for each set of inputs, not for each call."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol

from hypernodes.cache.bulk import in_bulk
from hypernodes.callbacks.base import counts_items, hooks_of
from hypernodes.config import INHERIT
from hypernodes.exceptions import (
    MissingInputError,
    UnknownInputError,
    UnknownOutputError,
    did_you_mean,
    listing,
)
from hypernodes.execution.invoke import IN_NUMBERS, is_straight
from hypernodes.execution.steps import CallStep, NestedStep, Plan, Step
from hypernodes.nested import NestedPipeline
from hypernodes.node import Node

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from hypernodes.callbacks import PipelineCallback
    from hypernodes.config import Cache
    from hypernodes.execution.lane import Lane, Lanes
    from hypernodes.graph import Graph, Member


class PlannedEngine(Protocol):
    """What a plan must know of an engine."""

    def lanes(self) -> Lanes | None:
        """Where its work goes; ``None`` for an engine that runs pipelines in a way of its own."""

    def run(self, pipeline: Any, inputs: Mapping[str, Any], output_name: Any = None) -> dict[str, Any]:
        """Run a pipeline."""

    def map(
        self,
        pipeline: Any,
        items: Sequence[Mapping[str, Any]],
        inputs: Mapping[str, Any],
        output_name: Any = None,
    ) -> Sequence[dict[str, Any]]:
        """Run a pipeline over items."""


class Plannable(Protocol):
    """What a plan must know of a pipeline; ``None`` and ``INHERIT`` are left to the parent."""

    @property
    def pipeline_id(self) -> str:
        """Its name, or a generated one."""

    @property
    def wiring(self) -> Graph:
        """Its members, wired."""

    @property
    def bound(self) -> Mapping[str, Any]:
        """The inputs that it fixes."""

    @property
    def own_engine(self) -> PlannedEngine | None:
        """The engine that it names."""

    @property
    def own_cache(self) -> Any:
        """The cache that it names."""

    @property
    def own_callbacks(self) -> Any:
        """The callbacks that it names."""

    @property
    def strict(self) -> bool:
        """Whether its nodes, and those nested in it, must leave their inputs as they are."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The configuration that holds for a pipeline, its parent's included."""

    lanes: Lanes
    cache: Cache | None = None
    callbacks: tuple[PipelineCallback, ...] = ()
    strict: bool = False
    engine: str = ""

    def within(self, pipeline: Plannable) -> Settings:
        """Return the settings of a pipeline nested where these hold."""
        lanes = None if pipeline.own_engine is None else pipeline.own_engine.lanes()
        return Settings(
            lanes=self.lanes if lanes is None else lanes,
            cache=self.cache if pipeline.own_cache is INHERIT else pipeline.own_cache,
            callbacks=self.callbacks if pipeline.own_callbacks is INHERIT else tuple(pipeline.own_callbacks),
            strict=self.strict or pipeline.strict,
            engine=self.engine if pipeline.own_engine is None else repr(pipeline.own_engine),
        )


def build_plan(
    pipeline: Plannable,
    given: Sequence[str],
    outputs: tuple[str, ...] | None,
    lanes: Lanes,
    *,
    around: tuple[str, ...] = (),
    mapped: bool = False,
) -> Plan:
    """Plan a pipeline as the outermost one.

    Args:
        pipeline: The pipeline.
        given: The names that have values.
        outputs: The outputs wanted, or ``None`` for every one.
        lanes: Where its engine's work goes.
        around: The ids of the pipelines around, where an engine is called within a run.
        mapped: Whether it is run over items.

    Raises:
        UnknownInputError: A name that the pipeline neither takes nor makes.
        UnknownOutputError: An output that it does not make.
        MissingInputError: An input is needed and not given.
    """
    graph = pipeline.wiring
    known = (*graph.input_names, *graph.output_names)
    for name in given:
        if name not in known:
            raise UnknownInputError(
                f"pipeline {pipeline.pipeline_id!r} has no use for input {name!r}."
                f"{did_you_mean(name, known)} It takes {listing(graph.input_names)}."
            )
    for name in outputs or ():
        if name not in graph.output_names:
            raise UnknownOutputError(
                f"pipeline {pipeline.pipeline_id!r} makes no output {name!r}."
                f"{did_you_mean(name, graph.output_names)} It makes {listing(graph.output_names)}."
            )
    settings = replace(Settings(lanes).within(pipeline), lanes=lanes)
    path = (*around, pipeline.pipeline_id)
    return _build(_Builder(pipeline, settings, path, count()), given, outputs, mapped=mapped)


def _build(builder: _Builder, given: Sequence[str], outputs: tuple[str, ...] | None, *, mapped: bool) -> Plan:
    """Build a plan, and for a map decide whether its items travel whole."""
    plan = builder.build(given, outputs)
    settings = builder.settings
    lanes = settings.lanes
    if mapped and lanes.map is not None:
        if _can_ship(plan, lanes.map):
            plan.shipped = _grounded(plan, lanes.map)
        elif lanes.node is None:
            # The items stay with the driver, so that nobody waits in a worker; their nodes go to the
            # executor that was named for the items.
            spread = replace(settings, lanes=lanes.spread())
            plan = builder.with_settings(spread).build(given, outputs)
    if mapped and (lanes.map is None or plan.shipped is not None) and all(map(_counts, plan.tree())):
        counted = _in_numbers(plan.shipped or _grounded(plan, None))
        on_loop = lanes.map is not None and lanes.map.runs_coroutines and counted.awaits
        if counted.hears and is_straight(counted, on_loop=on_loop):
            plan.shipped = counted
    return plan


def _counts(plan: Plan) -> bool:
    """Whether the items of a map over this plan, or over one around it, can be told in numbers."""
    for step in plan.steps:
        if isinstance(step, NestedStep) and step.map_over:
            return False  # of which there may be more in one item than in another
        if isinstance(step, CallStep) and step.batch is not None and plan.map_lane is None:
            return False
    return all(map(counts_items, plan.callbacks))


def _in_numbers(plan: Plan) -> Plan:
    """Return a plan in which items are counted, and no other event is made."""
    return _with_steps(plan, _in_numbers, hears=IN_NUMBERS if plan.hears else plan.hears)


def _can_ship(plan: Plan, to: Lane) -> bool:
    """Whether whole items can run in a worker without waiting there for an executor that may be full."""
    for inner in plan.tree():
        for lane in (inner.node_lane, inner.map_lane):
            # In a worker of `to`, its own work is done right there.
            if not (lane is None or lane is to or (to.is_remote and lane.can_follow)):
                return False
        for step in inner.steps:
            if not isinstance(step, CallStep):
                continue
            # What waits for a GPU waits alone, while the rest of its item goes on.
            if isinstance(step.function, _EngineCall) or (to.places and step.resources.is_scarce):
                return False
    return True


def _grounded(plan: Plan, at: Lane | None) -> Plan:
    """Return a plan as it is for a worker of a lane, where that lane means "right here"."""
    return _with_steps(
        plan,
        lambda inner: _grounded(inner, at),
        callbacks=(),
        node_lane=None if plan.node_lane is at else plan.node_lane,
        map_lane=None if plan.map_lane is at else plan.map_lane,
        shipped=None if plan.map_lane is at else plan.shipped,
    )


def _with_steps(plan: Plan, change: Callable[[Plan], Plan], **options: Any) -> Plan:
    """Return a plan with other options, in which nested plans are changed."""
    steps = tuple(
        replace(step, inner=change(step.inner)) if isinstance(step, NestedStep) else step
        for step in plan.steps
    )
    return replace(
        plan,
        steps=steps,
        producers={name: step for step in steps for name in step.outputs if name is not None},
        compiled=None,
        compiled_on_loop=None,
        compiled_over=None,
        **options,
    )


class _Builder:
    """Builds one plan, from the outputs backwards."""

    def __init__(
        self, pipeline: Plannable, settings: Settings, path: tuple[str, ...], keys: Iterator[int]
    ) -> None:
        self.pipeline = pipeline
        self.graph = pipeline.wiring
        self.settings = settings
        self.path = path
        self.keys = keys
        self.key = next(keys)
        self.used: set[str] = set()
        self.missing: list[tuple[str, str]] = []

    def with_settings(self, settings: Settings) -> _Builder:
        return _Builder(self.pipeline, settings, self.path, self.keys)

    def build(self, given: Sequence[str], outputs: tuple[str, ...] | None) -> Plan:
        self.given = {*given, *self.pipeline.bound}
        wanted = self._all_outputs() if outputs is None else outputs
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
            producers={name: step for step in ordered for name in step.outputs if name is not None},
            cache=in_bulk(settings.cache),
            callbacks=settings.callbacks,
            hears=frozenset().union(*map(hooks_of, settings.callbacks)),
            node_lane=settings.lanes.node,
            map_lane=settings.lanes.map,
            awaits=any(map(_awaits, ordered)) or any(lane.runs_coroutines for lane in settings.lanes.used),
            engine=settings.engine,
        )

    def _all_outputs(self) -> tuple[str, ...]:
        """Return every output, less those that only lead up to values that were given."""
        cut: set[str] = set()
        for member in reversed(self.graph.order):
            names = set(member.output_names)
            users = [user for user in self.graph.order if not names.isdisjoint(user.input_names)]
            feeds_cut = bool(users) and all(set(user.output_names) <= cut for user in users)
            if names <= self.given or (feeds_cut and not names & self.given):
                cut |= names
        return tuple(name for name in self.graph.output_names if name not in cut or name in self.given)

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

    def _call(self, node: Node) -> CallStep:
        arguments = []
        for parameter, name in node.arguments:
            if self._available(name):
                self._take(name)
                arguments.append((parameter, name))
            elif name not in node.optional:
                self.missing.append((name, node.name))
        return CallStep(
            index=0,
            name=node.name,
            function=node.function,
            arguments=tuple(arguments),
            outputs=tuple(None if name in self.given else name for name in node.output_names),
            positional=_up_to_last(node.positional, {parameter for parameter, _ in arguments}),
            cache=node.cache,
            retries=node.retries,
            retry_on=node.retry_on,
            is_async=node.is_async,
            version=node.cache_version,
            strict=self.settings.strict,
            timeout=node.timeout,
            resources=node.resources,
            batch=node.batch,
        )

    def _nested(self, node: NestedPipeline) -> Step | None:
        pipeline: Any = node.pipeline
        results = tuple((inner, outer) for inner, outer in node.results if outer in self.needed)
        available = {inner: outer for inner, outer in node.arguments if self._available(outer)}
        mapped_inner = tuple(
            inner for name in node.map_over for inner, outer in node.arguments if outer == name
        )
        missing = [
            (outer, node.name)
            for inner, outer in node.arguments
            if inner in mapped_inner and inner not in available
        ]
        required = set(pipeline.wiring.input_names) - pipeline.optional - set(pipeline.bound)
        if missing:
            self.missing += missing
            available |= {inner: outer for inner, outer in node.arguments if inner in mapped_inner}
        wanted = tuple(inner for inner, _ in results)
        try:
            builder = _Builder(pipeline, self.settings.within(pipeline), (*self.path, node.name), self.keys)
            inner = _build(builder, tuple(available), wanted, mapped=bool(node.map_over))
        except MissingInputError as error:
            outer_of = dict(node.arguments)
            self.missing += [
                (outer_of[name], node.name) for name in error.names if name in outer_of and name in required
            ]
            if not self.missing:
                raise
            return None
        arguments = tuple(
            (name, available[name]) for name in available if name in inner.inputs or name in mapped_inner
        )
        for _, outer in arguments:
            self._take(outer)
        engine = pipeline.own_engine
        if engine is not None and engine.lanes() is None:
            own = pipeline.with_cache(builder.settings.cache).with_callbacks(inner.callbacks)
            call = _EngineCall(engine, own, wanted, mapped_inner, node.map_mode)
            outputs = tuple(outer for _, outer in results)
            return CallStep(0, node.name, call, arguments, outputs, cache=False)
        return NestedStep(0, node.name, inner, arguments, results, mapped_inner, node.map_mode)

    def _missing_error(self, given: Sequence[str]) -> MissingInputError:
        names = tuple(dict.fromkeys(name for name, _ in self.missing))
        told = "; ".join(f"{name!r} (for node {user!r})" for name, user in dict(self.missing).items())
        label = "/".join(self.path)
        spare = [name for name in given if name not in self.graph.input_names]
        hints = "".join(did_you_mean(name, spare or given) for name in names)
        return MissingInputError(
            f"pipeline {label!r} needs input {told}, which was not given. Given: {listing(given)}.{hints}",
            names,
        )


def _up_to_last(positional: tuple[tuple[str, Any], ...], given: set[str]) -> tuple[tuple[str, Any], ...]:
    """Return the positional-only parameters that must be passed, so that the last given one has its place."""
    passed = list(positional)
    while passed and passed[-1][0] not in given:
        passed.pop()
    return tuple(passed)


def _awaits(step: Step) -> bool:
    return step.inner.awaits if isinstance(step, NestedStep) else step.is_async


@dataclass(frozen=True, slots=True)
class _EngineCall:
    """A nested pipeline whose engine works in a way of its own, as a function of the inner inputs."""

    engine: PlannedEngine
    pipeline: Any
    outputs: tuple[str, ...]
    map_over: tuple[str, ...]
    map_mode: Any

    def __call__(self, **inputs: Any) -> Any:
        if self.map_over:
            columns = self.pipeline.map(
                inputs, list(self.map_over), map_mode=self.map_mode, output_name=list(self.outputs)
            )
        else:
            columns = self.pipeline.run(inputs, list(self.outputs))
        values = tuple(columns[name] for name in self.outputs)
        return values[0] if len(values) == 1 else values
