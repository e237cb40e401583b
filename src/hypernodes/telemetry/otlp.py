"""Providers that export traces and metrics by OTLP to a collector, which may be unreachable."""

from __future__ import annotations

import logging
import socket
import threading
from time import monotonic
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExportResult, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.metrics.export import MetricsData
    from opentelemetry.sdk.trace import ReadableSpan

_logger = logging.getLogger("hypernodes")

CONNECT_TIMEOUT_S: Final = 1.0
"""Time for a collector to accept a connection; the exit of the process may wait for it."""
RECONNECT_INTERVAL_S: Final = 10.0
"""Time after a failed connection in which no other is tried: exports are dropped without a delay."""
EXPORT_TIMEOUT_S: Final = 5.0
"""Time for a collector to take one export."""
MAX_QUEUED_SPANS: Final = 1 << 18
"""Spans that may wait to be exported: those of all items of a chunk are made at once."""


class Collector:
    """A collector that is probed with a connection before anything is exported to it.

    OpenTelemetry's exporters retry for half a minute, also at the exit of the process, and log each retry.
    """

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint.rstrip("/")
        self._lock = threading.Lock()
        self._is_warned = False
        self._next_probe = 0.0

    def is_reachable(self) -> bool:
        """Whether it accepts connections; the first time that it does not, a warning is logged."""
        with self._lock:
            if monotonic() < self._next_probe:
                return False
            url = urlsplit(self.endpoint)
            if url.scheme in getproxies() and not proxy_bypass(url.hostname or ""):
                return True  # only the proxy can tell
            address = url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
            try:
                socket.create_connection(address, CONNECT_TIMEOUT_S).close()
            except OSError as error:
                self._next_probe = monotonic() + RECONNECT_INTERVAL_S
                if not self._is_warned:
                    self._is_warned = True
                    _logger.warning(
                        "the collector at %s is unreachable (%s): traces and metrics are dropped meanwhile",
                        self.endpoint,
                        error,
                    )
                return False
            return True


class _SpanExporter(OTLPSpanExporter):
    def __init__(self, collector: Collector) -> None:
        super().__init__(f"{collector.endpoint}/v1/traces", timeout=EXPORT_TIMEOUT_S)
        self._collector = collector

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if not self._collector.is_reachable():
            return SpanExportResult.SUCCESS  # a failure would be logged again for each export
        return super().export(spans)


class _MetricExporter(OTLPMetricExporter):
    def __init__(self, collector: Collector) -> None:
        super().__init__(f"{collector.endpoint}/v1/metrics", timeout=EXPORT_TIMEOUT_S)
        self._collector = collector

    def export(self, metrics_data: MetricsData, *args: Any, **options: Any) -> MetricExportResult:
        if not self._collector.is_reachable():
            return MetricExportResult.SUCCESS
        return super().export(metrics_data, *args, **options)


def otlp_providers(endpoint: str) -> tuple[TracerProvider, MeterProvider]:
    """Return providers that export to a collector."""
    collector = Collector(endpoint)
    resource = Resource.create()
    if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: "hypernodes"}))
    tracer_provider = TracerProvider(resource=resource)
    tracer_provider.add_span_processor(
        BatchSpanProcessor(_SpanExporter(collector), max_queue_size=MAX_QUEUED_SPANS)
    )
    reader = PeriodicExportingMetricReader(_MetricExporter(collector))
    return tracer_provider, MeterProvider([reader], resource=resource)
