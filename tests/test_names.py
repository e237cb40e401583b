"""Names given as text are read as Python reads them in source code, where it normalizes identifiers (NFKC).

Keyboards type the micro sign (U+00B5); Python makes it the Greek letter (U+03BC) in every parameter.
"""

import json

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from click.testing import CliRunner

from hypernodes import DaftEngine, DiskCache, HyperNodesEngine, Pipeline, node
from hypernodes.cli import main
from hypernodes.exceptions import GraphError, InputError, MapError, MappingError, UnknownInputError
from hypernodes.testing import check_batch

TYPED = "\N{MICRO SIGN}"
READ = "\N{GREEK SMALL LETTER MU}"
LIGATURE = "\N{LATIN SMALL LIGATURE FI}t"


def function(source):
    scope = {}
    exec(source, scope)
    return scope["f"]


HALF = node(function(f"def f({TYPED}): return {TYPED} / 2"), output_name="half")
MADE = node(lambda x: x + 1, output_name=TYPED)
PIPELINE = Pipeline([MADE, HALF])


def of_daft(columns):
    import daft

    return daft.from_pydict(columns)


def test_an_output_meets_the_parameter_of_its_name(watched):
    assert watched(PIPELINE).run({"x": 1}) == {READ: 2, "half": 1}


WAYS = {
    "run": lambda: Pipeline([HALF]).run({TYPED: 4}),
    "call": lambda: Pipeline([HALF])(**{TYPED: 4}),
    "bind": lambda: Pipeline([HALF]).bind(**{TYPED: 4}).run(),
    "given": lambda: PIPELINE.run({TYPED: 4}, "half"),
    "imap": lambda: next(Pipeline([HALF]).imap({TYPED: [4]}, map_over=TYPED))[1],
    "rename an input": lambda: Pipeline([HALF.rename(inputs={TYPED: "y"})]).run({"y": 4}),
    "rename to it": lambda: Pipeline([node(lambda y: y / 2, output_name="half").rename({"y": LIGATURE})]).run(
        {"fit": 4}
    ),
    "input_mapping": lambda: Pipeline([Pipeline([HALF]).as_node({"y": TYPED})]).run({"y": 4}),
    "outer names": lambda: Pipeline([Pipeline([HALF]).as_node({LIGATURE: TYPED})]).run({LIGATURE: 4}),
    "an engine": lambda: Pipeline([HALF], engine=HyperNodesEngine(node_executor="threaded")).run({TYPED: 4}),
    "Daft": lambda: Pipeline([HALF], engine=DaftEngine(runner="native")).run({TYPED: 4}),
}


@pytest.mark.parametrize("way", WAYS)
def test_an_input_has_its_name_in_every_way_that_it_is_given(way):
    assert WAYS[way]() == {"half": 2}


@pytest.mark.parametrize("map_mode", ["zip", "product"])
def test_map_over_names_it(map_mode):
    pipeline = Pipeline([HALF])
    assert pipeline.map({TYPED: [2, 4]}, map_over=TYPED, map_mode=map_mode) == {"half": [1, 2]}
    assert pipeline.map({READ: [2, 4]}, map_over=[TYPED], map_mode=map_mode) == {"half": [1, 2]}
    nested = Pipeline([pipeline.as_node(map_over=TYPED, map_mode=map_mode)])
    assert nested.run({TYPED: [2, 4]}) == {"half": [1, 2]}


@pytest.mark.parametrize("wanted", [TYPED, READ, [TYPED], (READ, "half")])
def test_an_output_is_asked_for_by_its_name(wanted):
    assert PIPELINE.run({"x": 1}, wanted)[READ] == 2
    assert PIPELINE.map({"x": [1]}, map_over="x", output_name=wanted)[READ] == [2]


def test_outputs_are_renamed_by_their_names():
    assert Pipeline([MADE.rename(outputs={TYPED: "y"})]).run({"x": 1}) == {"y": 2}
    inner = Pipeline([MADE])
    assert Pipeline([inner.as_node(output_mapping={TYPED: LIGATURE})]).run({"x": 1}) == {"fit": 2}


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, pa.table, pa.RecordBatch.from_pydict, of_daft])
def test_columns_of_tables_fill_inputs_by_their_names(make):
    pipeline = Pipeline([HALF])
    assert pipeline.map(make({TYPED: [2, 4], "other": [0, 0]})) == {"half": [1, 2]}
    assert pipeline.map(make({TYPED: [2, 4]}), map_over=TYPED) == {"half": [1, 2]}
    assert list(pipeline.imap(make({TYPED: [2]}))) == [(0, {"half": 1})]


def test_columns_of_daft_fill_inputs_by_their_names_where_they_are():
    pipeline = Pipeline([HALF], engine=DaftEngine(runner="native"))
    frame = of_daft({TYPED: [2, 4]})
    assert pipeline.map(frame) == {"half": [1, 2]}
    assert pipeline.to_daft(frame).to_pydict() == {TYPED: [2, 4], "half": [1.0, 2.0]}
    lazy = Pipeline([HALF], engine=DaftEngine(runner="native", collect=False))
    assert lazy.map(frame).to_pydict() == {"half": [1.0, 2.0]}


def test_two_names_that_are_one_to_python_are_an_error():
    with pytest.raises(InputError, match="two inputs have the same name"):
        Pipeline([HALF]).run({TYPED: 1, READ: 2})
    with pytest.raises(MapError, match="two columns of the same name"):
        Pipeline([HALF]).map(pd.DataFrame({TYPED: [1], READ: [2]}))
    with pytest.raises(GraphError, match="two outputs of the same name"):
        node(lambda: (1, 2), output_name=(TYPED, READ))


def test_a_result_is_in_the_cache_under_both_forms_of_a_name(tmp_path):
    with DiskCache(tmp_path) as cache:
        pipeline = Pipeline([HALF], cache=cache)
        pipeline.run({READ: 4})
        assert [verdict.status for verdict in pipeline.explain({TYPED: 4})] == ["hit"]
        assert [verdict.status for verdict in pipeline.explain({TYPED: [4]}, map_over=TYPED)] == ["hit"]


def test_check_batch_takes_both_forms_of_a_name():
    batch = function(f"def f({TYPED}): return [value / 2 for value in {TYPED}.to_pylist()]")
    made = node(function(f"def f({TYPED}): return {TYPED} / 2"), output_name="half", batch=batch)
    check_batch(made, {TYPED: [1, 2]}, map_over=TYPED)


def test_the_command_takes_both_forms_of_a_name(tmp_path, monkeypatch):
    (tmp_path / "named_pipelines.py").write_text(
        "from hypernodes import Pipeline, node\n"
        f"half = Pipeline([node(lambda {TYPED}: {TYPED} / 2, output_name='half')])\n"
        f"made = Pipeline([node(lambda x: x, output_name='{TYPED}')])\n"
    )
    (tmp_path / "values.json").write_text(json.dumps({TYPED: 4}))
    (tmp_path / "rows.jsonl").write_text(json.dumps({TYPED: 4}) + "\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def run(name, *arguments):
        place = f"named_pipelines:{name}"
        done = CliRunner().invoke(main, ["run", place, *arguments, "--quiet"], catch_exceptions=False)
        return json.loads(done.stdout)

    assert run("half", "--set", f"{TYPED}=4") == {"half": 2}
    assert run("half", "--inputs", "values.json") == {"half": 2}
    assert run("half", "--inputs", "rows.jsonl", "--map-over", READ) == {"index": 0, "half": 2}
    assert run("half", "--inputs", "rows.jsonl") == {"index": 0, "half": 2}
    (tmp_path / "lists.json").write_text(json.dumps({TYPED: [4]}))
    for name in (TYPED, READ):
        found = run("half", "--inputs", "lists.json", "--map-over", name, "--keep", name)
        assert found == {"index": 0, READ: 4, "half": 2}
    assert run("made", "--set", "x=3", "--output", TYPED) == {READ: 3}


# ---------------------------------------------------------------------------------- what is no name


@pytest.mark.parametrize("inputs", [{1: 2}, {("x",): 2}, {None: 2}, {b"x": 2}])
def test_a_name_that_is_no_text_is_an_error(inputs):
    for call in (
        lambda: Pipeline([HALF]).run(inputs),
        lambda: Pipeline([HALF]).map({READ: [1], **inputs}, map_over=READ),
        lambda: Pipeline([HALF]).explain(inputs),
    ):
        with pytest.raises(InputError, match="the names of inputs are texts"):
            call()


@pytest.mark.parametrize("names", [5, {"a", "b"}, {"a": 1}, ("a", 5), [None]])
def test_names_that_have_no_order_or_are_no_texts_are_an_error(names):
    with pytest.raises(GraphError, match="output_name is a name or a tuple of names"):
        node(lambda x: (x, x), output_name=names)
    two = Pipeline([node(lambda a, b: (a, b), output_name="y")])
    with pytest.raises(MapError, match="map_over is the name of an input or a list of"):
        two.map({"a": [1], "b": [2]}, map_over=names, map_mode="product")
    with pytest.raises(MapError, match="map_over is the name of an input or a list of"):
        two.as_node(map_over=names)


@pytest.mark.parametrize("mapping", ["x", ["x"], {"x": 5}, {5: "x"}, [("x", "y")]])
def test_a_mapping_of_names_that_is_none_is_an_error(mapping):
    one = node(lambda x: x, output_name="y")
    for call in (
        lambda: one.rename(inputs=mapping),
        lambda: one.rename(outputs=mapping),
        lambda: Pipeline([one]).as_node(input_mapping=mapping),
        lambda: Pipeline([one]).as_node(output_mapping=mapping),
    ):
        with pytest.raises(MappingError, match="a mapping from names to names"):
            call()


def test_an_output_that_is_no_text_is_an_error():
    for wanted in (5, [5], b"y"):
        with pytest.raises(InputError, match="output_name is the name of an output or a list of names"):
            Pipeline([HALF]).run({READ: 1}, wanted)
    with pytest.raises(UnknownInputError):
        Pipeline([HALF]).run({"x": 1})
