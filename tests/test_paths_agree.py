"""Callbacks are told the same, however a pipeline is run: in chunks or one by one, compiled or by steps."""

import asyncio
import itertools
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pytest
from recorder import Recorder

from hypernodes import (
    AsyncExecutor,
    DaftEngine,
    DiskCache,
    HyperNodesEngine,
    Pipeline,
    PipelineCallback,
    node,
)
from hypernodes.exceptions import MapError

EXECUTORS = ("sequential", "AsyncExecutor", "ThreadPoolExecutor", "ParallelExecutor", "RayExecutor")
ENGINES = (*EXECUTORS, "Daft")
COMPILED = ("sequential", "ThreadPoolExecutor", "ParallelExecutor", "RayExecutor", "Daft")
CHUNKED = COMPILED[1:]
WAYS = ("map", "imap")
PATHS = tuple(itertools.product(ENGINES, WAYS))


@pytest.fixture
def engine_of(executor_named):
    """Make the engine that sends the items of a map to an executor, or to Daft."""

    def make(name):
        return (
            DaftEngine(runner="native")
            if name == "Daft"
            else HyperNodesEngine(map_executor=executor_named(name))
        )

    return make


def over_items(pipeline, way, inputs, on_error="return"):
    """Run a pipeline over items, as a whole or as a stream."""
    over = next(iter(inputs))
    if way == "map":
        return pipeline.map(inputs, over, on_error=on_error)
    return list(pipeline.imap(inputs, over, on_error=on_error))


class Refused(Exception):
    pass


# ------------------------------------------------------------------------------------ told in numbers


class Counting(PipelineCallback):
    """Counts hooks, and items that are done, however they are told."""

    counts_items = True

    def __init__(self):
        self.told = Counter()
        self.errors = []
        self.items = 0

    def on_pipeline_start(self, pipeline_id, inputs, ctx):
        self.told["pipeline_start", ctx.hierarchy_path] += 1

    def on_pipeline_end(self, pipeline_id, outputs, duration, ctx):
        self.told["pipeline_end", ctx.hierarchy_path] += 1

    def on_node_end(self, node_id, outputs, duration, ctx):
        self.told["node_end", ctx.hierarchy_path] += 1

    def on_node_notes(self, node_id, notes, ctx):
        self.told["notes"] += len(notes)

    def on_map_items_end(self, items, ctx):
        self.items += items

    def on_map_item_end(self, item_index, duration, ctx):
        self.items += 1

    def on_error(self, node_id, error, ctx):
        self.errors.append((node_id, ctx.about, ctx.hierarchy_path, ctx.item_path))


ITEMS = 600
BAD = (199, 399, 599)


@node(output_name="y")
def check(x):
    if x in BAD:
        raise Refused(x)
    return 2 * x


@node(output_name="y")
async def check_later(x):
    if x in BAD:
        raise Refused(x)
    return 2 * x


def errors_of_bad_items(*of):
    """Return what is told of the items that fail: of each the same errors."""
    return sorted((*error, (item,)) for item in BAD for error in of)


@pytest.mark.parametrize(
    ("engine", "way"),
    PATHS,
)
def test_a_counting_callback_of_a_nested_pipeline_alone_hears_of_each_of_its_runs(engine_of, engine, way):
    inside, outside = Counting(), Counting()
    inner = Pipeline([check], name="inner", callbacks=[inside])
    pipeline = Pipeline([inner], engine_of(engine), name="outer", callbacks=[outside])
    over_items(pipeline, way, {"x": range(ITEMS)})
    path = ("outer", "inner")
    assert inside.told == {
        ("pipeline_start", path): ITEMS,
        ("pipeline_end", path): ITEMS - len(BAD),
        ("node_end", path): ITEMS - len(BAD),
    }
    assert sorted(inside.errors) == errors_of_bad_items(("check", "node", path), ("inner", "pipeline", path))
    assert outside.items == ITEMS
    assert sorted(outside.errors) == errors_of_bad_items(("inner", "node", ("outer",)))


@pytest.mark.parametrize("alias", ["sequential", "threaded"])
def test_so_does_one_that_is_nested_more_deeply_beside_pipelines_that_tell_nobody(alias):
    inside = Counting()
    inner = Pipeline([check], name="inner", callbacks=[inside])
    middle = Pipeline([inner], name="middle", callbacks=[])
    with HyperNodesEngine(map_executor=alias) as engine:
        pipeline = Pipeline([middle], engine, name="outer", callbacks=[Counting()])
        pipeline.map({"x": range(100)}, "x")
    assert inside.told["pipeline_end", ("outer", "middle", "inner")] == 100


@contextmanager
def around(call):
    yield [call.node_id]


class Around(Counting):
    """Counts, and puts something around each call that notes that it was there."""

    counts_items = True

    def node_context(self, ctx):
        return around


@pytest.mark.parametrize(
    ("engine", "way"),
    PATHS,
)
def test_what_a_counting_callback_puts_around_calls_is_around_each_of_them(engine_of, engine, way):
    counting = Around()
    pipeline = Pipeline(
        [Pipeline([check], name="inner")], engine_of(engine), name="outer", callbacks=[counting]
    )
    over_items(pipeline, way, {"x": range(ITEMS)})
    assert counting.told["notes"] == ITEMS
    assert counting.items == ITEMS


def test_so_it_is_around_coroutines(engine_of):
    counting = Around()
    pipeline = Pipeline([check_later], engine_of("AsyncExecutor"), callbacks=[counting])
    pipeline.map({"x": range(100)}, "x", on_error="return")
    assert counting.told["notes"] == 100


@node(output_name="q")
def refuse(x):
    raise Refused(x)


OTHER = Pipeline([Pipeline([refuse], name="inside")], name="other")


@node(output_name="y")
def run_another(x):
    try:
        OTHER.run({"x": x})
    except Refused:
        return check(x)


@pytest.mark.parametrize(
    ("engine", "way"),
    PATHS,
)
def test_errors_of_a_pipeline_that_a_node_has_caught_are_told_to_nobody(engine_of, engine, way):
    counting = Counting()
    pipeline = Pipeline([run_another], engine_of(engine), name="p", callbacks=[counting])
    over_items(pipeline, way, {"x": range(ITEMS)})
    assert sorted(counting.errors) == errors_of_bad_items(("run_another", "node", ("p",)))
    assert counting.items == ITEMS


@node(output_name="y")
async def run_another_later(x):
    try:
        await OTHER.arun({"x": x})
    except Refused:
        return await check_later.function(x)


def test_errors_of_a_pipeline_that_a_coroutine_has_caught_are_told_to_nobody(engine_of):
    counting = Counting()
    pipeline = Pipeline([run_another_later], engine_of("AsyncExecutor"), name="p", callbacks=[counting])
    over_items(pipeline, "map", {"x": range(ITEMS)})
    assert sorted(counting.errors) == errors_of_bad_items(("run_another_later", "node", ("p",)))


def double_all(x):
    values = x.to_pylist()
    if 1 in values:
        raise Refused(values)
    return [2 * value for value in values]


@node(output_name="y", batch=double_all)
def double(x):
    if x == 1:
        raise Refused(x)
    return 2 * x


@pytest.mark.parametrize("on_error", ["raise", "return"])
@pytest.mark.parametrize(
    ("engine", "way", "nested"),
    [(*path, nested) for path in PATHS for nested in ("flat", "nested")],
)
def test_items_and_errors_of_batch_functions_are_told_to_callbacks_that_count(
    engine_of, engine, way, nested, on_error
):
    counting = Counting()
    members = [Pipeline([double], name="inner")] if nested == "nested" else [double]
    pipeline = Pipeline(members, engine_of(engine), name="p", callbacks=[counting])
    wanted = [("double", "node", ("p",), (1,))]
    if nested == "nested":
        wanted = [("double", "node", ("p", "inner"), (1,)), ("inner", "node", ("p",), (1,))]
    if on_error == "raise":
        with pytest.raises(Refused):
            over_items(pipeline, way, {"x": range(3)}, "raise")
        told = [
            error for error in counting.errors if error[3] != (2,)
        ]  # that one may be under way, and stopped
        assert told == [*wanted, ("p", "pipeline", ("p",), ())]
    else:
        over_items(pipeline, way, {"x": range(3)})
        assert counting.errors == wanted
        assert counting.items == 3


# --------------------------------------------------------------------- starts, and ends or errors


class Signals(Recorder):
    """Makes files when a node is told to start, of one item or of any, and when something has failed."""

    def __init__(self, directory, node_id, items=None):
        super().__init__()
        self.started = directory / "started"
        self.failed = directory / "failed"
        self.node_id = node_id
        self.items = items

    def on_node_start(self, node_id, inputs, ctx):
        super().on_node_start(node_id, inputs, ctx)
        if node_id == self.node_id and self.items in (None, ctx.item_path):
            self.started.touch()

    def on_error(self, node_id, error, ctx):
        super().on_error(node_id, error, ctx)
        self.failed.touch()


def wait_for(file, seconds):
    """Wait until a file is there, or for so many seconds at most."""
    deadline = time.monotonic() + seconds
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.005)


@node(output_name="a")
def refuse_then(x, started):
    wait_for(started, 3)
    raise Refused(x)


@node(output_name="b")
def linger(x, failed):
    wait_for(failed, 0.5)
    return x


@node(output_name="b")
def linger_and_refuse(x, failed):
    wait_for(failed, 0.5)
    raise KeyError(x)


BESIDE = {
    "a node": linger,
    "a node that fails later": linger_and_refuse,
    "a nested pipeline": Pipeline([linger], name="inside"),
    "nested pipelines": Pipeline([Pipeline([linger], name="inner")], name="inside"),
    "a nested map": Pipeline([linger], name="inside").as_node({"xs": "x"}, map_over="xs"),
}


@pytest.mark.parametrize(
    ("executor", "beside"),
    list(itertools.product((*EXECUTORS, "one thread"), BESIDE)),
)
def test_what_is_under_way_when_another_node_fails_ends_or_fails_too(
    executor_named, executor, beside, tmp_path
):
    recorder = Signals(tmp_path, "linger_and_refuse" if "later" in beside else "linger")
    if executor == "sequential":
        recorder.started.touch()  # nothing would happen while a node waits for it
    pipeline = Pipeline([refuse_then, BESIDE[beside]], name="outer", callbacks=[recorder])
    inputs = {"x": 1, "xs": [1, 2, 3], "started": recorder.started, "failed": recorder.failed}
    inputs = {name: inputs[name] for name in pipeline.input_names}
    with ThreadPoolExecutor(1) as thread:
        made = thread if executor == "one thread" else executor_named(executor)
        with pytest.raises(Refused):
            pipeline.with_engine(HyperNodesEngine(made)).run(inputs)
    assert recorder.unfinished == []
    assert recorder.events[-1][:2] == ("error", ("outer", "Refused(1)"))


@node(output_name="y")
def refuse_first(x, started, failed):
    if x == 0:
        wait_for(started, 3)
        raise Refused(x)
    if x > 1:
        wait_for(failed, 0.5)
    return x


REFUSE_FIRST = Pipeline([Pipeline([refuse_first], name="inner")], name="outer")
AT_NODES = EXECUTORS[1:4]


def signalling(recorder):
    return REFUSE_FIRST.with_callbacks([recorder]).bind(started=recorder.started, failed=recorder.failed)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("executor", AT_NODES)
def test_items_that_are_under_way_when_another_fails_end_or_fail_too(executor_named, executor, way, tmp_path):
    recorder = Signals(tmp_path, "refuse_first", (1,))
    with ThreadPoolExecutor(2) as threads, pytest.raises(Refused):
        engine = HyperNodesEngine(executor_named(executor), threads)
        over_items(signalling(recorder).with_engine(engine), way, {"x": [0, 2, 3, 4]}, "raise")
    assert recorder.unfinished == []
    assert recorder.events[-1][:2] == ("error", ("outer", "Refused(0)"))


@pytest.mark.parametrize("executor", AT_NODES)
def test_what_else_is_under_way_in_an_item_that_fails_ends_or_fails_too(executor_named, executor, tmp_path):
    """The other items go on."""
    recorder = Signals(tmp_path, "linger")
    pipeline = Pipeline([refuse_then, linger], name="p", callbacks=[recorder])
    pipeline = pipeline.bind(started=recorder.started, failed=recorder.failed)
    pipeline = pipeline.with_engine(HyperNodesEngine(executor_named(executor)))
    rows = pipeline.map({"x": [1, 2]}, "x", on_error="return")["b"]
    assert [type(row) for row in rows] == [Refused, Refused]
    assert recorder.unfinished == []
    assert len(recorder.of("item_end")) == 2


@pytest.mark.parametrize("executor", AT_NODES)
def test_what_is_under_way_when_a_stream_is_closed_ends_or_fails(executor_named, executor, tmp_path):
    recorder = Signals(tmp_path, "refuse_first")
    with ThreadPoolExecutor(2) as threads:
        engine = HyperNodesEngine(executor_named(executor), threads)
        rows = signalling(recorder).with_engine(engine).imap({"x": itertools.count(1)}, "x")
        next(rows)
        rows.close()
    assert recorder.unfinished == []


@pytest.mark.parametrize("executor", EXECUTORS[:4])
def test_what_is_under_way_when_a_run_is_cancelled_ends_or_fails(executor_named, executor, tmp_path):
    async def main(pipeline):
        task = asyncio.create_task(pipeline.amap({"x": range(2, 9)}, "x"))
        while not recorder.started.exists():
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    recorder = Signals(tmp_path, "refuse_first")
    engine = HyperNodesEngine(executor_named(executor))
    asyncio.run(main(signalling(recorder).with_engine(engine)))
    deadline = time.monotonic() + 20  # a plain function that is running goes on to its end
    while recorder.unfinished and time.monotonic() < deadline:
        time.sleep(0.01)
    assert recorder.unfinished == []


@node(output_name="y")
def interrupt(x):
    raise KeyboardInterrupt


@pytest.mark.parametrize("alias", ["sequential", "threaded"])
def test_what_is_under_way_when_a_run_is_interrupted_ends_or_fails(alias, recorder):
    inner = Pipeline([interrupt], name="inner")
    with HyperNodesEngine(alias) as engine:
        pipeline = Pipeline([inner], engine, name="outer", callbacks=[recorder])
        with pytest.raises(KeyboardInterrupt):
            pipeline.run({"x": 1})
    assert recorder.unfinished == []
    assert [what[0] for _, what, *_ in recorder.of("error")] == ["interrupt", "inner", "outer"]


@pytest.mark.parametrize("executor", EXECUTORS[:3])
def test_nothing_starts_in_a_pipeline_after_a_step_has_failed_at_its_start(
    executor_named, executor, recorder
):
    """Two nested maps wait for one value, over which neither can be mapped."""
    number = node(lambda x: 5, output_name="xs")
    maps = [
        Pipeline([check], name=name).as_node({"xs": "x"}, {"y": name}, map_over="xs")
        for name in ("one", "two")
    ]
    engine = HyperNodesEngine(executor_named(executor))
    pipeline = Pipeline([number, *maps], engine, name="outer", callbacks=[recorder])
    with pytest.raises(MapError):
        pipeline.run({"x": 1})
    assert recorder.unfinished == []
    assert len([what for _, what, *_ in recorder.of("node_start") if what[0] in ("one", "two")]) == 1


@pytest.mark.parametrize("on_error", ["raise", "return"])
def test_nothing_starts_in_an_item_after_another_has_ended_the_map(recorder, on_error):
    with ThreadPoolExecutor(2) as threads, AsyncExecutor(4) as loop:
        inner = Pipeline([check], name="inner").as_node({"xs": "x"}, map_over="xs")
        pipeline = Pipeline([inner], HyperNodesEngine(threads, loop), name="outer", callbacks=[recorder])
        nested = pipeline.as_node(map_over="xs")
        outer = Pipeline([nested], HyperNodesEngine(), name="all", callbacks=[recorder])
        with suppress(MapError):
            outer.map({"xs": [[1, 2, 3], [4, 5]]}, "xs", on_error=on_error)
    assert recorder.unfinished == []


# -------------------------------------------------------------------------- items told as cached


def cached_items(recorder):
    """Return the outermost items that were told as cached."""
    return sorted(items[0] for _, _, _, items in recorder.of("item_cached") if len(items) == 1)


LEVELS = ("inner items", "outer nodes", "outer items")


def nested_map(level, made, **options):
    """Return a map over maps, of which one level goes to an executor."""
    engine = {
        "inner items": HyperNodesEngine(map_executor=made),
        "outer nodes": HyperNodesEngine(made),
        "outer items": HyperNodesEngine(map_executor=made),
    }[level]
    inner = Pipeline([check], engine if level == "inner items" else None, name="inner")
    outer = None if level == "inner items" else engine
    return Pipeline([inner.as_node({"xs": "x"}, map_over="xs")], outer, name="outer", **options)


@pytest.mark.parametrize(
    ("executor", "level"),
    list(itertools.product(EXECUTORS, LEVELS)),
)
def test_an_item_is_told_as_cached_if_its_nested_map_was_and_not_if_it_was_computed(
    executor_named, executor, level, tmp_path
):
    for expected in ([], [0, 1]):
        recorder = Recorder()
        with DiskCache(tmp_path) as cache:
            pipeline = nested_map(level, executor_named(executor), cache=cache, callbacks=[recorder])
            pipeline.map({"xs": [[1, 2], [3]]}, "xs")
        assert cached_items(recorder) == expected


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("executor", EXECUTORS)
def test_an_item_in_which_there_is_nothing_to_call_is_not_told_as_cached(
    executor_named, executor, level, tmp_path
):
    recorder = Recorder()
    with DiskCache(tmp_path) as cache:
        pipeline = nested_map(level, executor_named(executor), cache=cache, callbacks=[recorder])
        assert pipeline.map({"xs": [[], []]}, "xs") == {"y": [[], []]}
    assert cached_items(recorder) == []


# ---------------------------------------------------------------------- given intermediate values


@node(output_name="z")
def add(y):
    return y + 1


@pytest.mark.parametrize(
    ("engine", "watched", "way", "wanted"),
    list(itertools.product(ENGINES, ("plain", "told", "cached", "returning"), WAYS, ("all", "y", "z"))),
)
def test_a_given_intermediate_value_may_be_mapped_over_and_asked_for(
    engine_of, engine, watched, way, wanted, tmp_path
):
    options = {"told": {"callbacks": [Recorder()]}, "cached": {"cache": DiskCache(tmp_path)}}
    pipeline = Pipeline([check, add], engine_of(engine), name="p", **options.get(watched, {}))
    names = {"all": ("y", "z")}.get(wanted, (wanted,))
    on_error = "return" if watched == "returning" else "raise"
    run = pipeline.map if way == "map" else pipeline.imap
    rows = run({"y": [1, 2]}, "y", output_name=list(names), on_error=on_error)
    if way == "map":
        assert rows == {name: [1, 2] if name == "y" else [2, 3] for name in names}
    else:
        expected = [{"y": 1, "z": 2}, {"y": 2, "z": 3}]
        assert [row for _, row in rows] == [{name: row[name] for name in names} for row in expected]


# ---------------------------------------------------------------- compiled plans that emit events


class Never(Exception):
    """Is never raised, so that a node that is called again only for it goes the general way and no other."""


class Everything(PipelineCallback):
    """Remembers all that it hears of, values included, in order."""

    def __init__(self):
        self.told = []

    def keep(self, hook, told, ctx):
        shown = [repr(value) for value in told if not isinstance(value, float)]
        self.told.append((hook, shown, ctx.hierarchy_path, ctx.item_path, ctx.about))


for _hook in [name for name in dir(PipelineCallback) if name.startswith("on_")]:
    setattr(Everything, _hook, lambda self, *told, hook=_hook: self.keep(hook, told[:-1], told[-1]))


def of_all_kinds(called, **options):
    """Make a pipeline with a nested one, a mapped one, and a node of two outputs."""

    def halves(x):
        return x // 2, x - x // 2

    def double(half):
        called.append(half)
        if half == 13:
            raise Refused(half)
        return 2 * half

    def total(doubles, high):
        return sum(doubles) + high

    def parts(low):
        return [low, low + 1]

    inner = Pipeline([node(double, output_name="doubled", **options)], name="inner")
    mapped = inner.as_node(
        input_mapping={"halves": "half"}, output_mapping={"doubled": "doubles"}, map_over="halves"
    )
    once = Pipeline([node(parts, output_name="halves", **options)], name="once")
    return Pipeline(
        [
            node(halves, output_name=("low", "high"), **options),
            once.as_node(),
            mapped,
            node(total, output_name="total", **options),
        ],
        name="kinds",
    )


@pytest.mark.parametrize("on_error", ["raise", "return"])
@pytest.mark.parametrize("way", ["run", "map"])
@pytest.mark.parametrize("bad", [False, True])
def test_a_compiled_plan_emits_what_the_general_path_does(way, bad, on_error):
    told = []
    for options in ({}, {"retries": 1, "retry_on": Never}):
        everything = Everything()
        pipeline = of_all_kinds([], **options).with_callbacks([everything])
        with suppress(Refused):
            if way == "run":
                pipeline.run({"x": 26 if bad else 4})
            else:
                pipeline.map({"x": [2, 4, 26, 6] if bad else [2, 4, 6]}, map_over="x", on_error=on_error)
        told.append(everything.told)
    assert len(told[0]) > 10
    assert told[0] == told[1]


@pytest.mark.parametrize("way", ["run", "map"])
def test_hooks_are_called_around_the_calls_they_are_about(way):
    happened = []

    class Around(PipelineCallback):
        def on_node_start(self, node_id, inputs, ctx):
            happened.append("start")

        def on_node_end(self, node_id, outputs, duration, ctx):
            happened.append("end")

    def call(x):
        happened.append(x)

    pipeline = Pipeline([node(call, output_name="nothing")], callbacks=[Around()])
    if way == "run":
        pipeline.run({"x": 1})
        assert happened == ["start", 1, "end"]
    else:
        pipeline.map({"x": range(3)}, map_over="x")
        assert happened == ["start", 0, "end", "start", 1, "end", "start", 2, "end"]


@pytest.mark.parametrize("way", ["run", "map", "nested"])
def test_a_node_that_an_interrupt_ends_is_told_as_abandoned(way):
    def interrupted(x):
        if x == 5:
            raise KeyboardInterrupt
        return x

    everything = Everything()
    pipeline = Pipeline([node(interrupted, output_name="y")], name="p")
    if way == "nested":
        pipeline = Pipeline([pipeline.as_node()], name="outer")
    pipeline = pipeline.with_callbacks([everything])
    with pytest.raises(KeyboardInterrupt):
        if way == "map":
            pipeline.map({"x": range(9)}, map_over="x")
        else:
            pipeline.run({"x": 5})
    errors = [(hook, told[0], about) for hook, told, _, _, about in everything.told if hook == "on_error"]
    assert errors[0][1:] == ("'interrupted'", "node")
    assert "NodeAbandonedError" in repr([told for hook, told, *_ in everything.told if hook == "on_error"][0])
    assert errors[-1][2] == "pipeline"


def test_a_node_context_is_entered_around_each_compiled_call_and_its_notes_are_told():
    around = []

    class Notes(PipelineCallback):
        def node_context(self, ctx):
            @contextmanager
            def note(call):
                around.append(("enter", call.node_id, call.item_path))
                yield [call.item_path]
                around.append(("leave", call.node_id, call.item_path))

            return note

        def on_node_notes(self, node_id, notes, ctx):
            around.append(("notes", node_id, *notes))

    pipeline = Pipeline([check], callbacks=[Notes()], name="p")
    pipeline.map({"x": range(195, 203)}, map_over="x", on_error="return")
    assert around == [(what, "check", (item,)) for item in range(8) for what in ("enter", "leave", "notes")]
