"""One cache for a cluster of several raylets, one of which has the directory."""

import contextlib
import os
import pickle
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import warnings

import pytest
import ray
from clusters import SMALL_HOST, start_cluster
from object_store import proxied_s3

from hypernodes import DiskCache, HyperNodesEngine, Pipeline, RayExecutor, node
from hypernodes.cache import cluster as cluster_module
from hypernodes.exceptions import CacheWarning


@pytest.fixture(scope="module")
def s3():
    with proxied_s3() as proxy:
        yield proxy


@pytest.fixture(scope="module")
def cluster(unconnected, s3, tmp_path_factory):
    """A head that runs nothing but the driver, and a node for the work, with another working directory."""
    made = start_cluster(num_cpus=0, **SMALL_HOST)
    made.disk = tmp_path_factory.mktemp("disk")
    with contextlib.chdir(made.disk):
        made.worker = made.add_node(num_cpus=2, **SMALL_HOST)
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture
def cache(tmp_path):
    with DiskCache(tmp_path / "cache") as cache:
        yield cache


@node(output_name="place")
def place(x):
    return ray.get_runtime_context().get_node_id()


@node(output_name="slow")
def slow(x, seconds=0.05):
    time.sleep(seconds)
    return x * 2


@node(output_name="big")
def big(x):
    return bytes([x % 256]) * 500_000


@node(output_name="end", cache=False)
def end(slow):
    return slow + 1


def actor_of(cache):
    return cluster_module.store_actor(ray.get_runtime_context().get_node_id(), str(cache.path), None, None)


def store_actors():
    """Return the names of the actors of all directories in the cluster."""
    actors = ray.util.list_named_actors(all_namespaces=True)
    return {actor["name"] for actor in actors if actor["namespace"] == "hypernodes"}


@pytest.fixture
def new_actors(cluster):
    """Return the names of the actors that were started since the test began."""
    before = store_actors()
    return lambda: store_actors() - before


def pid_of(actor):
    """Return the process id of an actor."""
    return ray.get(actor.__ray_call__.remote(lambda _: os.getpid()))


@pytest.mark.timeout(180)
def test_entries_travel_between_the_nodes(cluster, new_actors, cache):
    with HyperNodesEngine(map_executor="ray") as engine:
        pipeline = Pipeline([place, slow, end, big], cache=cache, engine=engine)
        first = pipeline.map({"x": range(20)}, map_over="x")
        assert set(first["place"]) == {cluster.worker.node_id}
        assert len(cache) == 60  # The results of the other node are in this directory.
        local = pipeline.with_engine(HyperNodesEngine())
        assert local.map({"x": range(20)}, map_over="x") == first
        assert cache.stats().hits == 60
        # The other node finds results that were computed here. Its items run since `end` is not cached.
        local.map({"x": range(20, 40)}, map_over="x", output_name="slow")
        rows = pipeline.map({"x": range(20, 40)}, map_over="x", output_name="end")
    assert rows == {"end": [2 * x + 1 for x in range(20, 40)]}
    assert cache.stats().by_node["slow"].hits == 40
    assert len(new_actors()) == 1


DRIVER = """
import sys, ray
from hypernodes import DiskCache, HyperNodesEngine, Pipeline
from test_cache_cluster import end, slow
ray.init(address=sys.argv[1], logging_level="error", log_to_driver=False)
with HyperNodesEngine(map_executor="ray") as engine, DiskCache(sys.argv[2]) as cache:
    pipeline = Pipeline([slow, end], cache=cache, engine=engine)
    print(pipeline.map({"x": range(20)}, map_over="x", output_name="end")["end"] == list(range(1, 41, 2)))
"""


@pytest.mark.timeout(180)
def test_several_drivers_share_entries_and_actor(cluster, new_actors, cache):
    command = [sys.executable, "-c", DRIVER, cluster.address, str(cache.path)]
    another = subprocess.run(command, check=True, capture_output=True, text=True)
    assert another.stdout == "True\n"
    assert len(cache) == 20
    home = ray.get_runtime_context().get_node_id()
    (actor,) = new_actors()
    handle = ray.get_actor(actor, namespace="hypernodes")
    assert ray.get(handle.__ray_call__.remote(lambda _: ray.get_runtime_context().get_node_id())) == home
    with HyperNodesEngine(map_executor="ray") as engine:  # This process is a driver, too.
        pipeline = Pipeline([slow, end], cache=cache, engine=engine)
        found = pipeline.map({"x": range(20)}, map_over="x", output_name="end")
    assert found == {"end": [2 * x + 1 for x in range(20)]}
    assert cache.stats().by_node["slow"].hits == 20
    assert new_actors() == {actor}


@pytest.mark.timeout(180)
def test_killing_the_actor_during_a_map_loses_no_result(cluster, cache):
    with HyperNodesEngine(map_executor="ray") as engine:
        pipeline = Pipeline([slow], cache=cache, engine=engine)
        pipeline.map({"x": range(10)}, map_over="x")
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(1) as pool:
            under_way = pool.submit(pipeline.map, {"x": range(100)}, "x")
            time.sleep(0.7)
            pid = pid_of(actor_of(cache))
            os.kill(pid, signal.SIGKILL)
            assert under_way.result() == {"slow": [2 * x for x in range(100)]}
        assert pipeline.map({"x": range(120)}, map_over="x") == {"slow": [2 * x for x in range(120)]}
        assert pid_of(actor_of(cache)) != pid
        assert cache.verify().damaged == {}


@pytest.mark.timeout(180)
def test_a_directory_on_a_node_that_is_gone_has_no_entries(cluster, tmp_path):
    gone = cluster.add_node(num_cpus=1, resources={"gone": 1}, **SMALL_HOST)

    @ray.remote(resources={"gone": 1}, num_cpus=1)
    def opened(path):
        cache = DiskCache(path)
        cache.put("known", 1)
        cache.flush()
        return pickle.dumps(cache)

    far = pickle.loads(ray.get(opened.remote(str(tmp_path / "far"))))
    assert far.get("known") == 1  # This goes through an actor on that node.
    far.close()
    cluster.remove_node(gone)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pipeline = Pipeline([slow], cache=far)
        assert pipeline.map({"x": range(5)}, map_over="x") == {"slow": [0, 2, 4, 6, 8]}
        assert pipeline.map({"x": range(5)}, map_over="x") == {"slow": [0, 2, 4, 6, 8]}
    assert [warning.category for warning in caught] == [CacheWarning]
    assert "does not answer" in str(caught[0].message)


@pytest.mark.timeout(180)
def test_sealed_entries_travel_between_the_nodes(cluster, tmp_path):
    with DiskCache(tmp_path / "cache", key="secret") as cache, HyperNodesEngine(map_executor="ray") as engine:
        pipeline = Pipeline([slow], cache=cache, engine=engine)
        pipeline.map({"x": range(10)}, map_over="x")
        assert len(cache) == 10
        assert cache.verify().damaged == {}
        assert len(DiskCache(tmp_path / "cache", key="another").verify().damaged) == 10


@pytest.mark.timeout(180)
def test_forged_rows_are_damaged_entries_on_all_nodes(cluster, cache, tmp_path):
    mark, outside = tmp_path / "code was run", tmp_path / "outside"
    outside.write_text("mine")

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(mark),)

    for key in "abcd":
        cache.put(key, key)
    cache.flush()
    forged = [(pickle.dumps(Evil()), 4, None, "a"), (None, 2, "../outside", "b"), (7, 1, None, "c")]
    with contextlib.closing(sqlite3.connect(cache.path / "cache.db")) as database, database:
        database.executemany("UPDATE Cache SET value = ?, mode = ?, filename = ? WHERE key = ?", forged)

    @ray.remote
    def look(cache):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = cache.get_many("abcd")
            damaged = cache.verify().damaged
            cache.put("b", "again")
            cache.flush()
        return found, damaged, len(caught)

    found, damaged, warned = ray.get(
        look.remote(cache)
    )  # This goes through the actor, which drops the damaged entries.
    assert (found, damaged, warned) == ({"d": "d"}, {}, 1)
    assert cache.get_many("abcd") == {"b": "again", "d": "d"}
    assert pid_of(actor_of(cache))
    assert not mark.exists()
    assert outside.read_text() == "mine"


# Workers warn by the filters of the driver, and tests make errors of warnings.
warns_in_workers = pytest.mark.filterwarnings("ignore::hypernodes.exceptions.CacheWarning")


@warns_in_workers
@pytest.mark.timeout(180)
def test_a_value_above_the_size_limit_is_not_stored_on_another_node(cluster, tmp_path):
    with (
        DiskCache(tmp_path / "cache", size_limit=400_000) as cache,
        HyperNodesEngine(map_executor="ray") as engine,
    ):
        pipeline = Pipeline([slow, big], cache=cache, engine=engine)
        pipeline.map({"x": range(10)}, map_over="x")
        assert {entry.node for entry in cache.entries()} == {"slow"}
        assert len(cache) == 10


def shorten_call_timeout():
    cluster_module._CALL_TIMEOUT_S = 1.0


@warns_in_workers
@pytest.mark.timeout(240)
def test_an_actor_that_does_not_answer_loses_no_result(cluster, cache):
    with RayExecutor(2, initializer=shorten_call_timeout) as executor:
        pipeline = Pipeline([slow], cache=cache, engine=HyperNodesEngine(map_executor=executor))
        pipeline.map({"x": range(4)}, map_over="x")
        pid = pid_of(actor_of(cache))
        os.kill(pid, signal.SIGSTOP)
        try:
            rows = pipeline.map({"x": range(4, 30)}, map_over="x")
        finally:
            os.kill(pid, signal.SIGCONT)
    assert rows == {"slow": [2 * x for x in range(4, 30)]}


@pytest.mark.timeout(240)
def test_hosts_with_disks_of_their_own_share_a_bucket(cluster, new_actors, s3, tmp_path, monkeypatch):
    path, worker_path = "/proc/self/cwd/cache", cluster.disk / "cache"  # another directory on each host
    (tmp_path / "driver").mkdir()
    monkeypatch.chdir(tmp_path / "driver")
    rows = {"slow": [2 * x for x in range(60)]}

    def run():
        with (
            DiskCache(path, remote="s3://bucket/cluster") as cache,
            HyperNodesEngine(map_executor="ray") as engine,
        ):
            return Pipeline([slow], cache=cache, engine=engine).map({"x": range(60)}, map_over="x")

    s3.take()
    assert run() == rows
    assert len(DiskCache(worker_path)) == 60
    assert sum(method == "PUT" for method, *_ in s3.take()) < 6
    assert len(DiskCache(path)) == 0
    shutil.rmtree(worker_path)
    shutil.rmtree("cache")
    assert run() == rows
    assert len(DiskCache(path)) == 60
    assert not worker_path.exists()  # Nothing was computed.
    assert len(s3.take()) < 10
    assert new_actors() == set()
