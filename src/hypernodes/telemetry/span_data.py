"""Ended spans as plain data, which workers send to the driver."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from opentelemetry import trace as otel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.sdk.trace import ReadableSpan


@dataclass(frozen=True, slots=True)
class SpanEvent:
    """An event on a span, such as an exception.

    Attributes:
        name: The name.
        time: When it happened, in nanoseconds since the epoch.
        attributes: The attributes.
    """

    name: str
    time: int
    attributes: Mapping[str, Any]


@dataclass(slots=True)
class SpanData:
    """An ended span.

    Attributes:
        name: The name.
        trace_id: The id of the trace.
        span_id: The id.
        parent_id: The id of the parent span; 0 if it has none.
        start: In nanoseconds since the epoch.
        end: In nanoseconds since the epoch.
        attributes: The attributes.
        events: The events.
        error: The description of an error status; ``None`` for any other status.
        kind: The number of the `SpanKind`.
        scope: The name of the instrumentation scope.
    """

    name: str
    trace_id: int
    span_id: int
    parent_id: int
    start: int
    end: int
    attributes: dict[str, Any] = field(default_factory=dict)
    events: list[SpanEvent] = field(default_factory=list)
    error: str | None = None
    kind: int = otel.SpanKind.INTERNAL.value
    scope: str = "hypernodes"

    @classmethod
    def of(cls, span: ReadableSpan) -> SpanData:
        """Return an ended span as data."""
        is_error = span.status.status_code is otel.StatusCode.ERROR
        return cls(
            name=span.name,
            trace_id=span.context.trace_id,
            span_id=span.context.span_id,
            parent_id=span.parent.span_id if span.parent else 0,
            start=span.start_time or 0,
            end=span.end_time or 0,
            attributes=dict(span.attributes or {}),
            events=[
                SpanEvent(each.name, each.timestamp, dict(each.attributes or {})) for each in span.events
            ],
            error=(span.status.description or "") if is_error else None,
            kind=span.kind.value,
            scope=span.instrumentation_scope.name if span.instrumentation_scope else "",
        )
