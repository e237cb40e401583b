"""An execution target of one's own: the seam for a new backend, in 40 lines."""

import threading
from concurrent.futures import Future
from queue import SimpleQueue

import pytest
import sample
from recorder import Recorder

from hypernodes import HyperNodesEngine, Pipeline, node
from hypernodes.execution.execute import execute_in_worker
from hypernodes.execution.plan.placement import Capabilities
from hypernodes.execution.target import ExecutionTarget


class OneThread(ExecutionTarget):
    """Executes jobs one after the other in a thread of its own, and counts them."""

    def __init__(self):
        super().__init__("one thread", Capabilities(serializes=False))
        self.jobs = []
        self._queue = SimpleQueue()
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def workers(self):
        return 1

    def submit(self, job):
        future = Future()
        self.jobs.append(type(job).__name__)
        self._queue.put((job, future))
        return future

    def _serve(self):
        while (given := self._queue.get()) is not None:
            job, future = given
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(execute_in_worker(job, self.ref))
                except BaseException as error:
                    future.set_exception(error)
            del given, job, future

    def shutdown(self, *, wait=True, at_once=False):
        self._queue.put(None)


@pytest.fixture
def target():
    """Give an execution target, and shut it down."""
    made = OneThread()
    yield made
    made.shutdown()


@pytest.mark.parametrize("level", ["node_executor", "map_executor"])
@pytest.mark.parametrize(
    "pipeline", [sample.diamond, sample.mixed, sample.several], ids=["plain", "async", "many"]
)
def test_a_target_of_ones_own_gives_the_same_outputs_and_events(target, level, pipeline):
    outcomes = []
    for engine in (HyperNodesEngine(), HyperNodesEngine(**{level: target})):
        recorder = Recorder()
        observed = pipeline.with_engine(engine).with_callbacks([recorder])
        outcomes.append((observed.run({"x": 4}), observed.map({"x": [1, 2, 3]}, "x"), recorder.counted))
    assert outcomes[0] == outcomes[1]


def test_calls_go_to_the_node_target_and_chunks_to_the_map_target(target):
    nodes, maps = target, OneThread()
    with HyperNodesEngine(nodes, maps) as engine:
        pipeline = Pipeline([node(lambda x: x + 1, output_name="y")], engine=engine)
        assert pipeline.run({"x": 1}) == {"y": 2}
        assert nodes.jobs == ["Call"]
    with HyperNodesEngine(map_executor=maps) as engine:
        assert pipeline.with_engine(engine).map({"x": range(50)}, "x") == {"y": list(range(1, 51))}
        assert set(maps.jobs) == {"Chunk"}
    maps.shutdown()


@pytest.mark.timeout(60)
def test_a_target_of_ones_own_goes_on_after_a_map_that_failed_with_jobs_under_way(target):
    with HyperNodesEngine(map_executor=target) as engine:
        pipeline = Pipeline([node(lambda x: 1 / x, output_name="y")], engine=engine)
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                pipeline.map({"x": [1, 0, *range(1, 500)]}, "x")
        assert pipeline.map({"x": [2, 4]}, "x") == {"y": [0.5, 0.25]}


@pytest.mark.timeout(60)
def test_a_node_may_run_a_pipeline_on_the_target_that_it_runs_on(target):
    with HyperNodesEngine(target, target) as engine:
        inner = Pipeline([node(lambda x: x + 1, output_name="y")], engine=engine)
        outer = Pipeline([node(lambda x: inner.run({"x": x})["y"], output_name="z")], engine=engine)
        assert outer.run({"x": 1}) == {"z": 2}
        assert outer.map({"x": range(5)}, "x") == {"z": [1, 2, 3, 4, 5]}


def test_a_failing_node_fails_through_a_target_of_ones_own(target):
    with HyperNodesEngine(target) as engine:
        pipeline = Pipeline([node(lambda x: 1 / x, output_name="y")], engine=engine, name="inverse")
        with pytest.raises(ZeroDivisionError) as caught:
            pipeline.run({"x": 0})
        assert caught.value.__notes__ == ["in node '<lambda>' of pipeline 'inverse', called with x=0"]
