"""Every pipeline gives the same outputs, signatures and events on every executor, at both levels."""

import asyncio

import pytest
import sample
from conftest import ALIASES, INSTANCES, Recorder

from hypernodes import DiskCache, HyperNodesEngine

PIPELINES = {
    "diamond": (sample.diamond, {"x": 4}, "x", [1, 2, 3]),
    "nested": (sample.nested, {"start": 4}, "start", [1, 2, 3]),
    "nested map": (sample.nested_map, {"text": "a bcd ef", "unit": 2}, "text", ["a bc", "d", "efg h i"]),
    "async and sync": (sample.mixed, {"x": 3}, "x", [1, 2, 3]),
    "several outputs": (sample.several, {"x": 3}, "x", [1, 2, 3]),
    "retries": (sample.retrying, {"x": 3}, "x", [1, 2, 3]),
    "batch functions": (sample.batched, {"x": 3, "by": 2}, "x", list(range(40))),
    "failing node": (sample.failing, {"x": 1}, "x", [1, 2, 3]),
}


def observe(pipeline, engine, directory, inputs, map_over, items):
    """Run once and over items, twice each, and say all that can be seen of it."""
    directory.mkdir()
    if "directory" in pipeline.input_names:
        inputs = {**inputs, "directory": str(directory)}
        # The path is an input: its content must be equal wherever the pipeline runs.
        pipeline = pipeline.with_cache(None)
        cache = None
    else:
        cache = DiskCache(directory / "cache")
    recorder = Recorder()
    pipeline = pipeline.with_engine(engine).with_cache(cache).with_callbacks([recorder])
    results = []
    for _ in range(2):
        results.append(pipeline.run(inputs))
        rows = pipeline.map({**inputs, map_over: items}, map_over=map_over, on_error="return")
        results.append(
            {
                name: [repr(row) if isinstance(row, Exception) else row for row in column]
                for name, column in rows.items()
            }
        )
    return results, set(cache or ()), recorder.counted


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """What the plain loop does, which is what all others must do."""
    return {}


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::UserWarning:distributed"
)
@pytest.mark.parametrize("level", ["node", "map", "both"])
@pytest.mark.parametrize("executor", [*ALIASES[1:], *INSTANCES])
def test_every_executor_gives_the_same_outputs_signatures_and_events(
    executor, level, executor_named, tmp_path, tmp_path_factory, expected
):
    made = executor_named(executor)
    options = {}
    if level in ("node", "both"):
        options["node_executor"] = made
    if level in ("map", "both"):
        options["map_executor"] = made
    with HyperNodesEngine(**options) as engine:
        for number, (name, case) in enumerate(PIPELINES.items()):
            if name == "retries":
                # What a node has left on disk counts: the same directory would not fail again.
                wanted = observe(
                    case[0], HyperNodesEngine(), tmp_path_factory.mktemp("plain") / "p", *case[1:]
                )
            elif name not in expected:
                directory = tmp_path_factory.mktemp("plain") / "p"
                wanted = expected[name] = observe(case[0], HyperNodesEngine(), directory, *case[1:])
            else:
                wanted = expected[name]
            results, signatures, events = observe(case[0], engine, tmp_path / str(number), *case[1:])
            assert results == wanted[0], name
            assert signatures == wanted[1], name
            assert events == wanted[2], name


@pytest.mark.parametrize("executor", ALIASES)
def test_the_same_pipeline_can_be_awaited_on_every_executor(executor, executor_named):
    async def main(pipeline):
        once = await pipeline.arun({"text": "a bcd ef", "unit": 2}, "longest")
        many = await pipeline.amap({"text": ["a bc", "d"], "unit": 1}, "text", output_name="longest")
        return once, many

    made = executor_named(executor)
    with HyperNodesEngine(made, made) as engine:
        pipeline = sample.nested_map.with_engine(engine)
        assert asyncio.run(main(pipeline)) == ({"longest": 6}, {"longest": [2, 1]})
