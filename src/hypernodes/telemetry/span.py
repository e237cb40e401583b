"""Spans as data, and from data."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from opentelemetry import trace as otel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import Span, SpanContext, Tracer, TracerProvider


@dataclass(frozen=True, slots=True)
class Happening:
    """An event on a span, such as an exception."""

    name: str
    time: int
    attributes: Mapping[str, Any]


@dataclass(slots=True)
class SpanData:
    """A span that is over, as data: what a worker sends home.

    Attributes:
        name: Its name.
        trace_id: The trace.
        span_id: Its id.
        parent_id: The id of the span around; 0 is none.
        start: In nanoseconds since the epoch.
        end: In nanoseconds since the epoch.
        attributes: Its attributes.
        events: What happened on the way.
        error: A description of the error that ended it; ``None`` if none did.
        kind: The number of its `SpanKind`.
        scope: The instrumentation that has made it.
    """

    name: str
    trace_id: int
    span_id: int
    parent_id: int
    start: int
    end: int
    attributes: dict[str, Any] = field(default_factory=dict)
    events: list[Happening] = field(default_factory=list)
    error: str | None = None
    kind: int = otel.SpanKind.INTERNAL.value
    scope: str = "hypernodes"

    @classmethod
    def of(cls, span: ReadableSpan) -> SpanData:
        """Return a finished span as data."""
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
                Happening(each.name, each.timestamp, dict(each.attributes or {})) for each in span.events
            ],
            error=(span.status.description or "") if is_error else None,
            kind=span.kind.value,
            scope=span.instrumentation_scope.name if span.instrumentation_scope else "",
        )


_chosen: ContextVar[tuple[int, int] | None] = ContextVar("hypernodes_chosen_ids", default=None)


class _ChosenIds:
    """An id generator of OpenTelemetry's SDK that gives out the ids that were chosen, if any were.

    Args:
        others: Makes up all others: tracers are shared with whoever asks for one of the same name.
    """

    def __init__(self, others: Any) -> None:
        self._others = others

    def generate_trace_id(self) -> int:
        chosen = _chosen.get()
        trace_id: int = self._others.generate_trace_id() if chosen is None else chosen[0]
        return trace_id

    def generate_span_id(self) -> int:
        chosen = _chosen.get()
        span_id: int = self._others.generate_span_id() if chosen is None else chosen[1]
        return span_id

    def is_trace_id_random(self) -> bool:
        return False


class Recorder:
    """Makes spans with chosen ids through a tracer provider.

    Args:
        provider: Anybody's provider; only the SDK's own, also within another one, lets ids be chosen.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracers: dict[str, Tracer] = {}
        self.can_choose = hasattr(_innermost(self._tracer("hypernodes")), "id_generator")

    def _tracer(self, scope: str) -> Tracer:
        tracer = self._tracers.get(scope)
        if tracer is None:
            tracer = self._tracers[scope] = self._provider.get_tracer(scope)
            inner = _innermost(tracer)
            others = getattr(inner, "id_generator", None)
            if others is not None and not isinstance(others, _ChosenIds):
                inner.id_generator = _ChosenIds(others)
        return tracer

    def start(
        self,
        name: str,
        parent: SpanContext | None,
        trace_id: int,
        span_id: int,
        start: int,
        *,
        scope: str = "hypernodes",
        **options: Any,
    ) -> Span:
        """Start a span.

        Args:
            name: Its name.
            parent: The span around.
            trace_id: The trace, if there is nothing around.
            span_id: Its id.
            start: In nanoseconds since the epoch.
            scope: The instrumentation.
            **options: What `Tracer.start_span` takes besides.
        """
        around = otel.set_span_in_context(otel.NonRecordingSpan(parent or otel.INVALID_SPAN_CONTEXT))
        chosen = _chosen.set((trace_id, span_id))
        try:
            return self._tracer(scope).start_span(name, around, start_time=start, **options)
        finally:
            _chosen.reset(chosen)

    def record(self, data: SpanData, flags: int) -> None:
        """Make a span of data."""
        parent = context_of(data.trace_id, data.parent_id, flags) if data.parent_id else None
        kind = otel.SpanKind(data.kind)
        span = self.start(
            data.name,
            parent,
            data.trace_id,
            data.span_id,
            data.start,
            scope=data.scope,
            kind=kind,
            attributes=data.attributes,
        )
        for event in data.events:
            span.add_event(event.name, event.attributes, event.time)
        if data.error is not None:
            span.set_status(otel.Status(otel.StatusCode.ERROR, data.error))
        span.end(data.end)


def _innermost(tracer: Any) -> Any:
    """Return the SDK's tracer, which some wrap in one of their own."""
    while not hasattr(tracer, "id_generator") and hasattr(tracer, "tracer"):
        tracer = tracer.tracer
    return tracer


def context_of(trace_id: int, span_id: int, flags: int) -> SpanContext:
    """Return what identifies a span elsewhere."""
    return otel.SpanContext(trace_id, span_id, is_remote=True, trace_flags=otel.TraceFlags(flags))
