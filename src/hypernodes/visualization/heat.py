"""A run in a picture: what took long, what came from the cache, what failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from hypernodes.text import seconds

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hypernodes.visualization.scheme import Box, Scheme

LIGHT: Final = ("#e6effd", "#fdf3d8", "#fce3b8", "#fbd0a3", "#f9b99a")
DARK: Final = ("#1c3050", "#453a1a", "#5a4318", "#6c421c", "#7d3a24")
_LEVELS: Final = (0.05, 0.15, 0.3, 0.5)  # from which share of all seconds on a node is warmer


class Reported(Protocol):
    """What a picture must know of a node in a run."""

    @property
    def path(self) -> tuple[str, ...]:
        """The pipelines around it, and its name."""

    @property
    def is_nested(self) -> bool:
        """Whether it is a pipeline, whose nodes are reported, too."""

    @property
    def runs(self) -> int:
        """How often it was executed."""

    @property
    def cached(self) -> int:
        """How often its outputs came from the cache."""

    @property
    def failed(self) -> int:
        """How often it failed."""

    @property
    def seconds(self) -> float:
        """How long its executions took together."""


def heat_up(scheme: Scheme, nodes: Iterable[Reported]) -> None:
    """Put down at each box what became of it in a run."""
    reported = {node.path: node for node in nodes}
    whole = sum(node.seconds for node in reported.values() if not node.is_nested) or 1.0
    for outer in scheme.boxes:
        for box in outer.tree():
            node = reported.get(box.path)
            if box.kind == "input":
                continue
            if node is None:
                box.remarks = (*box.remarks, "did not run")
                continue
            box.heat = sum(node.seconds / whole >= level for level in _LEVELS)
            box.failed = node.failed > 0
            box.remarks = (*box.remarks, *_told(node))


def fill_of(box: Box, usual: str, *, dark: bool) -> str:
    """Return the colour of a box: the usual one, or a warmer one if it took long."""
    if box.heat is None or box.kind == "group":
        return usual
    return (DARK if dark else LIGHT)[box.heat]


def _told(node: Reported) -> list[str]:
    parts = []
    if node.runs:
        times = f" in {node.runs:,} runs" if node.runs > 1 else ""
        parts.append(f"{seconds(node.seconds)}{times}")
    if node.cached:
        parts.append(f"⚡ {node.cached:,} cached")
    if node.failed:
        parts.append(f"✗ {node.failed:,} failed")
    return parts
