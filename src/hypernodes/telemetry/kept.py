"""Spans that a worker keeps until they are taken home."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from opentelemetry.sdk.trace import SpanProcessor

from hypernodes.telemetry.span import SpanData

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

_MOST: Final = 10_000


class Kept(SpanProcessor):
    """Keeps spans that have ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ended: list[SpanData] = []

    def on_end(self, span: ReadableSpan) -> None:
        """Keep a span."""
        with self._lock:
            if span.context.trace_flags.sampled and len(self._ended) < _MOST:
                self._ended.append(SpanData.of(span))

    def take(self) -> list[SpanData]:
        """Hand out what has ended."""
        with self._lock:
            ended, self._ended = self._ended, []
        return ended
