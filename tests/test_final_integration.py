"""The acceptance of the plan: a complete workflow, nested engines, mixed executors, caching and callbacks."""

import asyncio
from collections import Counter

import pytest

import hypernodes
from hypernodes import DiskCache, HyperNodesEngine, Pipeline, PipelineCallback, RunReport, node

PAGES = ["Ray runs tasks", "a node is a function", "a cache keeps results", "Daft runs queries"]
EXECUTORS = ("sequential", "async", "threaded", "parallel", "ray")


@node(output_name="words")
def split(page):
    return page.lower().split()


@node(output_name="vector", cache=True)
async def embed(words):
    await asyncio.sleep(0)
    return {word: words.count(word) for word in words}


@node(output_name="size")
def measure(vector):
    return sum(vector.values())


@node(output_name="index")
def collect(vectors, sizes):
    return sorted(zip(sizes, [sorted(vector)[0] for vector in vectors], strict=True))


@node(output_name="answer")
def answer(index, question):
    return [word for size, word in index if size == question]


ANSWERS = {3: ["daft", "ray"], 4: ["a"], 5: ["a"], 7: []}


class Seen(PipelineCallback):
    def __init__(self):
        self.ends = Counter()
        self.cached = Counter()

    def on_node_end(self, node_id, outputs, duration, ctx):
        self.ends[node_id] += 1

    def on_node_cached(self, node_id, signature, ctx):
        self.cached[node_id] += 1


def workflow(engine=None, inner_engine=None, cache=None, callbacks=()):
    """Return pages to an index, one by one, and an index to an answer."""
    page = Pipeline([split, embed, measure], inner_engine, name="page")
    pages = page.as_node(
        input_mapping={"pages": "page"},
        output_mapping={"vector": "vectors", "size": "sizes"},
        map_over="pages",
        name="pages",
    )
    return Pipeline([pages, collect, answer], engine, name="workflow", cache=cache, callbacks=list(callbacks))


def check(pipeline):
    asked = pipeline.map({"pages": PAGES, "question": list(ANSWERS)}, map_over="question")
    assert asked["answer"] == list(ANSWERS.values())
    assert pipeline.run({"pages": PAGES, "question": 5}, output_name="answer") == {"answer": ["a"]}


@pytest.fixture
def engine_of(request):
    """A function from the words of two executors to an engine that is shut down."""
    engines = []

    def make(node_executor, map_executor):
        if "ray" in (node_executor, map_executor):
            request.getfixturevalue("ray_cluster")
        engines.append(HyperNodesEngine(node_executor, map_executor))
        return engines[-1]

    yield make
    for engine in engines:
        engine.shutdown()


def test_complete_workflow(tmp_path):
    seen, report = Seen(), RunReport()
    with DiskCache(tmp_path / "cache") as cache:
        first = workflow(cache=cache, callbacks=[seen, report])
        check(first)
        assert seen.ends["embed"] == len(PAGES)
        assert seen.cached["answer"] >= 1  # nothing before it is asked for
        assert first.explain({"pages": PAGES, "question": 5}) is not None
        assert "collect" in str(first.visualize(return_type="mermaid"))
    with DiskCache(tmp_path / "cache") as again:
        later = Seen()
        check(workflow(cache=again, callbacks=[later]))
        assert later.ends["embed"] == 0


@pytest.mark.parametrize("inner", ["async", "threaded", "parallel", "ray", "daft"])
@pytest.mark.parametrize("outer", ["sequential", "threaded", "daft"])
def test_nested_pipelines_with_different_engines(outer, inner, engine_of):
    def engine(word):
        return hypernodes.DaftEngine(runner="native") if word == "daft" else engine_of("sequential", word)

    check(workflow(engine(outer), engine(inner)))


@pytest.mark.parametrize("map_executor", EXECUTORS)
@pytest.mark.parametrize("node_executor", EXECUTORS)
def test_mixed_executors(node_executor, map_executor, engine_of):
    check(workflow(engine_of(node_executor, map_executor)))


@pytest.mark.parametrize("engine", [*EXECUTORS, "daft"])
def test_caching_and_callbacks_with_every_engine(engine, engine_of, tmp_path):
    made = hypernodes.DaftEngine(runner="native") if engine == "daft" else engine_of("sequential", engine)
    with DiskCache(tmp_path / "cache") as cache:
        for is_warm in (False, True):
            seen = Seen()
            found = workflow(made, cache=cache, callbacks=[seen]).run({"pages": PAGES, "question": 4})
            assert found["answer"] == ["a"]
            assert seen.ends["embed"] == (0 if is_warm else len(PAGES))
            assert seen.cached["answer"] == is_warm
