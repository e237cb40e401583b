"""What spans and metrics say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypernodes.callbacks.event import NotSent, sizes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hypernodes.callbacks.base import CallbackContext
    from hypernodes.telemetry.tree import Key


def of_pipeline(ctx: CallbackContext) -> dict[str, Any]:
    """Return what is said of the pipeline in which something happened."""
    known = ctx.get_pipeline_metadata()
    return {f"hypernodes.{name}": known[name] for name in ("executor", "engine", "cache") if known.get(name)}


def of_node(node_id: str, ctx: CallbackContext, outputs: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return what is said of a node."""
    told = {
        **of_worker(ctx),
        "hypernodes.node": node_id,
        "hypernodes.executor": _executor(ctx),
        "hypernodes.cache.hit": False,
    }
    if ctx.signature is not None:
        told["hypernodes.signature"] = ctx.signature
    for name, value in (outputs or {}).items():
        told |= _sizes(name, value)
    return told


def _executor(ctx: CallbackContext) -> str:
    executor: str = ctx.get_pipeline_metadata().get("executor", "")
    return executor


def labels(node_id: str, ctx: CallbackContext) -> dict[str, str]:
    """Return the attributes of a metric, of which there are few."""
    return {
        "hypernodes.pipeline": "/".join(ctx.hierarchy_path),
        "hypernodes.node": node_id,
        "hypernodes.executor": _executor(ctx),
    }


def name_of(key: Key) -> str:
    """Return the name of a span."""
    kind, path, _ = key
    return path[-1] if kind == "node" else kind


def of_place(key: Key) -> dict[str, Any]:
    """Return where in the pipelines a span is."""
    kind, path, items = key
    pipeline = path[:-1] if kind == "node" and len(path) > 1 else path
    told: dict[str, Any] = {"hypernodes.pipeline": "/".join(pipeline)}
    if items:
        told["hypernodes.item"] = ".".join(map(str, items))
    return told


def of_worker(ctx: CallbackContext) -> dict[str, Any]:
    """Return who has computed."""
    worker = ctx.worker
    return {"host.name": worker.host, "process.pid": worker.pid, "thread.name": worker.thread}


def _sizes(name: str, value: object) -> dict[str, Any]:
    length, nbytes = sizes(value)
    told: dict[str, Any] = {
        f"hypernodes.output.{name}.type": (
            value.type if isinstance(value, NotSent) else type(value).__qualname__
        )
    }
    if length is not None:
        told[f"hypernodes.output.{name}.length"] = length
    if nbytes is not None:
        told[f"hypernodes.output.{name}.bytes"] = nbytes
    return told
