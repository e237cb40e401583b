"""The providers that spans and metrics go to, and the instruments for the metrics."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING

from hypernodes.exceptions import import_extra

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider


def find_providers(
    tracer_provider: TracerProvider | None, meter_provider: MeterProvider | None, endpoint: str | None
) -> tuple[TracerProvider, MeterProvider] | None:
    """Return the providers for spans and metrics, or ``None`` if no tracer provider is configured.

    By default they are OpenTelemetry's global ones, or, if no tracer provider is set globally, those of the
    collector that ``OTEL_EXPORTER_OTLP_ENDPOINT`` names. A collector's tracer provider is set globally, if
    none is, so that spans of the application go to the same collector.
    """
    from opentelemetry import metrics, trace

    spans_to = tracer_provider or trace.get_tracer_provider()
    metrics_to = meter_provider or metrics.get_meter_provider()
    is_set = not isinstance(spans_to, trace.ProxyTracerProvider)
    if endpoint is None and not is_set:
        endpoint = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or None
    if endpoint is not None:
        providers = _collector_providers(endpoint)
        if not is_set:
            trace.set_tracer_provider(providers[0])
        return providers
    return (spans_to, metrics_to) if is_set else None


@cache
def _collector_providers(endpoint: str) -> tuple[TracerProvider, MeterProvider]:
    """Return the providers of a collector; each process has one pair for it."""
    need = "endpoint= needs OpenTelemetry's SDK and its OTLP exporter"
    packages = "opentelemetry-sdk opentelemetry-exporter-otlp-proto-http"
    otlp = import_extra("hypernodes.telemetry.otlp", need, packages, "telemetry")
    providers: tuple[TracerProvider, MeterProvider] = otlp.otlp_providers(endpoint)
    return providers


class Metrics:
    """The instruments that runs record to."""

    def __init__(self, provider: MeterProvider) -> None:
        meter = provider.get_meter("hypernodes")
        self.pipeline_duration = meter.create_histogram(
            "hypernodes.pipeline.duration", "s", "The duration of a pipeline, outermost or nested."
        )
        self.node_duration = meter.create_histogram(
            "hypernodes.node.duration", "s", "The duration of a node, retries included."
        )
        self.hits = meter.create_counter(
            "hypernodes.node.cache_hits", "{node}", "Nodes whose outputs came from the cache."
        )
        self.retries = meter.create_counter(
            "hypernodes.node.retries", "{call}", "Calls that were made again after a failed attempt."
        )
        self.errors = meter.create_counter("hypernodes.node.errors", "{node}", "Nodes that failed.")
        self.items = meter.create_counter("hypernodes.map.items", "{item}", "Items of maps that are done.")
