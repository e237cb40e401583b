"""The identity of spans: their ids, names and attributes.

The driver makes the span of a node when the node's end is emitted, which may be long after a worker has
opened a span inside it. Both derive the id of the node's span from the node's place in the run.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from hypernodes.callbacks.event import NotSent, sizes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hypernodes.callbacks.base import CallbackContext
    from hypernodes.callbacks.node_context import NodeCall

Path: TypeAlias = tuple[str, ...]
Items: TypeAlias = tuple[int, ...]
SpanKey: TypeAlias = tuple[str, Path, Items]
"""The kind of a span, its path and its item indices. The kinds are ``"node"`` (also for pipelines), ``"map"``
and ``"item"``."""
ALWAYS_SAMPLED_ITEMS: Final = 1000
"""Items of a map that all have spans by default; of later ones, every 10th has, then every 100th, ..."""


@dataclass(frozen=True, slots=True)
class Trace:
    """The identity of the spans of one run."""

    trace_id: int
    salt: bytes  # random bytes that give each run in a trace span ids of its own
    flags: int  # as W3C defines them
    sample_items: float | None = None  # the share with spans; ``None`` for fewer the more items there are

    def span_id(self, kind: str, path: Path, items: Items) -> int:
        """Return the id of a span; the path of a node ends with its name."""
        place = repr((kind, path, items)).encode()
        return int.from_bytes(blake2b(place, digest_size=8, key=self.salt).digest(), "big") or 1

    @property
    def unsampled_id(self) -> int:
        """The id that stands for spans that are not made."""
        return int.from_bytes(self.salt[:8], "big") or 1

    def span_id_of_call(self, call: NodeCall) -> int:
        """Return the id of the span of the node that is called."""
        return self.span_id("node", (*call.pipeline_path, call.node_id), call.item_path)

    def samples(self, items: Items) -> bool:
        """Whether an item, and all items that contain it, have spans.

        >>> trace = Trace(1, b"", 1)
        >>> [trace.samples((index,)) for index in (999, 1001, 1010, 10_010, 10_100)]
        [True, False, True, False, True]
        >>> half = Trace(1, b"", 1, sample_items=0.5)
        >>> [index for index in range(8) if half.samples((index,))]
        [1, 3, 5, 7]
        """
        if not items:
            return True
        if len(items) == 1:
            return self._samples_index(items[0])
        return all(map(self._samples_index, items))

    def _samples_index(self, index: int) -> bool:
        if self.sample_items is not None:
            return int((index + 1) * self.sample_items) > int(index * self.sample_items)
        return index < ALWAYS_SAMPLED_ITEMS or index % 10 ** (len(str(index)) - 3) == 0


UNFINISHED: Final = {"hypernodes.unfinished": True}
"""Attributes of a span that ends because the run, or the pipeline or item around it, ended before it."""


def pipeline_attributes(ctx: CallbackContext) -> dict[str, Any]:
    """Return the attributes of the pipeline in which an event happened."""
    metadata = ctx.get_pipeline_metadata()
    return {
        f"hypernodes.{name}": metadata[name] for name in ("executor", "engine", "cache") if metadata.get(name)
    }


def node_attributes(
    node_id: str, ctx: CallbackContext, outputs: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the attributes of a node."""
    attributes = {
        **worker_attributes(ctx),
        "hypernodes.node": node_id,
        "hypernodes.executor": _executor(ctx),
        "hypernodes.cache.hit": False,
    }
    if ctx.signature is not None:
        attributes["hypernodes.signature"] = ctx.signature
    for name, value in (outputs or {}).items():
        attributes |= _output_attributes(name, value)
    return attributes


def _executor(ctx: CallbackContext) -> str:
    executor: str = ctx.get_pipeline_metadata().get("executor", "")
    return executor


def metric_attributes(node_id: str, ctx: CallbackContext) -> dict[str, str]:
    """Return the attributes of a metric of a node: few, since each combination is a time series."""
    return {
        "hypernodes.pipeline": "/".join(ctx.hierarchy_path),
        "hypernodes.node": node_id,
        "hypernodes.executor": _executor(ctx),
    }


def span_name(key: SpanKey) -> str:
    """Return the name of a span."""
    kind, path, _ = key
    return path[-1] if kind == "node" else kind


def place_attributes(key: SpanKey) -> dict[str, Any]:
    """Return the attributes that say to which pipeline and item a span belongs."""
    kind, path, items = key
    pipeline = path[:-1] if kind == "node" and len(path) > 1 else path
    attributes: dict[str, Any] = {"hypernodes.pipeline": "/".join(pipeline)}
    if items:
        attributes["hypernodes.item"] = ".".join(map(str, items))
    return attributes


def worker_attributes(ctx: CallbackContext) -> dict[str, Any]:
    """Return the attributes of the worker where an event happened."""
    worker = ctx.worker
    return {"host.name": worker.host, "process.pid": worker.pid, "thread.name": worker.thread}


def _output_attributes(name: str, value: object) -> dict[str, Any]:
    length, nbytes = sizes(value)
    kind = value.type if isinstance(value, NotSent) else type(value).__qualname__
    attributes: dict[str, Any] = {f"hypernodes.output.{name}.type": kind}
    if length is not None:
        attributes[f"hypernodes.output.{name}.length"] = length
    if nbytes is not None:
        attributes[f"hypernodes.output.{name}.bytes"] = nbytes
    return attributes
