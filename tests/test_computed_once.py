"""In a map, a node that depends on fixed inputs only is computed once, and not once for each item."""

import pytest
from loaded import load_noted, lock_of_model, name_of_model, noted, tagged, tagged_by
from recorder import Recorder

from hypernodes import DaftEngine, DiskCache, HyperNodesEngine, Pipeline, ProgressCallback, RunReport, node

ALIASES = ("sequential", "async", "threaded", "parallel", "ray")
LEVELS = ("node_executor", "map_executor")
PIPELINE = Pipeline([name_of_model, tagged], name="tagging")
ROWS = [f"A{x}" for x in range(8)]


@pytest.fixture
def given(tmp_path):
    return {"log": tmp_path / "log", "name": "a", "x": list(range(8))}


def map_of(pipeline, inputs):
    return pipeline.map(inputs, map_over="x", output_name="y")["y"]


def map_with_errors_returned(pipeline, inputs):
    return pipeline.map(inputs, map_over="x", on_error="return")["y"]


def imap_of(pipeline, inputs):
    return [row["y"] for _, row in pipeline.imap(inputs, map_over="x")]


def nested_map_of(pipeline, inputs):
    outer = Pipeline([pipeline.with_engine(None).as_node(map_over="x")], engine=pipeline.engine)
    return outer.with_callbacks(pipeline.callbacks)(**inputs)["y"]


WAYS = (map_of, map_with_errors_returned, imap_of, nested_map_of)


def check(pipeline, given):
    for count, way in enumerate(WAYS, 1):
        assert way(pipeline, given) == ROWS
        assert [what for what, _ in noted(given["log"])] == ["loaded-a"] * count


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("alias", ALIASES)
def test_it_is_computed_once_on_every_executor(alias, level, given, engine_on):
    check(PIPELINE.with_engine(engine_on(level, alias)), given)


WATCHED = {"recorder": Recorder(), "report": RunReport(), "bars": ProgressCallback("lines")}


@pytest.mark.parametrize("alias", ["sequential", "threaded", "parallel"])
@pytest.mark.parametrize("watched", WATCHED)
def test_it_is_computed_once_in_a_watched_map(alias, watched, given, engine_on):
    check(PIPELINE.with_engine(engine_on("map_executor", alias)).with_callbacks([WATCHED[watched]]), given)


def test_it_is_computed_once_in_a_daft_query(given):
    check(PIPELINE.with_engine(DaftEngine(runner="native")), given)


def test_its_events_are_those_of_the_map_and_not_of_an_item(given, watched, recorder):
    map_of(PIPELINE.with_callbacks([recorder]), given)
    ends = recorder.of("node_end")
    assert ends[0] == ("node_end", ("load_noted", ("name_of_model",)), ("tagging",), ())
    assert [items for _, what, _, items in ends if what[0] == "tagged"] == [(x,) for x in range(8)]
    assert not recorder.unfinished


def test_it_is_one_entry_in_the_cache_and_not_needed_for_what_is_there(given, tmp_path):
    cached = PIPELINE.with_cache(DiskCache(tmp_path / "cache"))
    for _ in range(2):
        assert map_of(cached, given) == ROWS
    assert len(noted(given["log"])) == 1
    assert map_of(cached, {**given, "x": [1, 99]}) == ["A1", "A99"]
    assert len(noted(given["log"])) == 1


def test_a_run_finds_what_a_map_has_computed(given, tmp_path, recorder):
    cached = PIPELINE.with_cache(DiskCache(tmp_path / "cache"))
    assert map_of(cached, given) == ROWS
    assert cached.with_callbacks([recorder]).run({**given, "x": 3}, "y") == {"y": "A3"}
    assert recorder.of("node_cached")
    assert not recorder.of("node_end")


@pytest.mark.parametrize("alias", ["sequential", "threaded", "parallel"])
def test_it_is_not_computed_if_the_cache_has_all_that_takes_it(alias, given, tmp_path, engine_on):
    """Its own result is not kept, and the last node has changed since."""
    cache, log = DiskCache(tmp_path / "cache"), given["log"]
    first = Pipeline([lock_of_model, tagged_by])
    loud = node(lambda y: y + "!", output_name="z")
    engine = engine_on("map_executor", alias)
    with pytest.warns(UserWarning, match="lock"):
        first.with_cache(cache).map(given, map_over="x")
    done = len(noted(log))
    assert done == 1
    changed = Pipeline([lock_of_model, tagged_by, loud], engine=engine, cache=cache)
    assert changed.map(given, map_over="x", output_name="z") == {"z": [f"{row}!" for row in ROWS]}
    assert len(noted(log)) == done


@pytest.mark.parametrize("alias", ALIASES)
def test_a_result_that_cannot_travel_is_computed_where_it_is_needed(alias, given, engine_on):
    recorder, count = Recorder(), 64
    pipeline = Pipeline([lock_of_model, tagged_by], callbacks=[recorder])
    for watched in (pipeline, pipeline.with_callbacks(None)):
        rows = map_of(watched.with_engine(engine_on("map_executor", alias)), {**given, "x": range(count)})
        assert rows == [f"A{x}" for x in range(count)]
    assert not recorder.unfinished
    assert len(noted(given["log"])) < count  # of the 2 * count items


@pytest.mark.parametrize("alias", ["sequential", "threaded", "parallel"])
@pytest.mark.parametrize("callbacks", [None, [RunReport()]], ids=["unwatched", "watched"])
def test_its_error_is_that_of_every_item(alias, callbacks, given, engine_on):
    def fail(log, name):
        load_noted(log, name)
        raise LookupError(f"no model {name}")

    recorder = Recorder()
    pipeline = Pipeline([node(fail, output_name="name_of_model"), tagged])
    pipeline = pipeline.with_engine(engine_on("map_executor", alias)).with_callbacks(
        callbacks and [*callbacks, recorder]
    )
    found = map_with_errors_returned(pipeline, given)
    assert [str(error) for error in found] == ["no model a"] * 8
    assert "in node 'fail' of pipeline" in found[0].__notes__[0]
    assert len(noted(given["log"])) == 1
    assert not recorder.unfinished
    with pytest.raises(LookupError, match="no model a"):
        map_of(pipeline, given)
    with pytest.raises(LookupError, match="no model a"):
        imap_of(pipeline, given)
    rows = [row for _, row in pipeline.imap(given, map_over="x", on_error="return")]
    assert [type(row) for row in rows] == [LookupError] * 8
    assert len(noted(given["log"])) == 4


def test_a_map_without_items_computes_nothing(given):
    nothing = {**given, "x": []}
    assert map_of(PIPELINE, nothing) == []
    assert nested_map_of(PIPELINE, nothing) == []
    assert noted(given["log"]) == []


def test_nodes_without_inputs_and_those_that_are_not_cached_are_computed_for_each_item(given):
    calls = []

    def tick():
        calls.append("tick")
        return len(calls)

    def sample(name):
        calls.append(name)
        return len(calls)

    nodes = [
        node(tick, output_name="a"),
        node(sample, output_name="b", cache=False),
        node(lambda x, a, b: (x, a, b), output_name="c"),
    ]
    Pipeline(nodes).map({"x": [1, 2, 3], "name": "sample"}, map_over="x")
    assert sorted(calls) == ["sample"] * 3 + ["tick"] * 3


def test_a_default_and_a_bound_value_are_fixed_inputs(given):
    calls = []

    def load(name="small"):
        calls.append(name)
        return name

    pipeline = Pipeline([node(load, output_name="model"), node(lambda model, x: model + x, output_name="y")])
    assert pipeline.map({"x": ["1", "2"]}, map_over="x")["y"] == ["small1", "small2"]
    assert pipeline.bind(name="big").map({"x": ["1", "2"]}, map_over="x")["y"] == ["big1", "big2"]
    assert calls == ["small", "big"]


def test_a_chain_and_a_nested_pipeline_of_fixed_inputs_are_computed_once(given):
    calls = []

    def called(name, value):
        calls.append(name)
        return value

    parse = node(lambda config: called("parse", {"n": config}), output_name="parsed")
    build = node(lambda parsed: called("build", parsed["n"]), output_name="built")
    inner = Pipeline([parse, build], name="setup")
    pipeline = Pipeline([inner, node(lambda built, x: built * x, output_name="y")])
    assert pipeline.map({"config": 3, "x": [1, 2, 3]}, map_over="x", output_name="y") == {"y": [3, 6, 9]}
    assert calls == ["parse", "build"]
    outer = Pipeline([pipeline.as_node(map_over="x")])
    both = outer.map({"config": [3, 4], "x": [1, 2]}, map_over="config", output_name="y")
    assert both == {"y": [[3, 6], [4, 8]]}
    assert calls == ["parse", "build"] * 3


def test_the_parts_of_a_map_that_vary_are_computed_for_each_item_with_several_outputs():
    calls = []

    def both(a):
        calls.append("both")
        return a, a + 1

    def mixed(low, x):
        calls.append("mixed")
        return low + x

    nodes = [node(both, output_name=("low", "high")), node(mixed, output_name="y")]
    got = Pipeline(nodes).map({"a": 1, "x": [10, 20]}, map_over="x")
    assert got == {"low": [1, 1], "high": [2, 2], "y": [11, 21]}
    assert calls == ["both", "mixed", "mixed"]


def test_progress_expects_it_once(capsys, given):
    with HyperNodesEngine() as engine:
        map_of(PIPELINE.with_engine(engine).with_callbacks([ProgressCallback("lines")]), given)
    assert "tagging: 8/8" in capsys.readouterr().err


@pytest.mark.parametrize("alias", ["sequential", "threaded", "parallel"])
@pytest.mark.parametrize(
    "callbacks", [None, [ProgressCallback("lines")], [RunReport()]], ids=["unwatched", "counted", "watched"]
)
def test_a_part_of_a_nested_pipeline_that_does_not_vary_is_computed_once(alias, callbacks, given, engine_on):
    log, recorder = given["log"], Recorder()
    deeper = Pipeline([Pipeline([PIPELINE], name="middle")], name="deeper")
    again = PIPELINE.as_node({"number": "x"}, {"y": "tag", "name_of_model": "m"}, name="again")
    both = Pipeline([deeper, again])
    inputs = {"log": log, "name": "a", "x": list(range(8)), "number": list(range(8))}
    mapped = both.with_engine(engine_on("map_executor", alias)).with_callbacks(callbacks)
    for way in (mapped, mapped.with_callbacks(callbacks and [*callbacks, recorder])):
        before = len(noted(log))
        got = way.map(inputs, map_over=["x", "number"])
        assert got["y"] == got["tag"] == ROWS
        assert got["name_of_model"] == got["m"] == ["A"] * 8
        assert len(noted(log)) - before == 2
    assert not recorder.unfinished
    before = len(noted(log))
    outer = Pipeline([deeper.as_node({"xs": "x"}, map_over="xs")], engine=mapped.engine)
    assert outer(log=log, name="a", xs=[1, 2])["y"] == ["A1", "A2"]
    assert len(noted(log)) - before == 1


def test_an_error_in_such_a_part_names_its_node(given):
    def fail(log, name):
        raise LookupError("no model")

    inner = Pipeline([node(fail, output_name="name_of_model"), tagged], name="inner")
    with pytest.raises(LookupError) as found:
        Pipeline([inner], name="outer").map(given, map_over="x")
    assert found.value.__notes__[0].startswith("in node 'fail' of pipeline 'outer/inner', called with")


@pytest.mark.parametrize("alias", ["sequential", "threaded"])
@pytest.mark.parametrize("way", WAYS)
def test_an_open_file_is_not_shared(alias, way, given, engine_on, tmp_path):
    path = tmp_path / "words"
    path.write_text("one\ntwo\n")

    def open_it(path):
        return path.open()

    def read(name_of_model, x):
        with name_of_model:
            return f"{name_of_model.read().split()[1]}{x}"

    nodes = [node(open_it, output_name="name_of_model"), node(read, output_name="y")]
    pipeline = Pipeline(nodes, engine=engine_on("map_executor", alias))
    assert way(pipeline, {"path": path, "x": [1, 2, 3]}) == ["two1", "two2", "two3"]
