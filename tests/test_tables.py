"""Tables as inputs: every column is mapped over, and its values arrive as Python objects."""

import math
from datetime import datetime
from itertools import islice

import daft
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from hypernodes import DaftEngine, HyperNodesEngine, Pipeline, node
from hypernodes.exceptions import InputError, MapError, MissingInputError, TableWarning

COLUMNS = {"x": [1, 2, 3], "word": ["ä", "", "c"], "spare": [0.5, 1.5, 2.5]}
TABLES = {
    "pandas": pd.DataFrame,
    "polars": pl.DataFrame,
    "arrow": pa.table,
    "arrow batch": pa.RecordBatch.from_pydict,
    "arrow reader": lambda columns: pa.table(columns).to_reader(),
    "daft": daft.from_pydict,
}


@node(output_name="described")
def describe(x, word, times=1):
    return (type(x).__name__, x * times, word)


@node(output_name="length")
def measure(word):
    return len(word)


pipeline = Pipeline([describe, measure], name="words")
DESCRIBED = [("int", 1, "ä"), ("int", 2, ""), ("int", 3, "c")]


@pytest.fixture(params=TABLES)
def make(request):
    return TABLES[request.param]


@pytest.mark.parametrize("executor", ["sequential", "async", "threaded"])
def test_columns_are_mapped_over(make, executor):
    with HyperNodesEngine(map_executor=executor) as engine:
        outputs = pipeline.with_engine(engine).map(make(COLUMNS))
    assert outputs == {"described": DESCRIBED, "length": [1, 0, 1]}


def test_inputs_that_are_the_same_for_all_rows_are_bound(make):
    assert pipeline.bind(times=2).map(make(COLUMNS), output_name="described")["described"][2][1] == 6


def test_some_columns_can_be_mapped_over_and_the_others_stay_whole(make):
    @node(output_name="share")
    def share(x, word):
        return x, word

    outputs = Pipeline([share]).map(make(COLUMNS), map_over="x")
    assert outputs["share"] == [(x, COLUMNS["word"]) for x in COLUMNS["x"]]
    outputs = Pipeline([share]).map(make(COLUMNS), map_mode="product")
    assert len(outputs["share"]) == 9


def test_rows_are_streamed(make):
    rows = pipeline.imap(make(COLUMNS))
    assert next(rows) == (0, {"described": DESCRIBED[0], "length": 1})
    assert [index for index, _ in rows] == [1, 2]


def test_a_reader_is_only_read_as_far_as_needed():
    read = []

    def batches():
        for number in range(1000):
            read.append(number)
            yield pa.RecordBatch.from_pydict({"word": ["a"] * 100})

    reader = pa.RecordBatchReader.from_batches(pa.schema({"word": pa.string()}), batches())
    list(islice(pipeline.imap(reader, output_name="length"), 150))
    assert len(read) < 100


def test_a_table_without_rows(make):
    frame = make({"x": pa.array([], pa.int64()), "word": pa.array([], pa.string())})
    assert pipeline.map(frame) == {"described": [], "length": []}


@pytest.mark.parametrize("kind", ["polars", "arrow", "daft"])
def test_values_are_python_objects(kind):
    columns = {
        "many": [[1, 2], [], None],
        "struct": [{"a": 1, "b": "x"}, {"a": None, "b": "y"}, None],
        "when": [datetime(2026, 1, 1), None, datetime(2026, 1, 2)],
        "gap": [1, None, 3],
    }
    for name, values in columns.items():
        echo = Pipeline([node(lambda v: v, output_name="out").rename(inputs={"v": name})])
        outputs = echo.map(TABLES[kind]({name: values}))["out"]
        assert outputs == values
        assert list(map(type, outputs)) == list(map(type, values))


def test_an_arrow_column_among_the_inputs_gives_python_objects():
    values = [1, 2]
    columns = (pa.array(values), pa.chunked_array([[1], [2]]), daft.Series.from_pylist(values))
    for column in (*columns, pd.Series(values), pl.Series(values)):
        outputs = pipeline.map({"x": column, "word": "a"}, map_over="x", output_name="described")
        assert outputs["described"] == [("int", 1, "a"), ("int", 2, "a")]


def test_the_lists_in_a_column_of_polars_are_lists():
    echo = Pipeline([node(lambda v: v, output_name="out")])
    assert echo.map({"v": pl.Series([[1], [2, 3]])}, map_over="v") == {"out": [[1], [2, 3]]}


def test_missing_and_unknown_columns_are_errors(make):
    with pytest.raises(MissingInputError, match=r"'word'.*Given: 'x'"):
        pipeline.map(make({"x": [1]}))
    with pytest.raises(MapError, match=r"no column of the table is an input. The table has 'y'"):
        pipeline.map(make({"y": [1]}))
    with pytest.raises(MapError, match="whose value is a table"):
        pipeline.map({"x": make(COLUMNS), "word": "a"}, map_over="x")


measuring = Pipeline(
    [
        node(lambda text: len(text), output_name="length"),
        node(lambda length: 2 * length, output_name="twice"),
    ],
    name="measuring",
)
FED = {"text": ["a", "bcd"], "length": [100, 200]}
UNUSED = "pipeline 'measuring'.*names of outputs: 'length'.*name it in map_over"


def test_a_warning_of_map_table_names_the_line_that_has_called_it():
    with pytest.warns(TableWarning, match=UNUSED) as caught:
        measuring.map_table(pd.DataFrame(FED))
    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.parametrize("options", [{}, {"map_over": "text"}, {"map_over": ["text"], "map_mode": "product"}])
def test_a_column_with_the_name_of_an_output_does_not_replace_its_node(make, options):
    with pytest.warns(TableWarning, match=UNUSED) as caught:
        assert measuring.map(make(FED), **options) == {"length": [1, 3], "twice": [2, 6]}
    assert len(caught) == 1
    assert caught[0].filename == __file__
    with pytest.warns(TableWarning, match=UNUSED) as caught:
        rows = [row for _, row in measuring.imap(make(FED), **options)]
    assert rows == [{"length": 1, "twice": 2}, {"length": 3, "twice": 6}]
    assert len(caught) == 1


def test_a_column_with_the_name_of_an_output_replaces_its_node_if_it_is_asked_for(make):
    for map_over in ("length", ["length", "text"]):
        assert measuring.map(make(FED), map_over=map_over, output_name="twice") == {"twice": [200, 400]}
    assert measuring.map(make({"length": [5]}), map_over="length") == {"length": [5], "twice": [10]}


def test_a_column_with_the_name_of_an_output_is_no_input(make):
    with pytest.raises(MapError, match=r"no column of the table is an input.*'text'.*in map_over"):
        measuring.map(make({"length": [5]}))


def test_a_frame_that_feeds_itself_follows_its_nodes():
    frame = pd.DataFrame({"text": ["a", "bcd"]})
    frame["length"] = measuring.map(frame)["length"]
    changed = Pipeline([node(lambda text: -len(text), output_name="length")])
    with pytest.warns(TableWarning):
        frame["length"] = changed.map(frame)["length"]
    assert list(frame["length"]) == [-1, -3]


def test_a_column_of_a_daft_frame_with_the_name_of_an_output_gives_way_to_it():

    lazy = measuring.with_engine(DaftEngine(runner="native"))
    with pytest.warns(TableWarning, match=UNUSED):
        extended = lazy.to_daft(daft.from_pydict({**FED, "page": [1, 2]}))
    assert extended.to_pydict() == {"text": ["a", "bcd"], "page": [1, 2], "length": [1, 3], "twice": [2, 6]}
    with pytest.warns(TableWarning, match=UNUSED):
        extended = lazy.to_daft(daft.from_pydict(FED), output_name="twice")
    assert extended.to_pydict() == {**FED, "twice": [2, 6]}
    with pytest.warns(TableWarning, match=UNUSED):
        assert lazy.map(daft.from_pydict(FED)) == {"length": [1, 3], "twice": [2, 6]}


def test_run_refuses_a_table_and_recommends_map(make):
    with pytest.raises(InputError, match="Use map"):
        pipeline.run(make(COLUMNS))


def test_inputs_that_cannot_be_mapped_over_are_errors():
    with pytest.raises(MapError, match="map_over is missing"):
        pipeline.map({"x": [1], "word": ["a"]})
    with pytest.raises(MapError, match=r"collect\(\)"):
        pipeline.map(pl.LazyFrame(COLUMNS))
    with pytest.raises(MapError, match="two columns of the same name: 'x'"):
        pipeline.map(pd.DataFrame([[1, 2]], columns=["x", "x"]))


def test_explain_takes_a_table(make, tmp_path):
    from hypernodes import DiskCache

    cached = pipeline.with_cache(DiskCache(tmp_path))
    cached.map(make(COLUMNS))
    assert "miss" not in str(cached.explain(make(COLUMNS)))


# ---------------------------------------------------------------------------------- tables that come out


def rows_of(table):
    if isinstance(table, pd.DataFrame):
        return table.to_dict("records")
    if isinstance(table, pl.DataFrame):
        return table.to_dicts()
    if isinstance(table, pa.RecordBatchReader):
        table = table.read_all()
    return table.to_pylist()


def is_nan(value):
    return isinstance(value, float) and math.isnan(value)


@node(output_name="ratio")
def divide(x, by=2):
    return x / by


@node(output_name="letters")
def letters_of(word):
    return list(word)


ratios = Pipeline([divide, letters_of, measure], name="ratios")


@pytest.mark.parametrize("executor", ["sequential", "threaded"])
def test_a_table_gets_the_outputs_as_columns(make, executor):
    table = make(COLUMNS)
    with HyperNodesEngine(map_executor=executor) as engine:
        extended = ratios.with_engine(engine).map_table(table)
    assert type(extended) is type(table)
    assert rows_of(extended) == [
        {"x": 1, "word": "ä", "spare": 0.5, "ratio": 0.5, "letters": ["ä"], "length": 1},
        {"x": 2, "word": "", "spare": 1.5, "ratio": 1.0, "letters": [], "length": 0},
        {"x": 3, "word": "c", "spare": 2.5, "ratio": 1.5, "letters": ["c"], "length": 1},
    ]
    some = ratios.bind(by=4).map_table(make(COLUMNS), map_over="x", output_name="ratio")
    assert [row["ratio"] for row in rows_of(some)] == [0.25, 0.5, 0.75]
    assert "length" not in rows_of(ratios.map_table(make(COLUMNS), output_name="ratio"))[0]


def test_rows_that_fail_have_no_outputs_and_an_error(make):
    failing = Pipeline([node(lambda x: 6 / (x - 2), output_name="ratio"), measure], name="failing")
    table = failing.map_table(make(COLUMNS), on_error="return")
    assert type(table) is type(make(COLUMNS))
    rows = [
        {name: None if value is None or is_nan(value) else value for name, value in row.items()}
        for row in rows_of(table)
    ]
    assert [(row["ratio"], row["length"], row["error"]) for row in rows] == [
        *((-6.0, 1, None), (None, None, "ZeroDivisionError: division by zero"), (6.0, 1, None))
    ]
    with pytest.raises(MapError, match="the column 'error' has the errors of rows"):
        failing.map_table(make({**COLUMNS, "error": [1, 2, 3]}), on_error="return")
    if not isinstance(table, daft.DataFrame):
        with pytest.raises(ZeroDivisionError):
            failing.map_table(make(COLUMNS))


def test_a_table_without_rows_gets_columns_too(make):
    empty = {"x": pa.array([], pa.int64()), "word": pa.array([], pa.string())}
    if make in (pd.DataFrame, pl.DataFrame):
        empty = {name: [] for name in empty}
    table = ratios.map_table(make(empty))
    assert rows_of(table) == []
    names = table.column_names if hasattr(table, "column_names") else getattr(table, "columns", None)
    if isinstance(table, pa.RecordBatchReader | pa.RecordBatch):
        names = table.schema.names
    assert [*names] == ["x", "word", "ratio", "letters", "length"]


def test_a_data_frame_keeps_its_index_and_the_columns_that_are_no_inputs():
    index = pd.MultiIndex.from_tuples([("a", 1), ("a", 1), ("b", 2)], names=["page", "line"])
    frame = pd.DataFrame({"x": [1, 2, 3], 7: [0, 1, 2]}, index=index)
    extended = Pipeline([divide]).map_table(frame)
    pd.testing.assert_index_equal(extended.index, index)
    assert [*extended.columns] == ["x", 7, "ratio"]
    assert extended["ratio"].tolist() == [0.5, 1.0, 1.5]
    assert "ratio" not in frame
    shuffled = frame.reset_index(drop=True).iloc[[2, 0, 1]]
    assert Pipeline([divide]).map_table(shuffled)["ratio"].to_dict() == {2: 1.5, 0: 0.5, 1: 1.0}


def test_a_column_with_the_name_of_an_output_is_replaced(make):
    columns = {"x": [2, 4], "ratio": [0.0, 0.0], "last": ["a", "b"]}
    with pytest.warns(TableWarning, match="have the names of outputs: 'ratio'"):
        table = Pipeline([divide]).map_table(make(columns))
        rows = rows_of(table)
    assert [row["ratio"] for row in rows] == [1.0, 2.0]
    assert sorted(rows[0]) == ["last", "ratio", "x"]


VALUES = {
    "mixed numbers": ([1, 2.5, None], [1.0, 2.5, None]),
    "large integers": ([1 << 60, None, 3], [1 << 60, None, 3]),
    "large integers and a fraction": ([(1 << 60) + 1, 0.5, 3], None),
    "mappings": ([{"a": 1}, {"b": 2}, None], None),
    "several types": ([1, "a", [2]], None),
    "objects": ([1j, object, 3], None),
}


@pytest.mark.parametrize("kind", ["pandas", "polars", "arrow"])
@pytest.mark.parametrize("case", VALUES)
@pytest.mark.filterwarnings("ignore::hypernodes.exceptions.TableWarning")
def test_no_value_of_an_output_is_lost_or_changed(kind, case):
    values, expected = VALUES[case]
    pipeline = Pipeline([node(lambda x: values[x], output_name="y")])
    column = [row["y"] for row in rows_of(pipeline.map_table(TABLES[kind]({"x": [0, 1, 2]})))]
    found = [None if is_nan(value) else value for value in column]
    if expected is not None:
        assert found == expected
    elif case == "mappings" and kind != "pandas":
        assert found == [{"a": 1, "b": None}, {"a": None, "b": 2}, None]
    elif kind == "arrow":
        assert found[2] in ("3", "[2]")
        assert found[0] in (str(values[0]), '"1j"')
    else:
        assert found == values


def test_what_is_no_table_is_refused():
    for value, message in [({"x": [1]}, "not a dict. For values by name, use map"), (None, "not a NoneType")]:
        with pytest.raises(MapError, match=message):
            ratios.map_table(value)
    with pytest.raises(MapError, match="Give the result of its collect"):
        ratios.map_table(pl.DataFrame(COLUMNS).lazy())
    with pytest.raises(MapError, match="Give DaftEngine\\(collect=True\\)"):
        ratios.with_engine(DaftEngine(collect=False)).map_table(pd.DataFrame(COLUMNS))
    with pytest.raises(MapError, match="no column of the table is an input"):
        ratios.map_table(pd.DataFrame({"z": [1]}))


def test_a_data_set_of_ray_gets_the_outputs_as_columns(ray_cluster):
    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False
    dataset = ray.data.from_items([{"x": x, "word": "a" * x, "page": x} for x in range(50)])
    table = ratios.map_table(dataset)
    assert isinstance(table, ray.data.Dataset)
    rows = sorted(table.take_all(), key=lambda row: row["page"])
    assert [row["length"] for row in rows] == [*range(50)]
    assert rows[3]["ratio"] == 1.5
    assert [*rows[3]["letters"]] == ["a"] * 3
