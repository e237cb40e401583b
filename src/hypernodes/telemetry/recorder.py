"""Spans with chosen ids, made through any tracer provider; and ended spans as data, which workers send."""

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


_CHOSEN_IDS: ContextVar[tuple[int, int] | None] = ContextVar("hypernodes_chosen_ids", default=None)


class _ChosenIds:
    """An id generator of OpenTelemetry's SDK that returns chosen ids while there are any.

    The default is for all other spans: a tracer is shared by everything that asks for its name.
    """

    def __init__(self, default: Any) -> None:
        self._default = default

    def generate_trace_id(self) -> int:
        chosen = _CHOSEN_IDS.get()
        trace_id: int = self._default.generate_trace_id() if chosen is None else chosen[0]
        return trace_id

    def generate_span_id(self) -> int:
        chosen = _CHOSEN_IDS.get()
        span_id: int = self._default.generate_span_id() if chosen is None else chosen[1]
        return span_id

    def is_trace_id_random(self) -> bool:
        return False


class SpanRecorder:
    """Makes spans with chosen ids through a tracer provider, if that lets ids be chosen.

    The SDK's own provider does, also if it is wrapped.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracers: dict[str, Tracer] = {}
        self.can_choose_ids = hasattr(_sdk_tracer(self._tracer("hypernodes")), "id_generator")

    def _tracer(self, scope: str) -> Tracer:
        if (tracer := self._tracers.get(scope)) is None:
            tracer = self._tracers[scope] = self._provider.get_tracer(scope)
            sdk_tracer = _sdk_tracer(tracer)
            generator = getattr(sdk_tracer, "id_generator", None)
            if generator is not None and not isinstance(generator, _ChosenIds):
                sdk_tracer.id_generator = _ChosenIds(generator)
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
        """Start a span with a chosen id; the id of the trace counts if there is no parent."""
        context = otel.set_span_in_context(otel.NonRecordingSpan(parent or otel.INVALID_SPAN_CONTEXT))
        token = _CHOSEN_IDS.set((trace_id, span_id))
        try:
            return self._tracer(scope).start_span(name, context, start_time=start, **options)
        finally:
            _CHOSEN_IDS.reset(token)

    def record(self, data: SpanData, flags: int) -> None:
        """Make an ended span of data."""
        parent = remote_context(data.trace_id, data.parent_id, flags) if data.parent_id else None
        span = self.start(
            data.name,
            parent,
            data.trace_id,
            data.span_id,
            data.start,
            scope=data.scope,
            kind=otel.SpanKind(data.kind),
            attributes=data.attributes,
        )
        for event in data.events:
            span.add_event(event.name, event.attributes, event.time)
        if data.error is not None:
            span.set_status(otel.Status(otel.StatusCode.ERROR, data.error))
        span.end(data.end)


def _sdk_tracer(tracer: Any) -> Any:
    """Return the SDK's tracer, which other libraries wrap in tracers of their own."""
    while not hasattr(tracer, "id_generator") and hasattr(tracer, "tracer"):
        tracer = tracer.tracer
    return tracer


def remote_context(trace_id: int, span_id: int, flags: int) -> SpanContext:
    """Return the context of a span that is made elsewhere."""
    return otel.SpanContext(trace_id, span_id, is_remote=True, trace_flags=otel.TraceFlags(flags))
