"""Ended spans as plain data, which workers send to the driver."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from opentelemetry import trace as otel

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan


@dataclass(frozen=True, slots=True)
class SpanEvent:
    """An event on a span, such as an exception."""

    name: str
    time: int  # in nanoseconds since the epoch
    attributes: Mapping[str, Any]


@dataclass(slots=True)
class SpanData:
    """An ended span."""

    name: str
    trace_id: int
    span_id: int
    parent_id: int  # 0 if it has none
    start: int  # in nanoseconds since the epoch
    end: int
    attributes: dict[str, Any] = field(default_factory=dict)
    events: list[SpanEvent] = field(default_factory=list)
    error: str | None = None  # the description of an error status; ``None`` for any other status
    kind: int = otel.SpanKind.INTERNAL.value  # the number of the `SpanKind`
    scope: str = "hypernodes"  # the name of the instrumentation scope

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
