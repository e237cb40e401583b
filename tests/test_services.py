"""Nodes that call services: delays between attempts, rates, and how many calls are under way at once."""

import asyncio
import threading
import time
import urllib.error
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import tenacity
from recorder import Recorder
from service import asking, retry_after, serving

from hypernodes import DaftEngine, DiskCache, HyperNodesEngine, Pipeline, PipelineCallback, RunReport, node
from hypernodes.exceptions import GraphError

ALIASES = ("sequential", "async", "threaded", "parallel", "ray")
LEVELS = ("node_executor", "map_executor")


def answers(count):
    return [f"/{number}" for number in range(count)]


def ask_all(pipeline, service, count, **options):
    inputs = {"url": service.url, "number": list(range(count))}
    return pipeline.map(inputs, map_over="number", **options)["answer"]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("alias", ALIASES)
def test_a_rate_and_delays_lose_no_call_of_a_server_that_refuses_more(alias, level, engine_on):
    """Twenty a second are answered. The first answers take as long as processes take to start."""
    polite = asking(rate="18/s", retries=5, retry_delay=retry_after)
    with serving(per_second=20) as service:
        started = time.monotonic()
        assert ask_all(Pipeline([polite], engine=engine_on(level, alias)), service, 30) == answers(30)
        assert time.monotonic() - started > 29 / 18
        assert service.refused == 0
        assert sum(service.asked.values()) == 30


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("alias", ALIASES)
def test_calls_that_fail_are_made_again_after_the_time_that_the_server_asks_for(alias, level, engine_on):
    recorder = Recorder()
    insisting = asking(retries=2, retry_delay=retry_after)
    pipeline = Pipeline([insisting], engine=engine_on(level, alias), callbacks=[recorder])
    with serving(fails_first=2) as service:
        assert ask_all(pipeline, service, 4) == answers(4)
        assert set(service.asked.values()) == {3}
    assert len(recorder.of("node_retry")) == 8
    assert len(recorder.of("node_start")) == len(recorder.of("node_end")) == 4
    assert not recorder.unfinished


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("alias", ALIASES)
def test_no_more_calls_are_under_way_than_the_node_allows(alias, level, engine_on):
    pipeline = Pipeline([asking(max_concurrent=2)], engine=engine_on(level, alias))
    with serving(seconds=0.02) as service:
        assert ask_all(pipeline, service, 12) == answers(12)
        assert service.most_under_way <= 2


@pytest.mark.parametrize(
    "options", [{"rate": "200/s"}, {"max_concurrent": 1}, {"retries": 1, "retry_delay": [0]}]
)
def test_limits_hold_in_daft_queries(options):
    pipeline = Pipeline([asking(**options)], engine=DaftEngine(runner="native"))
    with serving(seconds=0.005, fails_first="retries" in options) as service:
        assert ask_all(pipeline, service, 6) == answers(6)
        assert "max_concurrent" not in options or service.most_under_way == 1
        daft = pytest.importorskip("daft")
        frame = daft.from_pydict({"number": list(range(10, 14))})
        lazy = pipeline.bind(url=service.url).to_daft(frame).to_pydict()
        assert lazy["answer"] == [f"/{number}" for number in range(10, 14)]


@pytest.mark.parametrize("alias", ["sequential", "threaded"])
def test_when_all_attempts_have_failed_the_error_is_the_last_one(alias, engine_on):
    pipeline = Pipeline([asking(retries=2, retry_delay=[0, 0.01])], engine=engine_on("map_executor", alias))
    with serving(fails_first=10) as service:
        with pytest.raises(urllib.error.HTTPError, match="429") as found:
            ask_all(pipeline, service, 1)
        assert "in node 'ask' of pipeline" in found.value.__notes__[0]
        assert service.asked == {"/0": 3}
        found.value.close()
        returned = ask_all(pipeline, service, 3, on_error="return")
        assert [type(error) for error in returned] == [urllib.error.HTTPError] * 3
        for error in returned:
            error.close()


def test_what_waits_for_a_retry_leaves_its_worker_to_other_items():
    """Two threads, and four items that fail until all others have been computed."""
    others = threading.Event()
    done = []

    @node(output_name="y", retries=50, retry_delay=[0.02])
    def work(x):
        if x < 4 and not others.is_set():
            raise ConnectionError("not yet")
        done.append(x)
        if x >= 4 and sum(number >= 4 for number in done) == 6:
            others.set()
        return x

    with HyperNodesEngine(map_executor="threaded") as engine:
        assert Pipeline([work], engine=engine).map({"x": list(range(10))}, map_over="x") == {
            "y": list(range(10))
        }
    assert done[:6] == [4, 5, 6, 7, 8, 9] or set(done[:6]) == {4, 5, 6, 7, 8, 9}


def test_items_that_went_ahead_of_retries_make_no_room_for_more_when_the_retries_are_done():
    failed, under_way, counts = set(), set(), []

    class Counting(PipelineCallback):
        def on_map_item_start(self, index, ctx):
            under_way.add(index)
            counts.append(len(under_way))

        def on_map_item_end(self, index, duration, ctx):
            under_way.remove(index)

    @node(output_name="y", retries=1, retry_delay=[0.01])
    def work(x):
        if x < 8 and x not in failed:
            failed.add(x)
            raise ConnectionError
        time.sleep(0.002)
        return x

    with HyperNodesEngine(node_executor="threaded") as engine:
        pipeline = Pipeline([work], engine=engine, callbacks=[Counting()])
        assert pipeline.map({"x": range(100)}, map_over="x") == {"y": list(range(100))}
    assert max(counts) > counts[0]
    assert counts[-1] == counts[0]


def test_a_retry_that_nothing_waits_for_any_more_leaves_its_place_to_other_calls():
    """The item has failed by another node when the delay is over."""
    asked = []

    @node(output_name="y", retries=1, retry_delay=[0.02], max_concurrent=1)
    def ask(x):
        asked.append(x)
        time.sleep(0.01)
        if x == 0:
            raise ConnectionError
        return x

    refuse = node(lambda x: 1 / x, output_name="z")
    with HyperNodesEngine(node_executor="threaded") as engine:
        rows = Pipeline([ask, refuse], engine=engine).map({"x": range(8)}, "x", on_error="return")
    assert isinstance(rows["y"][0], ZeroDivisionError)
    assert rows["y"][1:] == list(range(1, 8))
    assert sorted(asked) == list(range(8))


def test_a_call_that_waits_for_an_equal_one_leaves_its_place_to_other_calls(tmp_path):
    asked = []

    @node(output_name="y", max_concurrent=1)
    def ask(x):
        asked.append(x)
        time.sleep(0.01)
        return x

    nodes = [ask, node(lambda y, i: (y, i), output_name="z")]
    xs = [1, 1, 1, 2, 2, 2, 3, 3]
    with HyperNodesEngine(map_executor="threaded") as engine, DiskCache(tmp_path) as cache:
        made = Pipeline(nodes, engine=engine, cache=cache).map({"x": xs, "i": range(8)}, ["x", "i"])
    assert made["z"] == list(zip(xs, range(8), strict=True))
    assert asked == [1, 2, 3]


class RefusingOnce(ThreadPoolExecutor):
    """Refuses the first thing that it is given."""

    has_refused = False

    def submit(self, fn, /, *args, **kwargs):
        if not self.has_refused:
            self.has_refused = True
            raise RuntimeError("refused")
        return super().submit(fn, *args, **kwargs)


def test_a_call_that_an_executor_refuses_leaves_its_place_to_equal_and_other_calls(tmp_path):
    ask = node(lambda x: x, output_name="y", max_concurrent=1)
    with HyperNodesEngine(node_executor=RefusingOnce(2)) as engine, DiskCache(tmp_path) as cache:
        pipeline = Pipeline([ask], engine=engine, cache=cache)
        first, *others = pipeline.map({"x": [1, 1, 2]}, "x", on_error="return")["y"]
    assert isinstance(first, RuntimeError)
    assert others == [1, 2]


def test_limits_hold_over_nested_maps_and_streams(engine_on):
    inner = Pipeline([asking(max_concurrent=1)], name="inner")
    outer = Pipeline(
        [inner.as_node({"numbers": "number"}, map_over="numbers")],
        engine=engine_on("map_executor", "threaded"),
    )
    with serving(seconds=0.01) as service:
        inputs = {"url": service.url, "numbers": [[0, 1], [2, 3], [4]]}
        assert outer.map(inputs, map_over="numbers") == {"answer": [["/0", "/1"], ["/2", "/3"], ["/4"]]}
        stream = inner.with_engine(outer.engine).imap(
            {"url": service.url, "number": iter(range(5))}, "number"
        )
        assert [row["answer"] for _, row in stream] == answers(5)
        assert service.most_under_way == 1


def test_both_copies_of_a_renamed_node_share_its_limits(engine_on):
    ask = asking(max_concurrent=1)
    other = ask.rename(inputs={"number": "other"}, outputs={"answer": "other_answer"})
    pipeline = Pipeline([ask, other], engine=engine_on("node_executor", "threaded"))
    with serving(seconds=0.05) as service:
        assert pipeline(url=service.url, number=1, other=2) == {"answer": "/1", "other_answer": "/2"}
        assert service.most_under_way == 1


@pytest.mark.parametrize("level", LEVELS)
def test_results_that_come_from_the_cache_wait_for_nothing(level, engine_on, tmp_path):
    slow = asking(rate="1/h")
    pipeline = Pipeline([slow], engine=engine_on(level, "threaded"), cache=DiskCache(tmp_path / "cache"))
    with serving() as service:
        filled = Pipeline([asking()], cache=pipeline.cache)
        assert ask_all(filled, service, 5) == answers(5)
        assert ask_all(pipeline, service, 5) == answers(5)
        assert sum(service.asked.values()) == 5


def test_equal_calls_are_made_once_and_a_failed_one_keeps_the_others_waiting(engine_on, tmp_path):
    pipeline = Pipeline(
        [asking(retries=1, retry_delay=[0.05], max_concurrent=2)],
        engine=engine_on("map_executor", "threaded"),
        cache=DiskCache(tmp_path / "cache"),
    )
    with serving(fails_first=1) as service:
        inputs = {"url": service.url, "number": [7] * 5}
        assert pipeline.map(inputs, map_over="number") == {"answer": ["/7"] * 5}
        assert service.asked == {"/7": 2}


def test_async_nodes_and_callers_obey_them():
    times = []

    @node(output_name="y", rate="50/s", retries=1, retry_delay=[0.01])
    async def fetch(x):
        times.append(time.monotonic())
        if times.count(x) == 0 and len(times) == 1:
            raise ConnectionError
        return x

    pipeline = Pipeline([fetch], engine=HyperNodesEngine(map_executor="async"))
    assert asyncio.run(pipeline.amap({"x": [1, 2, 3]}, map_over="x")) == {"y": [1, 2, 3]}
    assert len(times) == 4
    assert asyncio.run(Pipeline([fetch]).arun({"x": 5})) == {"y": 5}


def test_cancelling_ends_the_wait():
    begun = threading.Event()

    @node(output_name="y", retries=3, retry_delay=[3600])
    def fail(x):
        begun.set()
        raise ConnectionError

    async def cancelled():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(Pipeline([fail]).arun({"x": 1}), 0.2)

    asyncio.run(cancelled())
    assert begun.is_set()


@pytest.mark.parametrize(
    ("delay", "waits"),
    [
        (timedelta(milliseconds=10), 3),
        (0.001, 3),
        ([0, 0.001], 3),
        (lambda attempt, error: 0, 3),
        (lambda attempt, error: None if attempt == 2 else 0, 1),
        (tenacity.wait_fixed(0.001), 3),
    ],
    ids=["timedelta", "seconds", "list", "function", "gives up", "tenacity"],
)
def test_a_delay_is_a_number_a_list_or_a_function(delay, waits):
    recorder = Recorder()

    def fail(x):
        raise ConnectionError("gone")

    pipeline = Pipeline([node(fail, output_name="y", retries=3, retry_delay=delay)], callbacks=[recorder])
    with pytest.raises(ConnectionError, match="gone"):
        pipeline(x=1)
    assert len(recorder.of("node_retry")) == waits


def test_a_number_of_seconds_grows_with_jitter():
    from hypernodes.execution.calls.call import delay_before_retry
    from hypernodes.execution.plan.model import CallStep

    options = node(abs, output_name="y", retries=20, retry_delay=1.0).options
    delays = [
        delay_before_retry(CallStep(0, "n", abs, (), ("y",), options=options, attempt=attempt), OSError())
        for attempt in range(10)
    ]
    for attempt, delay in enumerate(delays):
        assert min(60, 2**attempt) <= delay <= min(60, 2**attempt + 0.5)


def test_an_error_of_the_delay_function_is_a_note_on_the_error_of_the_node():
    def broken(attempt, error):
        raise KeyError("Retry-After")

    def fail(x):
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError, match="gone") as found:
        Pipeline([node(fail, output_name="y", retries=3, retry_delay=broken)])(x=1)
    assert any("its retry_delay raised" in note for note in found.value.__notes__)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": "fast"}, "rate is a text such as '18/s'"),
        ({"rate": 18}, "rate is a text such as '18/s'"),
        ({"rate": "0/s"}, "rate is a text such as '18/s'"),
        ({"max_concurrent": 0}, "max_concurrent must be a number of 1 or more"),
        ({"retry_delay": -1}, "retry_delay is a number of seconds above 0"),
        ({"retry_delay": []}, "retry_delay is a number of seconds above 0"),
        ({"retry_delay": "1s"}, "retry_delay is a number of seconds above 0"),
    ],
)
def test_wrong_values_are_errors_that_name_node_and_option(options, message):
    with pytest.raises(GraphError, match=f"node 'ask': {message}"):
        asking(**options)


def test_a_report_counts_the_attempts(engine_on):
    pipeline = Pipeline([asking(retries=1, retry_delay=[0])], callbacks=[RunReport()])
    with serving(fails_first=1) as service:
        ask_all(pipeline, service, 3)
    assert "3" in str(pipeline.last_run)
