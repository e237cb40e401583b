"""RayMetrics: counts items and calls in Ray's own metrics, by pipeline and node."""

from __future__ import annotations

import threading
from collections import Counter
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from hypernodes.callbacks.base import CallbackContext, PipelineCallback
from hypernodes.exceptions import NodeAbandonedError, TelemetryWarning, import_extra
from hypernodes.text import ascii_name
from hypernodes.user_warnings import warn_user

if TYPE_CHECKING:
    from collections.abc import Mapping

FLUSH_INTERVAL_S: Final = 1.0
"""Seconds between two updates of Ray's counters, which cost more than most short calls; Ray exports them less
often."""

_Key = tuple[tuple[str, ...], str, str]


class RayMetrics(PipelineCallback):
    """Count items and calls of nodes in Ray's metrics, which Prometheus reads from each host of the cluster.

    The counters are ``ray_hypernodes_items_total``, with the tags ``pipeline`` and ``state``, and
    ``ray_hypernodes_calls_total``, which has the tag ``node``, too. The state is ``done`` or ``failed``;
    ``cached`` for calls and items that came from the cache (such items are done, too), and ``retried`` for
    calls that are repeated. They are at the host of the driver.

    Example:
        >>> from hypernodes import HyperNodesEngine, Pipeline, node
        >>> engine = HyperNodesEngine(map_executor="ray")
        >>> pipeline = Pipeline([node(abs, output_name="size")], engine=engine, callbacks=[RayMetrics()])
        >>> pipeline.map({"x": [1, -2]}, map_over="x")                            # doctest: +SKIP
        {'size': [1, 2]}
    """

    counts_items = True

    def __init__(self) -> None:
        import_extra("ray", "metrics of Ray need Ray", "ray", "ray")
        self._lock = threading.Lock()
        self._pending: Counter[_Key] = Counter()  # by path of the pipeline, node (or nothing), and state
        self._failed: set[tuple[tuple[str, ...], tuple[int, ...]]] = set()  # items of running maps
        self._flushed = 0.0  # by the monotonic clock
        self._counters: tuple[Any, Any] | None = None

    def on_map_items_end(self, items: int, ctx: CallbackContext) -> None:
        self._count(ctx.hierarchy_path, "", "done", items)
        self._count_nodes(ctx.hierarchy_path, ctx, items)

    def _count_nodes(self, path: tuple[str, ...], ctx: CallbackContext, items: int) -> None:
        """Count items for all nodes of a pipeline: aggregated events are those of nested pipelines, too."""
        metadata = ctx.get_pipeline_metadata(path)
        for node_id in metadata.get("node_ids", ()):
            self._count(path, node_id, "done", items)
            if node_id in metadata.get("nested", ()):
                self._count_nodes((*path, node_id), ctx, items)

    def on_map_item_end(self, item_index: int, duration: float, ctx: CallbackContext) -> None:
        item = ctx.hierarchy_path, ctx.item_path
        self._count(ctx.hierarchy_path, "", "failed" if item in self._failed else "done")
        self._failed.discard(item)

    def on_map_item_cached(self, item_index: int, signature: str, ctx: CallbackContext) -> None:
        self._count(ctx.hierarchy_path, "", "cached")

    def on_node_end(
        self, node_id: str, outputs: Mapping[str, Any], duration: float, ctx: CallbackContext
    ) -> None:
        self._count(ctx.hierarchy_path, node_id, "done")

    def on_node_cached(self, node_id: str, signature: str, ctx: CallbackContext) -> None:
        self._count(ctx.hierarchy_path, node_id, "cached")

    def on_node_retry(self, node_id: str, attempt: int, error: BaseException, ctx: CallbackContext) -> None:
        self._count(ctx.hierarchy_path, node_id, "retried")

    def on_error(self, node_id: str, error: BaseException, ctx: CallbackContext) -> None:
        if ctx.about == "pipeline":
            self._end(ctx)
        elif not isinstance(error, NodeAbandonedError):
            self._failed.add((ctx.hierarchy_path, ctx.item_path))
            if ctx.about == "node":
                self._count(ctx.hierarchy_path, node_id, "failed")

    def on_pipeline_end(
        self, pipeline_id: str, outputs: Mapping[str, Any], duration: float, ctx: CallbackContext
    ) -> None:
        self._end(ctx)

    def _end(self, ctx: CallbackContext) -> None:
        if len(ctx.hierarchy_path) == 1:
            self._failed.clear()
            self._flush()

    def _count(self, path: tuple[str, ...], node_id: str, state: str, number: int = 1) -> None:
        with self._lock:
            self._pending[path, node_id, state] += number
        if monotonic() - self._flushed > FLUSH_INTERVAL_S:
            self._flush()

    def _flush(self) -> None:
        """Add what was counted to the counters of Ray."""
        import ray

        if not ray.is_initialized():
            warn_user(
                "RayMetrics counts nothing, since this process is not connected to Ray.", TelemetryWarning
            )
            return
        with self._lock:
            pending, self._pending = self._pending, Counter()
            self._flushed = monotonic()
            items, calls = self._counters = self._counters or _counters()
        for (path, node_id, state), number in pending.items():
            tags = {"pipeline": ascii_name("/".join(path)), "state": state}
            if node_id:
                calls.inc(number, {**tags, "node": ascii_name(node_id)})
            else:
                items.inc(number, tags)

    def __reduce__(self) -> tuple[Any, ...]:
        return RayMetrics, ()


def _counters() -> tuple[Any, Any]:
    from ray.util.metrics import Counter as RayCounter

    return (
        RayCounter("hypernodes_items", "Items of maps, by pipeline and state.", ("pipeline", "state")),
        RayCounter("hypernodes_calls", "Calls, by pipeline, node and state.", ("pipeline", "node", "state")),
    )
