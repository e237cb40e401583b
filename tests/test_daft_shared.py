"""Lazy data frames of Daft compute what all rows share once, and not once for each row."""

import os

import daft
import pyarrow.compute as pc
import pytest

from hypernodes import DaftEngine, HintWarning, Pipeline, node

CALLS = []
ROWS = 300


@node(output_name="model")
def load(name) -> dict:
    CALLS.append("model")
    return {"name": name, "weight": 2}


@node(output_name="offset")
def offset_of(model) -> int:
    CALLS.append("offset")
    return model["weight"] + 1


@node(output_name="double")
def double(x, model) -> int:
    return x * model["weight"]


@node(output_name="moved", batch=lambda x, offset: pc.add(x, offset))
def moved(x: int, offset) -> int:
    return x + offset


@node(output_name="later")
async def later(x, offset, model) -> int:
    return x + offset * model["weight"]


EVERY = Pipeline([load, offset_of, double, moved, later])
OUTPUTS = ("double", "moved", "later")


def rows(frame, *names):
    """Return the columns of a frame, in the order of the column 'x'."""
    made = frame.sort("x").to_pydict()
    return {name: made[name] for name in names}


@pytest.fixture
def frame():
    CALLS.clear()
    return daft.from_pydict({"x": list(range(ROWS))})


@pytest.mark.parametrize("options", [{}, {"batch_size": 50}], ids=["large batches", "small batches"])
@pytest.mark.parametrize(
    "pipeline",
    [
        EVERY,
        Pipeline([Pipeline([load, offset_of, double], name="inner").as_node(), moved, later]),
        Pipeline([Pipeline([load, offset_of]).as_node(), Pipeline([double, moved, later]).as_node()]),
    ],
    ids=["flat", "some nested", "all nested"],
)
def test_what_depends_on_fixed_inputs_is_computed_once(frame, pipeline, options):
    bound = pipeline.bind(name="m").with_engine(DaftEngine(**options))
    lazy = bound.to_daft(frame, output_name=OUTPUTS)
    assert CALLS == []
    assert rows(lazy, *OUTPUTS) == {
        "double": [2 * x for x in range(ROWS)],
        "moved": [x + 3 for x in range(ROWS)],
        "later": [x + 6 for x in range(ROWS)],
    }
    assert CALLS == ["model", "offset"]


def test_a_map_with_fixed_inputs_is_the_same(frame):
    lazy = EVERY.with_engine(DaftEngine(collect=False)).map(
        {"x": list(range(ROWS)), "name": "m"}, map_over="x", output_name=("double", "moved")
    )
    assert lazy.to_pydict()["moved"] == [x + 3 for x in range(ROWS)]
    assert CALLS == ["model", "offset"]


def test_what_a_query_does_not_use_is_not_computed(frame):
    bound = EVERY.bind(name="m").with_engine(DaftEngine())
    lazy = bound.to_daft(frame, output_name=("double", "moved", "offset"))
    assert lazy.select("x").count_rows() == ROWS
    assert CALLS == []
    assert rows(lazy.select("x", "double"), "double")["double"][-1] == 2 * (ROWS - 1)
    assert CALLS == ["model"]


def test_an_output_that_is_the_same_for_all_rows_is_a_typed_column(frame):
    bound = EVERY.bind(name="m").with_engine(DaftEngine())
    lazy = bound.to_daft(frame, output_name="offset")
    assert str(lazy.schema()["offset"].dtype) == "Int64"
    assert lazy.to_pydict() == {"x": list(range(ROWS)), "offset": [3] * ROWS}
    assert CALLS == ["model", "offset"]
    with pytest.warns(HintWarning):
        objects = bound.to_daft(frame, output_name="model")
    models = objects.to_pydict()["model"]
    assert models == [{"name": "m", "weight": 2}] * ROWS


def test_two_frames_compute_it_twice(frame):
    bound = EVERY.bind(name="m").with_engine(DaftEngine())
    for _ in range(2):
        bound.to_daft(frame, output_name="double").to_pydict()
    assert CALLS == ["model", "model"]


def test_each_process_computes_it_once(tmp_path):
    @node(output_name="model")
    def load_here(directory):
        with open(f"{directory}/{os.getpid()}", "a") as calls:
            calls.write("x")
        return 2

    @node(output_name="product")
    def product(x, model) -> int:
        return x * model

    @node(output_name="sum", batch=lambda x, model: pc.add(x, model))
    def total(x: int, model) -> int:
        return x + model

    engine = DaftEngine(collect=False, concurrency=2, batch_size=10)
    pipeline = Pipeline([load_here, product, total], engine=engine)
    inputs = {"x": list(range(100)), "directory": str(tmp_path)}
    made = pipeline.map(inputs, map_over="x", output_name=("product", "sum")).to_pydict()
    assert made == {"product": [2 * x for x in range(100)], "sum": [x + 2 for x in range(100)]}
    calls = [path.read_text() for path in tmp_path.iterdir()]
    assert 1 <= len(calls) <= 4
    assert set(calls) == {"x"}


def test_a_file_that_rows_would_use_up_is_opened_for_each(tmp_path):
    (tmp_path / "words").write_text("one two")

    @node(output_name="file")
    def opened(path):
        return open(path)  # noqa: SIM115  # The next node closes it.

    @node(output_name="words")
    def words(x, file) -> list[str]:
        with file:
            return file.read().split() * x

    @node(output_name="later")
    async def words_later(x, file) -> list[str]:
        with file:
            return file.read().split() * x

    frame = daft.from_pydict({"x": [1, 1, 2]})
    for output in ("words", "later"):
        lazy = Pipeline([opened, words, words_later], engine=DaftEngine()).bind(path=tmp_path / "words")
        made = rows(lazy.to_daft(frame, output_name=output), output)[output]
        assert made == [["one", "two"], ["one", "two"], ["one", "two"] * 2]


def test_its_error_names_the_node(frame):
    @node(output_name="model")
    def broken(name):
        raise KeyError(name)

    lazy = Pipeline([broken, double], name="p", engine=DaftEngine()).bind(name="m")
    with pytest.raises(KeyError) as caught:
        lazy.to_daft(frame, output_name="double").to_pydict()
    assert "in node 'broken' of pipeline 'p'" in caught.value.__notes__[0]
