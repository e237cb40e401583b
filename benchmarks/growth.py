"""How cost grows: with the nodes of a pipeline, its nesting, the items of a map, and the workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import median
from time import perf_counter

from floors import increment

from hypernodes import DiskCache, Pipeline, PipelineCallback, node

SIZES = (3, 10, 30, 100, 300, 1_000, 3_000)
DEPTHS = (1, 2, 3, 4, 5, 6)
ITEMS = (100, 1_000, 10_000, 100_000, 1_000_000)
WORKERS = (1, 2, 4, 8, 16, 24)


class Ends(PipelineCallback):
    """Hears of each node, and does nothing about it."""

    def on_node_end(self, node_id, outputs, duration, ctx):
        pass


def chain(count: int, **options) -> Pipeline:
    """Make a chain of so many nodes."""
    steps = [node(increment, output_name=f"v{n + 1}").rename(inputs={"x": f"v{n}"}) for n in range(count)]
    return Pipeline(steps, **options)


def wide(count: int) -> Pipeline:
    """Make so many nodes that take the same input."""
    return Pipeline(
        [node(increment, output_name=f"v{n + 1}").rename(inputs={"x": "v0"}) for n in range(count)]
    )


def nested(depth: int) -> Pipeline:
    """Make a node that so many pipelines contain, one within the other."""
    pipeline = Pipeline([node(increment, output_name="v1").rename(inputs={"x": "v0"})], name="p0")
    for level in range(1, depth):
        pipeline = Pipeline([pipeline.as_node()], name=f"p{level}")
    return pipeline


def seconds(work: Callable[[], object], least: float = 0.05) -> float:
    """Return the median time of some work, which is repeated for so many seconds at least."""
    work()
    times: list[float] = []
    while sum(times) < least or len(times) < 3:
        started = perf_counter()
        work()
        times.append(perf_counter() - started)
    return median(times)


def of_nodes(directory: str) -> Iterator[tuple[str, list[tuple[int, float]]]]:
    """Yield microseconds a node, of chains and wide graphs, alone and watched and cached."""
    last = "v{}".format
    yield "chain", [(n, _each(chain(n), last(n), n)) for n in SIZES]
    yield "wide graph", [(n, _each(wide(n), None, n)) for n in SIZES]
    yield "chain, with a hook", [(n, _each(chain(n, callbacks=[Ends()]), last(n), n)) for n in SIZES]
    cached = [(n, chain(n, cache=DiskCache(f"{directory}/{n}"))) for n in SIZES[:-1]]
    yield "chain, cached, all its results", [(n, _each(pipeline, None, n)) for n, pipeline in cached]


def _each(pipeline: Pipeline, wanted: str | None, count: int) -> float:
    return seconds(lambda: pipeline.run({"v0": 0}, wanted)) / count * 1e6


def of_nesting() -> list[tuple[int, float]]:
    """Return microseconds of a run, by the depth of nesting."""
    pipelines = [(depth, nested(depth)) for depth in DEPTHS]
    return [(depth, seconds(lambda p=pipeline: p.run({"v0": 0})) * 1e6) for depth, pipeline in pipelines]


def of_items(*, most: int = ITEMS[-1], **options) -> list[tuple[int, float]]:
    """Return microseconds an item, of maps of more and more trivial items."""
    pipeline = chain(1, **options)
    return [
        (count, seconds(lambda n=count: pipeline.map({"v0": range(n)}, map_over="v0")) / count * 1e6)
        for count in ITEMS
        if count <= most
    ]
