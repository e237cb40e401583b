"""What it costs to look: `make bench-observe`.

    python benchmarks/observe.py [--items 10000] [--executor sequential|threaded|parallel|ray]

A map of trivial items with no callback, and with each of those that the library brings. Without a callback
the pipeline is compiled to a plain loop and no event is made, so the ratios of trivial items are the worst
there are; what counts for items of your own is the time that looking adds to each.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from contextlib import ExitStack, redirect_stderr
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from clock import in_turns
from floors import increment
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from rich.console import Console
from rich.table import Table

from hypernodes import (
    HyperNodesEngine,
    LoggingCallback,
    Pipeline,
    PipelineCallback,
    ProgressCallback,
    RunReport,
    TelemetryCallback,
    node,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace import ReadableSpan


class Ends(PipelineCallback):
    """Hears of one hook only, and does nothing about it."""

    def on_node_end(self, node_id, outputs, duration, ctx):
        pass


class Nowhere(SpanExporter):
    """Takes spans, and sends them nowhere: what a collector costs is not what is measured."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def callbacks(directory: Path) -> dict[str, PipelineCallback]:
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Nowhere(), max_queue_size=1 << 16))
    return {
        "a hook that does nothing": Ends(),
        "progress, as lines": ProgressCallback("lines"),
        "progress, in a terminal": ProgressCallback("terminal"),
        "report": RunReport(),
        "logging to a file": LoggingCallback(to=directory / "run.log"),
        "logging to a file, each item": LoggingCallback(to=directory / "items.log", items=True),
        "traces and metrics, items drawn": TelemetryCallback(provider),
        "traces and metrics, each item": TelemetryCallback(provider, sample_items=1),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--executor", default="sequential")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    if options.executor == "ray":
        import ray

        ray.init(include_dashboard=False, logging_level="error")
    table = Table(
        title=f"a map of {options.items:,} trivial items, {options.executor}, {os.cpu_count()} cores"
    )
    for title in ("callback", "seconds", "µs an item", "more than without", "ratio"):
        table.add_column(title, justify="left" if title == "callback" else "right")
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        engine = stack.enter_context(HyperNodesEngine(map_executor=options.executor))
        plain = Pipeline([node(increment, output_name="y")], engine, name="increments")
        work = partial(plain.map, {"x": list(range(options.items))}, "x")
        work()
        floor = []
        for name, callback in callbacks(directory).items():
            told = plain.with_callbacks([callback])
            subject = partial(told.map, {"x": list(range(options.items))}, "x")
            with Path(os.devnull).open("w") as nowhere, redirect_stderr(nowhere):
                timing = in_turns(work, subject, options.repeats)
            floor += timing.floor
            seconds, without = median(timing.subject), median(timing.floor)
            table.add_row(
                name,
                f"{seconds:.3f}",
                f"{seconds / options.items * 1e6:.1f}",
                f"{(seconds - without) / options.items * 1e6:.1f} µs",
                f"{timing.ratio:.1f}",
            )
            print(name, file=sys.stderr)
        table.add_section()
        table.add_row("none", f"{median(floor):.4f}", f"{median(floor) / options.items * 1e6:.2f}", "", "1")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
