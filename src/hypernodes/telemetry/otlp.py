"""Traces and metrics on their way to a collector, which may not be there."""

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

_PATIENCE: Final = 1.0  # seconds for a collector to take a connection
_AGAIN: Final = 10.0  # seconds after which one that did not is asked again
_TIMEOUT: Final = 5.0  # seconds for a collector to take what it is sent
_WAITING: Final = 1 << 18  # spans that may wait to be sent: those of a map come all at once


class Collector:
    """A collector that is asked whether it is there before anything is sent.

    OpenTelemetry's exporters try again for half a minute, also when the process is to end, and say so each
    time.

    Args:
        endpoint: Its URL.
    """

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint.rstrip("/")
        self._lock = threading.Lock()
        self._is_told = False
        self._ask_at = 0.0

    def listens(self) -> bool:
        """Whether it takes connections; that it does not is told once."""
        with self._lock:
            if monotonic() < self._ask_at:
                return False
            url = urlsplit(self.endpoint)
            if url.scheme in getproxies() and not proxy_bypass(url.hostname or ""):
                return True  # which only the proxy can say
            address = url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
            try:
                socket.create_connection(address, _PATIENCE).close()
            except OSError as error:
                self._ask_at = monotonic() + _AGAIN
                if not self._is_told:
                    self._is_told = True
                    _logger.warning(
                        "nobody listens at %s (%s): traces and metrics are lost until somebody does",
                        self.endpoint,
                        error,
                    )
                return False
            return True


class _Spans(OTLPSpanExporter):
    def __init__(self, collector: Collector) -> None:
        super().__init__(f"{collector.endpoint}/v1/traces", timeout=_TIMEOUT)
        self._collector = collector

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if not self._collector.listens():
            return SpanExportResult.SUCCESS  # in that there is nothing else to be said of it
        return super().export(spans)


class _Numbers(OTLPMetricExporter):
    def __init__(self, collector: Collector) -> None:
        super().__init__(f"{collector.endpoint}/v1/metrics", timeout=_TIMEOUT)
        self._collector = collector

    def export(self, metrics_data: MetricsData, *args: Any, **options: Any) -> MetricExportResult:
        if not self._collector.listens():
            return MetricExportResult.SUCCESS
        return super().export(metrics_data, *args, **options)


def providers(endpoint: str) -> tuple[TracerProvider, MeterProvider]:
    """Return providers that send to a collector.

    Args:
        endpoint: Its URL, such as ``http://localhost:4318``.
    """
    collector = Collector(endpoint)
    resource = Resource.create()
    if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: "hypernodes"}))
    tracers = TracerProvider(resource=resource)
    tracers.add_span_processor(BatchSpanProcessor(_Spans(collector), max_queue_size=_WAITING))
    meters = MeterProvider([PeriodicExportingMetricReader(_Numbers(collector))], resource=resource)
    return tracers, meters
