"""Equal calls are made once: in one map, and in concurrent runs."""

import asyncio
import pickle
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import Recorder

from hypernodes import AsyncExecutor, DaftEngine, DiskCache, HyperNodesEngine, Pipeline, node
from hypernodes.config import MISS
from hypernodes.execution.scheduler import item_lookup, state


@pytest.fixture
def cache(tmp_path):
    with DiskCache(tmp_path / "cache") as cache:
        yield cache


class Counted:
    """A slow function that writes its arguments to a file, in any process."""

    def __init__(self, directory):
        self._file = directory / "calls"

    def __call__(self, x):
        with self._file.open("a") as file:
            file.write(f"{x}\n")
        time.sleep(0.05)
        if x == "bad":
            raise ValueError(x)
        return [x]

    def __cache_key__(self):
        return "counted"

    @property
    def calls(self):
        return Counter(self._file.read_text().split() if self._file.exists() else ())


@pytest.fixture
def counted(tmp_path):
    return Counted(tmp_path)


EXECUTORS = ["sequential", "async", "threaded", "parallel", "ray"]


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("level", ["map_executor", "node_executor"])
def test_equal_items_of_a_map_are_computed_once(level, executor, executor_named, counted, cache):
    with HyperNodesEngine(**{level: executor_named(executor)}) as engine:
        pipeline = Pipeline([node(counted, output_name="y")], engine=engine, cache=cache)
        rows = pipeline.map({"x": ["a", "b", "a", "a", "c", "b", "a"]}, map_over="x")["y"]
    assert rows == [["a"], ["b"], ["a"], ["a"], ["c"], ["b"], ["a"]]
    assert counted.calls == {"a": 1, "b": 1, "c": 1}


@pytest.mark.parametrize("executor", EXECUTORS)
def test_equal_items_are_emitted_as_cached_on_every_executor(executor, executor_named, counted, cache):
    recorder = Recorder()
    with HyperNodesEngine(map_executor=executor_named(executor)) as engine:
        pipeline = Pipeline(
            [node(counted, output_name="y")], engine=engine, cache=cache, callbacks=[recorder]
        )
        pipeline.map({"x": ["a", "a", "a"]}, map_over="x")
    emitted = Counter(hook for hook, *_ in recorder.events)
    assert emitted["node_end"] == 1
    assert emitted["node_cached"] == emitted["item_cached"] == 2
    assert emitted["item_start"] == emitted["item_end"] == 3


def test_rows_of_equal_items_are_objects_of_their_own(counted, cache):
    pipeline = Pipeline([node(counted, output_name="y")], cache=cache)
    for _ in range(2):
        rows = pipeline.map({"x": ["a", "a"]}, map_over="x")["y"]
        rows[0].append("changed")
        assert rows[1] == ["a"]


@pytest.mark.parametrize("executor", ["threaded", "async"])
def test_a_node_that_all_items_share_is_computed_once(executor, counted, cache):
    @node(output_name="z")
    def paired(y, n):
        return (y[0], n)

    with HyperNodesEngine(map_executor=executor) as engine:
        pipeline = Pipeline([node(counted, output_name="y"), paired], engine=engine, cache=cache)
        rows = pipeline.map({"x": "a", "n": [1, 2, 3, 4]}, map_over="n", output_name="z")["z"]
    assert rows == [("a", 1), ("a", 2), ("a", 3), ("a", 4)]
    assert counted.calls == {"a": 1}


def test_coroutines_of_equal_nodes_run_once(cache):
    calls = []

    @node(output_name="y")
    async def fetched(x):
        calls.append(x)
        await asyncio.sleep(0.05)
        return x

    @node(output_name="z")
    async def paired(y, n):
        return (y, n)

    with AsyncExecutor(5) as executor:
        engine = HyperNodesEngine(map_executor=executor)
        pipeline = Pipeline([fetched, paired], engine=engine, cache=cache)
        rows = pipeline.map({"x": "a", "n": [1, 2, 3, 4]}, map_over="n", output_name="z")["z"]
    assert rows == [("a", 1), ("a", 2), ("a", 3), ("a", 4)]
    assert calls == ["a"]


def test_concurrent_runs_compute_once(counted, cache):
    pipeline = Pipeline([node(counted, output_name="y")], cache=cache)
    with ThreadPoolExecutor(8) as pool:
        results = [future.result() for future in [pool.submit(pipeline, x="a") for _ in range(8)]]
    assert results == [{"y": ["a"]}] * 8
    assert counted.calls == {"a": 1}


def test_runs_with_different_caches_do_not_wait_for_each_other(counted, tmp_path):
    pipelines = [
        Pipeline([node(counted, output_name="y")], cache=DiskCache(tmp_path / name)) for name in "ab"
    ]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda pipeline: pipeline(x="a"), pipelines)) == [{"y": ["a"]}] * 2
    assert counted.calls == {"a": 2}


def test_several_arun_compute_once(counted, cache):
    pipeline = Pipeline([node(counted, output_name="y")], cache=cache)

    async def main():
        return await asyncio.gather(*(pipeline.arun({"x": "a"}) for _ in range(4)))

    assert asyncio.run(main()) == [{"y": ["a"]}] * 4
    assert counted.calls == {"a": 1}


@pytest.mark.parametrize("executor", ["threaded", "parallel"])
def test_an_error_is_not_shared_by_equal_items(executor, executor_named, counted, cache):
    with HyperNodesEngine(map_executor=executor_named(executor)) as engine:
        pipeline = Pipeline([node(counted, output_name="y")], engine=engine, cache=cache)
        rows = pipeline.map({"x": ["bad", "a", "bad", "a"]}, map_over="x", on_error="return")["y"]
    assert [rows[1], rows[3]] == [["a"], ["a"]]
    assert [str(rows[0]), str(rows[2])] == ["bad", "bad"]
    assert counted.calls == {"a": 1, "bad": 2}


@pytest.mark.filterwarnings("ignore:cache:hypernodes.exceptions.CacheWarning")
def test_results_that_cannot_be_cached_are_computed_for_each_item(cache):
    calls = []

    @node(output_name="y")
    def opened(x):
        calls.append(x)
        return threading.Lock()

    with HyperNodesEngine(map_executor="threaded") as engine:
        pipeline = Pipeline([opened], engine=engine, cache=cache)
        rows = pipeline.map({"x": [1] * 5}, map_over="x")["y"]
    assert len({id(row) for row in rows}) == 5
    assert len(calls) == 5


def test_a_run_inside_a_call_does_not_wait_for_other_runs(cache):
    """If it did wait, the only thread of the pool would wait for a call that is queued behind it."""
    with ThreadPoolExecutor(1) as pool:
        engine = HyperNodesEngine(node_executor=pool)

        @node(output_name="y")
        def slow(x):
            time.sleep(0.02)
            return x

        inner = Pipeline([slow], cache=cache, engine=engine)

        @node(output_name="z")
        def outer_call(x):
            time.sleep(0.05)
            return inner(x=x)["y"]

        outer = Pipeline([outer_call, slow], cache=cache, engine=engine)
        with ThreadPoolExecutor(4) as users:
            results = list(users.map(lambda _: outer(x=1), range(4)))
    assert results == [{"z": 1, "y": 1}] * 4


def test_another_run_takes_over_an_interrupted_computation(cache):
    started, calls = threading.Event(), []

    @node(output_name="y")
    def slow(x):
        calls.append(x)
        started.set()
        if len(calls) == 1:
            time.sleep(0.1)
            raise KeyboardInterrupt
        return x

    pipeline = Pipeline([slow], cache=cache)

    def first():
        with pytest.raises(KeyboardInterrupt):
            pipeline(x=1)

    thread = threading.Thread(target=first)
    thread.start()
    started.wait()
    assert pipeline(x=1) == {"y": 1}
    thread.join()
    assert calls == [1, 1]


# --------------------------------------------------------------- many threads, quick calls, one store


class Quick:
    """A function, and a batch function, that remember their arguments."""

    def __init__(self):
        self.calls = []

    def __call__(self, x):
        self.calls.append(x)
        if x == "bad":
            raise ValueError(x)
        return x + 1

    def of_many(self, x):
        self.calls.extend(x.to_pylist())
        return [value + 1 for value in x.to_pylist()]

    def __cache_key__(self):
        return "quick"


class InMemory:
    """A cache of the user's own, with `get` and `put` only."""

    def __init__(self):
        self.entries = {}

    def get(self, signature):
        return self.entries.get(signature, MISS)

    def put(self, signature, value):
        self.entries[signature] = value


def one_cache_object(directory):
    return [DiskCache(directory)]


def two_cache_objects(directory):
    return [DiskCache(directory), DiskCache(directory)]


def cache_objects_with_other_settings_and_paths(directory):
    directory.mkdir()
    link = directory.with_name("link")
    link.symlink_to(directory)
    return [DiskCache(link), DiskCache(directory, size_limit=1 << 30), DiskCache(directory, expire=3600)]


def a_cache_of_the_users_own(directory):
    return [InMemory()] * 2


def by_run(pipeline, x):
    return pipeline.run({"x": x})["y"]


def by_arun(pipeline, x):
    return asyncio.run(pipeline.arun({"x": x}))["y"]


def by_map(pipeline, x):
    return pipeline.map({"x": [x]}, map_over="x")["y"][0]


STORES = (
    one_cache_object,
    two_cache_objects,
    cache_objects_with_other_settings_and_paths,
    a_cache_of_the_users_own,
)
WAYS = {"run": [by_run], "arun": [by_arun], "map": [by_map], "all": [by_run, by_arun, by_map]}
# Whatever the store is, it is the same code that waits: each way by itself has one of each kind.
KINDS = (two_cache_objects, a_cache_of_the_users_own)


@pytest.mark.parametrize(
    ("ways", "stores"),
    [
        pytest.param(ways, stores, id=f"{name}-{stores.__name__}")
        for name, ways in WAYS.items()
        for stores in (STORES if name == "all" else KINDS)
    ],
)
def test_many_threads_make_quick_calls_once(ways, stores, tmp_path):
    quick, threads = Quick(), 12
    pipelines = [Pipeline([node(quick, output_name="y")], cache=cache) for cache in stores(tmp_path / "c")]
    ready = threading.Barrier(threads)

    def work(number):
        pipeline, way = pipelines[number % len(pipelines)], ways[number % len(ways)]
        ready.wait()
        return [way(pipeline, x) for x in range(15)]

    with ThreadPoolExecutor(threads) as pool:
        assert list(pool.map(work, range(threads))) == [list(range(1, 16))] * threads
    assert Counter(quick.calls) == dict.fromkeys(range(15), 1)


@pytest.mark.parametrize("executor", ["threaded", "async"])
def test_maps_over_quick_items_compute_each_once(executor, tmp_path):
    threads = 6
    for number, quick in enumerate([Quick(), Quick()]):
        batch = quick.of_many if number else None
        ready = threading.Barrier(threads)

        def work(_, number=number, quick=quick, batch=batch, ready=ready):
            with HyperNodesEngine(map_executor=executor) as engine, DiskCache(tmp_path / f"{number}") as own:
                pipeline = Pipeline([node(quick, output_name="y", batch=batch)], engine=engine, cache=own)
                ready.wait()
                return pipeline.map({"x": range(50)}, map_over="x")["y"]

        with ThreadPoolExecutor(threads) as pool:
            assert list(pool.map(work, range(threads))) == [list(range(1, 51))] * threads
        assert Counter(quick.calls) == dict.fromkeys(range(50), 1)


def test_queries_of_daft_compute_each_item_once(tmp_path):
    quick = Quick()

    def work(_):
        engine = DaftEngine(runner="native")
        pipeline = Pipeline([node(quick, output_name="y")], engine=engine, cache=DiskCache(tmp_path / "c"))
        return pipeline.map({"x": range(30)}, map_over="x")["y"]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == [list(range(1, 31))] * 4
    assert Counter(quick.calls) == dict.fromkeys(range(30), 1)


def test_a_call_that_fails_is_made_again_by_every_thread_and_poisons_nothing(tmp_path):
    quick = Quick()
    pipelines = [
        Pipeline([node(quick, output_name="y")], cache=cache) for cache in two_cache_objects(tmp_path / "c")
    ]
    ready = threading.Barrier(8)

    def work(number):
        ready.wait()
        rows = pipelines[number % 2].map({"x": [0, 1, "bad", 2]}, map_over="x", on_error="return")["y"]
        return [str(row) for row in rows]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == [["1", "2", "bad", "3"]] * 8
    assert Counter(quick.calls) == {0: 1, 1: 1, "bad": 8, 2: 1}


def test_a_run_finds_what_another_cache_object_has_not_written_yet(tmp_path):
    """The second run begins when the first one has ended with its last call."""
    quick = Quick()
    first, second = (
        Pipeline([node(quick, output_name="y")], cache=cache) for cache in two_cache_objects(tmp_path / "c")
    )
    for x in range(30):
        assert first(x=x) == second(x=x)
    assert Counter(quick.calls) == dict.fromkeys(range(30), 1)


def test_a_cache_and_its_copy_of_another_process_compute_once(ray_cluster, tmp_path):
    """With Ray, a pickled cache names the node that has the directory."""
    quick, original = Quick(), DiskCache(tmp_path / "cache")
    caches = [original, pickle.loads(pickle.dumps(original))]
    assert caches[1] is not original
    pipelines = [Pipeline([node(quick, output_name="y")], cache=cache) for cache in caches] * 4
    ready = threading.Barrier(len(pipelines))

    def work(pipeline):
        ready.wait()
        return [by_run(pipeline, x) for x in range(30)]

    with ThreadPoolExecutor(len(pipelines)) as pool:
        assert list(pool.map(work, pipelines)) == [list(range(1, 31))] * len(pipelines)
    assert Counter(quick.calls) == dict.fromkeys(range(30), 1)


class PausedAtFlush(DiskCache):
    """A cache whose `flush` tells that it was reached, and waits, once."""

    def __init__(self, directory):
        super().__init__(directory)
        self.reached, self.goes_on = threading.Event(), threading.Event()

    def flush(self):
        if not self.reached.is_set():
            self.reached.set()
            assert self.goes_on.wait(30)
        super().flush()


def test_what_a_run_has_put_is_found_when_runs_end_at_the_same_time(tmp_path):
    """The second run begins and ends while the first one ends, and has not written its last result yet."""
    quick, directory = Quick(), tmp_path / "c"
    caches = PausedAtFlush(directory), PausedAtFlush(directory), DiskCache(directory)
    first, second, third = (Pipeline([node(quick, output_name="y")], cache=cache) for cache in caches)
    third(x=0)  # A first run takes longer, and results are written after 50 ms in any case.
    with ThreadPoolExecutor(2) as pool:
        ending = [pool.submit(first, x=1)]
        assert caches[0].reached.wait(30)
        ending.append(pool.submit(second, x=2))
        assert caches[1].reached.wait(30)
        caches[0].goes_on.set()
        assert ending[0].result(30) == {"y": 2}
        assert third(x=2) == {"y": 3}
        caches[1].goes_on.set()
        assert ending[1].result(30) == {"y": 3}
    assert Counter(quick.calls) == {0: 1, 1: 1, 2: 1}


class PausedAtGet(InMemory):
    """A cache of the user's own that returns what it has read only later, once, in one thread."""

    def __init__(self):
        super().__init__()
        self.paused_thread, self.look_ups = None, 0
        self.is_paused, self.goes_on = threading.Event(), threading.Event()

    def get(self, signature):
        found = super().get(signature)
        if threading.current_thread() is self.paused_thread:
            self.look_ups += 1
            if self.look_ups == 2:
                self.is_paused.set()
                assert self.goes_on.wait(30)
        return found


def test_a_call_that_failed_is_made_once_more_by_all_that_have_waited_for_it(tmp_path):
    """One thread looks the call up before another one has made it again, and goes on afterwards."""
    cache, calls = PausedAtGet(), []
    has_begun, fails = threading.Event(), threading.Event()

    @node(output_name="y")
    def unreliable(x):
        calls.append(x)
        if len(calls) == 1:
            has_begun.set()
            assert fails.wait(30)
            raise ValueError(x)
        return x

    pipeline = Pipeline([unreliable], cache=cache)

    def wait_for_first():
        cache.paused_thread = threading.current_thread()
        return pipeline(x=1)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(pipeline, x=1)
        assert has_begun.wait(30)
        waiting = pool.submit(wait_for_first)
        time.sleep(0.1)  # until it waits for the first call
        fails.set()
        with pytest.raises(ValueError, match="1"):
            first.result(30)
        assert cache.is_paused.wait(30)
        assert pipeline(x=1) == {"y": 1}
        cache.goes_on.set()
        assert waiting.result(30) == {"y": 1}
    assert calls == [1, 1]


class AskedCache(DiskCache):
    """Notes how many signatures are looked up at a time."""

    def __init__(self, path):
        super().__init__(path)
        self.asked = []

    def get(self, signature):
        self.asked.append(1)
        return super().get(signature)

    def get_many(self, signatures):
        signatures = list(signatures)
        self.asked.append(len(signatures))
        return super().get_many(signatures)


@pytest.mark.parametrize(("seconds", "again"), [(60.0, 0), (0.0, 6)])
def test_what_a_look_up_has_not_found_is_looked_up_again_only_after_a_while(
    tmp_path, monkeypatch, seconds, again
):
    monkeypatch.setattr(state, "ABSENT_S", seconds)
    with AskedCache(tmp_path / "cache") as cache:
        nodes = [node(lambda x: x + 1, output_name="y"), node(lambda y: y + 1, output_name="z")]
        assert Pipeline(nodes, cache=cache).map({"x": range(3)}, "x")["z"] == [2, 3, 4]
    assert sum(cache.asked) == 6 + again  # both nodes of each item


def test_items_are_looked_up_in_blocks_that_grow(tmp_path, monkeypatch):
    monkeypatch.setattr(item_lookup, "LOOK_UP_S", 60.0)
    with AskedCache(tmp_path / "cache") as cache:
        pipeline = Pipeline([node(lambda x: x + 1, output_name="y")], cache=cache)
        wanted = pipeline.map({"x": range(1000)}, "x")
        cache.asked.clear()
        assert pipeline.map({"x": range(1000)}, "x") == wanted
    assert cache.asked == [32, 64, 128, 256, 512, 8]
