"""What telemetry puts around the call of a node where it is made: its span, which others can hang under."""

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
    from hypernodes.telemetry.kept import Kept
    from hypernodes.telemetry.span import SpanData
    from hypernodes.telemetry.trace import Trace


@dataclass(frozen=True, slots=True)
class SpanAround:
    """Makes the span of a node the current one while the node is called.

    Attributes:
        trace: What identifies spans.
        parent_id: The span to hang others under; by default that of the node, whose id is worked out.
        driver: The host and process in which the run's spans are made.
    """

    trace: Trace
    parent_id: int | None
    driver: tuple[str, int]

    @contextmanager
    def __call__(self, call: NodeCall) -> Iterator[list[SpanData] | None]:
        """Call a node within its span; yields the spans that are to be brought to the driver."""
        try:
            from opentelemetry import context, trace
        except ImportError:  # then nobody opens spans here
            yield None
            return
        from hypernodes.telemetry.span import context_of

        has_span = self.trace.flags and self.trace.has_span(call.item_path)
        span_id = self.trace.of_call(call) if self.parent_id is None else self.parent_id
        around = context_of(self.trace.trace_id, span_id, self.trace.flags if has_span else 0)
        kept = None if self.driver == (socket.gethostname(), os.getpid()) else kept_here()
        if kept is not None:
            kept.enter(self.trace.trace_id)
        token = context.attach(trace.set_span_in_context(trace.NonRecordingSpan(around)))
        brought: list[SpanData] = []
        try:
            yield brought
        finally:
            context.detach(token)
            if kept is not None:
                brought += kept.leave(self.trace.trace_id)


_setting = threading.Lock()


def kept_here() -> Kept | None:
    """Return where this process keeps its spans; ``None`` where somebody has said where they go."""
    with _setting:
        return _kept_here()


@cache
def _kept_here() -> Kept | None:
    from opentelemetry import trace

    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return None
    try:
        from opentelemetry.sdk.trace import TracerProvider

        from hypernodes.telemetry.kept import Kept
    except ImportError:
        return None
    kept, provider = Kept(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(kept)
    trace.set_tracer_provider(provider)
    return kept
