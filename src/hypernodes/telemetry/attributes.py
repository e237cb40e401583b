"""The attributes of spans and metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from hypernodes.callbacks.base import CallbackContext
from hypernodes.callbacks.event import NotSent, sizes
from hypernodes.telemetry.trace import SpanKey

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
