"""What of a run has begun, and what is a part of what."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.trace import Span, SpanContext

    from hypernodes.telemetry.span import Happening
    from hypernodes.telemetry.trace import Trace

Path = tuple[str, ...]
Items = tuple[int, ...]
Key = tuple[str, Path, Items]
"""``"node"``, ``"map"`` or ``"item"``, where it is, and the items around; a pipeline is a node."""


@dataclass(slots=True)
class Begun:
    """What has begun and is not over."""

    time: float
    span: Span | None = None  # of what has one from its start
    retries: list[Happening] = field(default_factory=list)


@dataclass(slots=True)
class Tree:
    """The trace of one run.

    Attributes:
        trace: What identifies its spans.
        around: The span that was current where it was started.
        outermost: The outermost pipeline that is told of.
        begun: What has begun and is not over.
        heard: The pipelines that are told of.
        mapped: Those of them that are run over items.
        failed: What has a span since something in it has failed.
    """

    trace: Trace
    around: SpanContext | None
    outermost: Path
    begun: dict[Key, Begun] = field(default_factory=dict)
    heard: set[Path] = field(default_factory=set)
    mapped: set[Path] = field(default_factory=set)
    failed: set[Key] = field(default_factory=set)

    def has_span(self, key: Key) -> bool:
        """Whether a span is made of it."""
        return bool(self.trace.flags) and (key in self.failed or self.trace.has_span(key[2]))

    def above(self, key: Key) -> Key | None:
        """Return what something is a part of, or ``None`` if that is outside the run."""
        kind, path, items = key
        match kind:
            case "map":
                return "node", path, items
            case "item":
                return "map", path, items[:-1]
        pipeline = path[:-1]
        if path == self.outermost or pipeline not in self.heard:
            return None
        return ("item" if pipeline in self.mapped else "node"), pipeline, items

    def fail(self, key: Key) -> None:
        """Note that something has failed, and so what it is a part of."""
        above: Key | None = key
        while above is not None and above not in self.failed:
            self.failed.add(above)
            above = self.above(above)
