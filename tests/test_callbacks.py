"""Callbacks: which hooks are called, in which order, and with which context."""

import logging
import os
import re
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from abandoned import Failed, run_and_abandon

import hypernodes
from hypernodes import (
    DiskCache,
    HyperNodesEngine,
    LoggingCallback,
    Pipeline,
    PipelineCallback,
    ProgressCallback,
    RunReport,
    node,
)
from hypernodes.exceptions import NodeAbandonedError


@node(output_name="y")
def double(x):
    return 2 * x


@node(output_name="z")
def add(y, offset=1):
    return y + offset


SUMS = Pipeline([double, add], name="sums")


class Refused(Exception):
    pass


@node(output_name="checked")
def check(x):
    if x < 0:
        raise Refused(x)
    return x


def emitted(recorder):
    """Return the events, each with its first argument: ``node_start double``."""
    return [f"{hook} {what[0] if isinstance(what, tuple) else what}" for hook, what, *_ in recorder.events]


# ----------------------------------------------------------------------------------------- the order


def test_the_events_of_a_run_are_emitted_from_start_to_end(recorder):
    SUMS.with_callbacks([recorder]).run({"x": 1})
    assert emitted(recorder) == [
        "pipeline_start sums",
        "node_start double",
        "node_end double",
        "node_start add",
        "node_end add",
        "pipeline_end sums",
    ]


def test_the_events_of_a_nested_pipeline_are_emitted_within_its_node(recorder):
    Pipeline([Pipeline([double], name="inner"), add], name="outer", callbacks=[recorder]).run({"x": 1})
    assert emitted(recorder) == [
        "pipeline_start outer",
        "node_start inner",
        "nested_start outer",
        "pipeline_start inner",
        "node_start double",
        "node_end double",
        "pipeline_end inner",
        "nested_end outer",
        "node_end inner",
        "node_start add",
        "node_end add",
        "pipeline_end outer",
    ]


def test_the_events_of_a_map_are_emitted_item_by_item(recorder):
    Pipeline([double], name="doubles", callbacks=[recorder]).map({"x": [1, 2]}, "x")
    assert emitted(recorder) == [
        "pipeline_start doubles",
        "map_start 2",
        "item_start 0",
        "node_start double",
        "node_end double",
        "item_end 0",
        "item_start 1",
        "node_start double",
        "node_end double",
        "item_end 1",
        "map_end None",
        "pipeline_end doubles",
    ]


def test_the_events_of_a_nested_map_are_emitted_within_its_node(recorder):
    inner = Pipeline([double], name="inner").as_node({"xs": "x"}, map_over="xs")
    Pipeline([inner], name="outer", callbacks=[recorder]).run({"xs": [1]})
    assert emitted(recorder) == [
        "pipeline_start outer",
        "node_start inner",
        "nested_start outer",
        "pipeline_start inner",
        "map_start 1",
        "item_start 0",
        "node_start double",
        "node_end double",
        "item_end 0",
        "map_end None",
        "pipeline_end inner",
        "nested_end outer",
        "node_end inner",
        "pipeline_end outer",
    ]


def test_a_nested_map_without_items_starts_and_ends(recorder):
    inner = Pipeline([double], name="inner").as_node({"xs": "x"}, map_over="xs")
    Pipeline([inner], name="outer", callbacks=[recorder]).run({"xs": []})
    assert [event for event in emitted(recorder) if "map" in event] == ["map_start 0", "map_end None"]


def test_a_cached_node_neither_starts_nor_ends(recorder, tmp_path):
    with DiskCache(tmp_path) as cache:
        pipeline = Pipeline([double], name="doubles", cache=cache)
        pipeline.run({"x": 1})
        pipeline.with_callbacks([recorder]).run({"x": 1})
        (signature,) = cache
    assert emitted(recorder) == ["pipeline_start doubles", "node_cached double", "pipeline_end doubles"]
    assert recorder.of("node_cached")[0][1] == ("double", signature)


def test_an_item_whose_outputs_all_came_from_the_cache_is_cached(recorder, tmp_path):
    with DiskCache(tmp_path) as cache:
        pipeline = Pipeline([double], name="doubles", cache=cache)
        pipeline.map({"x": [1]}, "x")
        pipeline.with_callbacks([recorder]).map({"x": [1, 2]}, "x")
    assert emitted(recorder)[2:] == [
        "item_start 0",
        "node_cached double",
        "item_cached 0",
        "item_end 0",
        "item_start 1",
        "node_start double",
        "node_end double",
        "item_end 1",
        "map_end None",
        "pipeline_end doubles",
    ]


def test_an_item_with_a_computed_node_is_not_cached(recorder, tmp_path):
    with DiskCache(tmp_path) as cache:
        SUMS.with_cache(cache).map({"x": [1]}, "x", output_name="y")
        SUMS.with_cache(cache).with_callbacks([recorder]).map({"x": [1]}, "x", output_name="z")
    assert recorder.of("item_cached") == []


def test_an_item_of_nested_pipelines_that_were_all_cached_is_cached(recorder, tmp_path):
    with DiskCache(tmp_path) as cache:
        outer = Pipeline([Pipeline([double], name="inner"), add], name="outer", cache=cache)
        outer.map({"x": [1, 2]}, "x")
        outer.with_callbacks([recorder]).map({"x": [1, 2]}, "x")
    assert [what[0] for _, what, *_ in recorder.of("item_cached")] == [0, 1]


def test_each_failed_attempt_is_emitted_between_start_and_end(recorder, tmp_path):
    marks = tmp_path / "marks"
    marks.touch()

    @node(output_name="y", retries=2)
    def fragile(x):
        with marks.open("a") as file:
            file.write("x")
        if len(marks.read_text()) < 3:
            raise OSError("not yet")
        return x

    Pipeline([fragile], callbacks=[recorder], name="trying").run({"x": 1})
    assert emitted(recorder)[1:-1] == [
        "node_start fragile",
        "node_retry fragile",
        "node_retry fragile",
        "node_end fragile",
    ]
    assert [what for _, what, *_ in recorder.of("node_retry")] == [
        ("fragile", 1, "OSError('not yet')"),
        ("fragile", 2, "OSError('not yet')"),
    ]


# ------------------------------------------------------------------------------------------- errors


def test_an_error_is_emitted_from_the_inside_out(recorder):
    inner = Pipeline([check], name="inner")
    outer = Pipeline([Pipeline([inner], name="middle")], name="outer", callbacks=[recorder])
    with pytest.raises(Refused):
        outer.run({"x": -1})
    assert [(what[0], path) for _, what, path, _ in recorder.of("error")] == [
        ("check", ("outer", "middle", "inner")),
        ("inner", ("outer", "middle")),
        ("middle", ("outer",)),
        ("outer", ("outer",)),
    ]


def test_on_error_gets_the_error_itself():
    seen = []

    class Watch(PipelineCallback):
        def on_error(self, node_id, error, ctx):
            seen.append(error)

    with pytest.raises(Refused) as caught:
        Pipeline([check], callbacks=[Watch()]).run({"x": -1})
    assert [error is caught.value for error in seen] == [True, True]


def test_an_item_that_fails_ends_when_errors_are_returned(recorder):
    Pipeline([check], name="checks", callbacks=[recorder]).map({"x": [-1, 1]}, "x", on_error="return")
    assert emitted(recorder)[2:] == [
        "item_start 0",
        "node_start check",
        "error check",
        "item_end 0",
        "item_start 1",
        "node_start check",
        "node_end check",
        "item_end 1",
        "map_end None",
        "pipeline_end checks",
    ]


def test_a_pipeline_whose_inputs_are_wrong_emits_nothing(recorder):
    with pytest.raises(ValueError, match="missing input 'x'"):
        SUMS.with_callbacks([recorder]).run({})
    assert recorder.events == []


@pytest.mark.parametrize("x", [1, -1])
@pytest.mark.parametrize("on_error", ["raise", "return"])
def test_every_start_has_an_end_or_an_error(recorder, x, on_error):
    row = Pipeline([Pipeline([check], name="cell").as_node({"xs": "x"}, map_over="xs")], name="row")
    outer = Pipeline([row.as_node({"table": "xs"}, map_over="table")], name="outer", callbacks=[recorder])
    tables = [[[1], [2, x]], [[3]]]
    try:
        outer.map({"table": tables}, "table", on_error=on_error)
    except Refused:
        assert on_error == "raise"
    assert recorder.unfinished == []


@pytest.mark.parametrize("nested", [False, True])
def test_a_node_that_is_under_way_when_the_run_ends_is_abandoned(nested):
    errors = []

    class Watch(PipelineCallback):
        def on_error(self, node_id, error, ctx):
            errors.append((node_id, type(error), ctx.about))

    run_and_abandon([Watch()], nested)
    abandoned = ["slow", "inner"] if nested else ["slow"]
    assert errors == [
        ("fail", Failed, "node"),
        *((name, NodeAbandonedError, "node") for name in abandoned),
        ("outer", Failed, "pipeline"),
    ]


# ------------------------------------------------------------------------------------------ the values


class Values(PipelineCallback):
    """Remembers what the hooks were given."""

    def __init__(self):
        self.given = {}

    def on_pipeline_start(self, pipeline_id, inputs, ctx):
        self.given["pipeline_start"] = dict(inputs)

    def on_pipeline_end(self, pipeline_id, outputs, duration, ctx):
        self.given["pipeline_end"] = dict(outputs)
        self.given["duration"] = duration

    def on_node_start(self, node_id, inputs, ctx):
        self.given[f"{node_id} start"] = dict(inputs)

    def on_node_end(self, node_id, outputs, duration, ctx):
        self.given[f"{node_id} end"] = dict(outputs)


def test_hooks_get_inputs_and_outputs():
    values = Values()
    SUMS.with_callbacks([values]).run({"x": 1, "offset": 5}, "z")
    duration = values.given.pop("duration")
    assert duration >= 0
    assert values.given == {
        "pipeline_start": {"x": 1, "offset": 5},
        "double start": {"x": 1},
        "double end": {"y": 2},
        "add start": {"y": 2, "offset": 5},
        "add end": {"z": 7},
        "pipeline_end": {"z": 7},
    }


def test_hooks_of_a_map_get_collections():
    values = Values()
    SUMS.with_callbacks([values]).map({"x": [1, 2], "offset": 5}, "x", output_name="z")
    assert values.given["pipeline_start"] == {"x": [1, 2], "offset": 5}
    assert values.given["pipeline_end"] == {"z": [7, 9]}


def test_hooks_run_in_the_thread_that_called_run():
    threads = []

    class Watch(PipelineCallback):
        def on_node_end(self, node_id, outputs, duration, ctx):
            threads.append(threading.current_thread())

    SUMS.with_callbacks([Watch()]).run({"x": 1})
    assert threads == [threading.current_thread()] * 2


@pytest.mark.parametrize("mapped", [False, True])
def test_a_start_is_emitted_before_the_node_runs(mapped):
    order = []

    class Watch(PipelineCallback):
        def on_node_start(self, node_id, inputs, ctx):
            order.append("start")

        def on_node_end(self, node_id, outputs, duration, ctx):
            order.append("end")

    pipeline = Pipeline([node(lambda x: order.append("ran"), output_name="y")], callbacks=[Watch()])
    pipeline.map({"x": [1]}, "x") if mapped else pipeline.run({"x": 1})
    assert order == ["start", "ran", "end"]


def test_several_callbacks_are_called_in_their_order():
    order = []

    class Watch(PipelineCallback):
        def __init__(self, name):
            self.name = name

        def on_node_end(self, node_id, outputs, duration, ctx):
            order.append((node_id, self.name))

    SUMS.with_callbacks([Watch("a"), Watch("b")]).run({"x": 1})
    assert order == [("double", "a"), ("double", "b"), ("add", "a"), ("add", "b")]


# ----------------------------------------------------------------------------------------- the context


class Places(PipelineCallback):
    """Remembers the contexts of nodes."""

    def __init__(self):
        self.contexts = {}

    def on_node_start(self, node_id, inputs, ctx):
        self.contexts.setdefault(node_id, ctx)


def test_the_context_says_where_it_is_in_nested_pipelines():
    places = Places()
    inner = Pipeline([double], name="inner")
    outer = Pipeline([Pipeline([inner, add], name="middle")], name="outer", callbacks=[places])
    outer.run({"x": 1})
    ctx = places.contexts["double"]
    assert (ctx.depth, ctx.hierarchy_path) == (2, ("outer", "middle", "inner"))
    assert (ctx.current_pipeline_id, ctx.parent_pipeline_id) == ("inner", "middle")
    ctx = places.contexts["middle"]
    assert (ctx.depth, ctx.hierarchy_path) == (0, ("outer",))
    assert (ctx.current_pipeline_id, ctx.parent_pipeline_id) == ("outer", None)


def test_the_context_has_the_index_of_every_enclosing_map(recorder):
    inner = Pipeline([double], name="inner").as_node({"xs": "x"}, map_over="xs")
    Pipeline([inner], name="outer", callbacks=[recorder]).map({"xs": [[1], [2, 3]]}, "xs")
    items = [items for _, what, _, items in recorder.of("node_start") if what[0] == "double"]
    assert items == [(0, 0), (1, 0), (1, 1)]


def test_the_context_outside_of_maps_has_no_index():
    places = Places()
    SUMS.with_callbacks([places]).run({"x": 1})
    assert places.contexts["double"].item_path == ()


def test_callbacks_share_state_during_one_run():
    class Writer(PipelineCallback):
        def on_node_end(self, node_id, outputs, duration, ctx):
            ctx.set("ended", [*ctx.get("ended", []), node_id])

    class Reader(PipelineCallback):
        seen = ()

        def on_pipeline_end(self, pipeline_id, outputs, duration, ctx):
            self.seen = (*self.seen, ctx.get("ended"), ctx.get("nothing"), ctx.get("nothing", 5))

    reader = Reader()
    pipeline = SUMS.with_callbacks([Writer(), reader])
    pipeline.run({"x": 1})
    pipeline.run({"x": 1})
    assert reader.seen == (["double", "add"], None, 5) * 2


def test_the_context_knows_the_pipelines_of_the_run():
    places = Places()
    inner = Pipeline([double], name="inner")
    Pipeline([inner, add], name="outer", callbacks=[places]).run({"x": 1})
    ctx = places.contexts["double"]
    none = {"executor": "sequential", "engine": "", "cache": ""}
    assert ctx.get_pipeline_metadata("inner") == {
        "name": "inner",
        "pipeline_name": "inner",
        "node_ids": ["double"],
        "nested": [],
        "total": 1,
        "total_nodes": 1,
        "needs": {"double": ()},
        **none,
    }
    assert ctx.get_pipeline_metadata("outer") == {
        "name": "outer",
        "pipeline_name": "outer",
        "node_ids": ["inner", "add"],
        "nested": ["inner"],
        "total": 2,
        "total_nodes": 2,
        "needs": {"inner": (), "add": ("inner",)},
        **none,
    }
    assert ctx.get_pipeline_metadata("unknown") == {}


def test_a_hook_may_be_set_on_an_object():
    seen = []
    callback = PipelineCallback()
    callback.on_node_end = lambda node_id, outputs, duration, ctx: seen.append(node_id)
    SUMS.with_callbacks([callback]).run({"x": 1})
    assert seen == ["double", "add"]


def test_one_callback_serves_several_runs(recorder):
    pipeline = SUMS.with_callbacks([recorder])
    for _ in range(3):
        pipeline.run({"x": 1})
    assert len(recorder.events) == 18


def test_a_hook_may_run_a_pipeline_itself():
    seen = []

    class Curious(PipelineCallback):
        def on_node_end(self, node_id, outputs, duration, ctx):
            seen.append(SUMS.run({"x": 5}, "z"))

    Pipeline([double], callbacks=[Curious()]).run({"x": 1})
    assert seen == [{"z": 11}]


# ------------------------------------------------------------------------------------------- logging


def lines(caplog):
    return [re.sub(r"done in .*", "done", record.getMessage()) for record in caplog.records]


def test_a_run_is_logged(caplog):
    with caplog.at_level(logging.INFO, "hypernodes.run"):
        Pipeline([Pipeline([double], name="inner"), add], name="outer", callbacks=[LoggingCallback()]).run(
            {"x": 1}
        )
    assert lines(caplog) == [
        "pipeline outer: started",
        "  node inner: started",
        "  pipeline inner: started",
        "    node double: started",
        "    node double: done",
        "  pipeline inner: done",
        "  node inner: done",
        "  node add: started",
        "  node add: done",
        "pipeline outer: done",
    ]


def test_items_are_logged_one_step_below(caplog):
    with caplog.at_level(logging.DEBUG, "hypernodes.run"):
        Pipeline([double], name="doubles", callbacks=[LoggingCallback()]).map({"x": [1]}, "x")
    assert lines(caplog) == [
        "pipeline doubles: started",
        "  map over 1 items",
        "  node double [0]: started",
        "  node double [0]: done",
        "  map done",
        "pipeline doubles: done",
    ]
    assert {record.levelno for record in caplog.records if "[0]" in record.getMessage()} == {logging.DEBUG}


def test_errors_are_logged_as_errors(caplog):
    callbacks = [LoggingCallback()]
    Pipeline([check], name="checks", callbacks=callbacks).map({"x": [-1]}, "x", on_error="return")
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.getMessage() == "  check [0]: failed: Refused(-1)"
    assert (record.pipeline_path, record.item_path, record.depth) == ("checks", (0,), 0)


def test_an_abandoned_node_is_logged_at_the_level_of_its_start(caplog):
    with caplog.at_level(logging.INFO, "hypernodes.run"):
        run_and_abandon([LoggingCallback()])
    assert "  node slow: abandoned" in lines(caplog)
    levels = {record.event: record.levelno for record in caplog.records if record.event != "error"}
    assert levels["node_abandoned"] == levels["node_start"] == logging.INFO
    errors = [record.getMessage() for record in caplog.records if record.levelno > logging.INFO]
    assert errors == ["  fail: failed: Failed(1)", "  outer: failed: Failed(1)"]


def test_another_logger_and_level_can_be_chosen(caplog):
    logger = logging.getLogger("mine")
    with caplog.at_level(logging.WARNING, "mine"):
        SUMS.with_callbacks([LoggingCallback(logger, logging.WARNING)]).run({"x": 1}, "y")
    assert {(record.name, record.levelno) for record in caplog.records} == {("mine", logging.WARNING)}


# ------------------------------------------------------------------------------------------ progress


@pytest.fixture
def progress():
    """A terminal's progress bars; nothing that they started may be left."""
    before = set(threading.enumerate())
    yield ProgressCallback(display="terminal")
    left = set(threading.enumerate()) - before
    # Daft keeps threads for the next query, some of which Python has not started.
    left = {thread for thread in left if not thread.name.startswith(("Daft", "Dummy"))}
    for thread in left:
        thread.join(timeout=5)
    assert not [thread for thread in left if thread.is_alive()]


def test_progress_shows_each_node(progress, capsys):
    assert SUMS.with_callbacks([progress]).run({"x": 1}, "z") == {"z": 3}
    shown = capsys.readouterr().err
    assert "sums" in shown
    assert "double" in shown
    assert "1/1" in shown


def test_progress_shows_how_many_items_are_done(progress, capsys):
    SUMS.with_callbacks([progress]).map({"x": range(7)}, "x")
    assert "7/7" in capsys.readouterr().err


def test_progress_shows_nested_maps(progress, capsys):
    inner = SUMS.as_node({"xs": "x"}, map_over="xs")
    Pipeline([inner], name="outer", callbacks=[progress]).map({"xs": [[1, 2], [3]]}, "xs")
    shown = capsys.readouterr().err
    assert "outer" in shown
    assert "3/3" in shown


def test_progress_counts_what_was_cached_and_what_failed(progress, capsys, tmp_path):
    with DiskCache(tmp_path) as cache:
        pipeline = Pipeline([check], name="checks", cache=cache)
        pipeline.map({"x": [1, 2]}, "x")
        pipeline.with_callbacks([progress]).map({"x": [1, 2, -1]}, "x", on_error="return")
    shown = capsys.readouterr().err
    assert "⚡ 2" in shown
    assert "✗ 1" in shown


def test_progress_ends_with_an_error(progress, capsys):
    pipeline = Pipeline([Pipeline([check], name="inner")], name="outer", callbacks=[progress])
    with pytest.raises(Refused):
        pipeline.map({"x": [1, -1]}, "x")
    assert "✗ 1" in capsys.readouterr().err


def test_progress_ends_with_an_interrupt(progress):
    @node(output_name="never")
    def interrupt(x):
        if x:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Pipeline([interrupt], callbacks=[progress]).map({"x": [0, 1]}, "x")


def test_one_progress_serves_several_runs(progress, capsys):
    pipeline = SUMS.with_callbacks([progress])
    for _ in range(2):
        pipeline.map({"x": range(5)}, "x")
    assert capsys.readouterr().err.count("5/5") >= 4


def test_progress_of_a_nested_pipeline_alone_ends_too(progress):
    Pipeline([SUMS.with_callbacks([progress])], name="outer").run({"x": 1})


def test_logging_and_progress_can_be_combined(progress, caplog, capsys):
    with caplog.at_level(logging.INFO, "hypernodes.run"):
        SUMS.with_callbacks([progress, LoggingCallback()]).run({"x": 1})
    assert "sums" in capsys.readouterr().err
    assert lines(caplog)[0] == "pipeline sums: started"


def test_progress_says_which_engine_and_cache_where_they_change(progress, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    inner = Pipeline([double], name="inner", engine=HyperNodesEngine(map_executor="threaded"), cache=None)
    same = Pipeline([add], name="same")
    # The bars show a directory as it is written shortest, seen from here.
    outer = Pipeline([inner, same], name="outer", cache=DiskCache(tmp_path / "kept"), callbacks=[progress])
    outer.run({"x": 1})
    rows = {line.split()[0]: line for line in capsys.readouterr().err.splitlines() if line.strip()}
    assert re.search(r"cache \S*kept", rows["outer"])
    assert "items: threaded · no cache" in rows["inner"]
    assert "cache" not in rows["same"]
    assert "items" not in rows["same"]


def bars(capsys):
    """Return how much is done of how much by the label of each bar, as drawn last."""
    found = re.findall(r"^ *(\S+) .*?([\d,]+/~?[\d,]+)(?!.*━)", capsys.readouterr().err, re.MULTILINE)
    return dict(found)


def in_a_run(nested):
    return Pipeline([nested, add], name="outer"), {"x": 1}, "1/1"


def in_a_map(nested):
    return Pipeline([nested, add], name="outer"), {"x": range(10)}, "10/10"


def two_levels_down(nested):
    return Pipeline([Pipeline([nested], name="middle"), add], name="outer"), {"x": range(10)}, "10/10"


def as_a_nested_map(nested):
    mapped = nested.as_node({"xs": "x"}, map_over="xs")
    return Pipeline([mapped], name="outer"), {"xs": [[1, 2], [3], []]}, "3/3"


@pytest.mark.parametrize("level", ["node_executor", "map_executor"])
@pytest.mark.parametrize("alias", ["sequential", "threaded"])
@pytest.mark.parametrize("place", [in_a_run, in_a_map, two_levels_down, as_a_nested_map])
def test_a_nested_pipeline_without_the_callback_has_the_bar_of_a_node(progress, capsys, place, alias, level):
    pipeline, inputs, expected = place(Pipeline([double], name="quiet", callbacks=[]))
    with HyperNodesEngine(**{level: alias}) as engine:
        pipeline = pipeline.with_callbacks([progress]).with_engine(engine)
        pipeline.run(inputs) if place is in_a_run else pipeline.map(inputs, next(iter(inputs)))
    shown = bars(capsys)
    assert shown["outer"] == shown["quiet"] == expected
    assert "double" not in shown


def test_a_nested_pipeline_without_the_callback_may_contain_one_that_has_it(progress, capsys):
    innermost = Pipeline([double], name="innermost", callbacks=[progress])
    quiet = Pipeline([innermost], name="quiet", callbacks=[])
    Pipeline([quiet, add], name="outer", callbacks=[progress]).map({"x": range(10)}, "x")
    assert bars(capsys) == dict.fromkeys(("outer", "quiet", "innermost", "double", "add"), "10/10")


def test_a_nested_pipeline_without_the_callback_counts_what_fails(progress, capsys):
    quiet = Pipeline([check], name="quiet", callbacks=[])
    outer = Pipeline([quiet], name="outer", callbacks=[progress])
    outer.map({"x": [1, -1, 2]}, "x", on_error="return")
    (row,) = [line for line in capsys.readouterr().err.splitlines() if "quiet" in line][-1:]
    assert "3/3" in row
    assert "✗ 1" in row


def test_an_abandoned_node_is_neither_done_nor_failed(progress, capsys):
    run_and_abandon([progress])
    rows = {line.split()[0]: line for line in capsys.readouterr().err.splitlines() if line.strip()}
    assert "0/1" in rows["slow"]
    assert "✗" not in rows["slow"]
    assert "✗ 1" in rows["fail"]


def test_many_nodes_do_not_flood_the_screen(progress, capsys, monkeypatch):
    monkeypatch.setenv("LINES", "20")
    monkeypatch.setenv("COLUMNS", "100")
    nodes = []
    for number in range(200):

        def work(value):
            return value

        work.__name__ = f"work{number}"
        nodes.append(node(work, output_name=f"v{number + 1}").rename(inputs={"value": f"v{number}"}))
    Pipeline(nodes, name="many", callbacks=[progress]).run({"v0": 1})
    shown = [line for line in capsys.readouterr().err.splitlines() if "━" in line or "more" in line]
    assert len(shown) <= 40  # the last state, and what was drawn before it
    assert any("… 184 more" in line for line in shown)


@node(output_name="z")
def nap(y):
    time.sleep(0.03)
    if y == 3:
        raise Refused(y)
    return y


@pytest.fixture
def progress_lines(monkeypatch, capsys):
    """What progress prints, a line for each redraw."""
    monkeypatch.setattr("hypernodes.callbacks.bars.LINE_INTERVAL_S", 0)
    monkeypatch.setattr("hypernodes.callbacks.progress.REDRAW_INTERVAL_S", 0)
    return lambda: capsys.readouterr().err.splitlines()


def test_progress_shows_the_time_that_is_left(progress_lines):
    Pipeline([nap], name="naps", callbacks=[ProgressCallback(display="lines")]).map({"y": range(3)}, "y")
    assert any(
        re.fullmatch(r"naps: 2/3  \d+ ms  \d+(\.\d)?/s  \d+ ms left", line) for line in progress_lines()
    )


def test_what_comes_after_a_node_that_has_failed_is_not_waited_for(progress_lines):
    inner = Pipeline([nap], name="inner")
    outer = Pipeline([inner.as_node(map_over="y"), node(sum, output_name="sum").rename({"iterable": "z"})])
    progress = ProgressCallback(display="lines")
    outer.with_callbacks([progress]).with_name("outer").map(
        {"y": [[1, 2], [3, 4], [5]]}, "y", on_error="return"
    )
    *_, title, inner_line = progress_lines()
    assert title.startswith("outer: 3/3 ")
    assert re.match(r"outer/inner: 3/3 .* ✗ 1$", inner_line)


def test_items_of_maps_that_have_not_begun_are_estimated(progress_lines):
    inner = Pipeline([nap], name="inner")
    outer = Pipeline([inner.as_node(map_over="y")], name="outer", callbacks=[ProgressCallback("lines")])
    outer.map({"y": [[1, 2], [4, 5], [6, 7]]}, "y")
    lines = progress_lines()
    assert any(line.startswith("outer/inner: 2/~6 ") for line in lines)
    assert lines[-1].startswith("outer/inner: 6/6 ")


@node(output_name="y")
def refuse_five(x):
    if x == 5:
        raise Refused(x)
    return x


QUIET = Pipeline([refuse_five], name="quiet", callbacks=[])
QUIET_CASES = {
    "run": (QUIET, lambda pipeline: pipeline.run({"x": 1}), "1/1", ""),
    "map": (QUIET, lambda pipeline: pipeline.map({"x": range(10, 20)}, "x"), "10/10", ""),
    "imap": (QUIET, lambda pipeline: list(pipeline.imap({"x": range(10, 20)}, "x")), "10", ""),
    "error": (QUIET, lambda pipeline: pipeline.map({"x": range(10)}, "x", on_error="return"), "10/10", "✗ 1"),
    "nested map": (
        QUIET.as_node(map_over="x"),
        lambda pipeline: pipeline.run({"x": range(10, 20)}),
        "1/1",
        "",
    ),
    "nested maps": (
        QUIET.as_node(map_over="x"),
        lambda pipeline: pipeline.map({"x": [[1, 2], [], [3]]}, "x"),
        "3/3",
        "",
    ),
}


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside another"])
@pytest.mark.parametrize("case", QUIET_CASES)
@pytest.mark.parametrize("engine", ["sequential", "threaded", "daft"])
def test_the_bar_of_a_nested_pipeline_that_tells_nobody_counts_as_one_node(
    progress, capsys, monkeypatch, recorder, engine, case, beside
):
    monkeypatch.setenv("COLUMNS", "160")
    member, run, count, sign = QUIET_CASES[case]
    callbacks = [progress, recorder] if beside else [progress]
    with (
        hypernodes.DaftEngine(runner="native")
        if engine == "daft"
        else HyperNodesEngine(map_executor=engine) as made
    ):
        run(Pipeline([member, node(lambda y: y, output_name="z")], made, name="outer", callbacks=callbacks))
    bars = {line.split()[0]: line for line in capsys.readouterr().err.splitlines() if line.strip()}
    assert set(bars) == {"outer", "quiet", "<lambda>"}  # nothing that is inside
    assert re.search(rf"━ +{count} ", bars["quiet"])
    assert sign in bars["quiet"]


# ------------------------------------------------------------------------------ aggregated events


class Counting(PipelineCallback):
    """Counts items, and calls of hooks."""

    counts_items = True

    def __init__(self):
        self.done = Counter()
        self.hooks = Counter()

    def on_map_items_end(self, items, ctx):
        self.done[ctx.current_pipeline_id] += items
        self.hooks["on_map_items_end"] += 1

    def on_map_item_end(self, item_index, duration, ctx):
        self.done[ctx.current_pipeline_id] += 1
        self.hooks["on_map_item_end"] += 1

    def on_node_end(self, node_id, outputs, duration, ctx):
        self.hooks["on_node_end"] += 1

    def on_error(self, node_id, error, ctx):
        self.hooks["on_error", node_id, ctx.item_path] += 1


@node(output_name="y")
def odd(x):
    if x % 1000 == 999:
        raise ValueError(x)
    return 2 * x


@node(output_name="y")
async def odd_later(x):
    return odd(x)


@pytest.mark.parametrize("kind", [odd, odd_later], ids=["plain", "async"])
@pytest.mark.parametrize("alias", ["sequential", "async", "threaded", "parallel"])
def test_events_of_short_items_are_aggregated_and_errors_are_emitted_one_by_one(alias, kind):
    xs = range(3000)
    counting = Counting()
    with HyperNodesEngine(map_executor=alias) as engine:
        inner = Pipeline([kind], name="inner")
        pipeline = Pipeline([inner], engine, name="outer", callbacks=[counting])
        rows = pipeline.map({"x": xs}, "x", on_error="return")["y"]
    assert [row for row in rows if not isinstance(row, ValueError)] == [2 * x for x in xs if x % 1000 != 999]
    assert counting.done["outer"] == 3000
    for item in (999, 1999, 2999):
        assert counting.hooks["on_error", kind.name, (item,)] == 1
        assert counting.hooks["on_error", "inner", (item,)] == 1
        assert f"node '{kind.name}' of pipeline 'outer/inner', item {item}," in rows[item].__notes__[0]
    if kind is odd and alias != "async":
        assert counting.hooks["on_map_items_end"]
    if (alias, kind) == ("sequential", odd):
        assert counting.hooks["on_node_end"] <= 20  # those before it is known that items are short


def test_with_aggregated_events_the_run_ends_with_the_first_error():
    counting = Counting()
    pipeline = Pipeline([odd], name="p", callbacks=[counting])
    with pytest.raises(ValueError, match="999") as raised:
        pipeline.map({"x": range(3000)}, "x")
    assert "node 'odd' of pipeline 'p', item 999, called with x=999" in raised.value.__notes__[0]
    assert counting.hooks["on_error", "odd", (999,)] == 1
    assert counting.hooks["on_error", "p", ()] == 1
    assert counting.done["p"] == 999


def test_events_of_slow_items_of_retries_and_for_other_callbacks_are_not_aggregated(tmp_path, recorder):
    @node(output_name="y")
    def slow(x):
        time.sleep(0.006)
        return x

    @node(output_name="y", retries=1)
    def again(x):
        return x

    class Derived(Counting):
        def on_node_start(self, node_id, inputs, ctx):
            self.hooks["on_node_start"] += 1

    cache = DiskCache(tmp_path)
    for pipeline, others in (
        (Pipeline([slow]), []),
        (Pipeline([again]), []),
        (Pipeline([odd], cache=cache), []),
        (Pipeline([odd]), [recorder]),
        (Pipeline([odd]), [Derived()]),
    ):
        counting = Counting()
        pipeline.with_callbacks([counting, *others]).map({"x": range(5)}, "x")
        assert counting.hooks["on_map_items_end"] == 0
        assert counting.hooks["on_node_end"] == 5


@pytest.mark.parametrize(
    "callbacks", [[], [Counting()], [ProgressCallback("lines")]], ids=["none", "counting", "bars"]
)
def test_a_stream_draws_no_more_than_is_taken(callbacks):
    drawn = []

    def source():
        for x in range(900):
            drawn.append(x)
            yield x

    pipeline = Pipeline([odd], name="p", callbacks=callbacks)
    for taken, (_, row) in enumerate(pipeline.imap({"x": source()}, "x"), 1):
        assert row["y"] == 2 * (taken - 1)
        assert len(drawn) <= taken + 2
    assert len(drawn) == 900


def test_a_stream_that_is_closed_early_emits_its_end(capsys, recorder):
    progress = ProgressCallback("lines")
    pipeline = Pipeline([odd], name="p", callbacks=[recorder, progress])
    for index, _ in pipeline.imap({"x": iter(range(900))}, "x"):
        if index == 3:
            break
    assert emitted(recorder)[-1] == "pipeline_end p"
    pipeline.map({"x": range(20)}, "x")
    assert capsys.readouterr().err.splitlines()[-1].startswith("p: 20/20 ")


def test_aggregated_events_of_a_nested_map_have_its_pipeline():
    counting = Counting()
    inner = Pipeline([odd], name="inner")
    outer = Pipeline([inner.as_node({"xs": "x"}, map_over="xs")], name="outer", callbacks=[counting])
    outer.map({"xs": [range(500), range(300)]}, "xs")
    assert counting.done == {"inner": 800, "outer": 2}


def test_progress_is_the_same_with_aggregated_events_and_without(capsys, recorder):
    def rows_of(callback, engine=None):
        inner = Pipeline([odd], name="inner")
        pipeline = Pipeline([inner, node(abs, output_name="z")], engine, name="outer", callbacks=callback)
        pipeline.map({"x": range(2500)}, "x", on_error="return")
        return {
            path: (tally.done, tally.total, tally.failed, tally.is_shown)
            for path, tally in callback[0]._tallies.items()
            if path[-1] != "abs"  # which may have been called, or not, when another node fails
        }

    aggregated = rows_of([ProgressCallback("lines")])
    assert aggregated == rows_of([ProgressCallback("lines"), recorder])
    assert aggregated["outer",][:3] == (2500, 2500, 0)
    with HyperNodesEngine(map_executor="threaded") as engine:
        assert aggregated == rows_of([ProgressCallback("lines")], engine)


@pytest.mark.parametrize(
    ("alias", "is_shown"), [("sequential", False), ("threaded", True), ("parallel", True)]
)
def test_progress_shows_the_number_of_workers(capsys, alias, is_shown):
    with HyperNodesEngine(map_executor=alias) as engine:
        pipeline = Pipeline([double], engine, name="doubles", callbacks=[ProgressCallback("lines")])
        pipeline.map({"x": range(50)}, "x")
    assert bool(re.search(r"50/50 .*  \d+ workers?$", capsys.readouterr().err.strip())) == is_shown


def test_one_callback_of_each_kind_serves_concurrent_runs(capsys):
    report, progress = RunReport(), ProgressCallback("lines")

    class Alone(PipelineCallback):
        busy = 0
        worst = 0

        def on_node_end(self, node_id, outputs, duration, ctx):
            self.busy += 1
            time.sleep(0.0005)
            self.worst = max(self.worst, self.busy)
            self.busy -= 1

    alone = Alone()
    pipeline = SUMS.with_callbacks([report, progress, alone])
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda n: pipeline.map({"x": range(n)}, "x"), [20, 30, 40, 50]))
    assert alone.worst == 1
    assert pipeline.last_run.items in (20, 30, 40, 50)
    assert pipeline.last_run.node("double").runs == pipeline.last_run.items
    assert "140/140" in capsys.readouterr().err.splitlines()[-1]


def test_a_hook_may_run_a_pipeline_with_the_same_callback():
    class Deeper(PipelineCallback):
        seen = 0

        def on_node_end(self, node_id, outputs, duration, ctx):
            self.seen += 1
            if self.seen == 1:
                SUMS.with_callbacks([self]).run({"x": 1})

    deeper = Deeper()
    SUMS.with_callbacks([deeper]).run({"x": 1})
    assert deeper.seen == 4


# ---------------------------------------------------------------- errors and where they happened


class Errors(PipelineCallback):
    def __init__(self):
        self.emitted = []

    def on_error(self, node_id, error, ctx):
        self.emitted.append((node_id, ctx.about, ctx.hierarchy_path, ctx.item_path))


def test_a_node_may_be_named_as_its_pipeline():
    errors, report = Errors(), RunReport()
    pipeline = Pipeline([check], name="check", callbacks=[errors, report])
    with pytest.raises(Refused):
        pipeline.run({"x": -1})
    assert errors.emitted == [("check", "node", ("check",), ()), ("check", "pipeline", ("check",), ())]
    assert [failure.path for failure in report.failures] == [("check", "check")]
    assert pipeline.last_run.node("check").failed == 1


def test_pipelines_of_one_name_at_different_places_are_distinguished():
    class Executors(PipelineCallback):
        def on_node_end(self, node_id, outputs, duration, ctx):
            known.add((ctx.hierarchy_path[1], ctx.get_pipeline_metadata()["executor"]))

    known = set()
    with HyperNodesEngine("threaded") as engine:
        one = Pipeline([double], name="prep")
        two = Pipeline([double], engine, name="prep")
        first = Pipeline([one.as_node(output_mapping={"y": "a"})], name="first")
        second = Pipeline([two.as_node(output_mapping={"y": "b"})], name="second")
        Pipeline([first, second], name="outer", callbacks=[Executors()]).run({"x": 1})
    assert {(path, executor) for path, executor in known if executor != "sequential"} == {
        ("second", "threaded")
    }


def test_callbacks_of_nested_pipelines_alone_get_their_failures():
    errors = Errors()
    good = Pipeline([double], name="good", callbacks=[errors])
    bad = Pipeline([check], name="bad", callbacks=[errors])
    with pytest.raises(Refused):
        Pipeline([good, bad.as_node(map_over="x", output_mapping={"checked": "c"})], name="outer").run(
            {"x": [-1]}
        )
    assert errors.emitted == [
        ("check", "node", ("outer", "bad"), (0,)),
        ("bad", "pipeline", ("outer", "bad"), ()),
    ]
    errors.emitted.clear()
    with pytest.raises(Refused):
        Pipeline([bad], name="outer", callbacks=[errors]).run({"x": -1})
    assert [error[:2] for error in errors.emitted] == [
        ("check", "node"),
        ("bad", "node"),
        ("outer", "pipeline"),
    ]


def test_items_whose_worker_dies_fail_for_callbacks_too():
    @node(output_name="y")
    def die(x):
        if x == 1:
            os._exit(3)
        return x

    errors, report, progress = Errors(), RunReport(), ProgressCallback("lines")
    with HyperNodesEngine(map_executor="parallel") as engine:
        pipeline = Pipeline([die], engine, name="p", callbacks=[errors, report, progress])
        rows = pipeline.map({"x": [0, 1, 2]}, "x", on_error="return")["y"]
    failed = [index for index, row in enumerate(rows) if isinstance(row, Exception)]
    assert 1 in failed
    assert sorted(errors.emitted) == [("p", "item", ("p",), (index,)) for index in failed]
    assert sorted(failure.item for failure in report.failures) == [(index,) for index in failed]
    assert report.items == 3
    assert progress._tallies["p",].done == 3


def test_a_map_without_items_emits_events_too(recorder):
    report = RunReport()
    pipeline = SUMS.with_callbacks([recorder, report])
    pipeline.run({"x": 1})
    assert pipeline.map({"x": []}, "x") == {"y": [], "z": []}
    assert [hook for hook, *_ in recorder.events][-4:] == [
        "pipeline_start",
        "map_start",
        "map_end",
        "pipeline_end",
    ]
    assert pipeline.last_run.nodes == []


def test_a_call_that_ends_after_its_item_has_failed_has_no_end(recorder):
    released, ended = threading.Event(), threading.Event()

    @node(output_name="a")
    def slow(x):
        if x:
            released.set()
            assert ended.wait(20)
            time.sleep(0.02)  # The call of the other item has ended before this one.
        else:
            assert released.wait(20)
            ended.set()
        return x

    fail = node(lambda x: 1 / x, output_name="b")
    with HyperNodesEngine(node_executor=ThreadPoolExecutor(3)) as engine:
        pipeline = Pipeline([slow, fail], engine, callbacks=[recorder])
        rows = pipeline.map({"x": [0, 1]}, "x", on_error="return")
    assert isinstance(rows["a"][0], ZeroDivisionError)
    assert rows["a"][1] == 1
    assert [items for _, (name, _), _, items in recorder.of("node_end") if name == "slow"] == [(1,)]
    assert not recorder.unfinished
