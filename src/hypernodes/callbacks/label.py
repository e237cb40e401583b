"""The label of the node that is being called: which pipeline, node and item an output line belongs to."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

from hypernodes.callbacks.event import current_worker
from hypernodes.callbacks.node_context import NodeCall


@dataclass(slots=True)
class Label:
    """The label of one call of a node: ``text/words/measure[3]`` as text."""

    call: NodeCall
    as_json: bool  # labelled lines are JSON objects instead of text with a prefix
    partial_lines: dict[str, list[str]] = field(default_factory=dict)

    def __str__(self) -> str:
        items = f"[{'.'.join(map(str, self.call.item_path))}]" if self.call.item_path else ""
        return f"{'/'.join(self.call.pipeline_path)}/{self.call.node_id}{items}"

    @property
    def fields(self) -> dict[str, Any]:
        """The same as fields of a log record or a JSON object."""
        path, node, items = self.call
        return {
            "pipeline_path": "/".join(path),
            "node": node,
            "item_path": items,
            "depth": len(path) - 1,
            "host": current_worker().host,
        }


CURRENT_LABEL: Final[ContextVar[Label | None]] = ContextVar("hypernodes_label", default=None)
"""The label of the node that is being called in this thread or task; ``None`` outside of nodes."""
