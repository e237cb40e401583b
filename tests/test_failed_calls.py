"""Failures as things: errors among the results of nested maps, calls that are saved and made again."""

import asyncio
import contextlib
import json
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import hypernodes
import hypernodes.execution.calls.failed_call as failed_call_module
from hypernodes import (
    DiskCache,
    Engine,
    FailedCall,
    HyperNodesEngine,
    Pipeline,
    RunReport,
    node,
)
from hypernodes.cli import main
from hypernodes.exceptions import FailedCallError, GraphError, MapError


class TwoArgumentsError(Exception):
    """Cannot be unpickled as it is: its constructor takes more than its args hold."""

    def __init__(self, text, value):
        super().__init__(text)
        self.value = value


class FrozenError(Exception):
    def __setattr__(self, name, value):
        raise AttributeError("frozen")


@node(output_name="y")
def invert(x, scale=1):
    if x == 0:
        raise TwoArgumentsError("zero", x)
    return scale / x


@node(output_name="kinds")
def kinds(ys):
    return [type(y).__name__ for y in ys]


ENGINES = {
    "loop": lambda: None,
    "threaded": lambda: HyperNodesEngine("threaded", "threaded"),
    "async": lambda: HyperNodesEngine("async", "async"),
    "parallel nodes": lambda: HyperNodesEngine("parallel"),
    "parallel items": lambda: HyperNodesEngine(map_executor="parallel"),
    "ray nodes": lambda: HyperNodesEngine("ray"),
    "ray items": lambda: HyperNodesEngine(map_executor="ray"),
    "daft": lambda: hypernodes.DaftEngine(),
}


@pytest.fixture(params=ENGINES)
def engine(request):
    if "ray" in request.param:
        request.getfixturevalue("ray_cluster")
    made = ENGINES[request.param]()
    yield made
    if hasattr(made, "shutdown"):
        made.shutdown()


inverses = Pipeline([invert], name="inverses")


def outer(**options):
    nested = inverses.as_node({"xs": "x"}, {"y": "ys"}, map_over="xs", on_error="return", **options)
    return Pipeline([nested, kinds], name="outer")


# ------------------------------------------------------------------------------------- nested maps


def test_errors_of_items_are_results_of_a_nested_map(engine):
    pipeline = outer().with_engine(engine)
    result = pipeline.run({"xs": [1, 0, 2]})
    assert result["kinds"] == ["float", "TwoArgumentsError", "float"]
    error = result["ys"][1]
    assert (type(error), error.args, result["ys"][::2]) == (TwoArgumentsError, ("zero",), [1.0, 0.5])
    assert "in node 'invert' of pipeline 'outer/inverses', item 1" in error.__notes__[0]
    assert pipeline.map({"xs": [[1, 0], [0], []]}, "xs")["kinds"] == [
        *(["float", "TwoArgumentsError"], ["TwoArgumentsError"], [])
    ]
    assert FailedCall.of(error).inputs == {"x": 0}


class PlainEngine(Engine):
    """An engine of a user's own."""

    def run(self, pipeline, inputs, output_name=None, _ctx=None):
        return HyperNodesEngine().run(pipeline, inputs, output_name, _ctx)

    def map(self, pipeline, items, inputs, output_name=None, _ctx=None, *, on_error="raise"):
        return HyperNodesEngine().map(pipeline, items, inputs, output_name, _ctx, on_error=on_error)


def test_errors_are_results_of_a_nested_map_with_an_engine_of_its_own():
    nested = inverses.with_engine(PlainEngine()).as_node(
        {"xs": "x"}, {"y": "ys"}, map_over="xs", on_error="return"
    )
    assert Pipeline([nested, kinds]).run({"xs": [1, 0]})["kinds"] == ["float", "TwoArgumentsError"]


def test_the_errors_of_a_nested_map_are_no_stale_hits_of_what_takes_them(tmp_path):
    gate, calls = tmp_path / "gate", []

    @node(output_name="y", cache=False)
    def fetch(x):
        if not gate.exists():
            raise ConnectionError("later")
        return x

    @node(output_name="total")
    def total(ys):
        calls.append(ys)
        return sum(y for y in ys if not isinstance(y, Exception))

    def cached(fetch, cache):
        nested = Pipeline([fetch], name="n").as_node(
            {"xs": "x"}, {"y": "ys"}, map_over="xs", on_error="return"
        )
        return Pipeline([nested, total], cache=cache)

    with DiskCache(tmp_path / "cache") as cache:
        for version in (fetch, node(fetch.function, output_name="y")):  # not cached, and cached
            gate.unlink(missing_ok=True)
            assert cached(version, cache).run({"xs": [1, 2]})["total"] == 0
            gate.touch()
            assert cached(version, cache).run({"xs": [1, 2]})["total"] == 3
            assert cached(version, cache).run({"xs": [1, 2]}, "total") == {"total": 3}


def test_errors_are_returned_only_by_maps():
    with pytest.raises(MapError, match="Name the inputs that vary with map_over"):
        inverses.as_node(on_error="return")
    with pytest.raises(MapError, match="on_error must be 'raise' .* or 'return' .*, not 'ignore'"):
        inverses.as_node(map_over="x", on_error="ignore")
    assert issubclass(MapError, ValueError)
    assert not issubclass(MapError, GraphError)
    with pytest.raises(TwoArgumentsError):
        Pipeline([inverses.as_node(map_over="x")]).run({"x": [0]})


def test_a_picture_says_that_errors_are_results():
    assert "errors are results" in outer().visualize(return_type="graphviz")


# ------------------------------------------------------------------------ the failed items once more


def test_only_the_failed_items_of_a_map_are_computed_again(engine, tmp_path):
    broken = tmp_path / "broken"
    broken.touch()

    @node(output_name=("low", "high"))
    def spread(x, width):
        with (tmp_path / "calls").open("a") as file:
            file.write(f"{x} ")
        if x % 3 == 0 and broken.exists():
            raise ValueError(x)
        return x - width, x + width

    pipeline = Pipeline([spread], name="p", engine=engine)
    given = {"x": [*range(1, 8)], "width": 1}
    result = pipeline.map(given, map_over="x", on_error="return")
    assert [str(value) for value in result["low"]] == ["0", "1", "3", "3", "4", "6", "6"]
    again = pipeline.map(given, map_over="x", on_error="return", previous=result)
    assert "item 5" in again["high"][5].__notes__[0]  # the index of the item in the whole map
    broken.unlink()
    (tmp_path / "calls").unlink()
    done = pipeline.map(given, map_over="x", previous=again)
    assert done == {"low": [*range(7)], "high": [*range(2, 9)]}
    assert sorted((tmp_path / "calls").read_text().split()) == ["3", "6"]
    (tmp_path / "calls").unlink()
    assert pipeline.map(given, map_over="x", previous=done) == done
    assert not (tmp_path / "calls").exists()
    assert isinstance(result["low"][2], ValueError)


def test_an_error_of_an_item_that_fails_again_names_its_index_in_the_whole_map():
    failing = Pipeline([node(lambda x: 1 / x, output_name="y")], name="p")
    result = failing.map({"x": [1, 2, 0]}, map_over="x", on_error="return")
    with pytest.raises(ZeroDivisionError) as caught:
        failing.map({"x": [1, 2, 0]}, map_over="x", previous=result)
    assert "item 2" in caught.value.__notes__[0]


def test_failed_items_of_tables_products_and_loops_are_computed_again():
    failing = Pipeline([node(lambda a, b: a / b, output_name="q")])
    import pandas as pd  # Workers import this module.

    frame = pd.DataFrame({"a": [4, 6], "b": [0, 3]})
    result = failing.map(frame, on_error="return")
    assert failing.map(frame.assign(b=[2, 99]), previous=result) == {"q": [2, 2]}
    given = {"a": [4, 6], "b": [0, 2]}
    result = failing.map(given, ["a", "b"], "product", on_error="return")
    done = failing.map(given | {"b": [4, 99]}, ["a", "b"], "product", previous=result)
    assert done == {"q": [1, 2, 1.5, 3]}
    assert asyncio.run(failing.amap(given | {"b": [4, 9]}, ["a", "b"], "product", previous=result)) == done


def test_a_result_of_another_map_is_refused():
    pipeline = Pipeline([node(lambda x: x, output_name="y")], name="p")
    for previous, message in [
        ({"z": [1]}, "a result without 'y'"),
        ([1], "not \\[1\\]"),
        ({"y": [1]}, "has length 1, and there are 2 items now"),
    ]:
        with pytest.raises(MapError, match=message):
            pipeline.map({"x": [1, 2]}, "x", previous=previous)
    with pytest.raises(MapError, match="lazy data frame"):
        pipeline.with_engine(hypernodes.DaftEngine(collect=False)).map({"x": [1]}, "x", previous={"y": [1]})


# ------------------------------------------------------------------------------------ failed calls


def test_a_failed_call_is_saved_and_made_again(engine, tmp_path):
    report = RunReport()
    for callbacks in ([], [report]):
        pipeline = inverses.with_engine(engine).with_callbacks(callbacks)
        with pytest.raises(TwoArgumentsError) as caught:
            pipeline.run({"x": 0})
        results = pipeline.map({"x": [0, 1, 0], "scale": 3}, "x", on_error="return")
        for error, inputs, item in [
            (caught.value, {"x": 0}, ()),
            (results["y"][0], {"x": 0, "scale": 3}, (0,)),
            (results["y"][2], {"x": 0, "scale": 3}, (2,)),
        ]:
            failed = FailedCall.of(error)
            assert (failed.node, failed.pipeline, failed.item) == ("invert", "inverses", item)
            loaded = FailedCall.load(failed.save(tmp_path / "f.pkl"))
            assert (loaded.node, loaded.pipeline, loaded.item) == ("invert", "inverses", item)
            assert loaded.inputs == inputs
            assert loaded.changes() == []
            assert (type(loaded.error), loaded.error.args) == (TwoArgumentsError, ("zero",))
            assert loaded.saved["versions"]["numpy"] == np.__version__
            assert "def invert(x, scale=1)" in loaded.saved["source"]
            assert 'raise TwoArgumentsError("zero", x)' in loaded.saved["traceback"]
            with pytest.raises(TwoArgumentsError, match="zero"):
                loaded.replay()
    assert FailedCall.load(report.failures[0].save(tmp_path / "r.pkl")).inputs["x"] == 0


def test_calls_of_all_kinds_are_made_again(tmp_path):
    state = {"fails": True}

    async def wait(x, *, y):
        await asyncio.sleep(0)
        return check((x, y))

    def items(x):
        yield from [x, check(x)]

    def pair(x, /, y=2):
        return check(x), y

    class Scale:
        factor = 3

        def __call__(self, x):
            return check(x) * self.factor

        def method(self, x):
            return check(x) + self.factor

    def check(value):
        if state["fails"]:
            raise RuntimeError("no")
        return value

    for function, outputs, inputs, expected in [
        (wait, "o", {"x": 1, "y": 2}, (1, 2)),
        (items, "o", {"x": 5}, [5, 5]),
        (pair, ("a", "b"), {"x": 7}, (7, 2)),
        (Scale(), "o", {"x": 2}, 6),
        (Scale().method, "o", {"x": 2}, 5),
    ]:
        state["fails"] = True
        pipeline = Pipeline([node(function, output_name=outputs, retries=2, timeout=60)])
        with pytest.raises(RuntimeError) as caught:
            pipeline.run(inputs)
        failed = FailedCall.of(caught.value)
        FailedCall.load(failed.save(tmp_path / "f.pkl"))
        state["fails"] = False
        assert failed.replay() == expected


def test_an_error_that_takes_no_attributes_has_its_call():
    def fail(x):
        raise FrozenError("no")

    with pytest.raises(FrozenError) as caught:
        Pipeline([node(fail, output_name="y")]).run({"x": 4})
    assert FailedCall.of(caught.value).inputs == {"x": 4}


def test_what_cannot_be_saved_says_why(tmp_path):
    with pytest.raises(FailedCallError, match="ValueError: mine: it is not known which call"):
        FailedCall.of(ValueError("mine"))
    with pytest.raises(ZeroDivisionError) as caught:
        Pipeline([node(lambda x, lock: 1 / x, output_name="y")]).run({"x": 0, "lock": threading.Lock()})
    with pytest.raises(FailedCallError, match="are not picklable .*lock=<unlocked"):
        FailedCall.of(caught.value).save(tmp_path / "f.pkl")
    assert [*tmp_path.iterdir()] == []
    (tmp_path / "other.pkl").write_bytes(pickle.dumps({"some": "thing"}))
    (tmp_path / "text.pkl").write_text("text")
    for name in ("other.pkl", "text.pkl"):
        with pytest.raises(FailedCallError, match=f"{name} holds no failed call"):
            FailedCall.load(tmp_path / name)


def test_inputs_that_come_with_errors_are_bounded(monkeypatch):
    pipeline = Pipeline([node(lambda x: 1 / x[0], output_name="y")], name="p")
    given = {"x": [np.zeros(2000, int) for _ in range(20)]}
    with HyperNodesEngine(map_executor="parallel") as engine:
        on_processes = pipeline.with_engine(engine)
        monkeypatch.setattr(failed_call_module, "MAX_KEPT_BYTES", 100_000)
        with np.errstate(divide="ignore"), contextlib.suppress(Warning):
            pipeline = Pipeline([node(lambda x: 1 // int(x[0]), output_name="y")], name="p", engine=engine)
        errors = pipeline.map(given, "x", on_error="return")["y"]
        kept = [error for error in errors if _has_inputs(error)]
        assert 3 <= len(kept) <= 6
        with pytest.raises(FailedCallError, match="were not kept, since the inputs of other errors"):
            _ = FailedCall.of(errors[-1]).inputs
        del errors, kept
        assert _has_inputs(pipeline.map(given, "x", on_error="return")["y"][0])
        large = {"x": [np.zeros(5 << 20)]}  # 40 MiB
        error = pipeline.map(large, "x", on_error="return")["y"][0]
        with pytest.raises(FailedCallError, match="have 41,943,040 bytes, and more than .* do not travel"):
            _ = FailedCall.of(error).inputs
        del on_processes


def _has_inputs(error):
    try:
        return bool(FailedCall.of(error).inputs)
    except FailedCallError:
        return False


# ----------------------------------------------------------------------------------- the command line


CODE = """
LIMIT = {limit}

def check(x):
    if x > LIMIT:
        raise ValueError(f"{{x}} is too much")
    return x

from hypernodes import Pipeline, node

@node(output_name="y")
def bounded(x):
    return check(x)

pipeline = Pipeline([bounded], name="bounds")
"""

FAIL = """
import sys
from hypernodes import FailedCall, HyperNodesEngine
from replayed import pipeline

if __name__ == "__main__":
    on_processes = pipeline.with_engine(HyperNodesEngine(map_executor="parallel"))
    errors = on_processes.map({"x": [1, 5]}, "x", on_error="return")
    FailedCall.of(errors["y"][1]).save("f.pkl")
"""


def replay(directory, *options, **kwargs):
    return subprocess.run(
        [sys.executable, "-m", "hypernodes", "replay", "f.pkl", *options],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=100,
        **kwargs,
    )


def test_the_command_replay_makes_the_call_again(tmp_path):
    (tmp_path / "replayed.py").write_text(CODE.format(limit=3))
    (tmp_path / "fail.py").write_text(FAIL)
    subprocess.run([sys.executable, "fail.py"], cwd=tmp_path, check=True, timeout=100)
    done = replay(tmp_path)
    assert done.returncode == 1
    assert "<failed call of 'bounded' of pipeline 'bounds', item 1: ValueError: 5 is too much>" in done.stdout
    assert "  x = 5\n" in done.stdout
    assert "changed since" not in done.stdout
    assert 'raise ValueError(f"{x} is too much")' in done.stderr
    done = replay(tmp_path, "--pdb", input="p x + 100, LIMIT\nq\n")
    assert "(105, 3)" in done.stdout
    (tmp_path / "replayed.py").write_text(CODE.format(limit=7))
    done = replay(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "changed since: global LIMIT of check\n" in done.stdout
    assert done.stdout.endswith("returned 5\n")
    (tmp_path / "replayed.py").unlink()
    done = replay(tmp_path)
    assert done.returncode == 1
    assert "cannot be unpickled here: ModuleNotFoundError: No module named 'replayed'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_that_holds_no_failed_call_is_one_message(tmp_path):
    file = tmp_path / "f.pkl"
    file.write_text(json.dumps({}))
    done = CliRunner().invoke(main, ["replay", str(file)])
    assert done.exit_code == 1
    assert done.output.startswith("Error: ")
    assert "holds no failed call" in done.output
    assert Path(file).exists()
