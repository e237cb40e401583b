"""The spans of one run: which are open, which contains which, and how each ends.

    pipeline ── map ── item ── node ── the spans that the node's function opens
        └───────────────────── node

A span is made when it ends, with the time at which it started, since most spans of a map are not sampled and
those of workers arrive with their results. Only pipelines and maps, which may take long, are started at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace as otel

from hypernodes.telemetry.recorder import SpanData, SpanEvent, SpanRecorder, remote_context
from hypernodes.telemetry.trace import (
    UNFINISHED,
    Path,
    SpanKey,
    Trace,
    metric_attributes,
    place_attributes,
    span_name,
)
from hypernodes.text import described, message_of

if TYPE_CHECKING:
    from opentelemetry.trace import Span, SpanContext

    from hypernodes.callbacks.base import CallbackContext
    from hypernodes.telemetry.providers import Metrics

_NS_PER_S: Final = 1_000_000_000


def nanoseconds(timestamp: float) -> int:
    """Return a time in seconds as OpenTelemetry has it."""
    return round(timestamp * _NS_PER_S)


@dataclass(slots=True)
class OpenSpan:
    """A pipeline, map, item or node that has started and not ended."""

    started: float  # in seconds since the epoch
    span: Span | None = None  # if that is made already
    retries: list[SpanEvent] = field(default_factory=list)  # the failed attempts


class RunSpans:
    """The spans of one run, and the metrics that it records to."""

    def __init__(
        self,
        recorder: SpanRecorder,
        metrics: Metrics,
        trace: Trace,
        outer_span: SpanContext | None,
        outermost: Path,
    ) -> None:
        self._recorder = recorder
        self.metrics = metrics
        self._outer_span = outer_span  # the span that was current where the run was started
        self._failed: set[SpanKey] = set()
        self.trace = trace
        self.outermost = outermost  # the outermost pipeline that emits events
        self.open: dict[SpanKey, OpenSpan] = {}
        self.pipelines: set[Path] = set()  # those that emit events
        self.mapped: set[Path] = set()  # those of them that are mapped
        self._metric_attributes: dict[tuple[Path, str], dict[str, str]] = {}

    def metric_attributes(
        self, path: Path, node_id: str = "", ctx: CallbackContext | None = None
    ) -> dict[str, str]:
        """Return the attributes of a metric of a node, or of a pipeline."""
        if (known := self._metric_attributes.get((path, node_id))) is None:
            known = (
                {"hypernodes.pipeline": "/".join(path)} if ctx is None else metric_attributes(node_id, ctx)
            )
            self._metric_attributes[path, node_id] = known
        return known

    # ------------------------------------------------------------------------------------------- keys

    def is_sampled(self, key: SpanKey) -> bool:
        """Whether a span is made of something: what has failed has one, whatever the share of items."""
        return bool(self.trace.flags) and (key in self._failed or self.trace.samples(key[2]))

    def _parent_of(self, key: SpanKey) -> SpanKey | None:
        """Return the key of the parent span; ``None`` if that is not a span of the run."""
        kind, path, items = key
        match kind:
            case "map":
                return "node", path, items
            case "item":
                return "map", path, items[:-1]
        pipeline = path[:-1]
        if path == self.outermost or pipeline not in self.pipelines:
            return None
        return ("item" if pipeline in self.mapped else "node"), pipeline, items

    def fail(self, key: SpanKey) -> None:
        """Note that something has failed, so that it and all that contains it have spans."""
        failed: SpanKey | None = key
        while failed is not None and failed not in self._failed:
            self._failed.add(failed)
            failed = self._parent_of(failed)

    # ---------------------------------------------------------------------------------- start and end

    def start_root(self, key: SpanKey, time: float, attributes: dict[str, Any]) -> None:
        """Start the span of the outermost pipeline, and take over the trace that the provider has chosen."""
        self.start(key, time, attributes)
        span = self.open[key].span
        if span is not None:  # the sampler of the provider decides whether the trace is recorded
            context = span.get_span_context()
            flags = int(context.trace_flags) if context.trace_flags.sampled else 0
            self.trace = replace(self.trace, trace_id=context.trace_id, flags=flags)

    def begin(self, key: SpanKey, time: float) -> None:
        """Note when something has started; its span is made when it ends."""
        self.open[key] = OpenSpan(time)

    def start(self, key: SpanKey, time: float, attributes: dict[str, Any]) -> None:
        """Start a span at once, so that it is seen before it has ended."""
        opened = self.open.setdefault(key, OpenSpan(time))
        if opened.span is None and self.is_sampled(key):
            opened.span = self._make(key, opened.started, attributes)

    def add_retry(self, key: SpanKey, time: float, attempt: int, error: BaseException) -> None:
        """Add a failed attempt to the span of a node."""
        if (opened := self.open.get(key)) is not None:
            attributes = {
                "hypernodes.attempt": attempt,
                "exception.type": type(error).__qualname__,
                "exception.message": message_of(error),
            }
            opened.retries.append(SpanEvent("retry", nanoseconds(time), attributes))

    def end(
        self,
        key: SpanKey,
        time: float,
        attributes: dict[str, Any],
        *,
        error: BaseException | None = None,
        records_exception: bool = False,
    ) -> None:
        """End a span; one that is not made yet is made.

        An error is recorded with its traceback only where it was raised.
        """
        if (opened := self.open.pop(key, None)) is None or not self.is_sampled(key):
            return
        if (span := opened.span) is None:
            span = self._make(key, min(opened.started, time), attributes)
        else:
            span.set_attributes(attributes)
        if opened.retries:
            span.set_attribute("hypernodes.retries", len(opened.retries))
        for retry in opened.retries:
            span.add_event(retry.name, retry.attributes, retry.time)
        if error is not None and records_exception:
            span.record_exception(error, timestamp=nanoseconds(time))
        # A map that returns errors has not failed, though it has items that have.
        is_ended_by_failure = key[0] == "item" or UNFINISHED.keys() <= attributes.keys()
        if error is not None or (key in self._failed and is_ended_by_failure):
            reason = None if error is None else described(error)
            span.set_status(otel.Status(otel.StatusCode.ERROR, reason))
        span.end(nanoseconds(time))
        self._failed.discard(key)

    def end_inside(self, key: SpanKey, time: float) -> None:
        """End all that has started inside something that has ended."""
        _, path, items = key
        inside = [
            other
            for other in self.open
            if other != key and other[1][: len(path)] == path and other[2][: len(items)] == items
        ]
        for other in inside:
            self.end(other, time, UNFINISHED)

    def record(self, data: SpanData) -> None:
        """Make a span that has ended in a worker."""
        self._recorder.record(data, self.trace.flags)

    def _make(self, key: SpanKey, start: float, attributes: dict[str, Any]) -> Span:
        return self._recorder.start(
            span_name(key),
            self._parent_context(key),
            self.trace.trace_id,
            self.trace.span_id(*key),
            nanoseconds(start),
            attributes={**place_attributes(key), **attributes},
        )

    def _parent_context(self, key: SpanKey) -> SpanContext | None:
        """Return the context of the parent span."""
        parent = self._parent_of(key)
        # If ids cannot be chosen, only a span that is made already can be a parent.
        while parent is not None and not self._recorder.can_choose_ids:
            if (opened := self.open.get(parent)) is not None and opened.span is not None:
                return opened.span.get_span_context()
            parent = self._parent_of(parent)
        if parent is None:
            return self._outer_span
        return remote_context(self.trace.trace_id, self.trace.span_id(*parent), self.trace.flags)
