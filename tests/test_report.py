"""RunReport: what the last run has done."""

import os
import sys
import time

import pytest
import sample
from abandoned import run_and_abandon

from hypernodes import DaftEngine, DiskCache, HyperNodesEngine, Pipeline, RunReport, node


@node(output_name="quick")
def hurry(x):
    return x


@node(output_name="slow")
def dawdle(x):
    time.sleep(0.02)
    return x


@node(output_name="both")
def join(quick, slow):
    time.sleep(0.005)
    return quick, slow


joined = Pipeline([hurry, dawdle, join], name="joined")


def test_a_report_counts_runs_items_and_seconds():
    pipeline = joined.with_callbacks([RunReport()])
    pipeline.map({"x": [1, 2, 3]}, "x")
    report = pipeline.last_run
    assert (report.name, report.items, report.cached_items) == ("joined", 3, 0)
    assert report.seconds >= 0.075
    assert [(found.path[-1], found.runs) for found in report.nodes] == [
        ("hurry", 3),
        ("dawdle", 3),
        ("join", 3),
    ]
    slow = report.node("dawdle")
    assert 0.06 <= slow.seconds < report.seconds
    assert slow.mean == pytest.approx(slow.seconds / 3)
    assert slow.slowest >= slow.mean
    assert [item.item for item in report.slowest_items] == sorted(
        [(0,), (1,), (2,)], key=lambda item: -next(s.seconds for s in report.slowest_items if s.item == item)
    )


def test_the_critical_path_is_the_chain_that_took_longest():
    pipeline = joined.with_callbacks([RunReport()])
    pipeline.run({"x": 1})
    assert [found.path[-1] for found in pipeline.last_run.critical_path()] == ["dawdle", "join"]
    assert "most of it is dawdle" in str(pipeline.last_run)
    outer = Pipeline([joined.as_node({"xs": "x"}, map_over="xs"), node(lambda both: both, output_name="end")])
    outer = outer.with_callbacks([RunReport()])
    outer.run({"xs": [1, 2]})
    assert [found.path[1:] for found in outer.last_run.critical_path()] == [
        ("joined",),
        ("joined", "dawdle"),
        ("joined", "join"),
        ("<lambda>",),
    ]


def test_hits_retries_and_failures_are_recorded(tmp_path):
    marks = tmp_path / "marks"  # a list would count as an input of the node's code

    @node(output_name="tried", retries=3)
    def try_again(x):
        with marks.open("a") as file:
            file.write("x")
        if len(marks.read_text()) < 3:
            raise OSError("not yet")
        if x == 7:
            raise ValueError("seven")
        return x

    report = RunReport()
    pipeline = Pipeline([try_again], name="trying", callbacks=[report], cache=DiskCache(tmp_path / "cache"))
    pipeline.map({"x": [1, 2]}, "x")
    assert report.node("try_again").retried == 2
    pipeline.map({"x": [1, 7]}, "x", on_error="return")
    found = report.node("try_again")
    assert (found.runs, found.cached, found.failed, report.cached_items) == (0, 1, 1, 1)
    (failure,) = report.failures
    assert (failure.path, failure.item, str(failure.error)) == (("trying", "try_again"), (1,), "seven")
    assert "trying/try_again, item 1, failed: ValueError('seven')" in str(report)


def test_a_run_that_fails_is_not_finished_and_the_next_one_starts_anew():
    report = RunReport()
    failing = sample.failing.with_callbacks([report])
    with pytest.raises(sample.Refused):
        failing.map({"x": [1, 2]}, "x")
    assert report.seconds is None
    assert "not finished" in str(report)
    failing.map({"x": [1]}, "x")
    assert report.seconds is not None
    assert report.items == 1
    assert report.failures == []


@pytest.mark.parametrize("nested", [False, True])
def test_an_abandoned_node_is_not_a_failure_and_its_bar_ends(nested):
    report, began = RunReport(), time.monotonic()
    run_and_abandon([report], nested)
    took = time.monotonic() - began
    assert [failure.path for failure in report.failures] == [("outer", "fail")]
    slow = report.node("slow")
    assert (slow.runs, slow.failed, slow.abandoned) == (0, 0, 1)
    assert ", 1 failed" in repr(report)
    abandoned = "outer/inner, outer/inner/slow" if nested else "outer/slow"
    assert str(report).splitlines()[-1] == f"abandoned when the run ended: {abandoned}"
    figure = report.waterfall().figure
    assert drawn(figure) == {"✗ failed": 1, "◌ abandoned": 1 + nested}
    assert all(max(trace.x) <= took for trace in figure.data)


@pytest.mark.parametrize(
    "engine",
    [HyperNodesEngine("threaded"), HyperNodesEngine(map_executor="parallel"), DaftEngine()],
    ids=repr,
)
def test_it_says_the_same_on_every_engine(engine):
    counts = []
    for each in (None, engine):
        report = RunReport()
        pipeline = sample.nested_map.with_callbacks([report]).with_engine(each)
        pipeline.map({"text": ["a bcd", "e"], "unit": 2}, "text")
        counts.append(sorted((found.path, found.runs) for found in report.nodes))
        assert report.items == 5
    assert counts[0] == counts[1]


def test_it_prints_as_a_table_and_shows_itself_in_a_notebook():
    report = RunReport()
    assert str(report) == "nothing has run yet"
    sample.nested_map.with_callbacks([report]).map({"text": ["a bcd"], "unit": 1}, "text")
    lines = [line.split("│")[1].rstrip() for line in str(report).splitlines() if "│" in line]
    assert lines == [" split", " word", "   measure", " longest"]
    assert "<caption>text: " in report._repr_html_()


def test_without_a_report_there_is_none_and_unknown_nodes_are_named():
    assert joined.last_run is None
    report = RunReport()
    joined.with_callbacks([report]).run({"x": 1}, "quick")
    with pytest.raises(KeyError, match="no node of the last run is 'slow'; there are: joined/hurry"):
        report.node("slow")


# ------------------------------------------------------------------------------------------ waterfalls


@node(output_name="y", retries=1)
def flicker(x, marks):
    if x == 2 and not marks.exists():
        marks.touch()
        raise OSError("not yet")
    if x == 3:
        raise ValueError("three")
    return x


def drawn(figure):
    """Return how many marks each entry of the legend has."""
    return {trace.name: len(trace.y) for trace in figure.data}


@pytest.mark.parametrize("alias", ["sequential", "threaded", "parallel"])
def test_a_waterfall_shows_what_was_done_cached_retried_and_failed(tmp_path, alias):
    cache = DiskCache(tmp_path / "cache")
    inputs = {"marks": tmp_path / "marks"}
    with HyperNodesEngine(map_executor=alias) as engine:
        one = Pipeline([flicker], engine, cache, [RunReport()], name="one")
        one.map({"x": [0, 1], **inputs}, "x")
        one.map({"x": [0, 1, 2, 3, 4], **inputs}, "x", on_error="return")
    report = one.last_run
    figure = report.waterfall().figure
    assert drawn(figure) == {"done": 1, "↻ retried": 1, "✗ failed": 1, "⚡ cached": 2}
    assert figure.layout.yaxis.ticktext[0] == "flicker"
    by_worker = report.waterfall("worker").figure
    assert drawn(by_worker) == {"flicker": 3, "⚡ cached": 2, "↻ retried": 1, "✗ failed": 1}
    here = sum(str(os.getpid()) in label for label in by_worker.layout.yaxis.ticktext)
    assert here == len(by_worker.layout.yaxis.ticktext) or alias == "parallel"
    hover = next(trace.hovertext[0] for trace in figure.data if trace.name == "↻ retried")
    assert hover.startswith("<b>one/flicker</b>, item 2<br>↻ retried, ")


def test_bars_are_where_the_calls_were(tmp_path):
    pipeline = joined.with_callbacks([RunReport()])
    pipeline.run({"x": 1})
    rows = pipeline.last_run.waterfall().figure.data[0]
    starts = dict(zip(rows.y, rows.base, strict=True))
    lasted = dict(zip(rows.y, rows.x, strict=True))
    names = dict(enumerate(pipeline.last_run.waterfall().figure.layout.yaxis.ticktext))
    at = {name: number for number, name in names.items()}
    assert lasted[at["dawdle"]] >= 0.02
    assert starts[at["join"]] >= starts[at["dawdle"]] + lasted[at["dawdle"]] - 0.001
    assert min(starts.values()) == 0


@node(output_name="y")
def fails_late(x):
    time.sleep(0.03)
    raise ValueError(x)


@pytest.mark.parametrize(
    "where",
    [{}, {"node_executor": "threaded"}, {"node_executor": "parallel"}, {"map_executor": "parallel"}],
    ids=str,
)
def test_the_bar_of_a_call_that_fails_is_as_long_as_the_call(where):
    with HyperNodesEngine(**where) as engine:
        inner = Pipeline([fails_late], name="inner")
        outer = Pipeline([inner.as_node()], engine, name="outer", callbacks=[RunReport()])
        began = time.monotonic()
        with pytest.raises(ValueError, match="1"):
            outer.run({"x": 1})
        one = outer.last_run.waterfall().figure
        outer.map({"x": [1, 2]}, "x", on_error="return")
        items = outer.last_run.waterfall().figure
        took = time.monotonic() - began
    for figure, calls in ((one, 2), (items, 4)):
        (failed,) = (trace for trace in figure.data if trace.name == "✗ failed")
        assert len(failed.x) == calls
        assert 0.03 <= min(failed.x) <= max(failed.x) <= took


def test_calls_that_overlap_are_on_rows_of_their_own():
    inner = Pipeline([dawdle], name="inner", engine=HyperNodesEngine(map_executor="threaded"))
    outer = Pipeline([inner.as_node(map_over="x")], name="outer", callbacks=[RunReport()])
    began = time.monotonic()
    outer.run({"x": range(8)})
    took = time.monotonic() - began
    bars = [
        (row, start, start + lasted)
        for trace in outer.last_run.waterfall().figure.data
        for row, start, lasted in zip(trace.y, trace.base, trace.x, strict=True)
    ]
    assert len({row for row, _, _ in bars}) > 2
    assert max(end for _, _, end in bars) <= took
    for row, start, end in bars:
        others = [(s, e) for r, s, e in bars if r == row and (s, e) != (start, end)]
        assert all(e <= start + 1e-5 or s >= end - 1e-5 for s, e in others)


def test_of_very_many_calls_those_that_matter_are_drawn():
    @node(output_name="y")
    def work(x):
        if x == 17:
            raise ValueError(x)
        return x

    pipeline = Pipeline([work], callbacks=[RunReport()], name="many")
    pipeline.map({"x": range(6000)}, "x", on_error="return")
    figure = pipeline.last_run.waterfall().figure
    assert drawn(figure) == {"done": 4999, "✗ failed": 1}
    assert "the 5,000 of 6,000 calls" in figure.layout.title.text


def test_a_report_stays_that_of_its_run():
    pipeline = joined.with_callbacks([RunReport()])
    pipeline.map({"x": [1, 2]}, "x")
    first = pipeline.last_run
    pipeline.map({"x": [1, 2, 3]}, "x")
    assert (first.items, pipeline.last_run.items) == (2, 3)


def test_a_waterfall_needs_plotly_and_knows_two_views(monkeypatch):
    pipeline = joined.with_callbacks([RunReport()])
    pipeline.run({"x": 1})
    with pytest.raises(ValueError, match="'node' or 'worker'"):
        pipeline.last_run.waterfall("host")
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    with pytest.raises(ImportError, match="'viz'"):
        pipeline.last_run.waterfall()
