"""TelemetryCallback: a run as a trace.

    pipeline ── map ── item ── node ── whatever the node's function opens
        └───────────────────── node

Spans are made in the driver, from events, with the times of where things happened; see `trace` for their ids.
"""

from __future__ import annotations

import os
import secrets
import socket
import warnings
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from hypernodes.callbacks.base import PipelineCallback
from hypernodes.exceptions import ExtraMissingError, TelemetryWarning
from hypernodes.telemetry.attributes import labels, name_of, of_node, of_pipeline, of_place, of_worker
from hypernodes.telemetry.trace import Trace
from hypernodes.telemetry.tree import Begun, Tree
from hypernodes.telemetry.worker import SpanAround

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import SpanContext, TracerProvider

    from hypernodes.callbacks.base import CallbackContext
    from hypernodes.telemetry.metrics import Metrics
    from hypernodes.telemetry.span import Recorder
    from hypernodes.telemetry.tree import Key

_NANO: Final = 1_000_000_000
_NOWHERE: Final = (
    "OpenTelemetry has no tracer provider, so that TelemetryCallback has nobody to tell. Set one before the "
    "run, opentelemetry.trace.set_tracer_provider(...), or name a collector: "
    "TelemetryCallback(endpoint='http://localhost:4318')."
)


class TelemetryCallback(PipelineCallback):
    """Tell OpenTelemetry what happens: spans for pipelines, maps, items and nodes, and metrics.

    Spans hang under the one that is current where ``run`` or ``map`` is called, and what a node's function
    opens hangs under the node's, in any thread, process or host. In a worker process in which nobody has set
    a tracer provider, one is set that brings the spans home with the results.

    Args:
        tracer_provider: Where spans go; by default to OpenTelemetry's own provider, if one is set, or else to
            the collector that the environment variable ``OTEL_EXPORTER_OTLP_ENDPOINT`` names.
        meter_provider: Where metrics go.
        endpoint: The URL of a collector that takes both by OTLP over HTTP: ``"http://localhost:4318"``. Its
            provider becomes OpenTelemetry's own, if none is set.
        sample_items: The share of a map's items that have spans, from 0 to 1. By default all of the first
            1 000, every 10th of the first 10 000, every 100th of the first 100 000, and so on. Items that
            fail always have.

    Raises:
        ExtraMissingError: OpenTelemetry is not installed.
        ValueError: `sample_items` is no share, `endpoint` no URL, or there are both it and a provider.
        TypeError: `tracer_provider` is none.

    Example:
        >>> from opentelemetry.sdk.trace import TracerProvider
        >>> from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        >>> from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        >>> spans, provider = InMemorySpanExporter(), TracerProvider()
        >>> provider.add_span_processor(SimpleSpanProcessor(spans))
        >>> from hypernodes import Pipeline, node
        >>> told = [TelemetryCallback(provider)]
        >>> sizes = Pipeline([node(abs, output_name="size")], callbacks=told, name="sizes")
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
    ) -> None:
        try:
            import opentelemetry.trace  # noqa: F401
        except ImportError as error:
            raise ExtraMissingError(
                "telemetry needs OpenTelemetry: pip install opentelemetry-sdk, or this package with its "
                "extra 'telemetry'"
            ) from error
        if isinstance(tracer_provider, str):
            raise TypeError(
                f"a collector is named by endpoint=: TelemetryCallback(endpoint={tracer_provider!r})"
            )
        if endpoint is not None and not endpoint.startswith(("http://", "https://")):
            raise ValueError(f"endpoint is a URL, as 'http://localhost:4318': {endpoint!r}")
        if isinstance(sample_items, str) or (sample_items is not None and not 0 <= sample_items <= 1):
            raise ValueError(
                f"sample_items is the share of items that have spans, from 0 to 1: {sample_items!r}"
            )
        if endpoint is not None and (tracer_provider is not None or meter_provider is not None):
            raise ValueError("endpoint= makes providers of its own: give it, or providers")
        self._endpoint = endpoint
        self._tracer_provider = tracer_provider
        self._meter_provider = meter_provider
        self._sample_items = sample_items
        self._recorder: Recorder | None = None
        self._meters: Metrics | None = None
        self._is_warned = False

    # ---------------------------------------------------------------------------------- the whole run

    def node_context(self, ctx: CallbackContext) -> SpanAround | None:
        from opentelemetry import trace as otel

        recorder = self._ready()
        if recorder is None:
            return None
        current = otel.get_current_span().get_span_context()
        around = current if current.is_valid else None
        trace = Trace(
            around.trace_id if around else secrets.randbits(128) or 1,
            secrets.token_bytes(8),
            int(around.trace_flags) if around else otel.TraceFlags.SAMPLED,
            self._sample_items,
        )
        run = Tree(trace, around, ctx.hierarchy_path)
        if not ctx.depth:  # a nested pipeline may never begin
            key = ("node", ctx.hierarchy_path, ())
            self._begin(run, key, ctx, of_pipeline(ctx))
            span = run.begun[key].span
            if span is not None:  # only now it is known whether the provider wants the trace, and which it is
                made = span.get_span_context()
                flags = int(made.trace_flags) if made.trace_flags.sampled else 0
                run.trace = trace = replace(trace, trace_id=made.trace_id, flags=flags)
        ctx.set(self._key, run)
        parent = None if recorder.can_choose else around and around.span_id
        return SpanAround(trace, parent, (socket.gethostname(), os.getpid()))

    def _ready(self) -> Recorder | None:
        """Return what makes spans, or ``None`` where nobody would have them."""
        if self._recorder is not None:
            return self._recorder
        from opentelemetry import metrics
        from opentelemetry import trace as otel

        from hypernodes.telemetry.metrics import Metrics
        from hypernodes.telemetry.span import Recorder

        spans = self._tracer_provider or otel.get_tracer_provider()
        numbers = self._meter_provider or metrics.get_meter_provider()
        is_set = not isinstance(spans, otel.ProxyTracerProvider)
        endpoint = self._endpoint or (None if is_set else os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"))
        if endpoint is not None:
            spans, numbers = _to(endpoint)
            if not is_set:
                otel.set_tracer_provider(spans)
        elif not is_set:
            if not self._is_warned:
                self._is_warned = True
                warnings.warn(_NOWHERE, TelemetryWarning, stacklevel=2)
            return None
        self._recorder, self._meters = Recorder(spans), Metrics(numbers)
        return self._recorder

    @property
    def _key(self) -> str:
        return f"telemetry {id(self)}"

    def _run(self, ctx: CallbackContext) -> Tree | None:
        run: Tree | None = ctx.get(self._key)
        return run

    def on_pipeline_start(self, pipeline_id: str, inputs: Mapping[str, Any], ctx: CallbackContext) -> None:
        run = self._run(ctx)
        if run is not None:
            run.heard.add(ctx.hierarchy_path)
            self._begin(run, ("node", ctx.hierarchy_path, ctx.item_path), ctx, of_pipeline(ctx))

    def on_pipeline_end(
        self, pipeline_id: str, outputs: Mapping[str, Any], duration: float, ctx: CallbackContext
    ) -> None:
        run = self._run(ctx)
        if run is None:
            return
        key = ("node", ctx.hierarchy_path, ctx.item_path)
        if key[1] == run.outermost:
            self._abandon(run, key, ctx.time)
        self._end(run, key, ctx.time, {})
        self._metrics.pipeline_duration.record(duration, {"hypernodes.pipeline": "/".join(key[1])})

    def on_error(self, node_id: str, error: BaseException, ctx: CallbackContext) -> None:
        run = self._run(ctx)
        if run is None:
            return
        path = ctx.hierarchy_path
        if ctx.about == "item":  # it ends with an error
            run.fail(("item", path, ctx.item_path))
            return
        key = ("node", path if ctx.about == "pipeline" else (*path, node_id), ctx.item_path)
        is_pipeline = key[1] in run.heard
        run.fail(key)
        self._abandon(run, key, ctx.time)
        attributes = {} if is_pipeline else of_node(node_id, ctx)
        self._end(run, key, ctx.time, attributes, error=error, told=not is_pipeline)
        if not is_pipeline:
            self._metrics.errors.add(1, labels(node_id, ctx))

    # ------------------------------------------------------------------------------------------- maps

    def on_map_start(self, total_items: int | None, ctx: CallbackContext) -> None:
        run = self._run(ctx)
        if run is not None:
            run.mapped.add(ctx.hierarchy_path)
            attributes = {} if total_items is None else {"hypernodes.map.items": total_items}
            self._begin(run, ("map", ctx.hierarchy_path, ctx.item_path), ctx, attributes)

    def on_map_end(self, total_duration: float, ctx: CallbackContext) -> None:
        run = self._run(ctx)
        if run is not None:
            self._end(run, ("map", ctx.hierarchy_path, ctx.item_path), ctx.time, {})

    def on_map_item_start(self, item_index: int, ctx: CallbackContext) -> None:
        run = self._run(ctx)
        if run is not None:
            run.begun["item", ctx.hierarchy_path, ctx.item_path] = Begun(ctx.time)

    def on_map_item_end(self, item_index: int, duration: float, ctx: CallbackContext) -> None:
        run = self._run(ctx)
        if run is not None:
            self._end(run, ("item", ctx.hierarchy_path, ctx.item_path), ctx.time, of_worker(ctx))
            self._metrics.items.add(1, {"hypernodes.pipeline": "/".join(ctx.hierarchy_path)})

    # ------------------------------------------------------------------------------------------ nodes

    def on_node_start(self, node_id: str, inputs: Mapping[str, Any], ctx: CallbackContext) -> None:
        run = self._run(ctx)
        if run is not None:
            run.begun["node", (*ctx.hierarchy_path, node_id), ctx.item_path] = Begun(ctx.time)

    def on_node_end(
        self, node_id: str, outputs: Mapping[str, Any], duration: float, ctx: CallbackContext
    ) -> None:
        run = self._run(ctx)
        if run is None:
            return
        key = ("node", (*ctx.hierarchy_path, node_id), ctx.item_path)
        begun = run.begun.get(key)
        if begun is None:  # a nested pipeline, which is over
            return
        begun.time = ctx.time - duration  # it may have waited for a worker
        attributes = of_node(node_id, ctx, outputs) if run.has_span(key) else {}
        self._end(run, key, ctx.time, attributes)
        self._metrics.node_duration.record(duration, labels(node_id, ctx))

    def on_node_cached(self, node_id: str, signature: str, ctx: CallbackContext) -> None:
        run = self._run(ctx)
        if run is None:
            return
        key = ("node", (*ctx.hierarchy_path, node_id), ctx.item_path)
        if run.has_span(key):
            run.begun[key] = Begun(ctx.time)
            self._end(run, key, ctx.time, {**of_node(node_id, ctx), "hypernodes.cache.hit": True})
        self._metrics.hits.add(1, labels(node_id, ctx))

    def on_node_retry(self, node_id: str, attempt: int, error: BaseException, ctx: CallbackContext) -> None:
        from hypernodes.telemetry.span import Happening

        run = self._run(ctx)
        if run is None:
            return
        begun = run.begun.get(("node", (*ctx.hierarchy_path, node_id), ctx.item_path))
        if begun is not None:
            told = {
                "hypernodes.attempt": attempt,
                "exception.type": type(error).__qualname__,
                "exception.message": str(error),
            }
            begun.retries.append(Happening("retry", round(ctx.time * _NANO), told))
        self._metrics.retries.add(1, labels(node_id, ctx))

    def on_node_notes(self, node_id: str, notes: tuple[Any, ...], ctx: CallbackContext) -> None:
        from hypernodes.telemetry.span import SpanData

        run = self._run(ctx)
        if run is None:
            return
        for note in notes:
            if isinstance(note, SpanData):
                note.attributes = {**of_worker(ctx), **note.attributes}
                self._made.record(note, run.trace.flags)

    # ------------------------------------------------------------------------------------------ spans

    def _begin(self, run: Tree, key: Key, ctx: CallbackContext, attributes: dict[str, Any]) -> None:
        """Start the span of something that may take long, so that it can be seen before it is over."""
        begun = run.begun.setdefault(key, Begun(ctx.time))
        if begun.span is None and run.has_span(key):
            begun.span = self._made.start(
                name_of(key),
                self._above(run, key),
                run.trace.trace_id,
                run.trace.span_id(*key),
                round(begun.time * _NANO),
                attributes={**of_worker(ctx), **of_place(key), **attributes},
            )

    def _end(
        self,
        run: Tree,
        key: Key,
        time: float,
        attributes: dict[str, Any],
        *,
        error: BaseException | None = None,
        told: bool = False,
    ) -> None:
        """Make the span of something that is over, or end it.

        Args:
            run: The run.
            key: What is over.
            time: When it ended.
            attributes: What else is to be said of it.
            error: What ended it.
            told: Whether the error is put down with its traceback, which is done where it happened.
        """
        begun = run.begun.pop(key, None)
        if begun is None or not run.has_span(key):
            return
        from opentelemetry import trace as otel

        span = begun.span
        if span is None:
            span = self._made.start(
                name_of(key),
                self._above(run, key),
                run.trace.trace_id,
                run.trace.span_id(*key),
                round(min(begun.time, time) * _NANO),
                attributes={**of_place(key), **attributes},
            )
        else:
            span.set_attributes(attributes)
        if begun.retries:
            span.set_attribute("hypernodes.retries", len(begun.retries))
        for retry in begun.retries:
            span.add_event(retry.name, retry.attributes, retry.time)
        if error is not None and told:
            span.record_exception(error, timestamp=round(time * _NANO))
        # A map that returns errors has not failed, though it has items that have.
        is_over_by_it = key[0] == "item" or "hypernodes.unfinished" in attributes
        if error is not None or (key in run.failed and is_over_by_it):
            reason = None if error is None else f"{type(error).__qualname__}: {error}"
            span.set_status(otel.Status(otel.StatusCode.ERROR, reason))
        span.end(round(time * _NANO))
        run.failed.discard(key)

    def _abandon(self, run: Tree, key: Key, time: float) -> None:
        """End what has begun inside something that is over."""
        _, path, items = key
        inside = [
            other
            for other in run.begun
            if other != key and other[1][: len(path)] == path and other[2][: len(items)] == items
        ]
        for other in inside:
            self._end(run, other, time, {"hypernodes.unfinished": True})

    def _above(self, run: Tree, key: Key) -> SpanContext | None:
        """Return the span that another one hangs under."""
        from hypernodes.telemetry.span import context_of

        above = run.above(key)
        while above is not None and not self._made.can_choose:
            begun = run.begun.get(above)
            if begun is not None and begun.span is not None:
                return begun.span.get_span_context()
            above = run.above(above)
        if above is None:
            return run.around
        return context_of(run.trace.trace_id, run.trace.span_id(*above), run.trace.flags)

    @property
    def _made(self) -> Recorder:
        assert self._recorder is not None
        return self._recorder

    @property
    def _metrics(self) -> Metrics:
        assert self._meters is not None
        return self._meters


@cache
def _to(endpoint: str) -> tuple[TracerProvider, MeterProvider]:
    """Return the providers for a collector, of which there is one pair."""
    try:
        from hypernodes.telemetry.otlp import providers
    except ImportError as error:
        raise ExtraMissingError(
            "endpoint= needs OpenTelemetry's SDK and its OTLP exporter: pip install opentelemetry-sdk "
            "opentelemetry-exporter-otlp-proto-http, or this package with its extra 'telemetry'"
        ) from error
    return providers(endpoint)
