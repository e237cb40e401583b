"""The span that is current while a node is called."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry import context, trace

from hypernodes.telemetry.recorder import remote_context

if TYPE_CHECKING:
    from hypernodes.telemetry.recorder import SpanData
    from hypernodes.telemetry.span_buffer import SpanBuffer


class CurrentSpan:
    """A context in which the span of a node is the current one, though it is made only when the node ends.

    Its value is a list that gets the spans of the buffer which the node has opened.
    """

    __slots__ = ("_buffer", "_ended", "_span", "_token")

    def __init__(self, trace_id: int, span_id: int, flags: int, buffer: SpanBuffer | None) -> None:
        self._span = remote_context(trace_id, span_id, flags)
        self._buffer = buffer

    def __enter__(self) -> list[SpanData]:
        if self._buffer is not None:
            self._buffer.call_begins(self._span.trace_id)
        self._token = context.attach(trace.set_span_in_context(trace.NonRecordingSpan(self._span)))
        self._ended: list[SpanData] = []
        return self._ended

    def __exit__(self, *raised: object) -> None:
        context.detach(self._token)
        if self._buffer is not None:
            self._ended += self._buffer.call_ends(self._span.trace_id)
