"""The buffer for spans that end in a worker process, until they are sent to the driver."""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, Final

from opentelemetry.sdk.trace import SpanProcessor

from hypernodes.telemetry.recorder import SpanData

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

_MAX_SPANS: Final = 10_000
"""Spans of one trace that are buffered: a node that opens spans in a loop must not fill memory."""


class SpanBuffer(SpanProcessor):
    """Buffers the sampled spans that end while nodes of their trace are called."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: Counter[int] = Counter()
        self._ended: dict[int, list[SpanData]] = {}

    def on_end(self, span: ReadableSpan) -> None:
        """Buffer a span."""
        trace_id = span.context.trace_id
        with self._lock:
            if span.context.trace_flags.sampled and self._calls[trace_id]:
                ended = self._ended.setdefault(trace_id, [])
                if len(ended) < _MAX_SPANS:
                    ended.append(SpanData.of(span))

    def call_begins(self, trace_id: int) -> None:
        """Buffer spans of a trace from now on."""
        with self._lock:
            self._calls[trace_id] += 1

    def call_ends(self, trace_id: int) -> list[SpanData]:
        """Remove the buffered spans of a trace and return them; stop buffering after its last call."""
        with self._lock:
            self._calls[trace_id] -= 1
            if not self._calls[trace_id]:
                del self._calls[trace_id]
            return self._ended.pop(trace_id, [])
