"""Watch a run: progress, a report with waterfalls, logs, and traces.

    python examples/watching/nightly.py
    python examples/watching/nightly.py --executor parallel --report report.html --log run.jsonl
    python examples/watching/nightly.py --trace http://localhost:4318

Last night's articles are downloaded and condensed. Some feeds are busy at first, one is gone, and what is
known from an earlier run is not computed again.
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import chdir
from time import sleep

from hypernodes import (
    DiskCache,
    HyperNodesEngine,
    LoggingCallback,
    Pipeline,
    PipelineCallback,
    ProgressCallback,
    RunReport,
    TelemetryCallback,
    node,
)

FEEDS = [f"feed-{number:02}" for number in range(24)]
KNOWN = FEEDS[2:8]
GONE = FEEDS[9]
BUSY = {FEEDS[1], FEEDS[5], FEEDS[8], FEEDS[11], FEEDS[15]}


@node(output_name="texts", retries=1, retry_on=TimeoutError, cache=False)
def download(feed: str) -> list[str]:
    sleep(0.05)
    if feed == GONE:
        raise ConnectionError(f"{feed} is gone")
    if feed in BUSY:
        BUSY.remove(feed)
        raise TimeoutError(f"{feed} is busy")
    return [f"{feed}/{number}" for number in range(4)]


@node(output_name="plain")
def clean(text: str) -> str:
    sleep(0.02)
    return text.strip()


@node(output_name="parts")
def split(plain: str) -> list[str]:
    sleep(0.02)
    return plain.split("/")


@node(output_name="summary")
def summarize(parts: list[str]) -> str:
    sleep(0.05)
    return parts[0]


@node(output_name="vector")
def embed(plain: str) -> list[int]:
    sleep(0.05)
    return [len(plain)]


@node(output_name="count", cache=False)
def publish(summaries: list[str], vectors: list[list[int]]) -> int:
    sleep(0.05)
    return len(summaries) + len(vectors)


def run(
    feeds: list[str], known: list[str], callbacks: list[PipelineCallback], executor: str = "threaded"
) -> Pipeline:
    """Run the pipeline over feeds of which some are known already, and return it as it was watched."""
    shorten = Pipeline([split, summarize], name="shorten")
    with (
        tempfile.TemporaryDirectory() as directory,
        chdir(directory),
        HyperNodesEngine(map_executor=executor) as engine,
    ):
        article = Pipeline([clean, shorten, embed], name="article", engine=engine)
        articles = article.as_node(
            {"texts": "text"}, {"summary": "summaries", "vector": "vectors"}, map_over="texts"
        )
        nightly = Pipeline([download, articles, publish], name="nightly", cache=DiskCache("known"))
        nightly.map({"feed": known}, map_over="feed")
        watched = nightly.with_callbacks(callbacks)
        watched.map({"feed": feeds}, map_over="feed", on_error="return")
    return watched


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--executor", default="threaded", help="what the articles of a feed are mapped with")
    parser.add_argument("--report", help="a page to write, with the waterfalls of the run")
    parser.add_argument("--log", help="a file to write, with a JSON object for each event")
    parser.add_argument("--trace", help="the URL of a collector, such as http://localhost:4318")
    options = parser.parse_args()
    callbacks: list[PipelineCallback] = [ProgressCallback()]
    if options.report:
        callbacks.append(RunReport())
    if options.log:
        callbacks.append(LoggingCallback(to=options.log, json=True, items=True))
    if options.trace:
        callbacks.append(TelemetryCallback(endpoint=options.trace))
    watched = run(FEEDS, KNOWN, callbacks, options.executor)
    if watched.last_run is not None:
        print(watched.last_run)
        print(watched.last_run.save(options.report))


if __name__ == "__main__":
    main()
