"""An execution target of one's own: the seam for a new backend, in 40 lines."""

import threading
from concurrent.futures import Future
from queue import SimpleQueue

import pytest
import sample
from conftest import Recorder

from hypernodes import HyperNodesEngine, Pipeline, node
from hypernodes.execution.execute import execute
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
            try:
                future.set_result(execute(job))
            except BaseException as error:
                future.set_exception(error)
            del given, job, future

    def shutdown(self, *, wait=True, at_once=False):
        self._queue.put(None)


@pytest.mark.parametrize("level", ["node_executor", "map_executor"])
@pytest.mark.parametrize(
    "pipeline", [sample.diamond, sample.mixed, sample.several], ids=["plain", "async", "many"]
)
def test_a_target_of_ones_own_gives_the_same_outputs_and_events(level, pipeline):
    outcomes = []
    for engine in (HyperNodesEngine(), HyperNodesEngine(**{level: OneThread()})):
        recorder = Recorder()
        told = pipeline.with_engine(engine).with_callbacks([recorder])
        outcomes.append((told.run({"x": 4}), told.map({"x": [1, 2, 3]}, "x"), recorder.counted))
        engine.shutdown()
    assert outcomes[0] == outcomes[1]


def test_calls_go_to_the_node_target_and_chunks_to_the_map_target():
    nodes, maps = OneThread(), OneThread()
    with HyperNodesEngine(nodes, maps) as engine:
        pipeline = Pipeline([node(lambda x: x + 1, output_name="y")], engine=engine)
        assert pipeline.run({"x": 1}) == {"y": 2}
        assert nodes.jobs == ["Call"]
    with HyperNodesEngine(map_executor=maps) as engine:
        assert pipeline.with_engine(engine).map({"x": range(50)}, "x") == {"y": list(range(1, 51))}
        assert set(maps.jobs) == {"Chunk"}


def test_a_failing_node_fails_through_a_target_of_ones_own():
    with HyperNodesEngine(OneThread()) as engine:
        pipeline = Pipeline([node(lambda x: 1 / x, output_name="y")], engine=engine, name="inverse")
        with pytest.raises(ZeroDivisionError) as caught:
            pipeline.run({"x": 0})
        assert caught.value.__notes__ == ["in node '<lambda>' of pipeline 'inverse', called with x=0"]
