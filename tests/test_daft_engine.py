"""DaftEngine: pipelines as Daft queries."""

import asyncio
import contextlib
import importlib
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import daft
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import sample
from daft import col
from recorder import Recorder

from hypernodes import DaftEngine, DiskCache, HyperNodesEngine, Pipeline, PipelineCallback, RayExecutor, node
from hypernodes.exceptions import (
    DaftError,
    InputError,
    MapError,
    MissingInputError,
    NodeTimeoutError,
    RemoteError,
    ResourcesError,
    TransportError,
    WorkerDiedError,
)
from hypernodes.execution.plan.build import build_plan

ON_RAY = os.environ["DAFT_RUNNER"] == "ray"
native_only = pytest.mark.skipif(ON_RAY, reason="observes this process")
ray_only = pytest.mark.skipif(not ON_RAY, reason="needs Daft's other runner")

pytestmark = pytest.mark.usefixtures("daft_runner")
CALLS = []


@pytest.fixture(autouse=True)
def forget():
    CALLS.clear()


@node(output_name="square")
def square(x: int) -> int:
    CALLS.append(x)
    return x * x


@node(output_name="root")
def root(square: int) -> float:
    return square**0.5


@node(output_name="label")
def label(square):
    return f"<{square}>", {square}


shapes = Pipeline([square, root, label], name="shapes", engine=DaftEngine())
LABELS = [("<1>", {1}), ("<4>", {4}), ("<9>", {9})]


# ---------------------------------------------------------------------------------------- data frames


@pytest.mark.parametrize(
    ("module", "make"),
    [("daft", "from_pydict"), ("pandas", "DataFrame"), ("polars", "DataFrame"), ("pyarrow", "table")],
)
def test_the_columns_of_a_table_are_mapped_over(module, make):
    frame = getattr(importlib.import_module(module), make)({"x": [1, 2, 3], "spare": ["a", "b", "c"]})
    assert shapes.map(frame, output_name=["label", "root"]) == {"label": LABELS, "root": [1.0, 2.0, 3.0]}
    assert shapes.map(frame, "x", output_name="square") == {"square": [1, 4, 9]}


def test_a_data_frame_may_have_intermediate_outputs_as_columns():
    frame = daft.from_pydict({"square": [1, 4]})
    assert shapes.map(frame, "square", output_name="root") == {"root": [1.0, 2.0]}
    assert not CALLS
    with pytest.raises(MapError, match="no column of the table is an input"):
        shapes.to_daft(frame, "root")


def test_a_lazy_data_frame_comes_back_if_nothing_is_to_be_collected():
    lazy = shapes.with_engine(DaftEngine(collect=False))
    frame = lazy.map(daft.from_pydict({"x": [1, 2, 3], "spare": ["a", "b", "c"]}))
    assert isinstance(frame, daft.DataFrame)
    assert not CALLS
    types_of = {field.name: str(field.dtype) for field in frame.schema()}
    assert types_of == {"square": "Int64", "root": "Float64", "label": "Python"}
    assert frame.to_pydict() == {"square": [1, 4, 9], "root": [1.0, 2.0, 3.0], "label": LABELS}


@pytest.mark.parametrize("items", [[1, 2], [], [1, 2**70]])
def test_lists_as_inputs_give_a_lazy_data_frame_too(items):
    lazy = Pipeline([node(lambda x: x, output_name="y")], engine=DaftEngine(collect=False))
    assert lazy.map({"x": items}, "x").to_pydict() == {"y": items}
    assert lazy.map({"x": items, "y": 5}, "x", output_name="y").to_pydict() == {"y": [5] * len(items)}


def test_to_daft_adds_columns_to_those_that_are_there():
    frame = shapes.to_daft(daft.from_pydict({"x": [1, 2, 3], "spare": ["a", "b", "c"]}))
    assert frame.column_names == ["x", "spare", "square", "root", "label"]
    assert frame.where(col("root") > 1).select("spare", "label").to_pydict() == {
        "spare": ["b", "c"],
        "label": LABELS[1:],
    }


@native_only
def test_outputs_that_were_not_asked_for_are_not_computed():
    other = node(lambda x: CALLS.append("other"), output_name="other")
    frame = Pipeline([square, other], engine=DaftEngine()).to_daft(daft.from_pydict({"x": [1, 2]}))
    assert frame.select("square").to_pydict() == {"square": [1, 4]}
    assert sorted(CALLS) == [1, 2]
    shapes.map({"x": [1]}, "x", output_name="square")
    assert shapes.to_daft(daft.from_pydict({"x": [1]})).limit(1).select("x").to_pydict() == {"x": [1]}
    assert sorted(CALLS) == [1, 1, 2]


def test_from_storage_to_storage(tmp_path):
    import pyarrow.parquet as pq

    for part in range(3):
        pq.write_table(pa.table({"x": range(part * 10, part * 10 + 10)}), tmp_path / f"{part}.parquet")
    lazy = shapes.with_engine(DaftEngine(collect=False))
    source = daft.read_parquet(str(tmp_path / "*.parquet"))
    lazy.map(source, output_name=["square", "root"]).write_parquet(str(tmp_path / "made"))
    made = daft.read_parquet(str(tmp_path / "made" / "*.parquet")).sort("square").to_pydict()
    assert made == {"square": [i * i for i in range(30)], "root": [float(i) for i in range(30)]}


def test_columns_of_every_type_arrive_as_they_do_with_the_other_engine():
    frame = daft.from_pydict(
        {
            "a": [1, None],
            "b": [[1.0], []],
            "c": [{"k": 1}, None],
            "d": np.arange(4, dtype="i2").reshape(2, 2),
            "e": [b"x", None],
        }
    ).with_column("f", daft.lit(1.5).cast(daft.DataType.float32()))
    shown = Pipeline([node(lambda a, b, c, d, e, f: repr((a, b, c, d, e, f)), output_name="shown")])
    assert shown.with_engine(DaftEngine()).map(frame) == shown.map(frame)


# ---------------------------------------------------------------------------------------------- plans


def test_the_plan_is_printed_and_has_a_stage_for_each_kind_of_node(capfd):
    @node(output_name="c", batch=lambda b: pc.add(b, 1))
    def by_batch(b: int) -> int:
        return b + 1

    @node(output_name="d")
    async def later(c: int) -> int:
        return c

    plain = [node(lambda x: x, output_name="a"), node(lambda a: a, output_name="b")]
    pipeline = Pipeline([*plain, by_batch, later, node(ascii, output_name="e").rename(inputs={"obj": "d"})])
    engine = DaftEngine(show_plan=True)
    assert pipeline.with_name("staged").with_engine(engine).map({"x": [1, 2]}, "x", output_name="e") == {
        "e": ["2", "3"]
    }
    plan = " ".join(capfd.readouterr().out.replace("|", " ").split())
    for stage in ("staged.<lambda>_<lambda>", "staged.by_batch", "staged.later", "staged.ascii"):
        assert f"UDF {stage}" in plan
    assert "async = true" in plan or ON_RAY


def test_batch_functions_get_arrow_arrays_and_fixed_inputs_as_they_are():
    def add_all(x, by):
        assert isinstance(x, pa.Array)
        assert x.type == pa.int64()
        return pc.add(x, by["by"])

    @node(output_name="added", batch=add_all)
    def add(x, by):
        raise AssertionError("called one by one")

    @node(output_name="halved", batch=lambda added: added.to_numpy() / 2)
    def halve(added: int) -> float:
        raise AssertionError("called one by one")

    pipeline = Pipeline([add, halve], engine=DaftEngine())
    assert pipeline.map({"x": [1, 2, 3], "by": {"by": 3}}, "x") == {
        "added": [4, 5, 6],
        "halved": [2.0, 2.5, 3.0],
    }


class Model:
    """Counts how often it is unpickled in this process."""

    made = 0

    def __init__(self, weights):
        self.weights = weights

    def __setstate__(self, state):
        vars(self).update(state)
        Model.made += 1


@pytest.mark.parametrize("options", [{}, {"concurrency": 2, "batch_size": 5}], ids=["threads", "processes"])
def test_a_fixed_input_is_unpickled_once_in_each_worker(options):
    model = Model(np.ones(100_000))

    def apply(x, model):
        return os.getpid(), type(model).made, float(model.weights[x])

    pipeline = Pipeline([node(apply, output_name="applied")], engine=DaftEngine(**options))
    applied = pipeline.map({"x": range(40), "model": model}, "x")["applied"]
    assert [value for *_, value in applied] == [1.0] * 40
    if ON_RAY or options:
        assert {made for _, made, _ in applied} == {1}
        assert os.getpid() not in {pid for pid, *_ in applied}
    else:
        assert {(pid, made) for pid, made, _ in applied} == {(os.getpid(), 0)}


@native_only
def test_coroutines_of_a_stage_run_beside_each_other():
    running, most = 0, 0

    @node(output_name="at_once")
    async def meet(x):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        return most

    pipeline = Pipeline([meet], engine=DaftEngine(concurrency=4, batch_size=100))
    assert max(pipeline.map({"x": range(40)}, "x")["at_once"]) == 4


ENGINES = {
    "daft": (DaftEngine(), DaftEngine()),
    "threaded in daft": (DaftEngine(), HyperNodesEngine(map_executor="threaded")),
    "own pool in daft": (DaftEngine(), HyperNodesEngine(map_executor=ThreadPoolExecutor(2))),
    "daft in threaded": (HyperNodesEngine(map_executor="threaded"), DaftEngine()),
}
if not ON_RAY:  # There, each cache has an actor, and the plain loop shows nothing more than threads.
    ENGINES |= {
        "daft in plain": (HyperNodesEngine(), DaftEngine()),
        "plain in daft": (DaftEngine(), HyperNodesEngine()),
    }


@pytest.mark.parametrize("engines", ENGINES.values(), ids=ENGINES)
def test_engines_nest_with_the_same_events_and_signatures(engines, tmp_path):
    seen = []
    for number, (outer, inner) in enumerate([(None, None), engines]):
        cache, recorder = DiskCache(tmp_path / str(number)), Recorder()
        words = sample.words.with_engine(inner).as_node(
            {"words": "word"}, {"length": "lengths"}, map_over="words"
        )
        pipeline = Pipeline(
            [sample.split, words, sample.longest],
            engine=outer,
            cache=cache,
            callbacks=[recorder],
            name="text",
        )
        inputs = {"text": ["a bcd ef", "g hi"], "unit": 2}
        outputs = [
            pipeline.run({"text": "a bcd ef", "unit": 3}),
            pipeline.map(inputs, "text"),
            pipeline.with_cache(None).with_callbacks([]).map(inputs, "text"),
            pipeline.with_cache(None).with_callbacks([]).run({"text": "a bcd ef", "unit": 3}),
        ]
        seen.append((outputs, set(cache), recorder.counted))
    assert seen[0] == seen[1]


@pytest.mark.parametrize("kind", ["plain", "async"])
@pytest.mark.parametrize("alias", ["threaded", "async"])
def test_a_nested_pipeline_has_its_executor_in_processes_of_daft_too(kind, alias, recorder):
    async def pass_on(x):
        return x

    inner = Pipeline([square], name="squares", engine=HyperNodesEngine(map_executor=alias))
    first = node(pass_on if kind == "async" else lambda x: x, output_name="passed")
    squares = inner.as_node({"passed": "x"}, {"square": "squares"}, map_over="passed")
    pipeline = Pipeline([first, squares], engine=DaftEngine(concurrency=1), callbacks=[recorder])
    assert pipeline.map({"x": [[1, 2], [3]]}, "x", output_name="squares") == {"squares": [[1, 4], [9]]}


def test_products_bound_and_optional_inputs():
    power = Pipeline([node(pow, output_name="power")], engine=DaftEngine())
    assert power.map({"base": [2, 3], "exp": [1, 2]}, ["base", "exp"], "product") == {"power": [2, 4, 3, 9]}
    assert power.bind(exp=3, mod=5).map({"base": [2, 3]}, "base") == {"power": [3, 2]}
    assert power.map({"base": [], "exp": 2}, "base") == {"power": []}
    with pytest.raises(MapError, match="same length"):
        power.map({"base": [2, 3], "exp": [1]}, ["base", "exp"])


def test_streams_and_event_loops():
    pipeline = Pipeline([square], engine=DaftEngine())
    endless = pipeline.imap({"x": iter(range(10**9))}, "x")
    assert [next(endless) for _ in range(3)] == [(i, {"square": i * i}) for i in range(3)]
    endless.close()
    assert list(pipeline.imap({"x": range(3)}, "x")) == [(i, {"square": i * i}) for i in range(3)]

    async def main():
        return await pipeline.arun({"x": 3}), await pipeline.amap({"x": [1, 2]}, "x")

    assert asyncio.run(main()) == ({"square": 9}, {"square": [1, 4]})


# ---------------------------------------------------------------------------------- cache and callbacks


def test_entries_are_the_same_for_both_engines(tmp_path):
    cached = shapes.with_cache(DiskCache(tmp_path / "cache"))
    plain = cached.with_engine(None)
    assert plain.map({"x": [1, 2]}, "x")["label"] == LABELS[:2]
    CALLS.clear()
    assert cached.map({"x": [1, 2]}, "x")["label"] == LABELS[:2]
    assert not CALLS
    assert cached.map({"x": [1, 2, 3]}, "x")["label"] == LABELS
    CALLS.clear()
    assert plain.map({"x": [3]}, "x")["label"] == LABELS[2:]
    lazy = cached.with_engine(DaftEngine(collect=False))
    frame = lazy.map(daft.from_pydict({"x": [3, 4]}), output_name="square")
    assert frame.to_pydict() == {"square": [9, 16]}
    assert CALLS == ([] if ON_RAY else [4])
    CALLS.clear()
    assert plain.map({"x": [4]}, "x", output_name="square") == {"square": [16]}
    assert not CALLS


def test_items_whose_results_are_all_cached_are_no_rows_of_the_query(tmp_path, capfd):
    engine = DaftEngine(show_plan=True)
    cached = shapes.with_engine(engine).with_cache(DiskCache(tmp_path / "cache"))
    cached.map({"x": [1, 2]}, "x")
    assert "Approx num rows = 2," in capfd.readouterr().out
    recorder = Recorder()
    cached.with_callbacks([recorder]).map({"x": [1, 2]}, "x")
    assert capfd.readouterr().out == ""
    assert len(recorder.of("item_cached")) == 2
    cached.map({"x": [1, 3, 2]}, "x")
    assert "Approx num rows = 1," in capfd.readouterr().out


@native_only
def test_item_events_arrive_while_the_query_runs(tmp_path):
    begun_at_end = []

    class Look(PipelineCallback):
        def on_map_item_end(self, item_index, duration, ctx):
            begun_at_end.append(len(list(tmp_path.iterdir())))

    @node(output_name="slept")
    def sleep(x, directory):
        (directory / str(x)).touch()
        time.sleep(0.05)
        return x

    pipeline = Pipeline([sleep], engine=DaftEngine(), callbacks=[Look()])
    assert pipeline.map({"x": range(24), "directory": tmp_path}, "x") == {"slept": list(range(24))}
    assert len(begun_at_end) == 24
    assert begun_at_end[0] < 24


def test_a_lazy_data_frame_emits_no_events_and_warns_of_that():
    lazy = shapes.with_engine(DaftEngine(collect=False)).with_callbacks([Recorder()])
    with pytest.warns(UserWarning, match="callbacks get no events from a lazy data frame"):
        frame = lazy.map(daft.from_pydict({"x": [2]}), output_name="square")
    assert frame.to_pydict() == {"square": [4]}


# --------------------------------------------------------------------------------------------- errors


@node(output_name="checked")
def check(x):
    if x == 3:
        raise sample.Refused(x, "three is not allowed")
    return x


@node(output_name="checked_later")
async def check_later(checked):
    if checked == 5:
        raise sample.Refused(checked, "five is not allowed")
    return checked


checking = Pipeline([check, check_later], name="checking", engine=DaftEngine())


@pytest.mark.parametrize(("items", "at", "name"), [([1, 2, 3], 2, "check"), ([5, 1], 0, "check_later")])
def test_the_error_of_a_node_arrives_as_it_is_with_node_and_item(items, at, name):
    with pytest.raises(sample.Refused) as caught:
        checking.map({"x": items}, "x")
    parameter = "x" if name == "check" else "checked"
    assert caught.value.number == items[at]
    assert caught.value.__notes__ == [
        f"in node {name!r} of pipeline 'checking', item {at}, called with {parameter}={items[at]}"
    ]
    with pytest.raises(sample.Refused) as caught:
        checking.run({"x": items[at]})
    assert caught.value.__notes__ == [
        f"in node {name!r} of pipeline 'checking', called with {parameter}={items[at]}"
    ]


@native_only
def test_an_error_in_this_process_is_the_same_object_with_its_traceback():
    error = KeyError("x")

    def fail(x):
        raise error

    with pytest.raises(KeyError) as caught:
        Pipeline([node(fail, output_name="y")], engine=DaftEngine()).map({"x": [1]}, "x")
    assert caught.value is error
    assert traceback.extract_tb(error.__traceback__)[-1].name == "fail"


def test_errors_can_be_returned_in_place_of_outputs():
    made = checking.map({"x": [1, 3, 5]}, "x", on_error="return")
    assert made["checked"][0] == made["checked_later"][0] == 1
    assert [str(error) for error in made["checked"][1:]] == [
        "3: three is not allowed",
        "5: five is not allowed",
    ]
    assert "item 2" in made["checked_later"][2].__notes__[0]
    with pytest.raises(InputError, match="DaftEngine\\(collect=True\\)"):
        checking.with_engine(DaftEngine(collect=False)).map({"x": [1]}, "x", on_error="return")


def test_an_error_in_a_lazy_data_frame_says_where_it_comes_from():
    frame = checking.with_engine(DaftEngine(collect=False)).map(daft.from_pydict({"x": [1, 2, 3]}))
    # On Ray, an error that plain pickle cannot rebuild arrives as its text.
    with pytest.raises(RemoteError if ON_RAY else sample.Refused) as caught:
        frame.collect()
    assert "in node 'check' of pipeline 'checking', called with x=3" in caught.value.__notes__
    assert "three is not allowed" in str(caught.value)
    failing = Pipeline([node(lambda x: 1 / x, output_name="y")], engine=DaftEngine(collect=False))
    with pytest.raises(ZeroDivisionError, match="division by zero"):
        failing.map({"x": [0]}, "x").collect()


def test_retries_and_timeouts(tmp_path):
    @node(output_name="tried", retries=2, retry_on=OSError)
    def try_hard(x):
        with (tmp_path / str(x)).open("a") as file:
            file.write("x")
        if len((tmp_path / str(x)).read_text()) < 3:
            raise OSError("not yet")
        return x

    assert Pipeline([try_hard], engine=DaftEngine()).map({"x": [1, 2]}, "x") == {"tried": [1, 2]}
    assert (tmp_path / "1").read_text() == "xxx"
    slow = node(lambda x: time.sleep(x), output_name="slept", timeout=0.05)
    with pytest.raises(NodeTimeoutError):
        Pipeline([slow], engine=DaftEngine()).map({"x": [0.0, 2.0]}, "x")


def test_a_result_that_does_not_pickle_names_its_node_and_item():
    lock = node(lambda x: threading.Lock() if x else x, output_name="lock")
    pipeline = Pipeline([lock], name="locks", engine=DaftEngine(concurrency=None if ON_RAY else 1))
    with pytest.raises(TransportError, match="'lock', a lock, cannot be pickled") as caught:
        pipeline.map({"x": [0, 1]}, "x")
    assert "pipeline 'locks', item 1" in caught.value.__notes__[0]


def test_a_function_or_an_input_that_does_not_pickle_names_its_node():
    engine = DaftEngine(concurrency=None if ON_RAY else 1)
    lock = threading.Lock()
    holding = Pipeline([node(lambda x: lock and x, output_name="y")], name="holding", engine=engine)
    with pytest.raises(TransportError, match="the function of node '<lambda>'.*of pipeline 'holding'"):
        holding.map({"x": [1]}, "x")
    given = Pipeline([node(lambda x, by: x, output_name="y")], engine=engine)
    with pytest.raises(TransportError, match="input 'by' \\(a lock\\)"):
        given.map({"x": [1], "by": lock}, "x")


def test_a_column_that_is_missing_is_named():
    with pytest.raises(MissingInputError, match="'x' \\(for node 'square'\\)"):
        shapes.map(daft.from_pydict({"spare": [1], "root": [2]}), "root")
    with pytest.raises(MapError, match="no column of the table is an input"):
        shapes.to_daft(daft.from_pydict({"spare": [1]}))
    with pytest.raises(MapError, match="to_daft takes a daft.DataFrame, not a dict"):
        shapes.to_daft({"x": [1]})


def test_options_that_are_out_of_range():
    for options in (
        {"runner": "spark"},
        {"batch_size": 0},
        {"concurrency": True},
        {"runner": "native", "address": "x"},
    ):
        with pytest.raises(ValueError, match="|".join(options)):
            DaftEngine(**options)


@native_only
def test_more_cpus_than_there_are():
    greedy = Pipeline([node(lambda x: x, output_name="y", num_cpus=512)], engine=DaftEngine(), name="greedy")
    with pytest.raises(ResourcesError, match="requested 512 CPUs"):
        greedy.map({"x": [1]}, "x")


def test_an_older_daft_is_an_error_that_says_how_to_upgrade(monkeypatch):
    monkeypatch.setattr(daft, "__version__", "0.6.9")
    with pytest.raises(DaftError, match=r"needs Daft 0\.7\.26 or later; this is 0\.6\.9.*pip install -U"):
        DaftEngine()
    monkeypatch.setitem(sys.modules, "daft", None)
    with pytest.raises(DaftError, match="cannot be imported"):
        DaftEngine()


def test_a_second_runner_in_a_process_is_an_error():
    shapes.map({"x": [1]}, "x")
    other = "native" if ON_RAY else "ray"
    with pytest.raises(DaftError, match=f"runner='{other}'.*keeps to its first one.*DAFT_RUNNER={other}"):
        DaftEngine(runner=other)


# -------------------------------------------------------------------------- debugging and interrupts


def test_debug_runs_in_the_calling_thread_without_frames_of_daft():
    def fail(x):
        CALLS.append(threading.current_thread())
        raise ValueError(x)

    pipeline = Pipeline([node(fail, output_name="y")], engine=DaftEngine(debug=True))
    with pytest.raises(ValueError, match="7") as caught:
        pipeline.map({"x": [7]}, "x")
    assert CALLS == [threading.main_thread()]
    frames = [frame.filename for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert not any(f"{os.sep}daft{os.sep}dataframe" in frame or "udf" in frame for frame in frames)
    assert frames[-1] == __file__


@native_only
@pytest.mark.timeout(60)
@pytest.mark.parametrize("has_callbacks", [False, True])
def test_an_interrupt_ends_the_query(has_callbacks, tmp_path):
    program = f"""
import os, signal, time
from pathlib import Path
from hypernodes import DaftEngine, Pipeline, PipelineCallback, node

driver, calls = os.getpid(), Path("calls")

class OnItems(PipelineCallback):
    def on_map_item_end(self, item_index, duration, ctx):
        pass

def sleep(x):
    with calls.open("a") as file:
        file.write(".")
    if x == 20:
        os.kill(driver, signal.SIGINT)
    time.sleep(0.05)
    return x

callbacks = [OnItems()] * {has_callbacks}
pipeline = Pipeline([node(sleep, output_name="y")], engine=DaftEngine(), callbacks=callbacks)
try:
    pipeline.map({{"x": range(1000)}}, "x")
except KeyboardInterrupt:
    print("interrupted", calls.stat().st_size < 1000)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "interrupted True" in ended.stdout, ended.stderr
    assert ended.returncode == 0, ended.stderr


# -------------------------------------------------------------------------------------------- with Ray


@ray_only
def test_rows_are_spread_over_the_hosts_beside_a_ray_executor():
    import ray

    def where(x):
        time.sleep(0.05)
        return ray.get_runtime_context().get_node_id()

    pipeline = Pipeline([node(where, output_name="host")])
    on_daft = pipeline.with_engine(DaftEngine()).map({"x": range(30)}, "x")["host"]
    assert len(set(on_daft)) == 2
    with RayExecutor(2) as executor:
        beside = pipeline.with_engine(HyperNodesEngine(map_executor=executor))
        assert set(beside.map({"x": range(10)}, "x")["host"]) <= set(on_daft)


@ray_only
@pytest.mark.parametrize("has_callbacks", [False, True])
def test_a_node_runs_on_the_host_that_has_its_resources(has_callbacks):
    import ray

    @node(output_name="fired", resources={"kiln": 1})
    def fire(x):
        return ray.get_runtime_context().get_node_id()

    kilns = [host["NodeID"] for host in ray.nodes() if "kiln" in host["Resources"]]
    callbacks = [Recorder()] if has_callbacks else []
    pipeline = Pipeline([fire, node(lambda fired: fired, output_name="sold")], callbacks=callbacks)
    on_daft = pipeline.with_engine(DaftEngine())
    assert on_daft.map({"x": range(4)}, "x")["sold"] == kilns * 4
    assert on_daft.run({"x": 1})["sold"] == kilns[0]


@ray_only
@pytest.mark.parametrize("options", [{"num_gpus": 1}, {"num_cpus": 64}, {"resources": {"kiln": 2}}], ids=str)
@pytest.mark.parametrize("has_callbacks", [False, True])
def test_what_no_host_has_is_an_error_at_once(options, has_callbacks):
    train = node(lambda x: x, output_name="trained", **options)
    callbacks = [Recorder()] if has_callbacks else []
    pipeline = Pipeline([train], name="training", callbacks=callbacks, engine=DaftEngine())
    for work in (
        lambda: pipeline.map({"x": [1, 2]}, "x"),
        lambda: pipeline.run({"x": 1}),
        lambda: pipeline.with_callbacks([]).to_daft(daft.from_pydict({"x": [1]})),
    ):
        with pytest.raises(ResourcesError, match="no host of the cluster has that") as caught:
            work()
        assert "pipeline 'training'" in caught.value.__notes__[0]
    errors = pipeline.map({"x": [1, 2]}, "x", on_error="return")["trained"]
    assert [type(error) for error in errors] == [ResourcesError] * 2


@ray_only
def test_no_row_is_lost_behind_async_nodes_where_partitions_are_empty():
    pipeline = Pipeline([check_later, node(lambda checked_later: checked_later, output_name="y")])
    frame = daft.from_pydict({"checked": list(range(9))}).into_partitions(9).where(col("checked") % 4 == 0)
    for _ in range(15):
        assert sorted(pipeline.with_engine(DaftEngine()).map(frame)["y"]) == [0, 4, 8]


def test_the_repr_of_an_engine_has_its_options():
    assert repr(DaftEngine()) == "DaftEngine()"
    assert repr(DaftEngine(batch_size=5, collect=False)) == "DaftEngine(collect=False, batch_size=5)"


# ------------------------------------------------------------------------------- regressions


def test_inputs_may_have_the_names_of_the_columns_of_a_query():
    pipeline = Pipeline(
        [node(lambda item, places: [item, places], output_name="report")], engine=DaftEngine()
    )
    assert pipeline.map({"item": [3, (1,)], "places": [5, 6]}, ["item", "places"]) == {
        "report": [[3, 5], [(1,), 6]]
    }
    frame = daft.from_pydict({"item": [3, 1], "places": ["a", "b"]})
    assert pipeline.map(frame) == {"report": [[3, "a"], [1, "b"]]}
    assert pipeline.to_daft(frame).to_pydict()["report"] == [[3, "a"], [1, "b"]]


FACTOR = 1


@native_only
def test_a_lazy_data_frame_is_kept_under_the_code_with_which_it_is_computed(tmp_path, monkeypatch):
    def scale(x):
        return x * FACTOR

    pipeline = Pipeline([node(scale, output_name="y")], cache=DiskCache(tmp_path / "cache"))
    frame = pipeline.with_engine(DaftEngine(collect=False)).map({"x": [10]}, "x")
    monkeypatch.setitem(globals(), "FACTOR", 2)
    assert frame.to_pydict() == {"y": [20]}
    assert pipeline.map({"x": [10]}, "x") == {"y": [20]}
    monkeypatch.setitem(globals(), "FACTOR", 1)
    assert pipeline.map({"x": [10]}, "x") == {"y": [10]}


class Interrupted(BaseException):
    """An error that is no Exception."""


ENDS = [StopIteration, StopAsyncIteration, SystemExit, KeyboardInterrupt, GeneratorExit, Interrupted]
# The class decides how an error travels from a host, and the kind of a node how its process meets it.
ENDINGS = [
    (error, kind)
    for error in ENDS
    for kind in ("plain", "async", "with callbacks")
    if not ON_RAY or kind == "plain" or error in (StopIteration, KeyboardInterrupt)
]


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("error", "kind"), ENDINGS)
def test_an_exception_of_any_class_ends_the_query_and_arrives(error, kind, recorder):
    def end(x):
        raise error(x)

    async def end_later(x):
        raise error(x)

    pipeline = Pipeline([node(end_later if kind == "async" else end, output_name="y")], name="ending")
    on_daft = pipeline.with_engine(DaftEngine()).with_callbacks(
        [recorder] if kind == "with callbacks" else []
    )
    # A coroutine cannot raise StopIteration: Python itself makes a RuntimeError of it.
    with pytest.raises((error, RuntimeError) if kind == "async" else error) as caught:
        on_daft.map({"x": [7]}, "x")
    assert "7" in str(caught.value.args) or caught.type is RuntimeError
    if isinstance(caught.value, Exception):
        assert "in node 'end" in caught.value.__notes__[0]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("has_callbacks", [False, True])
def test_stop_iteration_of_a_plain_node_after_an_async_one_arrives(has_callbacks, recorder):
    async def pass_on(x):
        return x

    def end(y):
        raise StopIteration(y)

    nodes = [node(pass_on, output_name="y"), node(end, output_name="z")]
    inner = Pipeline(nodes, name="ending", callbacks=[recorder] if has_callbacks else [])
    for pipeline, inputs in ((inner, {"x": [7]}), (Pipeline([inner.as_node(map_over="x")]), {"x": [[7]]})):
        with pytest.raises(StopIteration, match="7") as caught:
            pipeline.with_engine(DaftEngine()).map(inputs, "x")
        assert "in node 'end' of pipeline" in caught.value.__notes__[0]


def test_the_context_of_an_error_is_its_own():
    def fail(x):
        try:
            return 1 / x
        except ZeroDivisionError:
            raise ValueError("second")

    with pytest.raises(ValueError, match="second") as caught:
        Pipeline([node(fail, output_name="y")], engine=DaftEngine()).map({"x": [0]}, "x")
    if ON_RAY:
        assert "ZeroDivisionError" in str(caught.value.__cause__)
    else:
        assert isinstance(caught.value.__context__, ZeroDivisionError)
        assert not caught.value.__suppress_context__


@pytest.mark.parametrize("options", [{}, {"num_cpus": 1}], ids=["plain", "apart"])
@pytest.mark.parametrize("collect", [True, False])
def test_many_nodes_do_not_end_the_process(options, collect):
    chain = [node(eval(f"lambda v{n}: v{n}"), output_name=f"v{n + 1}", **options) for n in range(150)]
    fan = [node(lambda v0: v0 + 1, output_name=f"w{n}", **options) for n in range(150)]
    made = Pipeline([*chain, *fan], engine=DaftEngine(collect=collect)).map({"v0": [1]}, "v0")
    made = made if collect else made.to_pydict()
    assert made["v150"] == [1]
    assert made["w149"] == [2]


@pytest.mark.parametrize("value", [(1, 2), np.float32(1), 2**70, 5, "text", {1: (2,)}, dict])
def test_a_fixed_output_of_a_lazy_data_frame_keeps_its_type(value):
    lazy = Pipeline([node(lambda x: x, output_name="y")], engine=DaftEngine(collect=False))
    (found,) = lazy.map({"x": [1], "y": value}, "x", output_name="y").to_pydict()["y"]
    assert type(found) is type(value)
    assert found == value


def test_a_pandas_series_of_a_batch_function_keeps_its_nan():
    import pandas as pd  # Workers import this module.

    def nan(x) -> float:
        return float("nan")

    nans = node(nan, output_name="y", batch=lambda x: pd.Series([float("nan")] * len(x)))
    pipeline = Pipeline([nans, node(lambda y: type(y).__name__, output_name="z")], engine=DaftEngine())
    assert pipeline.map({"x": [1, 2]}, "x", output_name="z") == {"z": ["float", "float"]}


def test_debug_returns_a_lazy_data_frame_too():
    lazy = Pipeline([square], engine=DaftEngine(collect=False, debug=True))
    assert lazy.map({"x": [1, 2]}, "x").to_pydict() == {"square": [1, 4]}
    assert lazy.map({"x": []}, "x").to_pydict() == {"square": []}
    assert lazy.map(daft.from_pydict({"x": [3]})).to_pydict() == {"square": [9]}


@pytest.mark.parametrize(
    ("hint", "batch", "wanted"),
    [
        (list[str], lambda x: pc.split_pattern(x, " "), [["a", "b"], ["c"]]),
        (float, lambda x: pc.utf8_length(x), [3.0, 1.0]),
        (int, lambda x: np.array([1, 2], dtype="u8"), [1, 2]),
        (str, lambda x: x.dictionary_encode(), ["a b", "c"]),
    ],
)
def test_lazy_columns_take_what_arrow_can_give_for_the_hint(hint, batch, wanted):
    def row(x):
        raise AssertionError("called one by one")

    row.__annotations__["return"] = hint
    lazy = Pipeline([node(row, output_name="y", batch=batch)], engine=DaftEngine(collect=False))
    assert lazy.map({"x": ["a b", "c"]}, "x").to_pydict() == {"y": wanted}


@native_only
def test_batch_functions_see_the_types_that_they_see_with_the_other_engine():
    seen = []

    def look(a, b, c):
        seen.append((a.type, b.type, c.type))
        return a

    pipeline = Pipeline([node(lambda a, b, c: a, output_name="y", batch=look)])
    columns = {"a": ["x"] * 40, "b": [[b"y"]] * 40, "c": [1] * 40}
    with HyperNodesEngine(map_executor="threaded") as engine:
        pipeline.with_engine(engine).map(columns, ["a", "b", "c"])
    pipeline.with_engine(DaftEngine()).map(columns, ["a", "b", "c"])
    narrow = daft.from_pydict(columns).with_column("c", col("c").cast(daft.DataType.uint8()))
    pipeline.with_engine(DaftEngine()).map(narrow)
    assert len(set(seen)) == 1


GIVEN = {
    "a plain query": ({}, "raise"),
    "callbacks": ({"callbacks": True}, "raise"),
    "a cache": ({"cache": True}, "raise"),
    "returned errors": ({}, "return"),
}


# The driver plans what is asked for, whatever the runner: on Ray, one choice of each is enough.
WANTED = [["square", "root"]] if ON_RAY else ["square", ["square", "root"], ["root", "label"]]
TABLES = {"data frame": daft.from_pydict} if ON_RAY else {"lists": dict, "data frame": daft.from_pydict}


@pytest.mark.parametrize(("options", "on_error"), GIVEN.values(), ids=GIVEN)
@pytest.mark.parametrize("wanted", WANTED, ids=str)
@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_a_given_intermediate_value_may_be_asked_for(options, on_error, wanted, table, tmp_path, recorder):
    pipeline = shapes.with_callbacks([recorder] if "callbacks" in options else [])
    pipeline = pipeline.with_cache(DiskCache(tmp_path) if "cache" in options else None)
    expected = {"square": [1, 4], "root": [1.0, 2.0], "label": LABELS[:2]}
    names = [wanted] if isinstance(wanted, str) else wanted
    outputs = pipeline.map(table({"square": [1, 4]}), "square", output_name=wanted, on_error=on_error)
    assert outputs == {name: expected[name] for name in names}
    assert pipeline.run({"square": 4}, wanted) == {name: expected[name][1] for name in names}
    assert not CALLS


@pytest.mark.parametrize("is_cached", [False, True])
@pytest.mark.parametrize("wanted", ["square", ["square", "root"]], ids=str)
def test_a_lazy_data_frame_may_have_a_given_intermediate_value_as_output(is_cached, wanted, tmp_path):
    lazy = shapes.with_engine(DaftEngine(collect=False))
    lazy = lazy.with_cache(DiskCache(tmp_path) if is_cached else None)
    expected = {"square": [1, 4]} if wanted == "square" else {"square": [1, 4], "root": [1.0, 2.0]}
    assert lazy.map({"square": [1, 4]}, "square", output_name=wanted).to_pydict() == expected
    fixed = lazy.map({"square": 4, "x": [0, 0]}, "x", output_name=wanted).to_pydict()
    assert fixed == {name: [values[1]] * 2 for name, values in expected.items()}


def test_a_plan_of_too_many_stages_may_have_a_given_intermediate_value_as_output():
    chain = [node(eval(f"lambda v{n}: v{n}"), output_name=f"v{n + 1}", num_cpus=1) for n in range(60)]
    pipeline = Pipeline(chain, engine=DaftEngine())
    assert pipeline.map({"v3": [1, 2]}, "v3", output_name=["v3", "v60"]) == {"v3": [1, 2], "v60": [1, 2]}


def test_to_daft_makes_one_plan_however_often_it_is_called(monkeypatch):
    plans = []

    def build_and_count(*args, **kwargs):
        plans.append(build_plan(*args, **kwargs))
        return plans[-1]

    monkeypatch.setattr("hypernodes.engines.daft.engine.build_plan", build_and_count)
    pipeline = Pipeline([square])
    for _ in range(3):
        pipeline.to_daft(daft.from_pydict({"x": [1]}))
    assert len(plans) == 1


# ---------------------------------------------------------------- what cannot be pickled, in processes

IN_PROCESSES = {} if ON_RAY else {"concurrency": 1}


LOCKS = {
    "an output": ([node(sample.lock_for_two, output_name="y")], "the result 'y', a lock"),
    "an output for another stage": (
        [node(sample.lock_for_two, output_name="held", num_cpus=1), node(lambda held: 1, output_name="y")],
        "the result 'held', a lock",
    ),
    "a hinted output": ([node(sample.hinted_lock, output_name="y")], "the result 'y', a lock"),
}


@pytest.mark.parametrize(("nodes", "what"), LOCKS.values(), ids=LOCKS)
def test_an_output_that_cannot_be_pickled_is_an_error_of_its_item(nodes, what):
    pipeline = Pipeline(nodes, name="locks", engine=DaftEngine(**IN_PROCESSES))
    found = pipeline.map({"x": [1, 2, 3]}, "x", output_name="y", on_error="return")["y"]
    if "held" in what:  # nothing goes from stage to stage then
        assert found == [1, 1, 1]
        with pytest.raises(TransportError) as caught:
            pipeline.map({"x": [1, 2, 3]}, "x")
        error = caught.value
    else:
        assert [found[0], found[2]] == [1, 3]
        error = found[1]
    assert type(error) is TransportError
    assert what in str(error)
    assert f"in node {nodes[0].name!r} of pipeline 'locks', item 1" in error.__notes__[0]


def test_an_input_that_cannot_be_pickled_fails_its_item_alone():
    pipeline = Pipeline(
        [node(lambda x: type(x).__name__, output_name="y")], name="p", engine=DaftEngine(**IN_PROCESSES)
    )
    items = [1, threading.Lock(), "a", *range(40), threading.Lock()]
    with pytest.raises(TransportError, match=r"input 'x\[1\]' \(a lock\)") as caught:
        pipeline.map({"x": items}, "x")
    assert "of pipeline 'p', item 1" in str(caught.value)
    assert caught.value.__notes__ == ["in item 1 of pipeline 'p'"]
    found = pipeline.map({"x": items}, "x", on_error="return")["y"]
    assert [number for number, value in enumerate(found) if isinstance(value, Exception)] == [1, 43]
    assert (found[0], found[2], found[42]) == ("int", "str", "int")
    for number in (1, 43):
        assert type(found[number]) is TransportError
        assert f"input 'x[{number}]' (a lock)" in str(found[number])
        assert f"item {number} of pipeline 'p'" in found[number].__notes__[0]


def test_an_input_that_cannot_be_pickled_does_no_harm_in_threads():
    if ON_RAY:
        pytest.skip("there are no threads")
    pipeline = Pipeline([node(lambda x: type(x).__name__, output_name="y")], engine=DaftEngine())
    assert pipeline.map({"x": [1, threading.Lock()]}, "x") == {"y": ["int", "lock"]}


# -------------------------------------------------------------------------- processes that have ended


@native_only
@pytest.mark.parametrize(("on_error", "processes"), [("raise", 2), ("return", 1)])
def test_items_are_computed_again_whose_process_of_daft_has_ended(tmp_path, on_error, processes):
    engine = DaftEngine(runner="native", concurrency=processes, batch_size=3)
    pipeline = Pipeline([node(sample.dies, output_name="y")], engine).bind(marks=str(tmp_path), always=False)
    assert pipeline.map({"x": range(6)}, map_over="x", on_error=on_error) == {"y": [0, 2, 4, 6, 8, 10]}


@native_only
def test_rows_of_a_frame_are_computed_again_whose_process_of_daft_has_ended(tmp_path):
    engine = DaftEngine(runner="native", concurrency=1, batch_size=3)
    pipeline = Pipeline([node(sample.dies, output_name="y")], engine).bind(marks=str(tmp_path), always=False)
    assert pipeline.map(daft.from_pydict({"x": list(range(6))})) == {"y": [0, 2, 4, 6, 8, 10]}


@native_only
def test_only_the_item_fails_that_ends_its_process_of_daft_each_time(tmp_path):
    engine = DaftEngine(runner="native", concurrency=1, batch_size=2)
    pipeline = Pipeline([node(sample.dies, output_name="y")], engine).bind(marks=str(tmp_path), always=True)
    rows = pipeline.map({"x": range(4)}, map_over="x", on_error="return")["y"]
    error = rows.pop(2)
    assert rows == [0, 2, 6]
    assert isinstance(error, WorkerDiedError)
    assert "item 2" in str(error.__notes__)


@native_only
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the process in /proc")
@pytest.mark.timeout(120)
def test_a_process_that_ends_while_it_starts_costs_no_item():
    killed, is_over = [], threading.Event()

    def kill_first_process():
        while not (killed or is_over.wait(0.002)):
            children = Path("/proc/self/task").glob("*/children")
            with contextlib.suppress(OSError):  # A thread or a process that has just ended.
                for pid in {int(pid) for file in children for pid in file.read_text().split()}:
                    if b"daft.execution.udf_worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                        os.kill(pid, signal.SIGKILL)  # It has not even imported Daft.
                        killed.append(pid)

    thread = threading.Thread(target=kill_first_process)
    thread.start()
    pipeline = Pipeline([node(lambda x: 2 * x, output_name="y")], DaftEngine(runner="native", concurrency=1))
    try:
        assert pipeline.map({"x": [1, 2, 3]}, map_over="x") == {"y": [2, 4, 6]}
    finally:
        is_over.set()
        thread.join()
    assert killed


@ray_only
@pytest.mark.timeout(180)
def test_only_the_item_fails_that_ends_the_process_of_daft_on_a_host(tmp_path):
    pipeline = Pipeline([node(sample.dies, output_name="y")], DaftEngine()).bind(
        marks=str(tmp_path), always=True
    )
    rows = pipeline.map({"x": range(1, 4)}, map_over="x", on_error="return")["y"]
    error = rows.pop(1)
    assert rows == [2, 6]
    assert isinstance(error, WorkerDiedError)
    assert "'dies'" in str(error)
    assert "item 1" in str(error.__notes__)
    assert pipeline.map({"x": [5]}, map_over="x") == {"y": [10]}
