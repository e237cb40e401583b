"""Data sets of Ray Data: lazy in, lazy out, computed by the workers of a cluster of three hosts."""

import datetime as dt
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TypedDict

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import ray.data
from clusters import SMALL_HOST, start_cluster
from conftest import Recorder
from ray.data.extensions import ArrowPythonObjectArray, ArrowTensorArray

from hypernodes import DaftEngine, DiskCache, HyperNodesEngine, Pipeline, node, stateful
from hypernodes.exceptions import (
    HintWarning,
    InputError,
    MapError,
    MissingInputError,
    ResourcesError,
    TableWarning,
    TransportError,
)


@pytest.fixture(scope="module", autouse=True)
def cluster(unconnected):
    """A head and two hosts; one of these has a GPU, as far as Ray knows, and a kiln."""
    made = start_cluster(num_cpus=1, **SMALL_HOST)
    made.add_node(num_cpus=1, **SMALL_HOST)
    made.add_node(num_cpus=1, num_gpus=1, resources={"kiln": 1}, **SMALL_HOST)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    yield made
    ray.shutdown()
    made.shutdown()


def rows_of(dataset, by=None):
    rows = dataset.take_all()
    return rows if by is None else sorted(rows, key=lambda row: row[by])


def numbers(count=12, blocks=3):
    return ray.data.from_items(
        [{"x": x, "word": "a" * x, "page": x} for x in range(count)], override_num_blocks=blocks
    )


@node(output_name="double")
def double(x: int) -> int:
    return 2 * x


@node(output_name="length")
def measure(word: str) -> int:
    return len(word)


@node(output_name="ratio")
def divide(length: int, total: int) -> float:
    return length / total


words = Pipeline([double, measure, divide], name="words").bind(total=2)


# -------------------------------------------------------------------------------- in and out


def test_a_data_set_gives_a_lazy_data_set_of_the_outputs():
    result = words.map(numbers())
    assert isinstance(result, ray.data.Dataset)
    assert rows_of(result, by="double") == [{"double": 2 * x, "length": x, "ratio": x / 2} for x in range(12)]
    assert result.schema().names == ["double", "length", "ratio"]
    assert result.schema().types == [pa.int64(), pa.int64(), pa.float64()]


def test_only_the_outputs_asked_for_are_there():
    assert rows_of(words.map(numbers(3), output_name="double"), by="double") == [
        {"double": 0},
        {"double": 2},
        {"double": 4},
    ]
    assert rows_of(words.map(numbers(2), "x", output_name=["double"]), by="double")[1] == {"double": 2}


def test_map_table_keeps_all_columns_and_replaces_those_of_outputs():
    dataset = ray.data.from_items([{"x": x, "page": -x, "double": "old"} for x in range(4)])
    with pytest.warns(TableWarning, match="columns of the table have the names of outputs: 'double'"):
        result = Pipeline([double], name="doubles").map_table(dataset)
    assert rows_of(result, by="x") == [{"x": x, "page": -x, "double": 2 * x} for x in range(4)]
    assert result.schema().names == ["x", "page", "double"]


def test_nothing_is_computed_before_rows_are_consumed(tmp_path):
    @node(output_name="seen")
    def see(x: int) -> int:
        (tmp_path / str(x)).touch()
        return x

    @node(output_name="again")
    def see_again(seen: int) -> int:
        return seen + 1

    seen = Pipeline([see], name="see").map(numbers())
    result = (
        Pipeline([see_again], name="again").map(seen).filter(expr=ray.data.expressions.col("again") < 100)
    )
    assert not os.listdir(tmp_path)
    assert len(rows_of(result)) == 12
    assert len(os.listdir(tmp_path)) == 12


def test_columns_that_are_not_needed_are_not_read(tmp_path):
    pq.write_table(pa.table({"x": [1, 2], "broken": ["a", "b"]}), tmp_path / "a.parquet")
    result = Pipeline([double], name="doubles").map(ray.data.read_parquet(str(tmp_path)))
    assert rows_of(result, by="double")[1] == {"double": 4}
    assert "broken" not in str(result.explain())


def test_limits_go_before_the_pipeline(tmp_path):
    @node(output_name="seen")
    def see(x: int) -> int:
        (tmp_path / str(x)).touch()
        return x

    result = Pipeline([see], name="see").map(numbers(2000, 4)).limit(5)
    assert len(rows_of(result)) == 5
    assert len(os.listdir(tmp_path)) == 5


def test_names_may_have_any_letters():
    widths = Pipeline([node(lambda straße, ﬁ: straße + ﬁ, output_name="maß")], name="größe")
    dataset = ray.data.from_items([{"straße": 1, "ﬁ": 2, "übrig": 3}])
    assert rows_of(widths.map_table(dataset)) == [{"straße": 1, "ﬁ": 2, "übrig": 3, "maß": 3}]


@pytest.mark.parametrize("output", ["half", "third"])
def test_outputs_can_be_given_as_columns(output):
    third = Pipeline(
        [node(lambda x: x / 2, output_name="half"), node(lambda half: half / 3, output_name="third")]
    )
    dataset = ray.data.from_items([{"half": 6}])
    assert rows_of(third.map(dataset, ["half"], output_name=output)) == [
        {output: {"half": 6, "third": 2}[output]}
    ]


def test_a_data_set_without_rows_gives_none():
    empty = ray.data.from_items([{"x": 1}]).filter(expr=ray.data.expressions.col("x") > 1)
    assert rows_of(Pipeline([double], name="doubles").map(empty)) == []


@pytest.mark.parametrize(
    "engine", [HyperNodesEngine(map_executor="threaded"), DaftEngine(), DaftEngine(collect=False)]
)
def test_every_engine_takes_data_sets(engine):
    assert Counter(row["double"] for row in rows_of(words.with_engine(engine).map(numbers(4)))) == Counter(
        [0, 2, 4, 6]
    )


def test_a_stream_takes_the_rows_of_a_data_set():
    found = {outputs["double"] for _, outputs in words.imap(numbers())}
    assert found == {2 * x for x in range(12)}


def test_nested_pipelines_and_nested_maps_run_in_the_workers():
    letters = Pipeline([node(str.upper, output_name="upper")], name="letters")
    outer = Pipeline(
        [
            node(lambda word: list(word), output_name="letters"),
            letters.as_node({"letters": "self"}, {"upper": "uppers"}, map_over="letters"),
        ],
        name="outer",
    )
    assert rows_of(outer.map(numbers(3), output_name="uppers"))[-1]["uppers"] in ([], ["A"], ["A", "A"])
    nested = Pipeline([letters.with_engine(HyperNodesEngine("threaded")).as_node({"word": "self"})])
    assert {row["upper"] for row in rows_of(nested.map(numbers(3)))} == {"", "A", "AA"}


# --------------------------------------------------------------------------------- kinds of nodes


def test_batch_functions_get_many_rows_at_once():
    def doubles(x):
        assert (type(x), len(x)) == (pa.Int64Array, 50)
        return [2 * value for value in x.to_pylist()]

    batched = node(double.function, output_name="double", batch=doubles)
    result = Pipeline([batched], name="batched").map(
        ray.data.from_items([{"x": x} for x in range(50)], override_num_blocks=1)
    )
    assert rows_of(result, by="double")[-1] == {"double": 98}


def test_coroutines_of_several_rows_run_at_once():
    import asyncio

    running = []

    @node(output_name="most")
    async def wait(x: int) -> int:
        running.append(x)
        await asyncio.sleep(0.05)
        most = len(running)
        running.remove(x)
        return most

    assert (
        max(row["most"] for row in rows_of(Pipeline([wait], name="waits").map(numbers(12, blocks=1)))) == 10
    )


def test_nodes_with_resources_are_stages_of_their_own():
    @node(output_name="place")
    def prepare(x: int) -> str:
        return ray.get_runtime_context().get_node_id()

    @node(output_name="fired", resources={"kiln": 0.5}, num_cpus=0.5)
    def fire(x: int, place: str) -> dict:
        return {
            "place": ray.get_runtime_context().get_node_id(),
            "asked": ray.get_runtime_context().get_assigned_resources(),
        }

    @node(output_name="done")
    def finish(fired, place: str) -> str:
        return fired["place"]

    with pytest.warns(HintWarning, match="output 'fired' of node 'fire'.*no type for the hint dict"):
        result = Pipeline([prepare, fire, finish], name="pots").map(numbers())
    rows = rows_of(result)
    kiln = next(host["NodeID"] for host in ray.nodes() if "kiln" in host["Resources"])
    assert [row["done"] for row in rows] == [kiln] * 12
    asked = {(row["fired"]["asked"]["CPU"], row["fired"]["asked"]["kiln"]) for row in rows}
    assert asked == {(0.5, 0.5)}
    assert [*result.schema().names] == ["place", "fired", "done"]


def test_a_model_on_a_gpu_is_loaded_once(tmp_path):
    @stateful
    class Model:
        def __init__(self, folder):
            (folder / f"{os.getpid()} {time.time_ns()}").touch()

        def predict(self, x):
            return 3 * x

    predict = node(Model(tmp_path).predict, output_name="predicted", num_gpus=1)
    triples = Pipeline([predict], name="triples")
    assert Counter(row["predicted"] for row in rows_of(triples.map(numbers()))) == Counter(
        3 * x for x in range(12)
    )
    assert len(os.listdir(tmp_path)) == 1


def test_a_model_is_loaded_once_in_each_worker_process(tmp_path):
    @stateful
    class Model:
        def __init__(self, folder):
            self.pid = os.getpid()
            (folder / f"{os.getpid()} {time.time_ns()}").touch()

        def predict(self, x):
            return self.pid

    pids = {
        row["pid"]
        for row in rows_of(Pipeline([node(Model(tmp_path).predict, output_name="pid")]).map(numbers(30, 10)))
    }
    assert len(os.listdir(tmp_path)) == len(pids)


def test_a_file_that_rows_would_use_up_is_opened_for_each(tmp_path):
    (tmp_path / "words").write_text("ab")

    @node(output_name="file")
    def opened(path):
        return open(path)  # noqa: SIM115  # The next node closes it.

    @node(output_name="text")
    def text(x, file) -> str:
        with file:
            return file.read() * x

    pipeline = Pipeline([opened, text]).bind(path=tmp_path / "words")
    made = rows_of(pipeline.map(numbers(6, blocks=1), output_name="text"), by="text")
    assert made == [{"text": "ab" * x} for x in range(6)]


def test_what_rows_share_is_computed_again_for_another_data_set(tmp_path):
    @node(output_name="said")
    def read(path):
        return path.read_text()

    @node(output_name="text")
    def text(x, said) -> str:
        return said * x

    pipeline = Pipeline([read, text]).bind(path=tmp_path / "word")
    for word in ("old", "new"):
        (tmp_path / "word").write_text(word)
        made = rows_of(pipeline.map(numbers(6), output_name="text"), by="text")
        assert made == [{"text": word * x} for x in range(6)]


def test_large_inputs_are_placed_once_and_what_they_determine_is_computed_once_a_process(tmp_path):
    corpus = np.arange(500_000)

    @node(output_name="index")
    def index(corpus):
        (tmp_path / f"{os.getpid()} {time.time_ns()}").touch()
        return corpus[::-1]

    @node(output_name="found")
    def find(index, x: int) -> int:
        return int(index[x])

    @node(output_name="pid")
    def where(index, x: int) -> int:
        return os.getpid()

    result = Pipeline([index, find, where], name="find").bind(corpus=corpus)
    rows = rows_of(result.map(numbers(20, 10), output_name=["found", "pid"]))
    assert {row["found"] for row in rows} == {499_999 - x for x in range(20)}
    assert len(os.listdir(tmp_path)) == len({row["pid"] for row in rows})
    assert np.array_equal(rows_of(result.map(numbers(1, 1), output_name="index"))[0]["index"], corpus[::-1])


def test_retries_hold_in_the_workers(tmp_path):
    @node(output_name="tried", retries=2, retry_delay=0.001)
    def fail_once(x: int) -> int:
        mark = tmp_path / str(x)
        if not mark.exists():
            mark.touch()
            raise OSError("not yet")
        return x

    assert len(rows_of(Pipeline([fail_once], name="tries").map(numbers(3)))) == 3


# ---------------------------------------------------------------------------------- values


class Point:
    def __init__(self, x):
        self.x = x

    def __eq__(self, other):
        return self.x == other.x

    __hash__ = None


VALUES = [
    *(
        1,
        2**70,
        1.5,
        float("inf"),
        None,
        True,
        "a\ud800",
        b"b",
        (1, 2),
        {1, 2},
        [1, "a", None],
        {"a": 1, 2: "b"},
    ),
    *(
        1j,
        dt.date(2026, 1, 2),
        np.float32(1.5),
        np.arange(3),
        Point(1),
        ValueError("x"),
        int,
        [],
        {},
        [[1], []],
    ),
]


def test_values_without_hints_come_out_as_they_are():
    pick = node(lambda x: VALUES[x], output_name="value")
    number = node(lambda x: x, output_name="number")
    rows = rows_of(Pipeline([pick, number]).map(numbers(len(VALUES), 4)), by="number")
    for row, value in zip(rows, VALUES, strict=True):
        found = row["value"]
        assert type(found) is type(value)
        assert (
            np.array_equal(found, value)
            if isinstance(value, np.ndarray)
            else repr(found) == repr(value) or found == value
        )


def test_values_go_to_functions_as_python_objects():
    @node(output_name="kinds")
    def kind(i, f, s, b, none, d, t, l, m, a, o):  # noqa: E741
        assert a.flags.writeable
        return [type(value).__name__ for value in (i, f, s, b, none, d, t, l, m, a, o)]

    row = {"i": 1, "f": 0.5, "s": "ä", "b": b"b", "none": None, "d": dt.date(2026, 1, 2)}
    row = {**row, "t": dt.datetime(2026, 1, 2, 3), "l": [1, 2], "m": {"k": 1}}
    columns = {name: [value] for name, value in row.items()}
    columns["a"] = ArrowTensorArray.from_numpy(np.zeros((1, 2, 2), np.float32))
    columns["o"] = ArrowPythonObjectArray.from_objects([{1}])
    dataset = ray.data.from_arrow(pa.table(columns))
    found = rows_of(Pipeline([kind]).map(dataset))[0]["kinds"]
    assert found == "int float str bytes NoneType date datetime list dict ndarray set".split()


class Place(TypedDict):
    name: str
    at: list[float]


HINTED = [
    (int, [1, None, 2**62]),
    (float, [0.5, float("inf")]),
    (str, ["ä", None]),
    (bool, [True, None]),
    (bytes, [b"", b"\0"]),
    (list[str | None], [["a", None], [], None]),
    (dt.date, [dt.date(2026, 1, 2), None]),
    (dt.datetime, [dt.datetime(2026, 1, 2, 3, 4, 5, 6)]),
    (dt.timedelta, [dt.timedelta(microseconds=1)]),
    (Place, [{"name": "a", "at": [0.5]}, None]),
    (list[dt.date], [[dt.date(2026, 1, 2)], []]),
    (npt.NDArray[np.float32], [np.ones((2, 2), np.float32), np.ones((2, 3), np.float32)]),
    (npt.NDArray[np.int8], [np.ones(3, np.int8)]),
]


@pytest.mark.parametrize(("hint", "expected"), HINTED, ids=[str(hint) for hint, _ in HINTED])
def test_hints_set_the_types_of_columns(hint, expected):
    def pick(x):
        return expected[x]

    pick.__annotations__["return"] = hint
    dataset = ray.data.from_items([{"x": x} for x in range(len(expected))], override_num_blocks=1)
    result = Pipeline([node(pick, output_name="value")]).map(dataset)
    assert "object" not in str(result.schema().types[0])
    for row, value in zip(rows_of(result), expected, strict=True):
        assert np.array_equal(row["value"], value) if isinstance(value, np.ndarray) else row["value"] == value
        assert type(row["value"]) is type(value)


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (int, 1.5),
        (int, 2**64),
        (str, 1),
        (list[int], [1.5]),
        (dt.datetime, dt.datetime(2026, 1, 1, tzinfo=dt.UTC)),
        (npt.NDArray[np.float32], np.ones(2)),
        (npt.NDArray[np.float32], None),
        (Place, {"name": "a"}),
    ],
)
def test_a_value_that_does_not_fit_its_hint_is_an_error(hint, value):
    def pick(x):
        return value

    pick.__annotations__["return"] = hint
    with pytest.raises(Exception, match="HintError: output 'value' of node 'pick' has a hint for"):
        rows_of(Pipeline([node(pick, output_name="value")]).map(numbers(1, 1)))


def test_the_example_goes_from_storage_to_storage():
    example = Path(__file__).parents[1] / "examples" / "ray_data" / "larger_than_memory.py"
    done = subprocess.run(
        [sys.executable, example, "--megabytes", "1"],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address},
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    assert "10,000 rows in 10 MB of Parquet files" in done.stdout
    assert "1,987,000 words" in done.stdout


# ---------------------------------------------------------------------------- cache, errors, events


def test_workers_use_the_cache_and_its_entries_are_those_of_other_engines(tmp_path):
    marks = tmp_path / "calls"
    marks.mkdir()

    @node(output_name="called")
    def call(x: int, factor: int) -> int:
        (marks / f"{x} {time.time_ns()}").touch()
        return factor * x

    with DiskCache(tmp_path / "cache") as cache:
        pipeline = Pipeline([call], name="calls", cache=cache).bind(factor=3)
        pipeline.map({"x": [0, 1, 2]}, map_over="x")
        assert {row["called"] for row in rows_of(pipeline.map(numbers(6)))} == {0, 3, 6, 9, 12, 15}
        assert len(os.listdir(marks)) == 6
        assert len(rows_of(pipeline.map(numbers(6)))) == 6
        assert pipeline.map({"x": [*range(6)]}, map_over="x")["called"][5] == 15
        assert len(os.listdir(marks)) == 6


@node(output_name="share")
def share(x: int, part) -> float:
    return part / x


def test_the_error_of_a_node_is_in_that_of_ray():
    failing = Pipeline([share], name="shares").bind(part=1)
    with pytest.raises(ZeroDivisionError) as caught:
        rows_of(failing.map(numbers(3, 1)))
    assert isinstance(caught.value, ray.exceptions.RayTaskError)
    assert "ZeroDivisionError: division by zero" in str(caught.value)
    assert "in node 'share' of pipeline 'shares', called with x=0, part=1" in str(caught.value)


def test_map_table_returns_errors_in_a_column():
    failing = Pipeline([share, double], name="shares").bind(part=1)
    rows = rows_of(failing.map_table(numbers(3, 1).drop_columns(["word", "page"]), on_error="return"), by="x")
    assert rows[0] == {"x": 0, "share": None, "double": None, "error": "ZeroDivisionError: division by zero"}
    assert rows[2] == {"x": 2, "share": 0.5, "double": 4, "error": None}
    with pytest.raises(InputError, match="on_error='return' puts exceptions .* Use map_table"):
        failing.map(numbers(3, 1), on_error="return")


@pytest.mark.parametrize(
    "raised", [StopIteration("s"), KeyboardInterrupt("k"), SystemExit(3), GeneratorExit()]
)
def test_what_ray_would_not_hand_on_is_an_error_with_its_text(raised):
    def stop(x):
        raise raised

    with pytest.raises(ray.exceptions.RayTaskError, match=f"RemoteError: {type(raised).__name__}"):
        rows_of(Pipeline([node(stop, output_name="value")], name="stops").map(numbers(1, 1)))


def test_a_result_that_cannot_be_pickled_is_an_error_that_names_its_node():
    hold = node(lambda x: threading.Lock(), output_name="held")
    with pytest.raises(ray.exceptions.RayTaskError, match="the result 'held', a lock, cannot be pickled"):
        rows_of(Pipeline([hold], name="holds").map(numbers(1, 1)))


def test_an_input_that_cannot_be_pickled_is_refused_when_the_data_set_is_made():
    with pytest.raises(TransportError, match="input 'part'.*cannot be pickled"):
        Pipeline([share], name="shares").bind(part=threading.Lock()).map(numbers(1, 1))


def test_an_item_that_kills_its_worker_ends_the_query(tmp_path):
    kill = node(lambda x: os._exit(1), output_name="killed")
    with pytest.raises(ray.exceptions.RayError):
        rows_of(Pipeline([kill], name="kills").map(numbers(1, 1)))


def test_callbacks_get_no_events_and_a_warning_says_so():
    watched = Pipeline([double], name="doubles", callbacks=[recorder := Recorder()])
    with pytest.warns(UserWarning, match="callbacks get no events from a lazy data set"):
        result = watched.map(numbers(2))
    assert (len(rows_of(result)), recorder.events) == (2, [])


# --------------------------------------------------------------------------------------- refused


def test_what_makes_no_sense_is_refused_at_once():
    data = numbers(2)
    refused = [
        (lambda: words.map(data, "y"), MapError, "map_over names 'y'"),
        (lambda: words.map(data, "x"), MapError, "map_over leaves out 'word'"),
        (lambda: words.map(data, map_mode="product"), MapError, "neither map_mode='product' nor previous"),
        (lambda: words.map(data, previous={"double": [1]}), MapError, "neither map_mode='product'"),
        (lambda: words.run(data), InputError, "a table has many rows"),
        (lambda: words.map({"x": data, "word": "a"}, map_over="x"), MapError, "whose value is a table"),
        (lambda: words.map(data.drop_columns(["x"])), MissingInputError, "missing input 'x'"),
        (lambda: words.map(data.select_columns(["page"])), MapError, "no column of the table is an input"),
        (lambda: words.map(data, output_name="size"), InputError, "unknown output 'size'"),
        (
            lambda: Pipeline([double], name="d").map_table(data.add_column("error", len), on_error="return"),
            MapError,
            "the column 'error' has the errors of rows",
        ),
    ]
    for call, kind, message in refused:
        with pytest.raises(kind, match=message):
            call()


def test_resources_that_no_host_has_are_an_error_at_once():
    with pytest.raises(ResourcesError, match="a call asks for 9 GPU"):
        Pipeline([node(lambda x: x, output_name="y", num_gpus=9)], name="p").map(numbers(1))


def test_limits_of_a_whole_run_are_refused():
    limited = node(lambda x: x, output_name="y", rate="5/s")
    with pytest.raises(MapError, match="node .* has a rate or max_concurrent, which holds for a whole run"):
        Pipeline([limited], name="p").map(numbers(1))


def test_names_are_checked_by_validate():
    words.validate(numbers(2))
    with pytest.raises(MapError, match="map_over names 'z'"):
        words.validate(numbers(2), map_over="z")
