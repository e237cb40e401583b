"""The results of a run, added to a diagram: durations as colours, cache hits and failures as remarks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hypernodes.text import seconds

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hypernodes.callbacks.run_record import NodeReport
    from hypernodes.visualization.diagram import Box, Diagram

LIGHT_FILLS: Final = ("#e6effd", "#fdf3d8", "#fce3b8", "#fbd0a3", "#f9b99a")
"""The fill colours of boxes by heat, on a light page."""
DARK_FILLS: Final = ("#1c3050", "#453a1a", "#5a4318", "#6c421c", "#7d3a24")
"""The fill colours of boxes by heat, on a dark page."""
HEAT_THRESHOLDS: Final = (0.05, 0.15, 0.3, 0.5)
"""The shares of the seconds of all nodes from which on a box gets heat 1, 2, 3 and 4."""


def add_run(diagram: Diagram, nodes: Iterable[NodeReport]) -> None:
    """Add the results of a run to the boxes of a diagram."""
    reports = {node.path: node for node in nodes}
    total = sum(node.seconds for node in reports.values() if not node.is_nested) or 1.0
    for outer in diagram.boxes:
        for box in outer.tree():
            if box.kind == "input":
                continue
            if (node := reports.get(box.path)) is None:
                box.remarks = (*box.remarks, "did not run")
                continue
            box.heat = sum(node.seconds / total >= threshold for threshold in HEAT_THRESHOLDS)
            box.failed = node.failed > 0
            box.remarks = (*box.remarks, *_remarks(node))


def fill_colour(box: Box, default: str, *, dark: bool) -> str:
    """Return the fill colour of a box: that of its heat, or the default if no run was added."""
    if box.heat is None or box.kind == "group":
        return default
    return (DARK_FILLS if dark else LIGHT_FILLS)[box.heat]


def _remarks(node: NodeReport) -> list[str]:
    remarks = []
    if node.runs:
        runs = f" in {node.runs:,} runs" if node.runs > 1 else ""
        remarks.append(f"{seconds(node.seconds)}{runs}")
    if node.cached:
        remarks.append(f"⚡ {node.cached:,} cached")
    if node.failed:
        remarks.append(f"✗ {node.failed:,} failed")
    return remarks
