"""ParallelExecutor and RayExecutor: what they pickle, how workers die, and how the executors end."""

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, wait

import pytest
import sample
from test_interrupt import is_running

from hypernodes import HyperNodesEngine, ParallelExecutor, Pipeline, RayExecutor, node
from hypernodes.exceptions import DaemonProcessError, InitializerError, TransportError, WorkerDiedError


@pytest.fixture(scope="module", params=["parallel", "ray"])
def executor(request):
    if request.param == "ray":
        request.getfixturevalue("ray_cluster")
    make = {"parallel": ParallelExecutor, "ray": RayExecutor}[request.param]
    with make(2) as executor:
        yield executor


def test_lambdas_closures_and_local_classes_are_pickled(executor):
    class Point:
        def __init__(self, x):
            self.x = x

    k = 10
    assert executor.submit(lambda point: point.x + k, Point(1)).result() == 11
    assert isinstance(executor.submit(Point, 3).result(), Point)


def test_work_is_done_in_another_process(executor):
    assert executor.submit(os.getpid).result() != os.getpid()


def test_an_error_with_an_unusual_constructor_keeps_its_type(executor):
    def fail():
        raise sample.Refused(2, "not today")

    error = executor.submit(fail).exception()
    assert type(error) is sample.Refused
    assert (str(error), error.number) == ("2: not today", 2)
    assert "in fail" in str(error.__cause__)


def test_an_error_with_a_lock_arrives_without_the_lock(executor):
    def fail():
        error = ValueError("stuck")
        error.lock = threading.Lock()
        raise error

    error = executor.submit(fail).exception()
    assert type(error) is ValueError
    assert executor.submit(abs, -1).result() == 1


class Empty(Exception):
    """An error whose truth value is false."""

    def __len__(self):
        return 0


def test_an_error_whose_truth_value_is_false_is_raised(executor):
    def fail(_=None):
        raise Empty

    future = executor.submit(fail)
    assert isinstance(future.exception(), Empty)
    with pytest.raises(Empty):
        future.result()
    with pytest.raises(Empty):
        list(executor.map(fail, [1]))


def test_a_call_that_is_not_picklable_fails_its_own_future(executor):
    lock = threading.Lock()
    assert isinstance(executor.submit(lambda: lock).exception(), (TypeError, TransportError))
    assert isinstance(executor.submit(threading.Lock).exception(), TransportError)
    assert executor.submit(abs, -1).result() == 1


def test_a_pending_call_can_be_cancelled(executor):
    futures = [executor.submit(__import__("time").sleep, 0.2) for _ in range(12)]
    assert futures[-1].cancel()
    assert not wait(futures, timeout=60).not_done
    assert futures[-1].cancelled()


DEATHS = {
    "exit code 3": lambda: os._exit(3),
    "killed by SIGKILL: out of memory?": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "killed by SIGTERM": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "killed by SIGSEGV": lambda: os.kill(os.getpid(), signal.SIGSEGV),
}


@pytest.mark.parametrize("how", DEATHS)
def test_a_dead_worker_fails_the_call_that_it_was_making_and_no_other(how):
    with ParallelExecutor(2) as pool:
        before = [pool.submit(abs, -n) for n in range(6)]
        died = pool.submit(DEATHS[how])
        after = [pool.submit(abs, -n) for n in range(6)]
        assert [future.result() for future in before + after] == [*range(6), *range(6)]
        error = died.exception()
        assert isinstance(error, WorkerDiedError)
        assert how in str(error)
        assert pool.submit(abs, -1).result() == 1


def test_no_call_fails_when_an_idle_worker_dies():
    with ParallelExecutor(1) as pool:
        first = pool.submit(os.getpid).result()
        os.kill(first, signal.SIGKILL)
        assert pool.submit(os.getpid).result() != first


class DiesOnArrival:
    def __reduce__(self):
        return os._exit, (4,)


class DiesOnLeaving:
    def __reduce__(self):
        os._exit(5)


def test_a_worker_that_dies_while_it_unpickles_or_pickles_fails_its_call():
    with ParallelExecutor(1) as pool:
        assert "exit code 4" in str(pool.submit(abs, DiesOnArrival()).exception())
        assert "exit code 5" in str(pool.submit(DiesOnLeaving).exception())
        assert pool.submit(abs, -1).result() == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_the_death_of_a_worker_is_noticed_while_its_child_lives():
    def leave_a_child():
        if os.fork() == 0:
            time.sleep(20)
            os._exit(0)
        os._exit(1)

    started = time.monotonic()
    with ParallelExecutor(1) as pool:
        assert isinstance(pool.submit(leave_a_child).exception(), WorkerDiedError)
    assert time.monotonic() - started < 20


def test_workers_that_cannot_start_break_the_executor():
    with ParallelExecutor(2, initializer=os._exit, initargs=(1,)) as pool:
        futures = [pool.submit(abs, -n) for n in range(3)]
        assert all(isinstance(future.exception(), BrokenExecutor) for future in futures)
        with pytest.raises(BrokenExecutor, match="end while they start"):
            pool.submit(abs, -1)


def kill_once(mark):
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_is_killed_while_it_starts_is_replaced(tmp_path):
    with ParallelExecutor(1, initializer=kill_once, initargs=(tmp_path / "mark",)) as pool:
        assert pool.submit(abs, -1).result() == 1


def test_the_error_of_an_initializer_is_in_the_message():
    with ParallelExecutor(1, initializer=int, initargs=("x",)) as pool:
        error = pool.submit(abs, -1).exception()
    assert isinstance(error, InitializerError)
    assert isinstance(error.__cause__, ValueError)


def test_terminating_ends_running_calls_and_cancels_the_others(tmp_path):
    def work():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        (tmp_path / "begun").touch()
        time.sleep(60)

    pool = ParallelExecutor(1)
    running, waiting = pool.submit(work), pool.submit(abs, -1)
    while not (tmp_path / "begun").exists():
        time.sleep(0.01)
    pool.terminate()
    assert "terminated by its executor" in str(running.exception())
    assert waiting.cancelled()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_starts_its_own_processes():
    with ParallelExecutor(1) as pool:
        before = pool.submit(os.getpid).result()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                with pool:
                    status = 0 if pool.submit(os.getpid).result() != before else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert pool.submit(os.getpid).result() == before


def test_workers_end_when_their_driver_is_killed(tmp_path):
    source = """
        import os, signal, time
        from hypernodes import ParallelExecutor

        if __name__ == "__main__":
            pool = ParallelExecutor(1)
            print(pool.submit(os.getpid).result(), flush=True)
            pool.submit(time.sleep, 60)
            os.kill(os.getpid(), signal.SIGKILL)
        """
    worker = int(run_script(tmp_path, source).stdout)
    deadline = time.monotonic() + 20
    while is_running(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(worker)


def test_a_dead_worker_of_ray_fails_only_its_own_future(ray_cluster):
    with RayExecutor(2, max_retries=0) as pool:
        others = [pool.submit(abs, -n) for n in range(4)]
        assert isinstance(pool.submit(os._exit, 1).exception(), BrokenExecutor)
        assert [future.result() for future in others] == [0, 1, 2, 3]
        assert pool.submit(abs, -5).result() == 5


@pytest.mark.parametrize("level", ["node_executor", "map_executor"])
def test_an_item_that_kills_its_worker_fails_alone_and_the_engine_goes_on(level, recorder):
    @node(output_name="y")
    def die_at_two(x):
        return os.kill(os.getpid(), signal.SIGKILL) if x == 2 else x

    with HyperNodesEngine(**{level: "parallel"}) as engine:
        pipeline = Pipeline([die_at_two], engine=engine, name="dying")
        for callbacks in ([], [recorder]):
            rows = pipeline.with_callbacks(callbacks).map({"x": range(12)}, "x", on_error="return")["y"]
            error = rows.pop(2)
            assert rows == [x for x in range(12) if x != 2]
            assert isinstance(error, WorkerDiedError)
            assert "killed by SIGKILL: out of memory?" in str(error)
            assert "item 2" in error.__notes__[0]
            assert "'dying'" in error.__notes__[0]
            assert "node 'die_at_two'" in error.__notes__[0]
        with pytest.raises(WorkerDiedError):
            pipeline.map({"x": [1, 2, 3]}, "x")
        assert pipeline.map({"x": [3]}, "x") == {"y": [3]}
        if level == "node_executor":
            with pytest.raises(WorkerDiedError):
                pipeline.run({"x": 2})
            assert pipeline.run({"x": 3}) == {"y": 3}


@pytest.mark.timeout(60)
def test_it_shuts_down_when_only_cancelled_calls_remain():
    executor = ParallelExecutor(1)
    executor.submit(abs, -1).result()
    for _ in range(300):
        executor.submit(abs, -1).cancel()
    executor.shutdown()


LIMITED = {
    ParallelExecutor: lambda: ParallelExecutor(1, max_tasks_per_child=2),
    RayExecutor: lambda: RayExecutor(1, max_calls=2),
}


@pytest.mark.parametrize("kind", LIMITED)
def test_a_worker_is_replaced_after_its_calls(kind, request):
    if kind is RayExecutor:
        request.getfixturevalue("ray_cluster")
    with LIMITED[kind]() as executor:
        workers = [executor.submit(os.getpid).result() for _ in range(3)]
        assert sorted(Counter(workers).values()) == [1, 2]
        engine = HyperNodesEngine(map_executor=executor)
        pipeline = Pipeline([node(abs, output_name="size")], engine=engine)
        assert pipeline.map({"x": [-1, 1, 2]}, map_over="x") == {"size": [1, 1, 2]}


def test_workers_that_are_replaced_make_every_call(tmp_path):
    def count_process():
        (tmp_path / str(os.getpid())).touch()

    with ParallelExecutor(2, initializer=count_process, max_tasks_per_child=1) as executor:
        futures = [executor.submit(abs, -n) for n in range(4)]
        died = executor.submit(os._exit, 1)
        executor.shutdown(wait=False)
        assert [future.result() for future in futures] == [*range(4)]
        assert isinstance(died.exception(), WorkerDiedError)
    assert len([*tmp_path.iterdir()]) == 5


@pytest.mark.parametrize(
    ("make", "name"), [(ParallelExecutor, "max_tasks_per_child"), (RayExecutor, "max_calls")]
)
@pytest.mark.parametrize(
    ("count", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("2", TypeError)]
)
def test_a_number_of_calls_is_checked(make, name, count, error):
    with pytest.raises(error, match=f"{name} must be"):
        make(1, **{name: count})


def test_it_is_a_process_pool_executor():
    assert issubclass(ParallelExecutor, ProcessPoolExecutor)


@pytest.mark.parametrize("level", ["node_executor", "map_executor"])
def test_a_result_that_cannot_be_pickled_names_node_and_item(executor, level):
    @node(output_name="held")
    def hold(x):
        return threading.Lock() if x == 2 else x

    pipeline = Pipeline([hold], engine=HyperNodesEngine(**{level: executor}), name="holding")
    with pytest.raises(TransportError, match="'held', a lock") as caught:
        pipeline.map({"x": [1, 2, 3]}, "x")
    assert caught.value.__notes__ == [caught.value.__notes__[0]]
    assert "node 'hold' of pipeline 'holding', item 1" in caught.value.__notes__[0]


@pytest.mark.parametrize("level", ["node_executor", "map_executor"])
def test_a_function_or_input_that_cannot_be_pickled_is_named(executor, level):
    lock = threading.Lock()

    @node(output_name="held")
    def hold(x):
        return lock, x

    engine = HyperNodesEngine(**{level: executor})
    with pytest.raises(TransportError, match="the function of node 'hold', its variable 'lock'"):
        Pipeline([hold], engine=engine, name="holding").map({"x": [1]}, "x")
    plain = Pipeline([node(id, output_name="number")], engine=engine, name="plain")
    with pytest.raises(TransportError, match=r"input 'obj(\[0\])?' \(a lock\) cannot be pickled"):
        plain.map({"obj": [lock]}, "obj")


def test_large_common_inputs_reach_every_worker(executor):
    table = bytes(2_000_000)
    pipeline = Pipeline(
        [node(lambda table, x: len(table) + x, output_name="y")],
        engine=HyperNodesEngine(map_executor=executor),
    )
    rows = pipeline.map({"table": table, "x": range(50)}, "x")
    assert rows == {"y": [2_000_000 + x for x in range(50)]}


def run_script(tmp_path, source, **options):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(source))
    return subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=100, cwd=tmp_path, **options
    )


UNGUARDED = """
from hypernodes import HyperNodesEngine, Pipeline, node
from hypernodes.exceptions import MainGuardError

class Size:
    def __init__(self, x):
        self.size = abs(x)

pipeline = Pipeline([node(Size, output_name="size")], engine=HyperNodesEngine(map_executor="parallel"))
try:
    print([type(size) is Size for size in pipeline.map({"x": [-1, -2]}, map_over="x")["size"]])
except MainGuardError as error:
    print(error, *error.__notes__)
"""


def test_a_script_without_a_main_guard_raises_an_error_that_names_it(tmp_path):
    done = run_script(tmp_path, UNGUARDED)
    assert 'if __name__ == "__main__":' in done.stdout
    assert "in item 0 of pipeline" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("arguments", [["-"], ["-c", UNGUARDED]])
def test_a_program_that_is_no_file_needs_no_main_guard(arguments, tmp_path):
    done = subprocess.run(
        [sys.executable, *arguments],
        input=UNGUARDED,
        capture_output=True,
        text=True,
        timeout=100,
        cwd=tmp_path,
    )
    assert (done.stdout, done.stderr) == ("[True, True]\n", "")


def in_daemon(alias):
    with HyperNodesEngine(map_executor=alias) as engine:
        return Pipeline([node(abs, output_name="size")], engine=engine).map({"x": [-1]}, map_over="x")


def test_in_a_daemonic_process_parallel_says_what_to_take_instead():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        with pytest.raises(DaemonProcessError, match="daemonic .* Take 'threaded' or 'sequential'"):
            pool.apply(in_daemon, ("parallel",))
        assert pool.apply(in_daemon, ("threaded",)) == {"size": [1]}
    with ParallelExecutor(1) as pool:
        assert pool.submit(in_daemon, "parallel").result() == {"size": [1]}


def test_a_script_needs_no_shutdown_and_leaves_no_process(tmp_path):
    done = run_script(
        tmp_path,
        """
        from hypernodes import HyperNodesEngine, Pipeline, node

        def main():
            for executor in ("async", "threaded", "parallel"):
                engine = HyperNodesEngine(executor, executor)
                pipeline = Pipeline([node(lambda x: x + 1, output_name="y")], engine=engine)
                print(pipeline.map({"x": [1, 2]}, map_over="x"))

        if __name__ == "__main__":
            main()
        """,
    )
    assert done.stderr == ""
    assert done.stdout == "{'y': [2, 3]}\n" * 3


def parse_number(x):
    import pydantic  # Workers import this module, too.

    return pydantic.TypeAdapter(int).validate_python(x)


def test_an_error_whose_class_defines_reduce_is_rebuilt_with_its_note():
    import pydantic

    with HyperNodesEngine(map_executor="parallel") as engine:
        numbers = Pipeline([node(parse_number, output_name="number")], name="numbers", engine=engine)
        with pytest.raises(pydantic.ValidationError) as caught:
            numbers.map({"x": ["1", "two"]}, "x")
    assert caught.value.errors()[0]["input"] == "two"
    assert "item 1" in caught.value.__notes__[0]


# ------------------------------------------------------------------------------- fixed inputs


def mapped(pipeline, model):
    pipeline.map({"x": list(range(20)), "model": model}, map_over="x")


def mapped_within_items(pipeline, model):
    outer = Pipeline([pipeline.as_node(map_over="x", name="inner")], engine=pipeline.engine)
    outer.map({"x": [[item, item + 1] for item in range(10)], "model": model}, map_over="x")


def bound_within_items(pipeline, model):
    outer = Pipeline([pipeline.bind(model=model).as_node(name="inner")], engine=pipeline.engine)
    outer.map({"x": list(range(20))}, map_over="x")


def bound_within_items_of_a_map(pipeline, model):
    outer = Pipeline([pipeline.bind(model=model).as_node(map_over="x", name="inner")], engine=pipeline.engine)
    outer.map({"x": [[item, item + 1] for item in range(10)]}, map_over="x")


def given_to_several_nodes(pipeline, model):
    pipeline.run({"x": 1, "model": model})


WAYS = (
    mapped,
    mapped_within_items,
    bound_within_items,
    bound_within_items_of_a_map,
    given_to_several_nodes,
)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("alias", ["parallel", "ray"])
def test_a_fixed_input_is_unpickled_once_in_each_worker_where_nodes_go_one_by_one(
    engine_on, tmp_path, alias, way
):
    nodes = [node(sample.with_model), node(sample.with_model_too)]
    way(Pipeline(nodes, engine=engine_on("node_executor", alias)), sample.Counted(str(tmp_path)))
    unpickled = {path.name: len(path.read_text()) for path in tmp_path.iterdir()}
    assert unpickled, "no worker has got the input"
    assert set(unpickled.values()) == {1}
