"""Short calls go to a worker together: as if each had gone by itself, where processes are the workers."""

import os
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recorder import Recorder

from hypernodes import DiskCache, HyperNodesEngine, ParallelExecutor, Pipeline, RayExecutor, node
from hypernodes.exceptions import TransportError, WorkerDiedError
from hypernodes.execution.durations import SHORT_S
from hypernodes.execution.scheduler.call_groups import GROUP_S, grouped

ENGINES = ("parallel", "ray")


@pytest.fixture
def engine(request, engine_on):
    """Give an engine that sends single calls to other processes."""
    return engine_on("node_executor", request.param)


everywhere = pytest.mark.parametrize("engine", ENGINES, indirect=True)


def increment(x):
    return x + 1


def twice(x):
    return 2 * x


def total(x, y):
    return x + y


def wrong_if_negative(x):
    if x < 0:
        raise ValueError(f"{x} is negative")
    return x


def ends_process_if_negative(x):
    if x < 0:
        os._exit(1)
    return x


def slow_if_negative(x):
    if x < 0:
        time.sleep(0.15)
    return x, os.getpid(), time.monotonic()


def unpicklable_if_negative(x):
    return threading.Lock() if x < 0 else x


def stops_if_negative(x):
    return next(iter(() if x < 0 else (x,)))


def large_if_negative(x):
    return np.zeros(10**6) if x < 0 else np.ones(1)


def appended(x):
    x.append(0)
    return x


def process(x):
    return os.getpid()


def fan(function, names, engine):
    """Make a pipeline of independent calls of one function, and learn that it is short."""
    nodes = [node(function, output_name=f"y{name}").rename(inputs={"x": f"x{name}"}) for name in names]
    pipeline = Pipeline(nodes, engine, name="fan")
    pipeline.run({f"x{name}": 1 for name in names})
    return pipeline


@everywhere
def test_a_chain_of_short_calls_is_made_in_one_process(engine):
    steps = [node(process, output_name=f"p{n + 1}").rename(inputs={"x": f"p{n}"}) for n in range(20)]
    pipeline = Pipeline(steps, engine)
    pipeline.run({"p0": 0})
    assert len(set(pipeline.run({"p0": 0}).values())) == 1


@everywhere
def test_short_calls_give_what_single_calls_give(engine):
    steps = [node(increment, output_name="a0").rename(inputs={"x": "a"})]
    for n in range(12):
        steps.append(node(increment, output_name=f"a{n + 1}").rename(inputs={"x": f"a{n}"}))
        steps.append(node(twice, output_name=f"b{n}").rename(inputs={"x": f"a{n}"}))
        steps.append(node(total, output_name=f"c{n}").rename(inputs={"x": f"a{n + 1}", "y": f"b{n}"}))
    expected = Pipeline(steps).run({"a": 3})
    pipeline = Pipeline(steps, engine)
    for _ in range(3):
        assert pipeline.run({"a": 3}) == expected
    assert pipeline.run({"a": 3}, ["c5", "b11"]) == {name: expected[name] for name in ("c5", "b11")}


@everywhere
def test_an_error_in_a_group_is_that_of_its_node(engine):
    pipeline = fan(wrong_if_negative, range(8), engine)
    inputs = {f"x{n}": n for n in range(8)} | {"x5": -1}
    with pytest.raises(ValueError, match="-1 is negative") as caught:
        pipeline.run(inputs)
    assert "in node 'wrong_if_negative' of pipeline 'fan', called with x=-1" in caught.value.__notes__
    assert pipeline.run(inputs | {"x5": 5})["y5"] == 5


@everywhere
def test_a_stop_iteration_in_a_group_is_that_of_its_node(engine):
    pipeline = fan(stops_if_negative, range(4), engine)
    with pytest.raises((StopIteration, RuntimeError)) as caught:
        pipeline.run({"x0": 1, "x1": 1, "x2": -1, "x3": 1})
    single = Pipeline([node(stops_if_negative, output_name="y0").rename(inputs={"x": "x0"})], engine)
    with pytest.raises(type(caught.value)):
        single.run({"x0": -1})


@everywhere
def test_a_dead_worker_costs_only_the_call_that_is_to_blame(engine):
    pipeline = fan(ends_process_if_negative, range(8), engine)
    inputs = {f"x{n}": n for n in range(8)}
    with pytest.raises(WorkerDiedError) as caught:
        pipeline.run(inputs | {"x5": -1})
    assert any("called with x=-1" in note for note in caught.value.__notes__)
    assert pipeline.run(inputs) == {f"y{n}": n for n in range(8)}


@everywhere
def test_a_result_that_does_not_pickle_fails_its_own_call(engine):
    pipeline = fan(unpicklable_if_negative, range(4), engine)
    with pytest.raises(TransportError, match="cannot be pickled") as caught:
        pipeline.run({"x0": 1, "x1": 1, "x2": -1, "x3": 1})
    assert any("called with x=-1" in note for note in caught.value.__notes__)


@everywhere
def test_an_argument_that_does_not_pickle_is_named(engine):
    pipeline = fan(increment, range(4), engine)
    with pytest.raises(TransportError, match="input 'x'"):
        pipeline.run({"x0": 1, "x1": 1, "x2": threading.Lock(), "x3": 1})


@everywhere
def test_calls_that_turn_out_slow_do_not_wait_for_each_other(engine):
    pipeline = fan(slow_if_negative, range(6), engine)
    made = pipeline.run({f"x{n}": -n - 1 for n in range(6)})
    assert [made[f"y{n}"][0] for n in range(6)] == [-1, -2, -3, -4, -5, -6]
    # The first call of a group used up its time: the others were divided again, and two workers took them.
    assert len({pid for _, pid, _ in made.values()}) > 1


@everywhere
def test_each_call_of_a_group_is_given_values_of_its_own(engine):
    """As single calls are: what one changes in place, no other sees."""
    steps = [
        node(list, output_name="a").rename(inputs={"iterable": "xs"}),
        *(node(appended, output_name=f"b{n}").rename(inputs={"x": "a"}) for n in range(3)),
        *(node(appended, output_name=f"c{n}").rename(inputs={"x": "b0"}) for n in range(3)),
    ]
    pipeline = Pipeline(steps, engine)
    expected = {"a": [1], **{f"b{n}": [1, 0] for n in range(3)}, **{f"c{n}": [1, 0, 0] for n in range(3)}}
    for _ in range(3):
        assert pipeline.run({"xs": [1]}) == expected


@everywhere
def test_large_results_of_a_group_arrive(engine):
    pipeline = fan(large_if_negative, range(4), engine)
    for _ in range(2):
        made = pipeline.run({f"x{n}": -1 for n in range(4)})
        assert all(made[f"y{n}"].shape == (10**6,) for n in range(4))


@everywhere
def test_items_that_stay_here_send_their_short_calls_together(engine):
    inner = [
        node(increment, output_name="b").rename(inputs={"x": "a"}),
        node(twice, output_name="c").rename(inputs={"x": "b"}),
        node(process, output_name="p").rename(inputs={"x": "c"}),
    ]
    pipeline = Pipeline(inner, engine)
    pipeline.map({"a": [1, 2]}, "a")
    rows = pipeline.map({"a": list(range(10))}, "a")
    assert rows["c"] == [2 * (a + 1) for a in range(10)]


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_random_graphs_of_short_calls_give_what_a_plain_loop_gives(shared, data):
    count = data.draw(st.integers(2, 14))
    steps, names = [], ["a", "b"]
    for n in range(count):
        function = data.draw(st.sampled_from([increment, twice, total, wrong_if_negative]))
        parameters = ["x", "y"] if function is total else ["x"]
        drawn = data.draw(st.lists(st.sampled_from(names), min_size=2, max_size=2, unique=True))
        taken = dict(zip(parameters, drawn, strict=False))
        steps.append(node(function, output_name=f"v{n}").rename(inputs=taken))
        names.append(f"v{n}")
    inputs = {"a": data.draw(st.integers(-3, 3)), "b": data.draw(st.integers(-3, 3))}
    wanted = data.draw(st.lists(st.sampled_from(names[2:]), min_size=1, unique=True))
    results = []
    for engine in (HyperNodesEngine(), shared, shared):
        pipeline = Pipeline(steps, engine, name="random")
        given_inputs = {name: inputs[name] for name in inputs if name in pipeline.input_names}
        try:
            results.append(pipeline.run(given_inputs, wanted))
        except ValueError as error:  # Which of several nodes fails first is open.
            results.append(type(error))
    assert results[0] == results[1] == results[2]


@pytest.fixture(scope="module")
def shared():
    """Give one engine for many examples: what is short is learned once."""
    with ParallelExecutor(2) as executor:
        yield HyperNodesEngine(node_executor=executor)


# ------------------------------------------------------------------------------- watched and cached


class Workers(Recorder):
    """Remembers, too, when and where each call began and ended, by its output."""

    def __init__(self):
        super().__init__()
        self.began, self.ended, self.given, self.notes = {}, {}, {}, []

    def node_context(self, ctx):
        return process_of_call

    def on_node_notes(self, node_id, notes, ctx):
        self.notes += notes

    def on_node_start(self, node_id, inputs, ctx):
        super().on_node_start(node_id, inputs, ctx)
        self.given[len(self.began)] = inputs
        self.began[len(self.began)] = ctx.time, ctx.worker.pid

    def on_node_end(self, node_id, outputs, duration, ctx):
        super().on_node_end(node_id, outputs, duration, ctx)
        (name,) = outputs
        self.ended[name] = ctx.time, ctx.worker.pid, duration


@contextmanager
def process_of_call(call):
    yield [os.getpid()]


@everywhere
def test_watched_calls_go_together_and_their_events_say_when_and_where_each_was_made(engine):
    steps = [node(increment, output_name=f"v{n + 1}").rename(inputs={"x": f"v{n}"}) for n in range(10)]
    Pipeline(steps, engine).run({"v0": 0})
    watching = Workers()
    result = Pipeline(steps, engine, callbacks=[watching]).run({"v0": 0})
    assert result == {f"v{n + 1}": n + 1 for n in range(10)}
    assert [hook for hook, *_ in watching.events if hook.startswith("node")] == [
        "node_start",
        "node_end",
    ] * 10
    assert not watching.unfinished
    assert [watching.given[n] for n in range(10)] == [{"x": n} for n in range(10)]
    assert watching.notes == [watching.ended[f"v{n + 1}"][1] for n in range(10)]
    together = [n for n in range(10) if watching.began[n][1] != os.getpid()]
    assert len(together) > 1  # Those that were slow, on a busy machine, went alone.
    for n in together:
        ended, worker, seconds = watching.ended[f"v{n + 1}"]
        assert watching.began[n][1] == worker
        assert ended - watching.began[n][0] == pytest.approx(seconds, abs=1e-4)


@everywhere
def test_an_error_in_a_watched_group_has_the_events_of_its_node(engine):
    pipeline = fan(wrong_if_negative, range(8), engine)
    watching = Recorder()
    with pytest.raises(ValueError, match="-1 is negative"):
        pipeline.with_callbacks([watching]).run({f"x{n}": n for n in range(8)} | {"x5": -1})
    assert not watching.unfinished
    assert len([event for event in watching.of("error") if event[1][0] == "wrong_if_negative"]) == 1


@everywhere
def test_a_dead_worker_of_a_watched_group_costs_only_its_culprit(engine):
    pipeline = fan(ends_process_if_negative, range(6), engine)
    watching = Recorder()
    with pytest.raises(WorkerDiedError):
        pipeline.with_callbacks([watching]).run({f"x{n}": n for n in range(6)} | {"x3": -1})
    assert not watching.unfinished


def written(x, directory, name):
    """Leave a file for each time that it is called."""
    time.sleep(x / 1e6)
    (Path(directory) / f"{name}-{os.getpid()}-{time.time_ns()}").touch()
    return os.getpid()


def calls_of(directory):
    return Counter(file.name.split("-")[0] for file in directory.iterdir())


@pytest.fixture
def calls(tmp_path):
    directory = tmp_path / "calls"
    directory.mkdir()
    return directory


def chain_of_written(engine, count=8, **options):
    """Make a chain whose nodes are known to be short."""
    steps = [
        node(written, output_name=f"p{n + 1}").rename(inputs={"x": f"p{n}", "name": f"name{n}"})
        for n in range(count)
    ]
    return Pipeline(steps, engine, **options)


def inputs_of(calls, count=8, start=0):
    return {"p0": start, "directory": str(calls), **{f"name{n}": f"n{n}" for n in range(count)}}


@everywhere
def test_cached_calls_go_together_and_are_found_later(engine, calls, tmp_path):
    pipeline = chain_of_written(engine).with_cache(DiskCache(tmp_path / "cache"))
    pipeline.run(inputs_of(calls, start=1))  # learns that it is short
    watching = Recorder()
    watched = pipeline.with_callbacks([watching])
    made = watched.run(inputs_of(calls, start=2))
    assert watched.run(inputs_of(calls, start=2)) == made
    assert len(watching.of("node_end")) == len(watching.of("node_cached")) == 8
    assert not watching.unfinished
    assert HyperNodesEngine().run(pipeline, inputs_of(calls, start=2)) == made
    assert {name: calls_of(calls)[name] for name in (f"n{n}" for n in range(8))} == {
        f"n{n}": 2 for n in range(8)
    }


@everywhere
def test_equal_cached_calls_are_made_once_though_they_could_go_together(engine, calls, tmp_path):
    """In one run, and in runs at the same time."""
    steps = [
        node(written, output_name=f"p{n}").rename(inputs={"x": f"x{n}", "name": f"name{n % 3}"})
        for n in range(9)
    ]
    last = node(together, output_name="all").rename(inputs={f"x{n}": f"p{n}" for n in range(9)})
    pipeline = Pipeline([*steps, last], engine, cache=DiskCache(tmp_path / "cache"))

    def inputs(x):
        named = {f"name{n}": f"n{n}" for n in range(3)}
        return {"directory": str(calls), **named, **{f"x{n}": x for n in range(9)}}

    pipeline.run(inputs(0))
    assert calls_of(calls) == {"n0": 1, "n1": 1, "n2": 1}
    for x in (1, 2):
        with ThreadPoolExecutor(4) as pool:
            made = [future.result() for future in [pool.submit(pipeline.run, inputs(x)) for _ in range(4)]]
        assert made == [made[0]] * 4
        assert all(made[0][f"p{n}"] == made[0][f"p{n % 3}"] for n in range(9))
    assert calls_of(calls) == {"n0": 3, "n1": 3, "n2": 3}


def together(x0, x1, x2, x3, x4, x5, x6, x7, x8):
    return x0, x1, x2, x3, x4, x5, x6, x7, x8


@everywhere
def test_what_was_made_before_an_error_in_a_cached_group_is_found_later(engine, tmp_path):
    steps = [node(wrong_if_negative, output_name=f"v{n + 1}").rename(inputs={"x": f"v{n}"}) for n in range(4)]
    steps.append(node(twice, output_name="w").rename(inputs={"x": "v4"}))
    steps.append(node(wrong_if_too_large, output_name="z").rename(inputs={"x": "w"}))
    pipeline = Pipeline(steps, engine, cache=DiskCache(tmp_path / "cache"))
    pipeline.run({"v0": 1})
    with pytest.raises(ValueError, match="200 is too large"):
        pipeline.run({"v0": 100})
    watching = Recorder()
    with pytest.raises(ValueError, match="200 is too large"):
        pipeline.with_callbacks([watching]).run({"v0": 100})
    assert len(watching.of("node_cached")) == 5
    assert not watching.unfinished


def wrong_if_too_large(x):
    if x > 50:
        raise ValueError(f"{x} is too large")
    return x


# -------------------------------------------------------------------------------------- the rule


class Step:
    def __init__(self, index, takes, makes):
        self.index = index
        self.arguments = tuple((name, name) for name in takes)
        self.outputs = tuple(makes)


def divided(ready, following=(), seconds=SHORT_S / 2, known=("x",)):
    takes = seconds if callable(seconds) else lambda step: seconds
    return [[step.index for step in group] for group in grouped(ready, following, takes, set(known))]


def test_groups_are_about_as_long_as_said():
    ready = [Step(n, ["x"], [f"y{n}"]) for n in range(100)]
    groups = divided(ready, seconds=SHORT_S / 2)
    assert Counter(index for group in groups for index in group) == dict.fromkeys(range(100), 1)
    assert max(map(len, groups)) <= GROUP_S / (SHORT_S / 2)


def test_what_follows_goes_along_only_where_all_it_takes_is_known_or_made_there():
    ready = [Step(0, ["x"], ["a"]), Step(1, ["x"], ["b"])]
    both = Step(2, ["a", "b"], ["c"])
    assert divided(ready, [both]) == [[0, 1, 2]]
    apart = [[step] for step in ready]
    assert [divided(group, [both]) for group in apart] == [[[0]], [[1]]]
    assert divided(ready[:1], [Step(2, ["a", "x"], ["c"]), Step(3, ["c", "unknown"], ["d"])]) == [[0, 2]]


def test_what_is_not_short_does_not_go_along():
    following = [Step(1, ["a"], ["b"]), Step(2, ["b"], ["c"])]
    assert divided(
        [Step(0, ["x"], ["a"])], following, lambda step: None if step.index == 1 else SHORT_S / 2
    ) == [[0]]


def test_a_group_that_is_full_takes_nothing_along():
    chain = [Step(n, [f"v{n}"], [f"v{n + 1}"]) for n in range(200)]
    (group,) = divided(chain[:1], chain[1:], seconds=SHORT_S / 2, known=("v0",))
    assert group == list(range(len(group)))
    assert len(group) <= GROUP_S / (SHORT_S / 2)


def test_functions_that_have_no_weak_references_go_alone():
    class Slotted:
        __slots__ = ()

        def __call__(self, x):
            return x

    with ParallelExecutor(1) as executor:
        pipeline = Pipeline(
            [node(Slotted(), output_name=f"y{n}").rename(inputs={"x": "x"}) for n in range(2)],
            HyperNodesEngine(node_executor=executor),
        )
        assert [pipeline.run({"x": 1}) for _ in range(2)] == [{"y0": 1, "y1": 1}] * 2


def test_an_executor_of_ray_keeps_its_limit_of_workers(ray_cluster):
    with RayExecutor(1) as executor:
        pipeline = fan(process, range(30), HyperNodesEngine(node_executor=executor))
        assert len(pipeline.run({f"x{n}": 1 for n in range(30)})) == 30
