"""A node that promises to change none of its inputs reads large arrays where they are, on Ray."""

import numpy as np
import pytest

from hypernodes import Pipeline, node

LEVELS = ("node_executor", "map_executor")
LARGE = 300_000


def is_writable(x):
    return x.flags.writeable, float(x.sum())


def changed(x):
    x += 1
    return float(x.sum())


def large(n):
    return np.full(LARGE, float(n))


@pytest.fixture
def arrays():
    return [np.full(LARGE, float(n)) for n in range(3)]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("readonly", [True, False])
def test_arrays_are_views_only_where_the_node_promises_to_change_nothing(engine_on, arrays, level, readonly):
    pipeline = Pipeline([node(is_writable, output_name="y", readonly=readonly)], engine_on(level, "ray"))
    found = pipeline.map({"x": arrays}, "x")["y"]
    assert found == [(not readonly, n * LARGE) for n in range(3)]


@pytest.mark.parametrize("level", LEVELS)
def test_who_breaks_the_promise_gets_the_error_of_numpy_with_its_place(engine_on, arrays, level):
    pipeline = Pipeline([node(changed, output_name="y", readonly=True)], engine_on(level, "ray"), name="p")
    with pytest.raises(ValueError, match="read-only") as caught:
        pipeline.map({"x": arrays}, "x")
    assert any("in node 'changed' of pipeline 'p', item" in note for note in caught.value.__notes__)
    assert float(arrays[1][0]) == 1.0


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("alias", ["sequential", "threaded", "parallel", "ray"])
def test_the_promise_changes_no_result(engine_on, level, alias):
    made = node(large, output_name="x")
    halves = node(lambda x: x[: LARGE // 2], output_name="half", readonly=True)
    sums = node(lambda half: float(half.sum()), output_name="sum", readonly=True)
    pipeline = Pipeline([made, halves, sums], engine_on(level, alias))
    assert pipeline.map({"n": [1, 2, 3]}, "n")["sum"] == [n * LARGE / 2 for n in (1, 2, 3)]


def test_a_value_that_stayed_with_its_worker_is_read_there_as_a_view(engine_on):
    nodes = [
        node(large, output_name="x"),
        node(is_writable, output_name="seen", readonly=True),
        node(changed, output_name="sum"),
    ]
    made = Pipeline(nodes, engine_on("node_executor", "ray")).run({"n": 2}, ["seen", "sum"])
    assert made == {"seen": (False, 2.0 * LARGE), "sum": 3.0 * LARGE}


def test_a_chunk_is_given_copies_if_one_of_its_nodes_promises_nothing(engine_on, arrays):
    nodes = [node(is_writable, output_name="seen", readonly=True), node(changed, output_name="sum")]
    rows = Pipeline(nodes, engine_on("map_executor", "ray")).map({"x": arrays}, "x")
    assert [writable for writable, _ in rows["seen"]] == [True] * 3
    assert rows["sum"] == [(n + 1) * LARGE for n in range(3)]


@pytest.mark.parametrize("value", [1, "x", None])
def test_the_promise_is_true_or_false(value):
    with pytest.raises(Exception, match="node 'large': readonly is True or False"):
        node(large, output_name="x", readonly=value)
