"""A cluster of several raylets: where nodes run, and what happens when a raylet dies."""

import os
import signal
import threading
import time
from collections import Counter

import numpy as np
import pytest
import ray
from clusters import SMALL_HOST, start_cluster
from conftest import Recorder

from hypernodes import HyperNodesEngine, Pipeline, RayExecutor, node
from hypernodes.exceptions import ResourcesError, TransportError, WorkerDiedError
from hypernodes.executors.ray import dispatcher, queues

# ------------------------------------------------------------------------------------- resources


@pytest.fixture(scope="module")
def workshop(unconnected):
    """A cluster whose second node has the only kiln."""

    # Ray declares a host dead after five refused health checks; a slow host has ten seconds to answer.
    soon = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 300}
    made = start_cluster(_system_config=soon, **SMALL_HOST)
    made.add_node(num_cpus=1, resources={"kiln": 1}, **SMALL_HOST)
    yield made
    ray.shutdown()
    made.shutdown()


def where():

    return ray.get_runtime_context().get_node_id()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("level", ["map_executor", "node_executor"])
def test_a_node_runs_where_its_resources_are_while_other_nodes_go_on(workshop, level):
    @node(output_name="fired", resources={"kiln": 1})
    def fire(x):
        time.sleep(0.3)
        return where(), time.time()

    @node(output_name="shaped")
    def shape(x):
        time.sleep(0.02)
        return where(), time.time()

    with HyperNodesEngine(**{level: "ray"}) as engine:
        pipeline = Pipeline([fire, shape], engine=engine)
        pipeline.run({"x": 0})
        rows = pipeline.map({"x": list(range(4))}, "x")
    kiln = workshop.list_all_nodes()[-1].node_id
    assert {place for place, _ in rows["fired"]} == {kiln}
    fired = sorted(at for _, at in rows["fired"])
    assert all(later - earlier >= 0.25 for earlier, later in zip(fired, fired[1:], strict=False))


def test_resources_that_no_host_has_are_an_error_with_the_node(workshop):
    @node(output_name="y", num_gpus=1)
    def paint(x):
        return x

    for level in ("map_executor", "node_executor"):
        pipeline = Pipeline([paint], engine=HyperNodesEngine(**{level: "ray"}), name="shop")
        with pytest.raises(ResourcesError, match="1 CPU, 1 GPU.*largest amounts") as caught:
            pipeline.map({"x": [1, 2]}, "x")
        assert "node 'paint' of pipeline 'shop'" in caught.value.__notes__[0]


# ---------------------------------------------------------------------------------- a raylet dies


@pytest.fixture(scope="module")
def spare():
    """The raylets that earlier tests have started, and perhaps killed."""
    return []


@pytest.fixture
def doomed(workshop, spare):
    """Two further raylets, one of which the test may kill."""
    alive = [raylet for raylet in spare if raylet.all_processes["raylet"][0].process.poll() is None]
    while len(alive) < 2:
        alive.append(workshop.add_node(num_cpus=1, resources={"doomed": 1}, **SMALL_HOST))
    spare[:] = alive
    return alive


def kill(raylet, *workers):
    """Kill the processes of a host."""
    for pid in (raylet.all_processes["raylet"][0].process.pid, *workers):
        os.kill(pid, signal.SIGKILL)


def kill_when_it_works(raylet, directory):
    """Kill a raylet as soon as an item was computed on it."""

    def wait_and_kill():
        until = time.monotonic() + 60
        while not any(directory.glob(f"{raylet.node_id}-*")) and time.monotonic() < until:
            time.sleep(0.005)
        kill(raylet, *(int(path.name.partition("-")[2]) for path in directory.glob(f"{raylet.node_id}-*")))

    thread = threading.Thread(target=wait_and_kill)
    thread.start()
    return thread


def noted(x, directory, seconds):
    """Record on which host this ran."""
    with open(directory / f"{where()}-{os.getpid()}", "a") as file:
        file.write(f"{x}\n")
    time.sleep(seconds)
    return 2 * x


@pytest.mark.timeout(180)
def test_no_item_is_lost_with_a_raylet(workshop, doomed, tmp_path):
    recorder = Recorder()
    with RayExecutor(max_retries=3) as executor:
        pipeline = Pipeline(
            [node(noted, output_name="y")],
            engine=HyperNodesEngine(map_executor=executor),
            callbacks=[recorder],
        )
        killer = kill_when_it_works(doomed[0], tmp_path)
        rows = pipeline.map({"x": list(range(2000)), "directory": tmp_path, "seconds": 0.004}, "x")
        killer.join()
    assert rows == {"y": [2 * x for x in range(2000)]}
    runs = Counter(int(line) for path in tmp_path.iterdir() for line in path.read_text().split())
    assert set(runs) == set(range(2000))
    twice = [x for x, times in runs.items() if times > 1]
    assert len(twice) <= 2000 // 5  # The raylet had one of five workers, which had just begun.
    assert recorder.of("node_retry")
    assert len(recorder.of("map_end")) == 1


@pytest.mark.timeout(180)
def test_a_value_that_was_lost_with_its_raylet_is_computed_again(workshop, doomed):
    @node(output_name="big", resources={"doomed": 0.01})
    def make(n):
        return where(), np.ones(n)

    @node(output_name="size", resources={"doomed": 0.01})
    def size(big):
        return big[1].nbytes

    with HyperNodesEngine(node_executor="ray") as engine:
        pipeline = Pipeline([make, size], engine=engine)
        pipeline.run({"n": 1})

    with RayExecutor(resources={"doomed": 0.01}) as executor:
        made = executor.submit(lambda: (where(), np.ones(300_000)))
        home = executor.submit(lambda big: big[0], made).result()
        kill(next(raylet for raylet in doomed if raylet.node_id == home))
        assert executor.submit(lambda big: big[1].sum(), made).result(timeout=90) == 300_000


@pytest.mark.timeout(180)
def test_finished_rows_are_kept_when_the_only_host_is_gone_for_good(workshop, tmp_path, monkeypatch):
    monkeypatch.setattr(queues, "HOST_TIMEOUT_S", 2.0)
    monkeypatch.setattr(dispatcher, "HOSTS_CHECK_INTERVAL_S", 0.5)
    monkeypatch.setattr(dispatcher, "CONNECTION_CHECK_INTERVAL_S", 0.1)
    only = workshop.add_node(num_cpus=1, resources={"single": 1}, **SMALL_HOST)
    with RayExecutor(1, resources={"single": 1}, max_retries=0, num_cpus=0) as executor:
        pipeline = Pipeline(
            [node(noted, output_name="y")], engine=HyperNodesEngine(map_executor=executor), name="doomed"
        )
        killer = kill_when_it_works(only, tmp_path)
        rows = pipeline.map(
            {"x": list(range(6)), "directory": tmp_path, "seconds": 0.5}, "x", on_error="return"
        )["y"]
        killer.join()
    assert len(rows) == 6
    lost = [row for row in rows if isinstance(row, BaseException)]
    assert all(isinstance(row, WorkerDiedError | ResourcesError) for row in lost)
    assert any(isinstance(row, ResourcesError) for row in lost)
    assert "1 single" in str(next(row for row in lost if isinstance(row, ResourcesError)))


@pytest.mark.timeout(180)
def test_only_the_item_that_is_not_picklable_fails(workshop):
    items = [1, threading.Lock(), 3]
    pipeline = Pipeline([node(lambda x: 2 * x, output_name="y")], engine=HyperNodesEngine(map_executor="ray"))
    rows = pipeline.map({"x": items}, "x", on_error="return")["y"]
    assert rows[::2] == [2, 6]
    assert isinstance(rows[1], TransportError)
