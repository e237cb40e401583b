"""What the documentation promises of events and counts, where it was broken once."""

import threading
from collections import Counter

import pytest
from observers import Around, Counting
from recorder import Recorder

from hypernodes import DaftEngine, DiskCache, HyperNodesEngine, Pipeline, PipelineCallback, node

MANY = 3000
ALIASES = ("sequential", "threaded", "parallel")


@node(output_name="y")
def odd(x):
    if x % 1000 == 999:
        raise ValueError(x)
    return 2 * x


def plus_each(y):
    return [value + 1 for value in y.to_pylist()]


@node(output_name="z", batch=plus_each)
def plus(y):
    return y + 1


def refuse_two(x):
    if 2 in x.to_pylist():
        raise ValueError("two")
    return x


@node(output_name="y", batch=refuse_two)
def anything_but_two(x):
    if x == 2:
        raise ValueError("two")
    return x


class Errors(PipelineCallback):
    counts_items = True

    def __init__(self):
        self.errors = Counter()

    def on_error(self, node_id, error, ctx):
        self.errors[ctx.hierarchy_path, node_id, ctx.about] += 1


# ------------------------------------------------------------------------------------- counted items


@pytest.mark.parametrize("alias", ALIASES)
def test_a_nested_pipelines_counting_callback_counts_what_it_would_hear_alone(alias, engine_on):
    inner, outer = Counting(), Counting(deaf=["inner"])
    nested = Pipeline([odd], name="inner", callbacks=[inner])
    engine = engine_on("map_executor", alias)
    pipeline = Pipeline([nested], engine, name="outer", callbacks=[outer])
    pipeline.map({"x": range(MANY)}, "x", on_error="return")
    assert inner.numbers == {
        ("node", ("outer", "inner"), "odd"): MANY - 3,
        ("error", ("outer", "inner"), "odd"): 3,
        ("error", ("outer", "inner"), "inner"): 3,
    }
    assert outer.numbers == {
        ("items", ("outer",)): MANY,
        ("node", ("outer",), "inner"): MANY - 3,
        ("error", ("outer",), "inner"): 3,
    }


@pytest.mark.parametrize("alias", ALIASES)
def test_the_context_of_a_counting_callback_is_put_around_every_call(alias, engine_on):
    counting = Around()
    engine = engine_on("map_executor", alias)
    pipeline = Pipeline([odd], engine, name="p", callbacks=[counting])
    pipeline.map({"x": range(MANY)}, "x", on_error="return")
    assert sum(counting.notes.values()) == MANY


@pytest.mark.parametrize("alias", ALIASES)
def test_an_error_that_a_node_catches_is_told_of_no_other_item(alias, engine_on):
    other = Pipeline([odd], name="other")

    @node(output_name="z")
    def careful(x):
        try:
            other.run({"x": 999})
        except ValueError:
            pass
        if x == 2000:
            raise KeyError(x)
        return x

    errors = Errors()
    engine = engine_on("map_executor", alias)
    pipeline = Pipeline([careful], engine, name="p", callbacks=[errors])
    pipeline.map({"x": range(MANY)}, "x", on_error="return")
    assert errors.errors == {(("p",), "careful", "node"): 1}


@pytest.mark.parametrize("alias", ["threaded", "parallel", "daft"])
def test_items_of_a_batch_function_are_counted(alias, engine_on):
    counting = Counting()
    engine = DaftEngine() if alias == "daft" else engine_on("map_executor", alias)
    pipeline = Pipeline([anything_but_two, plus], engine, name="p", callbacks=[counting])
    rows = pipeline.map({"x": [1, 2, 3]}, "x", on_error="return")["z"]
    assert [rows[0], rows[2]] == [2, 4]
    assert counting.numbers == {
        ("items", ("p",)): 3,
        ("node", ("p",), "anything_but_two"): 2,
        ("node", ("p",), "plus"): 2,
        ("error", ("p",), "anything_but_two"): 1,
    }


@pytest.mark.parametrize("alias", ["threaded", "parallel", "daft"])
def test_an_error_of_a_batch_function_is_told_of_its_node(alias, engine_on):
    errors = Errors()
    engine = DaftEngine() if alias == "daft" else engine_on("map_executor", alias)
    pipeline = Pipeline([anything_but_two, plus], engine, name="p", callbacks=[errors])
    with pytest.raises(ValueError, match="two"):
        pipeline.map({"x": [2, 2, 2]}, "x")
    assert errors.errors[("p",), "anything_but_two", "node"] >= 1
    assert errors.errors[("p",), "p", "pipeline"] == 1


@pytest.mark.parametrize("alias", ALIASES)
def test_nodes_that_were_done_before_an_item_failed_are_counted(alias, engine_on):
    first = node(abs, output_name="y")
    second = odd.rename(inputs={"x": "y"}, outputs={"y": "z"})
    counting = Counting()
    engine = engine_on("map_executor", alias)
    pipeline = Pipeline([first, second], engine, name="p", callbacks=[counting])
    pipeline.map({"x": range(MANY)}, "x", on_error="return")
    assert counting.numbers == {
        ("items", ("p",)): MANY,
        ("node", ("p",), "abs"): MANY,
        ("node", ("p",), "odd"): MANY - 3,
        ("error", ("p",), "odd"): 3,
    }


# --------------------------------------------------------------------------- each start has its end


def unended(recorder):
    """Return the nodes that have started and neither ended nor failed."""
    starts = Counter(
        (what[0], path, items) for hook, what, path, items in recorder.events if hook == "node_start"
    )
    for hook, what, path, items in recorder.events:
        if hook in ("node_end", "error"):
            starts[what[0], path, items] -= 1
    return {key for key, left in starts.items() if left > 0}


def test_a_node_that_is_under_way_when_another_fails_has_an_end_or_an_error(recorder):
    started, failed = threading.Event(), threading.Event()

    @node(output_name="a")
    def slow(x):
        started.set()
        return failed.wait(20)

    @node(output_name="b")
    def fail(x):
        started.wait(20)
        raise ValueError(x)

    class Release(PipelineCallback):
        def on_error(self, node_id, error, ctx):
            failed.set()

    with HyperNodesEngine(node_executor="threaded") as engine:
        pipeline = Pipeline([slow, fail], engine, callbacks=[recorder, Release()])
        with pytest.raises(ValueError, match="1"):
            pipeline.run({"x": 1})
    assert unended(recorder) == set()


def test_a_nested_pipeline_that_is_under_way_when_a_node_fails_has_an_end_or_an_error(recorder):
    size = node(abs, output_name="size")
    nested = Pipeline([size, node(bin, output_name="text").rename({"number": "size"})], name="inner")

    @node(output_name="b")
    def fail(x):
        raise ValueError(x)

    pipeline = Pipeline([nested, fail], name="outer", callbacks=[recorder])
    with pytest.raises(ValueError, match="1"):
        pipeline.run({"x": 1})
    assert unended(recorder) == set()


# ------------------------------------------------------------------------------------- cached items


@pytest.mark.parametrize("alias", ["sequential", "threaded", "parallel"])
def test_an_item_whose_nested_map_was_computed_is_not_cached(alias, tmp_path, recorder, engine_on):
    engine = engine_on("map_executor", alias)
    inner = Pipeline([odd], engine, name="inner").as_node({"xs": "x"}, map_over="xs")
    pipeline = Pipeline([inner], name="p", cache=DiskCache(tmp_path), callbacks=[recorder])
    pipeline.map({"xs": [[1, 2], [3]]}, "xs")
    assert recorder.of("item_cached") == []


def test_an_item_in_which_nothing_is_called_is_not_cached_on_a_cold_run(tmp_path, recorder):
    inner = Pipeline([odd], name="inner").as_node({"xs": "x"}, map_over="xs")
    pipeline = Pipeline([inner], name="p", cache=DiskCache(tmp_path), callbacks=[recorder])
    assert pipeline.map({"xs": [[], []]}, "xs") == {"y": [[], []]}
    assert recorder.of("item_cached") == []


# ------------------------------------------------------------------- one computes, the others find it


class Called:
    """Counts calls, which is no part of what the node computes."""

    def __init__(self):
        self.times = Counter()

    def __cache_key__(self):
        return "called"

    def __call__(self, x):
        self.times[x] += 1
        return x


@pytest.mark.parametrize("alias", ["sequential", "threaded"])
def test_equal_nodes_of_one_item_are_computed_once_with_a_cache(alias, tmp_path, engine_on):
    called = Called()
    twins = [node(called, output_name=name).rename({"x": name.upper()}) for name in ("a", "b")]
    engine = engine_on("node_executor", alias)
    pipeline = Pipeline(twins, engine, cache=DiskCache(tmp_path))
    assert pipeline.run({"A": 1, "B": 1}) == {"a": 1, "b": 1}
    assert called.times == {1: 1}


def test_equal_nodes_of_several_items_are_computed_once_whatever_executors_there_are(tmp_path):
    called = Called()
    nodes = [node(called, output_name="y"), node(abs, output_name="other").rename({"x": "z"})]
    with HyperNodesEngine("async", "async") as engine:
        for number in range(5):
            pipeline = Pipeline(nodes, engine, cache=DiskCache(tmp_path / str(number)))
            pipeline.map({"x": [7, 8] * 6, "z": range(12)}, ["x", "z"])
    assert called.times == {7: 5, 8: 5}


# --------------------------------------------------------------------------------------------- Daft


@pytest.mark.parametrize("way", ["told", "cached", "returns"])
def test_daft_may_map_over_an_intermediate_that_is_asked_for_too(daft_runner, way, tmp_path):
    pipeline = Pipeline([odd, plus], engine=DaftEngine())
    on_error = "raise"
    match way:
        case "told":
            pipeline = pipeline.with_callbacks([Recorder()])
        case "cached":
            pipeline = pipeline.with_cache(DiskCache(tmp_path))
        case "returns":
            on_error = "return"
    rows = pipeline.map({"y": [1, 2]}, "y", output_name=["y", "z"], on_error=on_error)
    assert rows == {"y": [1, 2], "z": [2, 3]}
