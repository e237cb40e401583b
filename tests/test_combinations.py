"""No combination of executors waits for itself, and none multiplies workers."""

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import sample
from recorder import Recorder

from hypernodes import (
    AsyncExecutor,
    Engine,
    HyperNodesEngine,
    ParallelExecutor,
    Pipeline,
    PipelineCallback,
    node,
)

INNER = sample.words.as_node({"words": "word"}, {"length": "lengths"}, map_over="words")
OUTER = Pipeline([sample.split, INNER, sample.longest], name="outer")
TEXTS = {"text": ["a bc", "def gh i", "j"], "unit": 1}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("make", [ThreadPoolExecutor, AsyncExecutor, ParallelExecutor])
def test_one_pool_of_one_worker_serves_both_levels_and_a_nested_map(make):
    with make(1) as pool:
        pipeline = OUTER.with_engine(HyperNodesEngine(node_executor=pool, map_executor=pool))
        assert pipeline.map(TEXTS, "text", output_name="longest") == {"longest": [2, 3, 1]}
        assert pipeline.run({"text": "a bc", "unit": 1}, "lengths") == {"lengths": [1, 2]}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("make", [ThreadPoolExecutor, AsyncExecutor])
def test_a_nested_pipeline_with_an_engine_on_the_same_full_pool_does_not_wait_for_itself(make):
    with make(1) as pool:
        engine = HyperNodesEngine(node_executor=pool, map_executor=pool)
        inner = sample.words.with_engine(HyperNodesEngine(map_executor=pool))
        nested = inner.as_node({"words": "word"}, {"length": "lengths"}, map_over="words")
        outer = Pipeline([sample.split, nested, sample.longest], engine=engine)
        assert outer.map(TEXTS, "text", output_name="longest") == {"longest": [2, 3, 1]}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("make", [ThreadPoolExecutor, AsyncExecutor])
def test_a_node_that_runs_a_pipeline_on_the_same_full_pool_does_not_wait_for_itself(make):
    with make(1) as pool:
        engine = HyperNodesEngine(node_executor=pool, map_executor=pool)
        inner = sample.diamond.with_engine(engine)

        @node(output_name="sums")
        def inside(x):
            return inner.map({"x": [x, x + 1]}, "x", output_name="total")["total"]

        outer = Pipeline([inside], engine=engine)
        assert outer.run({"x": 2}) == {"sums": [6.0, 11.5]}
        assert outer.map({"x": [0, 2]}, "x") == {"sums": [[1.0, 2.5], [6.0, 11.5]]}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("executor", ["parallel", "ray"])
def test_a_node_in_another_process_may_run_a_pipeline_which_then_runs_right_there(executor, request):
    if executor == "ray":
        request.getfixturevalue("ray_cluster")
    with HyperNodesEngine(map_executor=executor) as engine:
        inner = sample.diamond.with_engine(engine)

        @node(output_name="where")
        def inside(x):
            workers = Pipeline([node(lambda x: os.getpid(), output_name="pid")], engine=engine)
            pids = set(workers.map({"x": range(20)}, "x")["pid"])
            return pids == {os.getpid()}, inner.map({"x": [x]}, "x", output_name="total")["total"]

        outer = Pipeline([inside], engine=engine)
        assert outer.map({"x": [0, 2]}, "x") == {"where": [(True, [1.0]), (True, [6.0])]}


@pytest.mark.timeout(60)
def test_an_async_node_may_run_a_pipeline_on_its_own_executor():
    with AsyncExecutor(1) as pool:
        engine = HyperNodesEngine(node_executor=pool)
        inner = sample.mixed.with_engine(engine)

        @node(output_name="inner")
        async def inside(x):
            await asyncio.sleep(0)
            return (await inner.arun({"x": x}, "fetched"))["fetched"] + inner.run({"x": x}, "fetched")[
                "fetched"
            ]

        assert Pipeline([inside], engine=engine).run({"x": 1}) == {"inner": 22}


def test_an_inner_map_in_a_worker_runs_inside_that_worker():
    @node(output_name="thread")
    def where(word):
        return threading.get_ident()

    inner = Pipeline([where]).as_node({"words": "word"}, {"thread": "threads"}, map_over="words")
    with ThreadPoolExecutor(3) as pool:
        outer = Pipeline([sample.split, inner], engine=HyperNodesEngine(map_executor=pool))
        for threads in outer.map({"text": ["a b c d"] * 6}, "text", output_name="threads")["threads"]:
            assert len(set(threads)) == 1


@pytest.mark.parametrize(
    ("node_executor", "map_executor"),
    [(a, b) for a in ("async", "threaded", "parallel") for b in ("async", "threaded", "parallel") if a != b],
)
def test_levels_combine_freely(node_executor, map_executor):
    with HyperNodesEngine(node_executor, map_executor) as engine:
        pipeline = OUTER.with_engine(engine)
        recorder = Recorder()
        assert pipeline.with_callbacks([recorder]).map(TEXTS, "text", output_name="longest") == {
            "longest": [2, 3, 1]
        }
        assert len(recorder.of("item_end")) == 3 + 6
        mixed = sample.mixed.with_engine(engine)
        assert mixed.map({"x": [1, 2]}, "x", output_name="both") == {"both": [(11, [0]), (12, [0, 1])]}


def test_independent_nodes_of_one_run_overlap():
    barrier = threading.Barrier(2, timeout=20)

    @node(output_name="a")
    def first(x):
        return barrier.wait()

    @node(output_name="b")
    def second(x):
        return barrier.wait()

    with HyperNodesEngine(node_executor="threaded") as engine:
        assert sorted(Pipeline([first, second], engine=engine).run({"x": 0}).values()) == [0, 1]


class Backwards(Engine):
    """An engine in a way of its own."""

    def run(self, pipeline, inputs, output_name=None, _ctx=None):
        return HyperNodesEngine().run(pipeline, inputs, output_name)

    def map(self, pipeline, items, inputs, output_name=None, _ctx=None, *, on_error="raise"):
        return [self.run(pipeline, {**inputs, **item}, output_name) for item in reversed(items)][::-1]


@pytest.mark.parametrize("map_executor", ["sequential", "threaded", "parallel"])
def test_an_engine_of_the_users_own_runs_outermost_and_nested(map_executor):
    own = sample.words.with_engine(Backwards())
    assert own.map({"word": ["a", "bc"], "unit": 1}, "word") == {"length": [1, 2]}
    nested = own.as_node({"words": "word"}, {"length": "lengths"}, map_over="words")
    with HyperNodesEngine(map_executor=map_executor) as engine:
        outer = Pipeline([sample.split, nested, sample.longest], engine=engine)
        assert outer.run({"text": "a bcd", "unit": 1}, "longest") == {"longest": 3}
        assert outer.map(TEXTS, "text", output_name="longest") == {"longest": [2, 3, 1]}


class Passing(Engine):
    """An engine that remembers where it was called, and leaves the work to another one."""

    def __init__(self):
        self.contexts = []

    def run(self, pipeline, inputs, output_name=None, _ctx=None):
        self.contexts.append(_ctx)
        return HyperNodesEngine().run(pipeline, inputs, output_name, _ctx)

    def map(self, pipeline, items, inputs, output_name=None, _ctx=None, *, on_error="raise"):
        self.contexts.append(_ctx)
        return HyperNodesEngine().map(pipeline, items, inputs, output_name, _ctx, on_error=on_error)


EXECUTORS = [{}, {"node_executor": "threaded"}, {"map_executor": "threaded"}]


def places(engine):
    return sorted((ctx.hierarchy_path, ctx.depth, ctx.item_path) for ctx in engine.contexts)


def paths_of(recorder, node_id):
    return sorted((path, items) for _, what, path, items in recorder.of("node_end") if what[0] == node_id)


def test_an_outermost_engine_of_the_users_own_has_no_context():
    own = Passing()
    sample.words.with_engine(own).run({"word": "a", "unit": 1})
    assert own.contexts == [None]


@pytest.mark.parametrize("told", [False, True], ids=["plain", "told"])
@pytest.mark.parametrize("executors", EXECUTORS, ids=str)
def test_a_nested_engine_of_the_users_own_is_told_where_it_is_and_hands_that_on(executors, told, recorder):
    own = Passing()
    inner = Pipeline([sample.half], own, name="inner")
    with HyperNodesEngine(**executors) as engine:
        outer = Pipeline([inner], engine, name="outer", callbacks=[recorder] if told else [])
        assert outer.run({"x": 4}) == {"left": 2}
    assert places(own) == [(("outer",), 0, ())]
    assert own.contexts[0].current_pipeline_id == "outer"
    assert own.contexts[0].parent_pipeline_id is None
    assert paths_of(recorder, "half") == ([(("outer", "inner"), ())] if told else [])


@pytest.mark.parametrize("executors", EXECUTORS, ids=str)
def test_so_it_is_deep_inside_and_in_the_items_of_a_map(executors, recorder):
    own = Passing()
    middle = Pipeline([Pipeline([sample.half], own, name="inner")], name="middle")
    with HyperNodesEngine(**executors) as engine:
        outer = Pipeline([middle], engine, name="outer", callbacks=[recorder])
        assert outer.map({"x": [4, 6]}, "x") == {"left": [2, 3]}
    assert places(own) == [(("outer", "middle"), 1, (0,)), (("outer", "middle"), 1, (1,))]
    assert paths_of(recorder, "half") == [
        (("outer", "middle", "inner"), (0,)),
        (("outer", "middle", "inner"), (1,)),
    ]
    assert recorder.unfinished == []


@pytest.mark.parametrize("executors", EXECUTORS, ids=str)
def test_so_it_is_if_it_runs_a_nested_map(executors, recorder):
    own = Passing()
    inner = Pipeline([sample.half], own, name="inner").as_node({"xs": "x"}, map_over="xs")
    with HyperNodesEngine(**executors) as engine:
        outer = Pipeline([inner], engine, name="outer", callbacks=[recorder])
        assert outer.run({"xs": [4, 6]}) == {"left": [2, 3]}
    assert places(own) == [(("outer",), 0, ())]
    assert paths_of(recorder, "half") == [(("outer", "inner"), (0,)), (("outer", "inner"), (1,))]
    assert [path for _, _, path, _ in recorder.of("map_start")] == [("outer", "inner")]


def test_a_nested_engine_of_the_users_own_shares_the_state_of_the_callbacks():
    class Writer(PipelineCallback):
        def on_pipeline_start(self, pipeline_id, inputs, ctx):
            ctx.set("run", 7)

    own = Passing()
    Pipeline([Pipeline([sample.half], own, name="inner")], name="outer", callbacks=[Writer()]).run({"x": 4})
    assert own.contexts[0].get("run") == 7


def test_errors_say_in_which_pipelines_a_nested_engine_of_the_users_own_was_called():
    inner = Pipeline([sample.check], Passing(), name="inner")
    with pytest.raises(sample.Refused) as caught:
        Pipeline([inner], name="outer").map({"x": [1, 2]}, "x")
    assert "in node 'check' of pipeline 'outer/inner', item 1," in caught.value.__notes__[0]


def test_executors_of_aliases_are_made_when_needed_and_shut_down_with_the_engine():
    before = threading.active_count()
    engine = HyperNodesEngine(map_executor="threaded")
    assert threading.active_count() == before
    pipeline = sample.diamond.with_engine(engine)
    pipeline.map({"x": [1, 2, 3]}, "x")
    assert threading.active_count() > before
    engine.shutdown()
    assert threading.active_count() == before
    assert pipeline.map({"x": [2]}, "x", output_name="right") == {"right": [4]}
    engine.shutdown()


def test_an_executor_of_the_user_is_left_running():
    with ThreadPoolExecutor(1) as pool:
        with HyperNodesEngine(pool) as engine:
            sample.diamond.with_engine(engine).run({"x": 1})
        assert pool.submit(abs, -1).result() == 1


def test_a_pipeline_that_ran_in_a_worker_first_still_uses_its_executors_elsewhere():
    @node(output_name="thread")
    def where(x):
        return threading.current_thread().name

    with ThreadPoolExecutor(2, thread_name_prefix="own") as pool:
        inner = Pipeline([where], engine=HyperNodesEngine(map_executor=pool))
        outer = Pipeline([inner.as_node({"xs": "x"}, {"thread": "threads"}, map_over="xs")])
        first = Pipeline([node(lambda x: outer.run({"xs": [x]}), output_name="inside")])
        inside = first.with_engine(HyperNodesEngine(node_executor=pool)).run({"x": 1})["inside"]
        assert all(name.startswith("own") for name in inside["threads"])
        assert all(name.startswith("own") for name in outer.run({"xs": [1, 2]})["threads"])
