"""The base class of callbacks, with its hooks, and the context that hooks get as their last argument."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from hypernodes.earlier_names import with_earlier_attributes

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from hypernodes.callbacks.event import About, Event, RunContext, Scope, Worker
    from hypernodes.callbacks.node_context import NodeContext


_EARLIER_KEYS: Final[Mapping[Hashable, Callable[[tuple[int, ...], Any], Any]]] = {
    "_in_map": lambda items, _: bool(items),
    "_map_item_index": lambda items, default: items[-1] if items else default,
}
"""What the engines of earlier versions kept as state of callbacks, by the item indices of an event."""


@with_earlier_attributes
class CallbackContext:
    """Where and when an event happened, and state that callbacks share during one run."""

    __slots__ = ("_event", "_run")

    def __init__(self, event: Event, run: RunContext) -> None:
        self._event = event
        self._run = run

    @property
    def _scope(self) -> Scope:
        return self._event.scope

    @property
    def depth(self) -> int:
        """The depth of nesting of the pipeline in which it happened; 0 for the outermost."""
        return len(self._scope.path) - 1

    @property
    def hierarchy_path(self) -> tuple[str, ...]:
        """The pipeline ids from the outermost pipeline to the one in which it happened."""
        return self._scope.path

    @property
    def item_path(self) -> tuple[int, ...]:
        """The item indices of the enclosing maps, the outermost first; empty outside of maps."""
        return self._scope.items

    @property
    def current_pipeline_id(self) -> str:
        """The id of the pipeline in which it happened."""
        return self._scope.path[-1]

    @property
    def parent_pipeline_id(self) -> str | None:
        """The id of the parent of that pipeline; ``None`` for the outermost."""
        return self._scope.path[-2] if len(self._scope.path) > 1 else None

    @property
    def time(self) -> float:
        """When it happened, in seconds since the epoch, by the clock of the host where it happened."""
        return self._event.time

    @property
    def worker(self) -> Worker:
        """The worker that computed: ``host``, ``pid`` and ``thread``."""
        return self._event.worker

    @property
    def signature(self) -> str | None:
        """The signature of the node's computation; ``None`` if it may not be cached, or is not known yet."""
        return self._event.signature

    @property
    def about(self) -> About:
        """For `on_error`, what failed: ``"node"``, ``"item"`` as a whole, or the outermost ``"pipeline"``."""
        return self._event.about

    def get(self, key: Hashable, default: Any = None) -> Any:
        """Return state that a callback has set during this run."""
        if key in _EARLIER_KEYS and key not in self._run.state:
            return _EARLIER_KEYS[key](self._scope.items, default)
        return self._run.state.get(key, default)

    def set(self, key: Hashable, value: Any) -> None:
        """Set state that all callbacks of this run can read."""
        self._run.state[key] = value

    def get_pipeline_metadata(self, pipeline_id: str | tuple[str, ...] | None = None) -> dict[str, Any]:
        """Return metadata of a pipeline of this run.

        Args:
            pipeline_id: The id of a pipeline, or the ids from the outermost pipeline to it. Of several
                pipelines with one id, the nearest is meant: an enclosing one, then a nested one, then any.
                By default it is the pipeline in which the event happened.

        Returns:
            ``name`` (also as ``pipeline_name``), ``node_ids``, ``nested`` (the node ids that are nested
            pipelines), ``total`` (the number of nodes, also as ``total_nodes``), ``needs`` (for each node,
            the nodes whose outputs it takes), and as text ``executor`` (where its nodes are called),
            ``engine`` and ``cache``, which are empty where the pipeline has none. An empty dict for a
            pipeline that is not part of this run.
        """
        pipelines, current = self._run.pipelines, self._scope.path
        if pipeline_id is None or isinstance(pipeline_id, tuple):
            return pipelines.get(current if pipeline_id is None else pipeline_id, {})
        enclosing = [current[:end] for end in range(len(current), 0, -1) if current[end - 1] == pipeline_id]
        others = [path for path in pipelines if path[-1] == pipeline_id]
        candidates = (*enclosing, (*current, pipeline_id), *others)
        return pipelines.get(next((path for path in candidates if path in pipelines), ()), {})

    def __repr__(self) -> str:
        items = f", items={self.item_path}" if self.item_path else ""
        return f"CallbackContext({'/'.join(self.hierarchy_path)}{items})"


def event_of(context: CallbackContext) -> Event:
    """Return the event that a context is about."""
    return context._event


def run_of(context: CallbackContext) -> RunContext:
    """Return what the run has in common in which an event happened."""
    return context._run


class PipelineCallback:
    """Base class of callbacks: override the hooks that you want to subscribe to.

    Hooks are called in the process that called ``run`` or ``map``, one at a time. A hook that raises is
    reported once and does not stop the run. Durations are in seconds.

    Every start is followed by its end, or by `on_error` of the same node. Errors are emitted from the inside
    out: for the node, then for each nested pipeline that contains it, then for the outermost pipeline.

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
    """Whether the callback needs no more than the numbers of items and nodes that are done.

    If it is true for all callbacks of a mapped pipeline, the map may emit aggregated events:
    `on_map_items_end` once for many items, instead of hooks for each item and node, so that a million short
    items cost next to nothing. Errors are emitted one by one, as always.

    Events of a map are aggregated only if its items are executed in chunks (on an executor, or in this thread
    if they are short); if nothing but calls can happen in an item (no cache, no retries, no timeout, no batch
    function, no nested map); if the pipeline and all pipelines nested in it have the same callbacks; and if
    none of these overrides `node_context`."""

    def on_pipeline_start(self, pipeline_id: str, inputs: Mapping[str, Any], ctx: CallbackContext) -> None:
        """A pipeline, outermost or nested, starts; for a map, once with the collections as inputs."""

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
        """A node raised and is called again; ``attempt`` is the number of the failed attempt, from 1."""

    def on_nested_pipeline_start(self, parent_id: str, child_pipeline_id: str, ctx: CallbackContext) -> None:
        """A nested pipeline starts; the context is that of its parent."""

    def on_nested_pipeline_end(
        self, parent_id: str, child_pipeline_id: str, duration: float, ctx: CallbackContext
    ) -> None:
        """A nested pipeline has ended; the context is that of its parent."""

    def on_map_start(self, total_items: int | None, ctx: CallbackContext) -> None:
        """A map starts; ``total_items`` is ``None`` for a stream (`Pipeline.imap`), of unknown length."""

    def on_map_end(self, total_duration: float, ctx: CallbackContext) -> None:
        """Every item of a map is done."""

    def on_map_item_start(self, item_index: int, ctx: CallbackContext) -> None:
        """An item of a map starts."""

    def on_map_item_end(self, item_index: int, duration: float, ctx: CallbackContext) -> None:
        """An item is done; under ``on_error="return"`` also an item that failed, after `on_error`."""

    def on_map_items_end(self, items: int, ctx: CallbackContext) -> None:
        """Several items are done, and each node of the pipeline was called as often.

        This is the aggregated form of the hooks for items and nodes; see `counts_items`.
        """

    def on_map_item_cached(self, item_index: int, signature: str, ctx: CallbackContext) -> None:
        """All outputs of an item came from the cache; emitted just before `on_map_item_end`."""

    def on_error(self, node_id: str, error: BaseException, ctx: CallbackContext) -> None:
        """A node, nested pipeline, item or the outermost pipeline failed; `ctx.about` says which.

        An item fails as a whole if its worker died, or if its result cannot be sent to the driver.

        A node that is under way when another node's error ends the run, or when a stream is closed, gets a
        `hypernodes.exceptions.NodeAbandonedError`: it has not failed, and its outcome is not waited for.
        """

    def on_node_notes(self, node_id: str, notes: tuple[Any, ...], ctx: CallbackContext) -> None:
        """The context manager that `node_context` returned for a call has yielded notes."""

    def node_context(self, ctx: CallbackContext) -> NodeContext | None:
        """Return a function that makes a context manager for each call of a node; ``None`` for none.

        The context managers are entered in the process and thread that makes the call. This method is called
        once a run, in the driver, before anything starts. The function that it returns travels to workers,
        so it must be picklable; it gets the `NodeCall`. The notes that its context manager yields, if any,
        are read after the call and emitted with `on_node_notes`.

        Example:
            >>> from contextlib import contextmanager
            >>> class Announce(PipelineCallback):
            ...     def node_context(self, ctx):
            ...         return announce
            ...     def on_node_notes(self, node_id, notes, ctx):
            ...         print(node_id, *notes)
            >>> @contextmanager
            ... def announce(call):
            ...     print("before", call.node_id)
            ...     yield ["has returned"]
            ...     print("after", call.node_id)
            >>> from hypernodes import Pipeline, node
            >>> Pipeline([node(abs, output_name="size")], callbacks=[Announce()]).run({"x": -3})
            before abs
            after abs
            abs has returned
            {'size': 3}
        """
        return None


HOOKS: Final = frozenset(name for name in vars(PipelineCallback) if name.startswith("on_"))


def hooks_of(callback: PipelineCallback) -> frozenset[str]:
    """Return the names of the hooks that a callback overrides, ``"node_context"`` included."""
    if getattr(callback, "is_enabled", True) is False:
        return frozenset()
    names = HOOKS | {"node_context"}
    return frozenset(
        name for name in names if getattr(type(callback), name, None) is not getattr(PipelineCallback, name)
    ) | (names & getattr(callback, "__dict__", {}).keys())


def counts_items(callback: PipelineCallback) -> bool:
    """Whether aggregated events suffice for a callback.

    A class that sets `counts_items` decides; a subclass that overrides hooks must set it again.
    """
    for cls in type(callback).__mro__:
        if "counts_items" in vars(cls):
            return bool(vars(cls)["counts_items"])
        if HOOKS & vars(cls).keys():
            return False
    return False
