"""TelemetryCallback: a run as a trace, and as metrics.

Spans are made in the driver from events, with the times of the events; `run_spans` has their tree, and
`trace` their ids.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Final, Never

from hypernodes.arguments import amount, error_of, text, unknown_option
from hypernodes.callbacks.base import CallbackContext, PipelineCallback
from hypernodes.callbacks.event import current_worker
from hypernodes.exceptions import NodeAbandonedError, OptionError, TelemetryWarning, import_extra
from hypernodes.telemetry.node_span import NodeSpanContext
from hypernodes.telemetry.providers import find_providers
from hypernodes.telemetry.trace import (
    UNFINISHED,
    SpanKey,
    Trace,
    metric_attributes,
    node_attributes,
    pipeline_attributes,
    worker_attributes,
)
from hypernodes.user_warnings import warn_user

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from hypernodes.telemetry.providers import Metrics
    from hypernodes.telemetry.recorder import SpanRecorder
    from hypernodes.telemetry.run_spans import RunSpans

_NO_PROVIDER: Final = (
    "OpenTelemetry has no tracer provider, so that the spans of TelemetryCallback go nowhere. Set one before "
    "the run, opentelemetry.trace.set_tracer_provider(...), or name a collector: "
    "TelemetryCallback(endpoint='http://localhost:4318')."
)


class TelemetryCallback(PipelineCallback):
    """Export a run to OpenTelemetry: spans for pipelines, maps, items and nodes, and metrics.

    The spans of a run are children of the span that is current where ``run`` or ``map`` is called. A span
    that a node's function opens is a child of the node's span, in any thread, process or host. In a worker
    process whose application has not set a tracer provider, one is set that sends spans to the driver with
    the results.

    Args:
        tracer_provider: The provider for spans; by default OpenTelemetry's global provider, if one is set, or
            else one for the collector that the environment variable ``OTEL_EXPORTER_OTLP_ENDPOINT`` names.
        meter_provider: The provider for metrics; by default OpenTelemetry's global one.
        endpoint: The URL of a collector that takes traces and metrics by OTLP over HTTP, such as
            ``"http://localhost:4318"``. Its tracer provider is set as OpenTelemetry's global one, if none is.
        sample_items: The share of a map's items that have spans, from 0 to 1. By default all of the first
            1 000, every 10th of the first 10 000, every 100th of the first 100 000, and so on. Items that
            fail always have spans.

    Raises:
        ExtraMissingError: OpenTelemetry is not installed.
        ValueError: `sample_items` is not from 0 to 1, `endpoint` is not a URL, or there are both an endpoint
            and a provider.
        TypeError: `tracer_provider` is a string.

    Example:
        >>> from opentelemetry.sdk.trace import TracerProvider
        >>> from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        >>> from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        >>> spans, provider = InMemorySpanExporter(), TracerProvider()
        >>> provider.add_span_processor(SimpleSpanProcessor(spans))
        >>> from hypernodes import Pipeline, node
        >>> telemetry = TelemetryCallback(provider)
        >>> sizes = Pipeline([node(abs, output_name="size")], callbacks=[telemetry], name="sizes")
        >>> sizes.map({"x": [-1, 2]}, map_over="x")
        {'size': [1, 2]}
        >>> [span.name for span in spans.get_finished_spans()]
        ['abs', 'item', 'abs', 'item', 'map', 'sizes']
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        *,
        endpoint: str | None = None,
        sample_items: float | None = None,
        **unknown: Never,
    ) -> None:
        if unknown:
            raise unknown_option("TelemetryCallback", unknown)
        need = "telemetry needs OpenTelemetry"
        import_extra("opentelemetry.trace", need, "opentelemetry-sdk", "telemetry")
        if isinstance(tracer_provider, str):
            raise TypeError(
                f"a collector is named by endpoint=: TelemetryCallback(endpoint={tracer_provider!r})"
            )
        for name, provider, method in (
            ("tracer_provider", tracer_provider, "get_tracer"),
            ("meter_provider", meter_provider, "get_meter"),
        ):
            is_provider = callable(getattr(provider, method, None)) and not isinstance(provider, type)
            if provider is not None and not is_provider:
                raise error_of(name, f"an object that has {method}(...)", provider)
        if endpoint is not None and not text("endpoint", endpoint).startswith(("http://", "https://")):
            raise OptionError(f"endpoint must be a URL, such as 'http://localhost:4318': {endpoint!r}")
        if sample_items is not None and amount("sample_items", sample_items) > 1:
            raise OptionError(
                f"sample_items must be the share of items that have spans, from 0 to 1: {sample_items!r}"
            )
        if endpoint is not None and (tracer_provider is not None or meter_provider is not None):
            raise ValueError("endpoint= makes providers of its own: give either endpoint= or providers")
        self._endpoint = endpoint
        self._tracer_provider = tracer_provider
        self._meter_provider = meter_provider
        self._sample_items = sample_items
        self._outlets: tuple[SpanRecorder, Metrics] | None = None
        self._is_warned = False

    # ------------------------------------------------------------------------------------------- runs

    def node_context(self, ctx: CallbackContext) -> NodeSpanContext | None:
        if (outlets := self._find_outlets()) is None:
            return None
        from opentelemetry import trace as otel

        from hypernodes.telemetry.run_spans import RunSpans

        recorder, metrics = outlets
        current = otel.get_current_span().get_span_context()
        outer = current if current.is_valid else None
        trace = Trace(
            outer.trace_id if outer else secrets.randbits(128) or 1,
            secrets.token_bytes(8),
            int(outer.trace_flags) if outer else otel.TraceFlags.SAMPLED,
            self._sample_items,
        )
        spans = RunSpans(recorder, metrics, trace, outer, ctx.hierarchy_path)
        if not ctx.depth:  # of a nested pipeline it is not known whether it will start
            attributes = {**worker_attributes(ctx), **pipeline_attributes(ctx)}
            spans.start_root(("node", ctx.hierarchy_path, ()), ctx.time, attributes)
        ctx.set(self._key, spans)
        parent_id = None if recorder.can_choose_ids else outer and outer.span_id
        return NodeSpanContext(spans.trace, parent_id, current_worker()[:2])

    def _find_outlets(self) -> tuple[SpanRecorder, Metrics] | None:
        """Return where spans and metrics go; ``None``, with a warning once, if no provider is configured."""
        if self._outlets is None:
            providers = find_providers(self._tracer_provider, self._meter_provider, self._endpoint)
            if providers is None:
                if not self._is_warned:
                    self._is_warned = True
                    warn_user(_NO_PROVIDER, TelemetryWarning)
                return None
            from hypernodes.telemetry.providers import Metrics
            from hypernodes.telemetry.recorder import SpanRecorder

            self._outlets = SpanRecorder(providers[0]), Metrics(providers[1])
        return self._outlets

    @property
    def _key(self) -> str:
        return f"telemetry {id(self)}"

    def _run(self, ctx: CallbackContext) -> RunSpans | None:
        run: RunSpans | None = ctx.get(self._key)
        return run

    def on_pipeline_start(self, pipeline_id: str, inputs: Mapping[str, Any], ctx: CallbackContext) -> None:
        if (run := self._run(ctx)) is not None:
            run.pipelines.add(ctx.hierarchy_path)
            attributes = {**worker_attributes(ctx), **pipeline_attributes(ctx)}
            run.start(("node", ctx.hierarchy_path, ctx.item_path), ctx.time, attributes)

    def on_pipeline_end(
        self, pipeline_id: str, outputs: Mapping[str, Any], duration: float, ctx: CallbackContext
    ) -> None:
        if (run := self._run(ctx)) is None:
            return
        key = ("node", ctx.hierarchy_path, ctx.item_path)
        if ctx.hierarchy_path == run.outermost:
            run.end_inside(key, ctx.time)
        run.end(key, ctx.time, {})
        run.metrics.pipeline_duration.record(duration, {"hypernodes.pipeline": "/".join(ctx.hierarchy_path)})

    def on_error(self, node_id: str, error: BaseException, ctx: CallbackContext) -> None:
        if (run := self._run(ctx)) is None:
            return
        path = ctx.hierarchy_path
        if ctx.about == "item":  # its end is emitted after this
            run.fail(("item", path, ctx.item_path))
            return
        key = ("node", path if ctx.about == "pipeline" else (*path, node_id), ctx.item_path)
        is_pipeline = key[1] in run.pipelines
        attributes = {} if is_pipeline else node_attributes(node_id, ctx)
        if isinstance(error, NodeAbandonedError):
            run.end_inside(key, ctx.time)
            run.end(key, ctx.time, {**attributes, **UNFINISHED})
            return
        run.fail(key)
        run.end_inside(key, ctx.time)
        run.end(key, ctx.time, attributes, error=error, records_exception=not is_pipeline)
        if not is_pipeline:
            run.metrics.errors.add(1, metric_attributes(node_id, ctx))

    # ------------------------------------------------------------------------------------------- maps

    def on_map_start(self, total_items: int | None, ctx: CallbackContext) -> None:
        if (run := self._run(ctx)) is not None:
            run.mapped.add(ctx.hierarchy_path)
            attributes = worker_attributes(ctx)
            if total_items is not None:
                attributes["hypernodes.map.items"] = total_items
            run.start(("map", ctx.hierarchy_path, ctx.item_path), ctx.time, attributes)

    def on_map_end(self, total_duration: float, ctx: CallbackContext) -> None:
        if (run := self._run(ctx)) is not None:
            run.end(("map", ctx.hierarchy_path, ctx.item_path), ctx.time, {})

    def on_map_item_start(self, item_index: int, ctx: CallbackContext) -> None:
        if (run := self._run(ctx)) is not None:
            run.begin(("item", ctx.hierarchy_path, ctx.item_path), ctx.time)

    def on_map_item_end(self, item_index: int, duration: float, ctx: CallbackContext) -> None:
        if (run := self._run(ctx)) is not None:
            path = ctx.hierarchy_path
            key = ("item", path, ctx.item_path)
            run.end(key, ctx.time, worker_attributes(ctx) if run.is_sampled(key) else {})
            run.metrics.items.add(1, run.metric_attributes(path))

    # ------------------------------------------------------------------------------------------ nodes

    def on_node_start(self, node_id: str, inputs: Mapping[str, Any], ctx: CallbackContext) -> None:
        if (run := self._run(ctx)) is not None:
            run.begin(_node_key(node_id, ctx), ctx.time)

    def on_node_end(
        self, node_id: str, outputs: Mapping[str, Any], duration: float, ctx: CallbackContext
    ) -> None:
        if (run := self._run(ctx)) is None:
            return
        key = _node_key(node_id, ctx)
        opened = run.open.get(key)
        if opened is None:  # the span of a nested pipeline ends when that pipeline does
            return
        opened.started = ctx.time - duration  # its start was emitted before it waited for a worker
        attributes = node_attributes(node_id, ctx, outputs) if run.is_sampled(key) else {}
        run.end(key, ctx.time, attributes)
        run.metrics.node_duration.record(duration, run.metric_attributes(ctx.hierarchy_path, node_id, ctx))

    def on_node_cached(self, node_id: str, signature: str, ctx: CallbackContext) -> None:
        if (run := self._run(ctx)) is None:
            return
        key = _node_key(node_id, ctx)
        if run.is_sampled(key):
            run.begin(key, ctx.time)
            attributes = {**node_attributes(node_id, ctx), "hypernodes.cache.hit": True}
            run.end(key, ctx.time, attributes)
        run.metrics.hits.add(1, metric_attributes(node_id, ctx))

    def on_node_retry(self, node_id: str, attempt: int, error: BaseException, ctx: CallbackContext) -> None:
        if (run := self._run(ctx)) is not None:
            run.add_retry(_node_key(node_id, ctx), ctx.time, attempt, error)
            run.metrics.retries.add(1, metric_attributes(node_id, ctx))

    def on_node_notes(self, node_id: str, notes: tuple[Any, ...], ctx: CallbackContext) -> None:
        from hypernodes.telemetry.recorder import SpanData

        if (run := self._run(ctx)) is None:
            return
        for note in notes:
            if isinstance(note, SpanData):
                note.attributes = {**worker_attributes(ctx), **note.attributes}
                run.record(note)


def _node_key(node_id: str, ctx: CallbackContext) -> SpanKey:
    return "node", (*ctx.hierarchy_path, node_id), ctx.item_path
