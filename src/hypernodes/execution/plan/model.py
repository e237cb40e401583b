"""A plan as data: the steps that lead from inputs to the outputs asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from hypernodes.cache.reach import Reach
from hypernodes.execution.plan.engine_call import EngineCall
from hypernodes.execution.plan.needs import (
    COMPILED,
    EVENTS,
    GROUPED,
    WATCHED,
    needs_of_call,
    needs_of_nested,
    needs_of_plan,
)
from hypernodes.expansion import check_shared, expand
from hypernodes.options import DEFAULTS, NodeOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from hypernodes.cache.bulk import BulkCache
    from hypernodes.execution.plan.placement import TargetRef
    from hypernodes.mapping import Columns
    from hypernodes.nested import MapMode, OnError


@dataclass(frozen=True, slots=True, eq=False)
class CallStep:
    """Call a function."""

    index: int  # its position in the plan
    name: str
    function: Callable[..., Any]
    arguments: tuple[tuple[str, str], ...]  # pairs of a parameter and the name of the value that fills it
    outputs: tuple[str | None, ...]  # the name of each value; ``None`` for one that was given instead
    # The parameters that cannot be passed by name, with their defaults.
    positional: tuple[tuple[str, Any], ...] = ()
    batch_positional: tuple[tuple[str, Any], ...] = ()
    is_async: bool = False  # calling the function returns an awaitable, so that it belongs on an event loop
    strict: bool = False  # it is an error that the function changes its arguments
    attempt: int = 0  # how often the call was made before
    can_share: bool = False  # calls with equal arguments are one call, as those of a node that may be cached
    options: NodeOptions = DEFAULTS
    named: tuple[str, ...] = field(init=False)
    filled: Mapping[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        placed, given = dict(self.positional), dict(self.arguments)
        object.__setattr__(self, "named", tuple(name for name in given if name not in placed))
        filled = {name: default for name, default in placed.items() if name not in given}
        object.__setattr__(self, "filled", filled)

    @property
    def needs(self) -> frozenset[str]:
        """What it needs of whatever executes it."""
        return frozenset(
            needs_of_call(
                self.options,
                is_async=self.is_async,
                strict=self.strict,
                is_engine_call=isinstance(self.function, EngineCall),
            )
        )

    @property
    def is_paced(self) -> bool:
        """Whether the driver decides when it is called."""
        options = self.options
        return options is not DEFAULTS and not (
            options.retry_delay is None and options.max_concurrent is None and options.rate is None
        )

    @property
    def awaits(self) -> bool:
        """Whether a coroutine runs."""
        return self.is_async


def change_nothing(steps: Iterable[CallStep]) -> bool:
    """Whether all calls promise to change none of their inputs, which may then be views of shared memory."""
    return all(step.options.readonly for step in steps)


@dataclass(frozen=True, slots=True, eq=False)
class NestedStep:
    """Run a plan within this one, once or over items."""

    index: int
    name: str
    inner: Plan
    # Pairs of an input of the inner plan and the name of the value that fills it.
    arguments: tuple[tuple[str, str], ...]
    results: tuple[tuple[str, str], ...]  # pairs of an inner output and its name here
    map_over: tuple[str, ...]  # the inner inputs that are mapped over
    map_mode: MapMode
    beside: tuple[str, ...] = ()
    on_error: OnError = "raise"  # of an item of the map

    def items(self, inputs: Mapping[str, Any]) -> Columns:
        """Return the items of the map, made of the inputs of the inner plan."""
        where, labels = f"pipeline {self.inner.label!r}", dict(self.arguments)
        check_shared({labels[name]: inputs[name] for name in inputs if name not in self.map_over}, where)
        return expand(inputs, self.map_over, self.map_mode, where, beside=self.beside, labels=labels)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of its outputs here."""
        return tuple(outer for _, outer in self.results)

    @property
    def needs(self) -> frozenset[str]:
        """What it needs of whatever executes it."""
        inner = self.inner
        return frozenset(
            needs_of_nested(
                inner.needs,
                is_mapped=bool(self.map_over),
                map_target=inner.map_target is not None,
                returns_errors=self.on_error == "return",
            )
        )

    @property
    def awaits(self) -> bool:
        """Whether a coroutine runs in the nested plan."""
        return self.inner.awaits

    @property
    def can_share(self) -> bool:
        """Whether runs with equal inputs are one run."""
        return bool(self.arguments) and all(call.can_share for call in self.inner.calls())


Step: TypeAlias = CallStep | NestedStep


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Plan:
    """What must run, in order, to get from given inputs to wanted outputs.

    It holds no executors, no callbacks and no compiled code, so that it travels to workers as it is.
    """

    key: int  # a number of its own within the tree of nested plans
    path: tuple[str, ...]  # the pipeline ids from the outermost to this one
    inputs: tuple[str, ...]  # those that are used
    steps: tuple[Step, ...]  # each after what it needs
    outputs: tuple[str, ...]
    bound: Mapping[str, Any]  # values that the pipeline fixes
    cache: BulkCache | None = None
    # The hooks that any callback overrides; other events are never made.
    subscribed: frozenset[str] = frozenset()
    node_target: TargetRef | None = None  # ``None`` is where the plan itself runs
    map_target: TargetRef | None = None  # of the items; ``None`` is where the plan itself runs
    engine: str = ""  # of the pipeline, or one around it; for people to read
    # As it is run inside a chunk, if the items of its map may be sent in chunks.
    chunk_plan: Plan | None = None
    # As an item is run by the run itself, which sends its calls and the items of its nested maps, if there is
    # a choice: for a map that has fewer items than the target has workers.
    spread_plan: Plan | None = None
    reach: Reach | None = None  # for a part of a plan, what the code of the whole plan reaches
    # If it is mapped: the values that depend on fixed inputs only, and that its outputs or other steps need.
    shared: tuple[str, ...] = ()
    producers: Mapping[str, Step] = field(init=False, repr=False)  # the step that makes each name
    needs: frozenset[str] = field(init=False, repr=False)  # of whatever executes it, nested plans included
    # A compiled plan does all that it needs, for one run and for items in a row.
    compiles: bool = field(init=False, repr=False)
    # Coroutines run on the way, so that it matters on which event loop.
    awaits: bool = field(init=False, repr=False)
    # Those of its own calls that may go to a worker together, by index, where the target takes groups.
    grouped: Mapping[int, CallStep] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        producers = {name: step for step in self.steps for name in step.outputs if name is not None}
        own = needs_of_plan(
            cache=self.cache is not None,
            subscribed=self.subscribed,
            node_target=self.node_target is not None,
        )
        targets = [target for target in (self.node_target, self.map_target) if target is not None]
        object.__setattr__(self, "producers", producers)
        object.__setattr__(self, "needs", frozenset(own).union(*(step.needs for step in self.steps)))
        # A compiled plan computes what all items share with the first item: its events would be in that item.
        compiles = (
            self.needs <= WATCHED and not any(inner.shared for inner in self.tree())
            if self.is_watched
            else self.needs <= COMPILED
        )
        object.__setattr__(self, "compiles", compiles)
        object.__setattr__(
            self,
            "awaits",
            any(step.awaits for step in self.steps)
            or any(target.capabilities.runs_coroutines for target in targets),
        )
        object.__setattr__(self, "grouped", self._grouped())

    def _grouped(self) -> Mapping[int, CallStep]:
        target = self.node_target
        if target is None or not target.capabilities.groups_calls:
            return {}
        calls = (step for step in self.steps if isinstance(step, CallStep))
        return {step.index: step for step in calls if step.needs <= GROUPED}

    @property
    def is_watched(self) -> bool:
        """Whether events are emitted one by one, of this plan or of those nested in it."""
        return EVENTS in self.needs

    @property
    def label(self) -> str:
        """How messages name the pipeline."""
        return "/".join(self.path)

    @property
    def has_batch(self) -> bool:
        """Whether a step of its own has a batch function."""
        return any(isinstance(step, CallStep) and step.options.batch is not None for step in self.steps)

    def tree(self) -> Iterator[Plan]:
        """Walk this plan and all plans nested in it."""
        yield self
        for step in self.steps:
            if isinstance(step, NestedStep):
                yield from step.inner.tree()

    def calls(self) -> Iterator[CallStep]:
        """Walk the calls of this plan and of those nested in it."""
        for plan in self.tree():
            for step in plan.steps:
                if isinstance(step, CallStep):
                    yield step

    def code_reach(self) -> Reach:
        """Return what the code of this plan reaches, and of those nested in it, as it stands now."""
        if self.reach is not None:
            return self.reach
        return Reach(*(function for step in self.calls() for function in (step.function, step.options.batch)))

    def caches(self) -> list[BulkCache]:
        """Return the caches of this plan and of those nested in it, each once."""
        return list(dict.fromkeys(plan.cache for plan in self.tree() if plan.cache is not None))

    def flush(self) -> None:
        """Store now what was put into the caches of this plan and of nested ones, in the midst of a run."""
        for cache in self.caches():
            cache.write_delayed()

    def finish(self) -> None:
        """Store what was put into the caches, wherever they keep it, at the end of a run."""
        for cache in self.caches():
            cache.flush()

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, ({name: getattr(self, name) for name in _INIT},)


_INIT = tuple(name for name, described in Plan.__dataclass_fields__.items() if described.init)


def _rebuilt(fields: dict[str, Any]) -> Plan:
    return Plan(**fields)
