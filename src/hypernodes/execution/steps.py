"""A plan as data: the steps that lead from inputs to the outputs asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from hypernodes.cache.reach import Reach
from hypernodes.resources import Resources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from hypernodes.cache.bulk import BulkCache
    from hypernodes.callbacks import PipelineCallback
    from hypernodes.execution.lane import Lane
    from hypernodes.nested import MapMode


@dataclass(frozen=True, slots=True, eq=False)
class CallStep:
    """Call a function.

    Attributes:
        index: Its position in the plan.
        name: The node's name.
        function: What is called.
        arguments: Pairs of a parameter and the name of the value that fills it.
        outputs: The name of each value it returns; ``None`` for one that was given instead.
        positional: The parameters that cannot be passed by name, with their defaults.
        is_async: Whether it is to be called on an event loop, since it gives something to await.
        version: What its author says of its code; counts in the signature.
        strict: Whether it is an error that it changes what it takes.
        timeout: Seconds that a call may take.
        resources: What a call takes of a cluster.
        batch: The function for many items at once, if it has one.
    """

    index: int
    name: str
    function: Callable[..., Any]
    arguments: tuple[tuple[str, str], ...]
    outputs: tuple[str | None, ...]
    positional: tuple[tuple[str, Any], ...] = ()
    cache: bool = True
    retries: int = 0
    retry_on: Any = Exception
    is_async: bool = False
    version: str | int | None = None
    strict: bool = False
    timeout: float | None = None
    resources: Resources = Resources()  # noqa: RUF009  which never changes
    batch: Callable[..., Any] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class NestedStep:
    """Run a plan within this one, once or over items.

    Attributes:
        arguments: Pairs of an input of the inner plan and the name of the value that fills it.
        results: Pairs of an inner output and its name here.
        map_over: The inner inputs that are walked.
    """

    index: int
    name: str
    inner: Plan
    arguments: tuple[tuple[str, str], ...]
    results: tuple[tuple[str, str], ...]
    map_over: tuple[str, ...]
    map_mode: MapMode

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of what it makes."""
        return tuple(outer for _, outer in self.results)


Step: TypeAlias = CallStep | NestedStep


@dataclass(slots=True, eq=False)
class Plan:
    """What must run, in order, to get from given inputs to wanted outputs.

    Attributes:
        key: A number of its own within the tree of nested plans.
        path: The pipeline ids from the outermost to this one.
        label: How messages name the pipeline.
        inputs: The inputs that are used.
        steps: In an order in which each comes after what it needs.
        outputs: The names asked for.
        bound: Values that the pipeline fixes.
        producers: The step that makes each name.
        cache: Where results are kept, if anywhere.
        callbacks: Who is told.
        hears: The hooks that anybody overrides; other events are never made.
        node_lane: Where functions are called; ``None`` is right here.
        map_lane: Where the items of a map are run; ``None`` is right here, one after the other.
        awaits: Whether coroutines are run on the way, so that it matters on which event loop.
        engine: The engine that the pipeline, or one around it, names; for people to read.
        shipped: The plan as the map lane's workers run it, if items go there whole and not node by node.
        compiled: Room for `invoke.straight`.
        compiled_on_loop: Room for `invoke.straight_on_loop`.
        compiled_over: Room for `invoke.straight_over`.
        told: What users were warned of.
        reach: For a part of a plan, what the code of the whole plan reaches.
    """

    key: int
    path: tuple[str, ...]
    inputs: tuple[str, ...]
    steps: tuple[Step, ...]
    outputs: tuple[str, ...]
    bound: Mapping[str, Any]
    producers: Mapping[str, Step]
    cache: BulkCache | None
    callbacks: tuple[PipelineCallback, ...]
    hears: frozenset[str]
    node_lane: Lane | None
    map_lane: Lane | None
    awaits: bool
    engine: str = ""
    shipped: Plan | None = None
    compiled: Any = field(default=None, repr=False)
    compiled_on_loop: Any = field(default=None, repr=False)
    compiled_over: Any = field(default=None, repr=False)
    told: set[str] = field(default_factory=set, repr=False)
    reach: Reach | None = field(default=None, repr=False)

    @property
    def label(self) -> str:
        """How messages name the pipeline."""
        return "/".join(self.path)

    def tree(self) -> Iterator[Plan]:
        """Walk this plan and all plans nested in it."""
        yield self
        for step in self.steps:
            if isinstance(step, NestedStep):
                yield from step.inner.tree()

    def code_reach(self) -> Reach:
        """Return what the code of this plan reaches, and of those nested in it, as things stand now."""
        if self.reach is not None:
            return self.reach
        calls = [step for plan in self.tree() for step in plan.steps if isinstance(step, CallStep)]
        return Reach(*(function for step in calls for function in (step.function, step.batch)))

    def flush(self) -> None:
        """Store now what was put into the caches of this plan and of those nested in it."""
        for cache in {id(plan.cache): plan.cache for plan in self.tree()}.values():
            if cache is not None:
                cache.flush()

    def __reduce__(self) -> tuple[Any, ...]:
        # Compiled code stays; callbacks are called in the driver only.
        return Plan, (
            self.key,
            self.path,
            self.inputs,
            self.steps,
            self.outputs,
            dict(self.bound),
            dict(self.producers),
            self.cache,
            (),
            self.hears,
            self.node_lane,
            self.map_lane,
            self.awaits,
            self.engine,
            self.shipped,
            None,
            None,
            None,
            set(),
            self.reach,
        )
