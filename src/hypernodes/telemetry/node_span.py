"""The node context of telemetry: the span of a node is current while the node is called."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from hypernodes.callbacks.event import current_worker

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from hypernodes.callbacks.node_context import NodeCall
    from hypernodes.telemetry.recorder import SpanData
    from hypernodes.telemetry.span_buffer import SpanBuffer
    from hypernodes.telemetry.trace import Trace


@dataclass(frozen=True, slots=True)
class NodeSpanContext:
    """Makes the span of a node the current one while the node is called; it travels to workers."""

    trace: Trace
    parent_id: int | None  # of the span that is made current; ``None`` for that of the node
    driver: tuple[str, int]  # the host and process in which the run's spans are made

    def __call__(self, call: NodeCall) -> AbstractContextManager[list[SpanData] | None]:
        """Make the span of a node current; its value is a list of the spans to send to the driver."""
        try:
            from hypernodes.telemetry.current_span import CurrentSpan
        except ImportError:  # then no code of this worker can open spans
            return nullcontext()
        buffer = None if self.driver == current_worker()[:2] else worker_span_buffer()
        is_sampled = self.trace.flags and self.trace.samples(call.item_path)
        if not is_sampled:  # Calls without spans share one id, since making an id takes time.
            return CurrentSpan(self.trace.trace_id, self.trace.unsampled_id, 0, buffer)
        span_id = self.trace.span_id_of_call(call) if self.parent_id is None else self.parent_id
        return CurrentSpan(self.trace.trace_id, span_id, self.trace.flags, buffer)


_lock = threading.Lock()


def worker_span_buffer() -> SpanBuffer | None:
    """Return the span buffer of this process; ``None`` if the application has set a tracer provider."""
    with _lock:  # threads must not set two providers
        return _set_span_buffer()


@cache
def _set_span_buffer() -> SpanBuffer | None:
    """Set a tracer provider with a span buffer, unless the application has set one."""
    from opentelemetry import trace

    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return None
    try:
        from opentelemetry.sdk.trace import TracerProvider

        from hypernodes.telemetry.span_buffer import SpanBuffer
    except ImportError:
        return None
    buffer, provider = SpanBuffer(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(buffer)
    trace.set_tracer_provider(provider)
    return buffer
