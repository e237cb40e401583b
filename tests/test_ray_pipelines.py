"""Pipelines on Ray: remote values, broadcast inputs, deaths of workers, timeouts."""

import asyncio
import os
import signal
import time

import numpy as np
import pytest
from conftest import Recorder

from hypernodes import DiskCache, HyperNodesEngine, ParallelExecutor, Pipeline, RayExecutor, node
from hypernodes.callbacks.event import NotSent
from hypernodes.exceptions import GraphError, NodeTimeoutError, WorkerDiedError
from hypernodes.executors.ray.objects import RayValue

LARGE = 100_000  # An array of so many floats stays with its worker.


@pytest.fixture
def fetched(monkeypatch):
    """The types of the results that the driver has fetched."""
    found = []
    get = RayValue.get
    monkeypatch.setattr(RayValue, "get", lambda self: (found.append(self.kind), get(self))[1])
    return found


@pytest.fixture
def engine(ray_cluster):
    with HyperNodesEngine(node_executor="ray") as engine:
        yield engine


@node(output_name="big")
def make(n):
    return np.full(n, 2.0)


@node(output_name=("low", "high"))
def halves(big):
    return big[: len(big) // 2] - 1, big[len(big) // 2 :] + 1


@node(output_name="total")
def total(low, high):
    return float(low.sum() + high.sum())


def test_between_nodes_values_stay_in_the_cluster(engine, fetched):
    pipeline = Pipeline([make, halves, total], engine=engine)
    assert pipeline.run({"n": LARGE}, "total") == {"total": 2.0 * LARGE}
    assert fetched == []
    assert pipeline.run({"n": LARGE}, ["high", "total"])["high"].shape == (LARGE // 2,)
    assert fetched == ["ndarray"]


def test_requested_outputs_are_ordinary_values(engine):
    big = Pipeline([make], engine=engine).run({"n": LARGE})["big"]
    assert type(big) is np.ndarray
    big += 1  # The caller may change it.


def test_a_node_may_change_its_arguments(engine):
    @node(output_name="changed")
    def change(big):
        big += 1
        return float(big[0])

    @node(output_name="seen")
    def see(big, changed):
        return float(big[0])

    assert Pipeline([make, change, see], engine=engine).run({"n": LARGE}, ["changed", "seen"]) == {
        "changed": 3.0,
        "seen": 2.0,
    }


def test_nested_pipelines_and_maps_take_remote_values(engine, fetched):
    inner = Pipeline([halves, total], name="inner")
    assert Pipeline([make, inner], engine=engine).run({"n": LARGE}, "total") == {"total": 2.0 * LARGE}
    assert fetched == []

    @node(output_name="grand")
    def grand(bigs, shift):
        return sum(float(big.sum()) for big in bigs) + shift

    each = Pipeline([make], name="each").as_node({"sizes": "n"}, {"big": "bigs"}, map_over="sizes")
    pipeline = Pipeline([each, grand], engine=engine)
    assert pipeline.run({"sizes": [LARGE, LARGE], "shift": 1}, "grand") == {"grand": 4.0 * LARGE + 1}
    assert fetched == []
    assert [len(big) for big in pipeline.run({"sizes": [LARGE, LARGE], "shift": 1})["bigs"]] == [LARGE] * 2


def test_a_node_on_another_executor_gets_the_value(engine, fetched):
    here = Pipeline([total], engine=HyperNodesEngine(), name="here")
    with ParallelExecutor(1) as pool:
        there = Pipeline([halves], engine=HyperNodesEngine(node_executor=pool), name="there")
        assert Pipeline([make, there, here], engine=engine).run({"n": LARGE}, "total")["total"] == 2.0 * LARGE
    assert fetched == ["ndarray"]


def test_map_over_a_remote_value(engine):
    @node(output_name="rows")
    def rows(n):
        return list(np.ones((4, n)))

    @node(output_name="length")
    def length(row):
        return len(row)

    each = Pipeline([length], name="each").as_node({"rows": "row"}, {"length": "lengths"}, map_over="rows")
    assert Pipeline([rows, each], engine=engine).run({"n": LARGE}, "lengths") == {"lengths": [LARGE] * 4}


def test_callbacks_are_called_in_the_driver_and_are_not_pickled(engine):
    class Told(Recorder):
        def on_node_end(self, node_id, outputs, duration, ctx):
            self.events.append((node_id, {name: type(value) for name, value in outputs.items()}))

    told = Told()
    Pipeline([make, halves, total], engine=engine, callbacks=[told]).run({"n": LARGE}, "total")
    ends = dict(event for event in told.events if len(event) == 2)
    assert ends == {
        "make": {"big": NotSent},
        "halves": {"low": NotSent, "high": NotSent},
        "total": {"total": float},
    }


def test_a_remote_value_is_cached_by_its_worker(engine, fetched, tmp_path):
    with DiskCache(tmp_path / "cache") as cache:
        pipeline = Pipeline([make, halves, total], engine=engine, cache=cache)
        pipeline.run({"n": LARGE}, "total")
        assert fetched == []
        assert len(cache) == 3
        recorder = Recorder()
        here = Pipeline([make, halves, total], cache=cache, callbacks=[recorder])
        assert here.run({"n": LARGE})["low"][0] == 1.0
        assert len(recorder.of("node_cached")) == 3


def test_a_remote_value_whose_content_is_hashed_is_fetched(engine, tmp_path):
    loose = node(make.function, output_name="big", cache=False)
    with DiskCache(tmp_path / "cache") as cache:
        recorder = Recorder()
        pipeline = Pipeline([loose, halves, total], engine=engine, cache=cache, callbacks=[recorder])
        for _ in range(2):
            assert pipeline.run({"n": LARGE}, "total") == {"total": 2.0 * LARGE}
        assert [event[1][0] for event in recorder.of("node_cached")] == ["total"]


# ------------------------------------------------------------------------- broadcast inputs -----


class Encoder:
    """Records each time that it is unpickled."""

    def __init__(self, directory, size):
        self.directory = directory
        self.weights = np.ones(size)

    def __call__(self, x):
        return float(x) + float(self.weights[0])

    def __setstate__(self, state):
        self.__dict__.update(state)
        (self.directory / f"{os.getpid()}-{time.time_ns()}").touch()


@pytest.mark.parametrize("level", ["map_executor", "node_executor"])
@pytest.mark.parametrize("size", [10, 500_000])
@pytest.mark.parametrize("bound", [False, True])
def test_a_fixed_input_is_unpickled_once_in_each_worker(ray_cluster, tmp_path, level, size, bound):
    @node(output_name="code")
    def encode(x, encoder):
        return encoder(x)

    encoder, items = Encoder(tmp_path, size), list(range(200))
    with HyperNodesEngine(**{level: "ray"}) as engine:
        pipeline = Pipeline([encode], engine=engine)
        if bound:
            codes = pipeline.bind(encoder=encoder).map({"x": items}, "x")
        else:
            codes = pipeline.map({"x": items, "encoder": encoder}, "x")
    assert codes == {"code": [x + 1.0 for x in items]}
    pids = [path.name.partition("-")[0] for path in tmp_path.iterdir()]
    assert 1 <= len(pids) == len(set(pids)) < len(items) // 10


def test_a_fixed_input_can_be_a_remote_value(engine, tmp_path, fetched):
    @node(output_name="encoder")
    def load(size):
        return Encoder(tmp_path, size)

    @node(output_name="code")
    def encode(x, encoder):
        return encoder(x)

    each = Pipeline([encode], name="each").as_node({"xs": "x"}, {"code": "codes"}, map_over="xs")
    assert Pipeline([load, each], engine=engine).run({"size": LARGE, "xs": list(range(50))}, "codes") == {
        "codes": [x + 1.0 for x in range(50)]
    }
    assert fetched == []
    pids = [path.name.partition("-")[0] for path in tmp_path.iterdir()]
    assert len(pids) == len(set(pids))


def test_amounts_are_checked_when_the_node_is_made():
    with pytest.raises(GraphError, match="node 'len': num_gpus must be a number"):
        node(len, output_name="y", num_gpus=-1)
    with pytest.raises(GraphError, match="node 'len': timeout is a number of seconds"):
        node(len, output_name="y", timeout=0)
    named = node(len, output_name="y", num_gpus=1, timeout=3).rename(outputs={"y": "z"})
    assert (named.resources.num_gpus, named.timeout) == (1, 3)


# ---------------------------------------------------------------------------------- deaths


@node(output_name="y")
def die_at_seven(x):
    return os._exit(1) if x == 7 else 2 * x


@pytest.mark.timeout(180)
def test_only_the_item_that_kills_workers_fails(ray_cluster):
    recorder = Recorder()
    with RayExecutor(2, max_retries=2) as executor:
        engine = HyperNodesEngine(map_executor=executor)
        pipeline = Pipeline([die_at_seven], engine=engine, name="dying", callbacks=[recorder])
        rows = pipeline.map({"x": list(range(200))}, "x", on_error="return")["y"]
        error = rows.pop(7)
        assert rows == [2 * x for x in range(200) if x != 7]
        assert isinstance(error, WorkerDiedError)
        assert "in item 7 of pipeline 'dying'" in error.__notes__[0]
        assert recorder.of("node_retry")
        with pytest.raises(WorkerDiedError) as caught:
            pipeline.map({"x": [7]}, "x")
        assert "item 0" in caught.value.__notes__[0]
        assert pipeline.map({"x": [1]}, "x") == {"y": [2]}


@pytest.mark.timeout(120)
def test_a_call_that_kills_its_worker_once_is_reported_as_a_retry(ray_cluster, tmp_path):
    @node(output_name="y")
    def die_once(path):
        if not path.exists():
            path.touch()
            os._exit(1)
        return 1

    for level in ("node_executor", "map_executor"):
        recorder = Recorder()
        pipeline = Pipeline([die_once], engine=HyperNodesEngine(**{level: "ray"}), callbacks=[recorder])
        assert pipeline.map({"path": [tmp_path / level]}, "path") == {"y": [1]}
        ((_, (_, attempt, error), _, _),) = recorder.of("node_retry")
        assert attempt == 1
        assert "WorkerDied" in error
        pipeline.effective_engine.shutdown()


def told_to_end(x, marks, always):
    mark = marks / f"{x}"
    if x == 2 and (always or not mark.exists()):
        mark.touch()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    return x


async def told_to_end_async(x, marks, always):
    await asyncio.sleep(0.2)  # The main thread is to wait by now, where signals reach it.
    mark = marks / f"{x}"
    if x == 2 and (always or not mark.exists()):
        mark.touch()
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(60)
    return x


# The kind of function decides what the signal meets in the worker, the level what the driver does then.
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("function", "level"), [(told_to_end, "map_executor"), (told_to_end_async, "node_executor")]
)
def test_a_worker_that_receives_sigterm_fails_its_item_at_most(ray_cluster, tmp_path, level, function):
    with RayExecutor(2, max_retries=1) as executor:
        engine = HyperNodesEngine(**{level: executor})
        pipeline = Pipeline([node(function, output_name="y")], engine=engine, name="ending")
        inputs = {"x": [1, 2, 3], "marks": tmp_path}
        assert pipeline.map({**inputs, "always": False}, "x") == {"y": [1, 2, 3]}
        first, error, last = pipeline.map({**inputs, "always": True}, "x", on_error="return")["y"]
        assert (first, last) == (1, 3)
        assert isinstance(error, WorkerDiedError)
        assert "item 1" in error.__notes__[0]


# --------------------------------------------------------------------------------- timeouts


@node(output_name="y", timeout=0.5)
def slow(x):
    time.sleep(30 if x == 1 else 0)
    return x


@node(output_name="y", timeout=0.5)
async def slow_async(x):
    await asyncio.sleep(30 if x == 1 else 0)
    return x


@node(output_name="y", timeout=0.5)
def spin(x):
    while x == 1:
        pass
    return x


@node(output_name="y", timeout=0.5)
def stuck(x):
    """Wait in C, where no signal handler runs."""
    if x == 1:
        import signal

        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
        time.sleep(30)
    return x


CASES = [
    (kind, level, alias)
    for level in ("node_executor", "map_executor")
    for alias in ("sequential", "async", "threaded", "parallel", "ray")
    for kind in (slow, slow_async, spin)
    if not (kind is slow and alias in ("async", "threaded"))  # A sleeping thread cannot be interrupted.
]


@pytest.mark.parametrize(("kind", "level", "alias"), CASES, ids=lambda v: getattr(v, "__name__", v))
def test_a_call_that_exceeds_its_timeout_is_ended(engine_on, kind, level, alias):
    pipeline = Pipeline([kind], engine=engine_on(level, alias), name="timed")
    started = time.monotonic()
    rows = pipeline.map({"x": [0, 1, 2]}, "x", on_error="return")["y"]
    assert time.monotonic() - started < 25
    assert rows[::2] == [0, 2]
    assert type(rows[1]) is NodeTimeoutError
    assert isinstance(rows[1], TimeoutError)
    assert "timed out after 0.5 s" in str(rows[1])
    assert f"node '{kind.__name__}' of pipeline 'timed', item 1" in rows[1].__notes__[0]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("level", ["node_executor", "map_executor"])
@pytest.mark.parametrize("alias", ["parallel", "ray"])
def test_a_call_that_ignores_signals_is_ended_with_its_process(engine_on, alias, level):
    pipeline = Pipeline([stuck], engine=engine_on(level, alias))
    rows = pipeline.map({"x": [0, 1, 2]}, "x", on_error="return")["y"]
    assert rows[::2] == [0, 2]
    assert type(rows[1]) is NodeTimeoutError


def test_a_timed_out_call_is_retried_and_the_timeout_ends_with_the_call():
    times = []

    @node(output_name="y", timeout=0.2, retries=2)
    def lazy(x):
        times.append(x)
        time.sleep(1 if len(times) < 3 else 0)
        return x

    assert Pipeline([lazy]).run({"x": 1}) == {"y": 1}
    assert len(times) == 3
    time.sleep(0.3)  # No timer of an earlier call goes off.


def test_a_timeout_inside_another_timeout():
    inner = Pipeline([node(lambda x: time.sleep(x) or x, output_name="y", timeout=0.2)], name="inner")

    @node(output_name="z", timeout=0.6)
    def around(x):
        try:
            inner.run({"x": 5})
        except NodeTimeoutError:
            time.sleep(x)
        return x

    pipeline = Pipeline([around])
    assert pipeline.run({"x": 0.1}) == {"z": 0.1}
    with pytest.raises(NodeTimeoutError, match=r"0\.6 s"):
        pipeline.run({"x": 3})


def test_values_given_for_a_nested_map_are_its_items_on_ray(ray_cluster):
    add = node(lambda a, b: a + b, output_name="y")
    double = node(lambda y: y * 2, output_name="z")
    inner = Pipeline([add, double], name="inner").as_node({"xs": "a"}, map_over="xs")
    for options in ({"map_executor": "ray"}, {"node_executor": "ray"}):
        with HyperNodesEngine(**options) as engine:
            outer = Pipeline([inner], engine=engine)
            assert outer.run({"y": [7, 8]}) == {"y": [7, 8], "z": [14, 16]}
            assert outer.map({"y": [[7], [8, 9]]}, map_over="y", output_name="z") == {"z": [[14], [16, 18]]}


@node(output_name="task")
def own_task(x):
    import ray

    return ray.get_runtime_context().get_task_name()


@pytest.mark.parametrize(("level", "name"), [("node_executor", "named/own_task"), ("map_executor", "named")])
def test_tasks_have_the_names_of_pipeline_and_node_in_ray(ray_cluster, level, name):
    with HyperNodesEngine(**{level: "ray"}) as engine:
        pipeline = Pipeline([own_task], engine, name="named")
        assert pipeline.map({"x": [1]}, map_over="x")["task"] == [f"hypernodes: {name}"]
