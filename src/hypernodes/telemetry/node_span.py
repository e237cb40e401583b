"""The node context of telemetry: the span of a node is current while the node is called."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

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

    @contextmanager
    def __call__(self, call: NodeCall) -> Iterator[list[SpanData] | None]:
        """Make the span of a node current; yield a list that gets the spans to send to the driver."""
        try:
            from opentelemetry import context, trace
        except ImportError:  # then no code of this worker can open spans
            yield None
            return
        from hypernodes.telemetry.recorder import remote_context

        is_sampled = self.trace.flags and self.trace.samples(call.item_path)
        span_id = self.trace.span_id_of_call(call) if self.parent_id is None else self.parent_id
        current = remote_context(self.trace.trace_id, span_id, self.trace.flags if is_sampled else 0)
        buffer = None if self.driver == (socket.gethostname(), os.getpid()) else worker_span_buffer()
        if buffer is not None:
            buffer.call_begins(self.trace.trace_id)
        token = context.attach(trace.set_span_in_context(trace.NonRecordingSpan(current)))
        ended: list[SpanData] = []
        try:
            yield ended
        finally:
            context.detach(token)
            if buffer is not None:
                ended += buffer.call_ends(self.trace.trace_id)


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
