"""What was used before a fork works in the child, or says at once what to do: nothing waits forever."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest
from sample import increment, increment_soon

import hypernodes
from hypernodes import (
    AsyncExecutor,
    DiskCache,
    HyperNodesEngine,
    Pipeline,
    PipelineCallback,
    RayExecutor,
    node,
)
from hypernodes.exceptions import ForkedProcessError

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="forks"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]

TIMEOUT_S = 60


def in_fork(function):
    """Call a function in a forked child, and return its result or raise its error."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(TIMEOUT_S)  # a child that hangs is ended
            try:
                result = function(), None
            except BaseException as error:
                result = None, error
            os.write(writer, pickle.dumps(result))
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        answer = stream.read()
    os.waitpid(child, 0)
    assert answer, "the child has hung"
    value, error = pickle.loads(answer)
    if error is not None:
        raise error
    return value


def use(pipeline):
    return pipeline.map({"x": range(20)}, map_over="x")["y"]


@pytest.mark.parametrize("function", [increment, increment_soon])
@pytest.mark.parametrize("level", ["map_executor", "node_executor"])
@pytest.mark.parametrize("alias", ["sequential", "threaded", "async", "parallel"])
def test_an_engine_that_was_used_works_in_a_forked_child(engine_on, level, alias, function):
    pipeline = Pipeline([node(function, output_name="y")], engine=engine_on(level, alias))
    assert use(pipeline) == [*range(1, 21)]
    assert in_fork(lambda: use(pipeline)) == [*range(1, 21)]
    assert use(pipeline) == [*range(1, 21)]


@pytest.mark.parametrize("alias", ["threaded", "async"])
def test_an_engine_that_is_in_use_works_in_a_forked_child(alias, tmp_path):
    begun, release = threading.Event(), threading.Event()

    def wait_for_release(x):
        begun.set()
        release.wait(TIMEOUT_S)
        return x + 1

    class Waiting(PipelineCallback):
        def on_node_start(self, node_id, inputs, ctx):
            if node_id == "wait_for_release":
                begun.set()
                release.wait(TIMEOUT_S)

    with HyperNodesEngine(map_executor=alias) as engine:
        cached = Pipeline([node(increment, output_name="y")], engine, DiskCache(tmp_path), [Waiting()])
        slow = Pipeline([node(wait_for_release, output_name="y")], engine, callbacks=cached.callbacks)
        thread = threading.Thread(target=use, args=(slow,))
        thread.start()
        try:
            begun.wait(TIMEOUT_S)
            assert in_fork(lambda: use(cached)) == [*range(1, 21)]
        finally:
            release.set()
            thread.join()


def test_an_async_executor_of_the_user_begins_anew_in_a_forked_child():
    with AsyncExecutor(2) as executor:
        assert executor.submit(increment, 1).result() == 2
        assert in_fork(lambda: executor.submit(increment, 1).result()) == 2
        assert in_fork(lambda: executor.submit(increment_soon, 1).result()) == 2
        assert executor.submit(increment, 1).result() == 2


@pytest.mark.parametrize("pool", [ThreadPoolExecutor, ProcessPoolExecutor])
def test_a_pool_of_the_user_that_has_workers_is_refused_in_a_forked_child(pool):
    options = {} if pool is ThreadPoolExecutor else {"mp_context": multiprocessing.get_context("spawn")}
    with pool(1, **options) as executor:
        pipeline = Pipeline(
            [node(increment, output_name="y")], engine=HyperNodesEngine(map_executor=executor)
        )
        if pool is ThreadPoolExecutor:
            assert in_fork(lambda: use(pipeline)) == [*range(1, 21)]
        assert use(pipeline) == [*range(1, 21)]
        with pytest.raises(ForkedProcessError, match="Make another one here"):
            in_fork(lambda: use(pipeline))


def test_daft_that_has_computed_something_is_refused_in_a_forked_child():
    pipeline = Pipeline([node(increment, output_name="y")], engine=hypernodes.DaftEngine(runner="native"))
    assert use(pipeline) == [*range(1, 21)]
    with pytest.raises(ForkedProcessError, match="threads of Daft"):
        in_fork(lambda: use(pipeline))
    by_hand = pipeline.with_engine(hypernodes.DaftEngine(debug=True))
    assert in_fork(lambda: use(by_hand)) == [*range(1, 21)]


@pytest.mark.parametrize("level", ["map_executor", "node_executor"])
def test_ray_that_was_connected_is_refused_in_a_forked_child(ray_cluster, level):
    with RayExecutor(2) as executor:
        engine = HyperNodesEngine(**{level: executor})
        pipeline = Pipeline([node(increment, output_name="y")], engine=engine)
        assert use(pipeline) == [*range(1, 21)]
        with pytest.raises(ForkedProcessError, match="connected to Ray"):
            in_fork(lambda: use(pipeline))
        assert use(pipeline) == [*range(1, 21)]


def map_without_shutdown(alias):
    global engine  # it lives until the process ends
    engine = HyperNodesEngine(map_executor=alias)
    assert use(Pipeline([node(increment, output_name="y")], engine=engine)) == [*range(1, 21)]


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_a_process_of_multiprocessing_ends_though_its_engine_was_not_shut_down(context):
    process = multiprocessing.get_context(context).Process(target=map_without_shutdown, args=("parallel",))
    process.start()
    process.join(TIMEOUT_S)
    assert process.exitcode == 0


def test_the_child_of_a_fork_ends_in_silence_and_leaves_its_parent_what_it_has(tmp_path):
    script = """
        import os, sys, time
        from hypernodes import HyperNodesEngine, Pipeline, node

        if __name__ == "__main__":
            engine = HyperNodesEngine(map_executor="parallel")
            pipeline = Pipeline([node(len, output_name="n")], engine=engine)
            table = bytes(100_000)
            print(pipeline.map({"obj": [table, table]}, map_over="obj"), flush=True)
            if os.fork() == 0:
                sys.exit()
            os.wait()
            print(pipeline.map({"obj": [table, table]}, map_over="obj"), flush=True)
        """
    (tmp_path / "script.py").write_text(textwrap.dedent(script))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "script.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.stdout == "{'n': [100000, 100000]}\n" * 2
    assert done.stderr == ""
