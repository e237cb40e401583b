"""Spans that a worker keeps until they are taken home."""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, Final

from opentelemetry.sdk.trace import SpanProcessor

from hypernodes.telemetry.span import SpanData

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

_MOST: Final = 10_000


class Kept(SpanProcessor):
    """Keeps the spans that end while calls of their trace are made."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: Counter[int] = Counter()
        self._ended: dict[int, list[SpanData]] = {}

    def on_end(self, span: ReadableSpan) -> None:
        """Keep a span."""
        trace_id = span.context.trace_id
        with self._lock:
            if span.context.trace_flags.sampled and self._calls[trace_id]:
                ended = self._ended.setdefault(trace_id, [])
                if len(ended) < _MOST:
                    ended.append(SpanData.of(span))

    def enter(self, trace_id: int) -> None:
        """Note that a call of a trace begins."""
        with self._lock:
            self._calls[trace_id] += 1

    def leave(self, trace_id: int) -> list[SpanData]:
        """Note that a call of a trace is over, and hand out what has ended."""
        with self._lock:
            self._calls[trace_id] -= 1
            if not self._calls[trace_id]:
                del self._calls[trace_id]
            return self._ended.pop(trace_id, [])
