"""The run in the picture of the terminal: last night's articles, some of them known already."""

from __future__ import annotations

from time import sleep

from hypernodes import DiskCache, HyperNodesEngine, Pipeline, PipelineCallback, ProgressCallback, node

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


def run(feeds: list[str], known: list[str], callback: PipelineCallback) -> Pipeline:
    """Run the pipeline over feeds of which some are known already."""
    shorten = Pipeline([split, summarize], name="shorten")
    with HyperNodesEngine(map_executor="threaded") as engine:
        article = Pipeline([clean, shorten, embed], name="article", engine=engine)
        articles = article.as_node(
            {"texts": "text"}, {"summary": "summaries", "vector": "vectors"}, map_over="texts"
        )
        nightly = Pipeline([download, articles, publish], name="nightly", cache=DiskCache("known"))
        nightly.map({"feed": known}, map_over="feed")
        watched = nightly.with_callbacks([callback])
        watched.map({"feed": feeds}, map_over="feed", on_error="return")
    return watched


def main() -> None:
    run(FEEDS, KNOWN, ProgressCallback(display="terminal"))


if __name__ == "__main__":
    main()
