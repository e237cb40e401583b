"""A node's batch function: the same for many items at once."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import sample
from recorder import Recorder

from hypernodes import DiskCache, HyperNodesEngine, Pipeline, PipelineCallback, node
from hypernodes.exceptions import BatchError, GraphError
from hypernodes.execution.scheduler import pace
from hypernodes.testing import check_batch

CALLS = []


def add_all(x, by):
    CALLS.append((type(x), len(x), by))
    return pc.add(x, by)


@node(output_name="added", batch=add_all)
def add(x: int, by: int) -> int:
    return x + by


def halves_of(added):
    array = added.to_numpy()
    return array // 2, (array % 2).tolist()


@node(output_name=("half", "rest"), batch=halves_of)
def halve(added: int):
    return added // 2, added % 2


pipeline = Pipeline([add, halve, node(lambda half, rest: (half, rest), output_name="both")], name="batched")
N = 300
WANTED = {
    "added": [i + 5 for i in range(N)],
    "half": [(i + 5) // 2 for i in range(N)],
    "rest": [(i + 5) % 2 for i in range(N)],
    "both": [((i + 5) // 2, (i + 5) % 2) for i in range(N)],
}


@pytest.fixture(autouse=True)
def forget():
    CALLS.clear()


def test_a_batch_function_is_for_what_varies(recorder):
    """With nothing but fixed inputs there is no array to give it."""
    both = Pipeline([add, node(lambda added, i: (added, i), output_name="pair")])
    for watched in (both, both.with_callbacks([recorder])):
        with HyperNodesEngine(map_executor="threaded") as engine:
            made = watched.with_engine(engine).map({"i": range(50), "x": 1, "by": 2}, "i", output_name="pair")
            assert made == {"pair": [(3, i) for i in range(50)]}
    assert not CALLS


def test_a_batch_function_is_not_called_for_fixed_inputs_alone(recorder):
    """A node that is not cached is called for each item, also where all of its inputs are fixed."""
    batches, calls = [], []

    @node(output_name="y", cache=False, batch=lambda x: batches.append(x))
    def count(x):
        calls.append(x)
        return len(calls)

    with HyperNodesEngine(map_executor="threaded") as engine:
        pipeline = Pipeline([count, node(lambda y, i: (y, i), output_name="pair")], engine)
        pipeline.with_callbacks([recorder]).map({"i": range(20), "x": 1}, "i")
    assert calls == [1] * 20
    assert not batches


def test_a_batch_leaves_out_the_items_that_have_failed(recorder, monkeypatch):
    monkeypatch.setattr(pace, "IN_PROCESS_CHUNK_S", 10.0)
    given = []

    def negate_all(x):
        given.extend(x.to_pylist())
        return pc.negate(x)

    inverse = node(lambda x: 1 / x, output_name="inverse")
    negative = node(lambda x: -x, output_name="negative", batch=negate_all)
    with HyperNodesEngine(map_executor=ThreadPoolExecutor(1)) as engine:
        pipeline = Pipeline([inverse, negative], engine).with_callbacks([recorder])
        rows = pipeline.map({"x": range(-9, 10)}, "x", on_error="return")
    assert isinstance(rows["negative"].pop(9), ZeroDivisionError)
    others = [x for x in range(-9, 10) if x]
    assert rows["negative"] == [-x for x in others]
    assert given == others


def test_single_calls_and_plain_loops_are_those_of_the_function():
    assert pipeline.run({"x": 1, "by": 5}, "both") == {"both": (3, 0)}
    assert pipeline.map({"x": range(N), "by": 5}, "x") == WANTED
    assert not CALLS


@pytest.mark.parametrize("watched", ["plain", "told", "cached", "returning", "retrying"])
def test_chunks_of_a_map_go_to_the_batch_function(watched, tmp_path, monkeypatch):
    monkeypatch.setattr(pace, "IN_PROCESS_CHUNK_S", 0.2)  # a busy machine makes each item a chunk of its own
    told = Recorder()
    made, options = pipeline, {}
    match watched:
        case "told":
            made = pipeline.with_callbacks([told])
        case "cached":
            made = pipeline.with_cache(DiskCache(tmp_path))
        case "returning":
            options = {"on_error": "return"}
        case "retrying":
            again = node(add.function, output_name="added", batch=add_all, retries=2)
            made = Pipeline([again, *pipeline.nodes[1:]])
    with HyperNodesEngine(map_executor="threaded") as engine:
        made.with_engine(engine).map({"x": [-1] * 8, "by": 5}, "x", **options)  # what is used first is slow
        CALLS.clear()
        told.events.clear()
        assert made.with_engine(engine).map({"x": range(N), "by": 5}, "x", **options) == WANTED
    kinds = {kind for kind, _, _ in CALLS}
    assert all(issubclass(kind, pa.Array) for kind in kinds)
    assert sum(count for _, count, _ in CALLS) == N
    assert len(CALLS) < N
    assert {by for _, _, by in CALLS} == {5}
    if watched == "told":
        assert len(told.of("node_end")) == 3 * N
    if watched == "cached":
        plain = made.map({"x": range(N), "by": 5}, "x")
        assert plain == WANTED
        assert sum(count for _, count, _ in CALLS) == N


class Ends(PipelineCallback):
    """When each call has ended, and how long it took."""

    def __init__(self):
        self.ends = {}

    def on_node_end(self, node_id, outputs, duration, ctx):
        self.ends[ctx.item_path[-1]] = (ctx.time, duration)


def test_the_calls_of_a_batch_follow_one_another_and_take_as_long_as_the_batch(monkeypatch):
    monkeypatch.setattr(pace, "IN_PROCESS_CHUNK_S", 10.0)
    batches, ends = [], Ends()

    def slow(x):
        began = time.time()
        time.sleep(0.05)
        batches.append((began, time.time(), x.to_pylist()))
        return x

    pipeline = Pipeline([node(lambda x: x, output_name="y", batch=slow)])
    with HyperNodesEngine(map_executor=ThreadPoolExecutor(1)) as engine:
        pipeline.with_engine(engine).with_callbacks([ends]).map({"x": range(6)}, "x")
    assert max(len(items) for *_, items in batches) > 1
    leeway = 0.005  # between the two clocks, and less than a part of a batch
    for began, ended, items in batches:
        times, durations = zip(*(ends.ends[item] for item in items), strict=True)
        assert len(set(durations)) == 1
        assert sum(durations) >= ended - began - leeway
        starts = [when - duration for when, duration in zip(times, durations, strict=True)]
        assert starts == pytest.approx(
            [starts[0], *times[:-1]], rel=0, abs=1e-4
        )  # each begins when the one before has ended
        assert times[-1] >= ended - leeway
        assert times[-1] <= time.time()
        assert starts[0] <= began + leeway


@pytest.mark.parametrize("executor", ["parallel", "ray"])
def test_batch_functions_travel(executor, request):
    if executor == "ray":
        request.getfixturevalue("ray_cluster")
    inputs = {"x": range(N), "by": 5}
    with HyperNodesEngine(map_executor=executor) as engine:
        made = sample.batched.with_engine(engine).map(inputs, "x")
    assert made == sample.batched.map(inputs, "x")


@pytest.mark.parametrize("on_error", ["raise", "return"])
@pytest.mark.parametrize("told", [False, True])
def test_an_error_in_a_batch_belongs_to_its_item(on_error, told):
    def invert_all(x):
        if 7 in x.to_pylist():
            raise ZeroDivisionError("somewhere")
        return x

    @node(output_name="y", batch=invert_all)
    def invert(x):
        if x == 7:
            raise ZeroDivisionError("seven")
        return x

    made = Pipeline([invert], name="inverse", callbacks=[Recorder()] if told else [])
    with HyperNodesEngine(map_executor="threaded") as engine:
        made = made.with_engine(engine)
        if on_error == "raise":
            with pytest.raises(ZeroDivisionError, match="seven") as caught:
                made.map({"x": range(20)}, "x")
            error = caught.value
        else:
            column = made.map({"x": range(20)}, "x", on_error="return")["y"]
            error = column[7]
            assert [*column[:7], *column[8:]] == [*range(7), *range(8, 20)]
    assert any("node 'invert' of pipeline 'inverse', item 7" in note for note in error.__notes__)


@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (lambda x: x.to_pylist()[1:], "values for"),
        (lambda x: "text", "returned a str"),
        (lambda x: None, "NoneType"),
        (lambda x: 1 / 0, "division"),
    ],
)
def test_a_batch_function_that_fails_where_the_function_does_not(batch, message, told):
    made = node(lambda x: x, output_name="y", batch=batch)
    with HyperNodesEngine(map_executor="threaded") as engine:
        made = Pipeline([made], name="odd", callbacks=[Recorder()] if told else [], engine=engine)
        with pytest.raises((BatchError, ZeroDivisionError), match=message) as caught:
            made.map({"x": [1, 2, 3, 4]}, "x")
    assert any("'odd', item" in note and "batch function" in note for note in caught.value.__notes__)


@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("error", [ValueError, SystemExit])
def test_the_note_on_its_error_names_the_items_of_all_maps_around(error, told):
    def fail(x):
        raise error("no")

    @node(output_name="y", batch=fail)
    def batched(x):
        return x

    inner = Pipeline([batched], name="inner")
    # Items with a limited node stay with the run, so that the items of their nested maps are sent.
    limited = node(lambda z: z, output_name="w", max_concurrent=2)
    outer = Pipeline(
        [inner.as_node(input_mapping={"xs": "x"}, map_over="xs"), limited],
        name="outer",
        callbacks=[Recorder()] if told else [],
    )
    with HyperNodesEngine(map_executor="threaded") as engine, pytest.raises(error) as caught:
        outer.with_engine(engine).map({"xs": [[], [1]], "z": [1, 2]}, ["xs", "z"])
    (note,) = caught.value.__notes__
    assert note.startswith("in node 'batched' of pipeline 'outer/inner', item 1.0: in its batch function")


def test_retries_are_those_of_the_batch():
    tries = []

    def flaky(x):
        tries.append(len(x))
        if len(tries) < 3:
            raise OSError("not yet")
        return x

    recorder = Recorder()
    made = node(lambda x: x, output_name="y", batch=flaky, retries=2)
    with HyperNodesEngine(map_executor="threaded") as engine:
        done = Pipeline([made], engine=engine, callbacks=[recorder]).map({"x": [4]}, "x")
    assert done == {"y": [4]}
    assert len(recorder.of("node_retry")) == 2


def test_values_that_arrow_has_no_type_for():
    made = node(lambda x: x, output_name="y", batch=lambda x: x)
    with HyperNodesEngine(map_executor="threaded") as engine:
        with pytest.raises(BatchError, match="parameter 'x' are nothing that Arrow has a type for"):
            Pipeline([made], engine=engine).map({"x": [object()]}, "x")


@pytest.mark.parametrize(
    "batch", [lambda y: y, lambda x, /: x, lambda x, y: x, "text", node(len, output_name="n")]
)
def test_a_batch_function_takes_what_the_function_takes(batch):
    with pytest.raises(GraphError, match="batch"):
        node(lambda x: x, output_name="out", batch=batch)


def test_an_async_batch_function_is_refused():
    async def batch(x):
        return x

    with pytest.raises(GraphError, match="neither async"):
        node(lambda x: x, output_name="out", batch=batch)


def test_its_code_counts(tmp_path):
    cache = DiskCache(tmp_path)
    for factor in (2, 3):
        made = node(lambda x: x * 2, output_name="y", batch=lambda x, f=factor: pc.multiply(x, f))
        made = Pipeline([made], cache=cache)
        made.map({"x": [1]}, "x")
    assert len(set(cache)) == 2


def test_rows_of_a_matrix_stay_arrays():
    made = node(lambda x: np.array([x, x]), output_name="v", batch=lambda x: np.stack([x, x], axis=1))
    check_batch(made, {"x": [1, 2, 3]}, "x")


def test_the_helper_says_where_they_differ():
    check_batch(add, pa.table({"x": [1, 2], "by": [3, 4]}))
    check_batch(halve, {"added": [1, 2, 3]}, "added")
    wrong = node(lambda x: x + 1, output_name="y", batch=lambda x: pc.add(x, 1.0))
    with pytest.raises(AssertionError, match=r"item 0 of 'y': 2 .int. by its function, 2.0 "):
        check_batch(wrong, {"x": [1, 2]}, "x")
    off = node(lambda x: x / 3, output_name="y", batch=lambda x: pc.multiply(x, 1 / 3))
    check_batch(off, {"x": [1.0, 7.0]}, "x", tolerance=1e-12)
    with pytest.raises(ValueError, match="no batch function"):
        check_batch(node(len, output_name="n"), {"obj": ["a"]}, "obj")
