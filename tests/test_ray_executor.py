"""RayExecutor without pipelines: futures as arguments, remote values, resources, initializers, nested use."""

import asyncio
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    as_completed,
    wait,
)

import numpy as np
import pytest

from hypernodes import AsyncExecutor, ParallelExecutor, RayExecutor
from hypernodes.exceptions import (
    ClusterConnectionError,
    InitializerError,
    ResourcesError,
    TransportError,
    UnpackError,
    WorkerDiedError,
)
from hypernodes.serialization.remote import RemoteValue

ROWS = 200_000  # An array of so many floats stays in the object store.


@pytest.fixture(scope="module")
def executor(ray_cluster):
    with RayExecutor() as executor:
        yield executor


def ones(n=ROWS):
    return np.ones(n)


# ------------------------------------------------------------------------------ futures as arguments


def test_a_future_as_an_argument_stands_for_its_value(executor):
    three = executor.submit(sum, [1, 2])
    assert executor.submit(pow, three, three).result() == 27
    assert executor.submit(lambda *, by: by, by=three).result() == 3


def test_futures_are_found_at_any_depth(executor):
    two, big = executor.submit(abs, -2), executor.submit(ones)
    total = executor.submit(lambda d: d["list"][0] + d["list"][1][0].sum(), {"list": [two, (big,)]})
    assert total.result() == 2 + ROWS


def test_a_large_result_goes_from_worker_to_worker(executor):
    made = executor.submit(ones)
    assert executor.submit(lambda a: float(a.sum()), made).result() == ROWS
    assert made.done()
    assert made._resolved is None  # The driver has not fetched it.
    assert made.result().sum() == ROWS  # The driver can fetch it as well.


def test_each_call_gets_its_own_copy_of_an_argument(executor):
    made = executor.submit(ones)

    def change(a):
        a += 1
        return float(a[0])

    assert [executor.submit(change, made).result() for _ in range(2)] == [2.0, 2.0]
    here = made.result()
    here += 1
    assert executor.submit(change, made).result() == 2.0


def test_a_chain_of_futures_does_not_block_the_workers(executor):
    with RayExecutor(max_workers=1) as single:
        future = single.submit(abs, -1)
        for _ in range(20):
            future = single.submit(lambda n: n + 1, future)
        assert future.result(timeout=60) == 21


def test_a_future_of_another_executor_stands_for_its_value(executor):
    with ThreadPoolExecutor(1) as threads:
        late = threads.submit(lambda: time.sleep(0.2) or 5)
        assert executor.submit(abs, late).result() == 5


def test_an_error_of_an_argument_is_the_error_of_the_call(executor):
    failing = executor.submit(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        executor.submit(abs, failing).result()
    with RayExecutor(1) as single:
        blocking = single.submit(time.sleep, 0.5)
        cancelled = single.submit(abs, -1)
        follower = single.submit(abs, cancelled)
        assert cancelled.cancel()
        assert isinstance(follower.exception(timeout=30), CancelledError)
        blocking.result()


def test_separate_results_are_values_or_remote_values(executor):
    from hypernodes.serialization.remote import SeparateResults

    future = executor.submit_separate(
        lambda: SeparateResults(("note", ones(), 3), ("", "ndarray", "int")), returns=2
    )
    note, large, small = future.result()
    assert (note, small) == ("note", 3)
    assert isinstance(large, RemoteValue)
    assert large.kind == "ndarray"
    assert "1,600," in repr(large)
    assert executor.submit(lambda a: a.shape, large).result() == (ROWS,)
    assert large.get().shape == (ROWS,)


def test_object_refs_are_passed_as_they_are(executor, ray_cluster):
    ref = ray_cluster.put(41)

    def use(refs):
        import ray

        return ray.get(refs[0]) + 1

    assert executor.submit(use, [ref]).result() == 42
    assert ray_cluster.get(executor.submit(lambda r: r, ref).result()) == 41


# --------------------------------------------------------------------------------- map


def test_map_in_chunks_and_with_a_buffer(executor):
    assert list(executor.map(pow, range(10), [2] * 10, chunksize=3)) == [n * n for n in range(10)]
    drawn = []

    def source():
        for n in range(100):
            drawn.append(n)
            yield n

    results = executor.map(abs, source(), buffersize=4)
    assert len(drawn) == 4
    assert next(results) == 0
    assert len(drawn) <= 6
    assert list(results) == list(range(1, 100))
    for bad in ({"chunksize": 0}, {"buffersize": 0}):
        with pytest.raises(ValueError, match="size must be"):
            executor.map(abs, [1], **bad)
    with pytest.raises(TypeError):
        executor.map(abs, [1], buffersize=1.5)


def test_map_has_a_timeout(executor):
    results = executor.map(time.sleep, [0, 5], timeout=2)
    next(results)
    with pytest.raises(TimeoutError):
        next(results)


def test_a_large_function_is_sent_once(executor):
    table = np.arange(500_000)

    def look_up(n):
        return int(table[n])

    assert list(executor.map(look_up, range(50))) == list(range(50))


# ------------------------------------------------------------------------- workers and their set-up


def test_an_initializer_runs_once_in_each_worker(ray_cluster, tmp_path):
    def begin(directory):
        (directory / f"{os.getpid()}-{time.time_ns()}").touch()

    with RayExecutor(2, initializer=begin, initargs=(tmp_path,)) as executor:
        pids = set(executor.map(lambda _: time.sleep(0.02) or os.getpid(), range(20)))
    assert {int(path.name.partition("-")[0]) for path in tmp_path.iterdir()} == pids
    assert len(list(tmp_path.iterdir())) == len(pids)


def test_a_failing_initializer_breaks_the_executor(ray_cluster):
    def fail():
        raise RuntimeError("no licence")

    executor = RayExecutor(1, initializer=fail)
    futures = [executor.submit(abs, -1) for _ in range(3)]
    for future in futures:
        with pytest.raises(InitializerError, match="no licence") as caught:
            future.result()
        assert isinstance(caught.value.__cause__, RuntimeError)
    with pytest.raises(BrokenExecutor):
        executor.submit(abs, -1)
    executor.shutdown()


def test_workers_that_die_are_replaced_and_counted(ray_cluster, tmp_path):
    def die_once(path):
        if not path.exists():
            path.touch()
            os._exit(1)
        return "survived"

    with RayExecutor(2, max_retries=2) as executor:
        future = executor.submit(die_once, tmp_path / "died")
        assert future.result() == "survived"
        assert future.attempts == 2
        fatal = executor.submit(os._exit, 1)
        assert isinstance(fatal.exception(), WorkerDiedError)
        assert "3 times in a row" in str(fatal.exception())
        assert executor.submit(abs, -1).result() == 1


def end_once(marks, swallow=False):
    """Send SIGTERM to this process, as draining a host does, unless that was done before."""
    try:
        (marks / "ended").touch(exist_ok=False)
    except FileExistsError:
        return "done"
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    except SystemExit:
        if not swallow:
            raise
    return "went on"


class EndsOnArrival:
    def __init__(self, marks):
        self.marks = marks

    def __reduce__(self):
        return end_once, (self.marks,)


class EndsOnLeaving(EndsOnArrival):
    def __reduce__(self):
        return str, (end_once(self.marks),)


SIGTERMS = {
    "in the call": lambda executor, marks: executor.submit(end_once, marks),
    "in the call, which goes on": lambda executor, marks: executor.submit(end_once, marks, swallow=True),
    "unpickling": lambda executor, marks: executor.submit(lambda arrived: arrived, EndsOnArrival(marks)),
    "pickling": lambda executor, marks: executor.submit(lambda: EndsOnLeaving(marks)),
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("when", SIGTERMS)
def test_a_worker_that_receives_sigterm_counts_as_dead(ray_cluster, tmp_path, when):
    with RayExecutor(1) as executor:
        assert SIGTERMS[when](executor, tmp_path).result() == "done"
    (tmp_path / "ended").unlink()
    with RayExecutor(1, max_retries=0) as executor:
        assert isinstance(SIGTERMS[when](executor, tmp_path).exception(), WorkerDiedError)
        assert executor.submit(abs, -1).result() == 1


@pytest.mark.timeout(120)
def test_a_worker_that_receives_sigterm_in_the_initializer_counts_as_dead(ray_cluster, tmp_path):
    with RayExecutor(1, initializer=end_once, initargs=(tmp_path,)) as executor:
        assert executor.submit(abs, -1).result() == 1


def test_a_call_that_raises_system_exit_fails_with_it(executor):
    assert executor.submit(sys.exit, 3).exception().code == 3


def test_a_running_call_can_be_killed(ray_cluster):
    with RayExecutor(1) as executor:
        future = executor.submit(time.sleep, 60)
        assert executor.submit(abs, -1).cancel()
        while not future.running():
            time.sleep(0.01)
        time.sleep(0.5)
        assert executor.kill(future)
        assert isinstance(future.exception(timeout=30), WorkerDiedError)
        assert not executor.kill(future)


# ------------------------------------------------------------------------------------- resources


def test_resources_that_no_host_has_are_an_error_with_the_largest_amounts(ray_cluster):
    with RayExecutor(num_cpus=64) as executor, pytest.raises(ResourcesError, match="64 CPU.*2 CPU, 0 GPU"):
        executor.submit(abs, -1)
    with (
        RayExecutor(resources={"licence": 1}) as executor,
        pytest.raises(ResourcesError, match="1 licence.*0 licence"),
    ):
        executor.submit(abs, -1)


def test_on_a_cluster_that_grows_a_call_waits_for_resources(ray_cluster):
    executor = RayExecutor(num_gpus=1, autoscaling=True)
    future = executor.submit(abs, -1)
    time.sleep(0.5)
    assert not future.done()
    executor.terminate()
    assert isinstance(future.exception(timeout=30), WorkerDiedError)


@pytest.mark.parametrize("wrong", [{"num_cpus": -1}, {"memory": "1 GB"}, {"resources": {"a": True}}])
def test_amounts_are_checked(wrong):
    with pytest.raises(ValueError, match="must be a number of 0 or more"):
        RayExecutor(**wrong)


def test_max_workers_follows_from_the_resources_of_a_call(ray_cluster):
    with RayExecutor() as whole, RayExecutor(num_cpus=2) as half:
        assert (whole.max_workers, half.max_workers) == (2, 1)


# ------------------------------------------------------------------------------------ nested use


def use_nested(n):
    """Wait in every way of the standard library, for more calls than there are CPUs."""
    with RayExecutor(2) as inner:
        futures = [inner.submit(pow, n, k) for k in range(3)]
        wait(futures)
        late = [inner.submit(lambda k: time.sleep(0.05) or k, k) for k in range(3)]
        completed = sorted(future.result() for future in as_completed(late))
        return [future.result() for future in futures], completed, list(inner.map(abs, [-1, 1]))


@pytest.mark.timeout(120)
def test_tasks_that_wait_for_tasks_hold_no_cpu(executor):
    futures = [executor.submit(use_nested, n) for n in (2, 3)]  # The two calls hold all CPUs.
    assert [future.result(timeout=90) for future in futures] == [
        ([1, 2, 4], [0, 1, 2], [1, 1]),
        ([1, 3, 9], [0, 1, 2], [1, 1]),
    ]


@pytest.mark.timeout(120)
def test_actors_that_hold_all_cpus_lend_them(ray_cluster):
    @ray_cluster.remote(num_cpus=1)
    class Worker:
        def work(self, n):
            return use_nested(n)

    workers = [Worker.remote() for _ in range(2)]
    results = ray_cluster.get([worker.work.remote(2) for worker in workers], timeout=90)
    assert results == [([1, 2, 4], [0, 1, 2], [1, 1])] * 2
    for worker in workers:
        ray_cluster.kill(worker)


@pytest.mark.timeout(120)
def test_executors_nest_three_levels_deep(executor):
    def deep(level):
        if not level:
            return 1
        with RayExecutor(2) as inner:
            return sum(inner.map(deep, [level - 1] * 2))

    assert executor.submit(deep, 2).result(timeout=90) == 4


def test_it_is_pickled_as_its_arguments(ray_cluster):
    executor = pickle.loads(pickle.dumps(RayExecutor(1, max_retries=0)))
    with executor:
        assert executor.max_workers == 1
        assert executor.max_retries == 0
        assert executor.submit(abs, -1).result() == 1


# ------------------------------------------------------------------------------- what goes wrong


class Explosive:
    """Cannot be unpickled."""

    def __reduce__(self):
        return int, ("no number",)


def test_a_call_that_cannot_be_unpickled_fails_its_own_future(executor):
    assert isinstance(executor.submit(id, Explosive()).exception(), UnpackError)
    assert isinstance(executor.submit(Explosive).exception(), UnpackError)
    assert executor.submit(abs, -1).result() == 1


def test_the_part_that_cannot_be_pickled_is_named(executor):
    class Session:
        def __init__(self):
            self.lock = threading.Lock()

    session = Session()
    error = executor.submit(lambda: session).exception()
    assert isinstance(error, TransportError)
    assert "its variable 'session', attribute 'lock' (a lock) cannot be pickled" in str(error)
    error = executor.submit(len, {"a": [1, threading.Lock()]}).exception()
    assert "its argument 0, key 'a', element 1 (a lock)" in str(error)
    error = executor.submit(dict, key=threading.Lock()).exception()
    assert "its argument 'key' (a lock)" in str(error)


def test_a_module_that_the_workers_lack_is_named_with_a_remedy(executor, tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text("def f(x): return x")
    monkeypatch.syspath_prepend(tmp_path)
    import only_here

    error = executor.submit(only_here.f, 1).exception()
    assert isinstance(error, UnpackError)
    assert "no module 'only_here'" in str(error)
    assert "runtime_env={'working_dir': '.'}" in str(error)
    with RayExecutor(1, runtime_env={"py_modules": [str(tmp_path / "only_here.py")]}) as sent:
        assert sent.submit(only_here.f, 1).result(timeout=60) == 1


def test_a_closed_executor_refuses_submissions(ray_cluster):
    closed = RayExecutor(1)
    closed.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        closed.submit(abs, 1)


# ------------------------------------------------------------------------- the connection of the process

RECONNECTS = """
import sys
import time
import ray
from hypernodes import RayExecutor
from hypernodes.exceptions import ClusterConnectionError

options = dict(address=sys.argv[1], logging_level="error")
ray.init(**options)
executor = RayExecutor(1)
assert executor.submit(abs, -1).result() == 1
running, waiting = executor.submit(time.sleep, 60), executor.submit(abs, -1)
ray.shutdown()
for future in (running, waiting):
    assert isinstance(future.exception(timeout=20), ClusterConnectionError), future
try:
    executor.submit(abs, -1)
except ClusterConnectionError as error:
    print(error)
ray.init(**options)
print(executor.submit(abs, -2).result())
"""


def test_calls_fail_after_ray_shutdown_and_succeed_after_ray_init(environment_on_ray):
    environment = dict(environment_on_ray)
    address = environment.pop("RAY_ADDRESS")  # Otherwise the executor could connect by itself.
    done = subprocess.run(
        [sys.executable, "-c", RECONNECTS, address],
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert "ray.init() again" in done.stdout
    assert done.stdout.endswith("2\n")


def test_executors_say_how_many_workers_they_have_as_those_of_the_standard_library_do(ray_cluster):
    with AsyncExecutor(3) as loop, ParallelExecutor(2) as processes, RayExecutor(4) as cluster:
        assert [executor._max_workers for executor in (loop, processes, cluster)] == [3, 2, 4]
    with RayExecutor() as cluster:
        assert cluster._max_workers == cluster.max_workers >= 1


def test_libraries_that_ask_for_executors_of_the_standard_library_take_ours(ray_cluster):
    with AsyncExecutor(3) as loop, ParallelExecutor(2) as processes, RayExecutor(4) as cluster:
        assert isinstance(loop, ThreadPoolExecutor)
        assert isinstance(processes, ProcessPoolExecutor)
        assert isinstance(cluster, ProcessPoolExecutor)
        assert [*cluster.map(abs, [-1, -2])] == [*loop.map(abs, [-1, -2])] == [1, 2]


def test_event_loops_run_calls_in_all_executors(ray_cluster):
    async def main(executor):
        running = asyncio.get_running_loop()
        return await asyncio.gather(*(running.run_in_executor(executor, abs, -x) for x in range(5)))

    with AsyncExecutor(3) as loop, ParallelExecutor(2) as processes, RayExecutor(2) as cluster:
        for executor in (loop, processes, cluster):
            assert asyncio.run(main(executor)) == [*range(5)]


def test_an_event_loop_takes_an_async_executor_as_its_default():
    async def main():
        asyncio.get_running_loop().set_default_executor(AsyncExecutor(2))
        return await asyncio.to_thread(abs, -3)

    assert asyncio.run(main()) == 3


@pytest.mark.parametrize("library", ["pipefunc._utils", "adaptive.runner"])
def test_libraries_find_the_number_of_workers(ray_cluster, library):
    module = pytest.importorskip(library)
    count = getattr(module, "get_ncores", None) or module._get_ncores
    with AsyncExecutor(3) as loop, ParallelExecutor(2) as processes, RayExecutor(4) as cluster:
        assert [count(executor) for executor in (loop, processes, cluster)] == [3, 2, 4]


def test_an_address_of_another_cluster_than_the_one_in_use_is_an_error(ray_cluster):
    with pytest.raises(
        ClusterConnectionError, match=r"connected to the Ray cluster at .* and cannot use that at"
    ):
        RayExecutor(address="127.0.0.1:1").submit(abs, -1)
