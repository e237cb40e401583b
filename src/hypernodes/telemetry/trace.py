"""Which span is which: ids that the driver and all workers work out alike, so that none has to be sent.

The driver makes the span of a node when it hears of its end, which may be long after a worker has opened a
span inside it. Both derive its id from where it is in the run.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from hypernodes.callbacks.node_context import NodeCall

Items = tuple[int, ...]

_ALL: Final = 1000  # items of a map that all have spans, where nobody says how many; then every 10th, 100th …


@dataclass(frozen=True, slots=True)
class Trace:
    """What identifies the spans of one run.

    Attributes:
        trace_id: The trace.
        salt: Random bytes, so that another run in the same trace has other spans.
        flags: The trace's flags, as W3C defines them.
        share: The share of a map's items that have spans; ``None`` leaves it to their number.
    """

    trace_id: int
    salt: bytes
    flags: int
    share: float | None = None

    def span_id(self, kind: str, path: tuple[str, ...], items: Items) -> int:
        """Return the id of a span.

        Args:
            kind: ``"node"``, ``"map"`` or ``"item"``.
            path: The pipeline ids from the outermost to the map's or the item's; to the node's, and its name.
            items: The item indices of the maps around.
        """
        place = repr((kind, path, items)).encode()
        return int.from_bytes(blake2b(place, digest_size=8, key=self.salt).digest(), "big") or 1

    def of_call(self, call: NodeCall) -> int:
        """Return the id of the span of a node's call."""
        return self.span_id("node", (*call.pipeline_path, call.node_id), call.item_path)

    def has_span(self, items: Items) -> bool:
        """Whether an item, and all items around it, have spans.

        Example:
            >>> trace = Trace(1, b"", 1)
            >>> [trace.has_span((n,)) for n in (999, 1001, 1010, 10_010, 10_100)]
            [True, False, True, False, True]
            >>> half = Trace(1, b"", 1, share=0.5)
            >>> [n for n in range(8) if half.has_span((n,))]
            [1, 3, 5, 7]
        """
        return all(map(self._is_drawn, items))

    def _is_drawn(self, index: int) -> bool:
        if self.share is not None:
            return int((index + 1) * self.share) > int(index * self.share)
        return index < _ALL or index % 10 ** (len(str(index)) - 3) == 0
