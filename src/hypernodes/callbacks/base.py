"""The hooks, and what they are told of where they are called."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hypernodes.callbacks.event import About, Event, Worker
    from hypernodes.callbacks.node_context import NodeContext


@dataclass(slots=True)
class Shared:
    """What all contexts of one run have in common."""

    pipelines: Mapping[tuple[str, ...], dict[str, Any]]
    state: dict[str, Any] = field(default_factory=dict)


class CallbackContext:
    """Where an event happened, and a place for state that callbacks share during one run."""

    __slots__ = ("_event", "_scope", "_shared")

    def __init__(self, event: Event, shared: Shared) -> None:
        self._event = event
        self._scope = event.scope
        self._shared = shared

    @property
    def depth(self) -> int:
        """How many pipelines are around the one it happened in; 0 at the outermost."""
        return len(self._scope.path) - 1

    @property
    def hierarchy_path(self) -> tuple[str, ...]:
        """The pipeline ids from the outermost to this one."""
        return self._scope.path

    @property
    def item_path(self) -> tuple[int, ...]:
        """The item indices of the maps around, the outermost first."""
        return self._scope.items

    @property
    def current_pipeline_id(self) -> str:
        """The pipeline in which it happened."""
        return self._scope.path[-1]

    @property
    def parent_pipeline_id(self) -> str | None:
        """The pipeline around that one, if there is one."""
        return self._scope.path[-2] if len(self._scope.path) > 1 else None

    @property
    def time(self) -> float:
        """When it happened, in seconds since the epoch, by the clock of the host where it happened."""
        return self._event.time

    @property
    def worker(self) -> Worker:
        """Who has computed what this is about: ``host``, ``pid`` and ``thread``."""
        return self._event.worker

    @property
    def signature(self) -> str | None:
        """What identifies the node's computation in the cache, once it is known and if it may be cached."""
        return self._event.signature

    @property
    def about(self) -> About:
        """What an error is of: ``"node"``, ``"item"`` (as a whole), or ``"pipeline"`` (the outermost)."""
        return self._event.about

    def get(self, key: str, default: Any = None) -> Any:
        """Return state that a callback has set during this run."""
        return self._shared.state.get(key, default)

    def set(self, key: str, value: Any) -> None:
        """Keep state for the callbacks of this run."""
        self._shared.state[key] = value

    def get_pipeline_metadata(self, pipeline_id: str | tuple[str, ...] | None = None) -> dict[str, Any]:
        """Return what is known of a pipeline of this run.

        Args:
            pipeline_id: Its id, of which the nearest is taken, or the ids from the outermost to it. By
                default it is the pipeline in which it happened.

        Returns:
            ``name``, ``node_ids``, ``nested`` (those of them that are pipelines), ``total`` (how many nodes),
            ``needs`` (the nodes that each node takes something of), and as text ``executor`` (what makes its
            calls), ``engine`` and ``cache``, which are empty where none is named. Nothing of a pipeline that
            is not part of this run.
        """
        pipelines, here = self._shared.pipelines, self._scope.path
        if pipeline_id is None or isinstance(pipeline_id, tuple):
            return pipelines.get(here if pipeline_id is None else pipeline_id, {})
        around = [here[:end] for end in range(len(here), 0, -1) if here[end - 1] == pipeline_id]
        others = [path for path in pipelines if path[-1] == pipeline_id]
        found = next((path for path in (*around, (*here, pipeline_id), *others) if path in pipelines), ())
        return pipelines.get(found, {})

    def __repr__(self) -> str:
        items = f", items={self.item_path}" if self.item_path else ""
        return f"CallbackContext({'/'.join(self.hierarchy_path)}{items})"


class PipelineCallback:
    """Base of all callbacks: override the hooks you want, leave out the rest.

    Hooks are called in the process that called ``run`` or ``map``, one at a time. One that raises is
    reported once and does not stop the run. Durations are in seconds.

    Every start is followed by its end, or by `on_error` of the same node; an error is told from the
    inside out: the node, each nested pipeline around it, the outermost pipeline.

    Example:
        >>> class Names(PipelineCallback):
        ...     def on_node_start(self, node_id, inputs, ctx):
        ...         print(ctx.current_pipeline_id, node_id)
        >>> from hypernodes import Pipeline, node
        >>> pipeline = Pipeline([node(abs, output_name="size")], callbacks=[Names()], name="sizes")
        >>> pipeline.run({"x": -3})
        sizes abs
        {'size': 3}
    """

    counts_items: ClassVar[bool] = False
    """Whether it only counts items and nodes. If all callbacks of a pipeline do, then the short items of a
    map in which nothing but calls can happen (no cache, no retries) are told in numbers, by
    `on_map_items_end` instead of by hooks for each: a million of them costs next to nothing. What fails is
    told as always."""

    def on_pipeline_start(self, pipeline_id: str, inputs: Mapping[str, Any], ctx: CallbackContext) -> None:
        """A pipeline, outermost or nested, starts; for a map once, with the collections as inputs."""

    def on_pipeline_end(
        self, pipeline_id: str, outputs: Mapping[str, Any], duration: float, ctx: CallbackContext
    ) -> None:
        """A pipeline has all its outputs."""

    def on_node_start(self, node_id: str, inputs: Mapping[str, Any], ctx: CallbackContext) -> None:
        """A node, or a nested pipeline as a node, is about to be executed."""

    def on_node_end(
        self, node_id: str, outputs: Mapping[str, Any], duration: float, ctx: CallbackContext
    ) -> None:
        """A node was executed; the duration includes its retries."""

    def on_node_cached(self, node_id: str, signature: str, ctx: CallbackContext) -> None:
        """A node's outputs came from the cache; it neither starts nor ends."""

    def on_node_retry(self, node_id: str, attempt: int, error: BaseException, ctx: CallbackContext) -> None:
        """A node raised and is called again; ``attempt`` is the number of the attempt that failed."""

    def on_nested_pipeline_start(self, parent_id: str, child_pipeline_id: str, ctx: CallbackContext) -> None:
        """A pipeline begins a nested one; the context is the parent's."""

    def on_nested_pipeline_end(
        self, parent_id: str, child_pipeline_id: str, duration: float, ctx: CallbackContext
    ) -> None:
        """A nested pipeline is done; the context is the parent's."""

    def on_map_start(self, total_items: int | None, ctx: CallbackContext) -> None:
        """A map begins; how many items there are is not known of one that streams (`Pipeline.imap`)."""

    def on_map_end(self, total_duration: float, ctx: CallbackContext) -> None:
        """Every item of a map is done."""

    def on_map_item_start(self, item_index: int, ctx: CallbackContext) -> None:
        """An item of a map begins."""

    def on_map_item_end(self, item_index: int, duration: float, ctx: CallbackContext) -> None:
        """An item is done; with ``on_error="return"`` also one that failed, after `on_error`."""

    def on_map_items_end(self, items: int, ctx: CallbackContext) -> None:
        """So many items are done, and each node of the pipeline as often; see `counts_items`."""

    def on_map_item_cached(self, item_index: int, signature: str, ctx: CallbackContext) -> None:
        """All outputs of an item came from the cache; comes just before its end."""

    def on_error(self, node_id: str, error: BaseException, ctx: CallbackContext) -> None:
        """A node, nested pipeline, item or the outermost pipeline failed; `ctx.about` says which.

        Items fail as a whole where their worker has died, or what they returned cannot be sent.
        """

    def on_node_notes(self, node_id: str, notes: tuple[Any, ...], ctx: CallbackContext) -> None:
        """The context that this callback has put around a call, by `node_context`, has noted something."""

    def node_context(self, ctx: CallbackContext) -> NodeContext | None:
        """Return what is to be put around each call of a node, in the process and thread where it is made.

        It is asked for once a run, in the driver, before anything starts, and travels to workers: it must
        pickle. For each call it is given the `NodeCall`, and returns a context manager; what that yields, if
        anything, is read after the call and told by `on_node_notes`.

        Example:
            >>> from contextlib import contextmanager
            >>> class Around(PipelineCallback):
            ...     def node_context(self, ctx):
            ...         return loudly
            ...     def on_node_notes(self, node_id, notes, ctx):
            ...         print(node_id, *notes)
            >>> @contextmanager
            ... def loudly(call):
            ...     print("before", call.node_id)
            ...     yield ["was called"]
            ...     print("after", call.node_id)
            >>> from hypernodes import Pipeline, node
            >>> Pipeline([node(abs, output_name="size")], callbacks=[Around()]).run({"x": -3})
            before abs
            after abs
            abs was called
            {'size': 3}
        """
        return None


HOOKS: Final = frozenset(name for name in vars(PipelineCallback) if name.startswith("on_"))


def hooks_of(callback: PipelineCallback) -> frozenset[str]:
    """Return the names of the hooks that a callback overrides; its `node_context` is one, too."""
    names = HOOKS | {"node_context"}
    return frozenset(
        name for name in names if getattr(type(callback), name, None) is not getattr(PipelineCallback, name)
    ) | (names & getattr(callback, "__dict__", {}).keys())


def counts_items(callback: PipelineCallback) -> bool:
    """Whether a callback only counts: its class says so, and none derived from that overrides hooks."""
    for cls in type(callback).__mro__:
        if "counts_items" in vars(cls):
            return bool(vars(cls)["counts_items"])
        if HOOKS & vars(cls).keys():
            return False
    return False
