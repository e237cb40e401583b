"""The metrics of runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider


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
