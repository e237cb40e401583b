"""Values come out of Daft as they went in, with their types."""

import dataclasses
import datetime as dt
import enum
import math
import os
import types
import typing
from decimal import Decimal

import daft
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hypernodes import DaftEngine, Pipeline, node
from hypernodes.exceptions import HintError, HintWarning

ON_RAY = os.environ["DAFT_RUNNER"] == "ray"
BATCHES = {"by default": {}} if ON_RAY else {"by default": {}, "of one row": {"batch_size": 1}}
# A query on Ray takes a while: these are pickled in each of the ways in which any value is.
FIXED_ON_RAY = ("nan", "tuples", "dataclasses", "numpy arrays", "arrow", "functions and types")


def few_on_ray(cases, *names):
    """Return the cases; on Ray, only those for the ways in which values travel, as hints are read alike."""
    return {name: cases[name] for name in names} if ON_RAY else cases


@dataclasses.dataclass
class Point:
    x: int
    y: tuple


class Person(pydantic.BaseModel):
    name: str
    tags: set[str] = set()


class Colour(enum.Enum):
    RED = 1


class Word(str):
    __slots__ = ()


VALUES = {
    "beyond 64 bits": [2**70, -(2**70), 1],
    "at the edge of 64 bits": [2**63 - 1, -(2**63)],
    "none": [None, None],
    "ints and none": [1, None, 3],
    "nan": [float("nan"), 1.0, -0.0, float("inf")],
    "floats and ints": [1.5, 1],
    "bools and ints": [True, 1],
    "text and numbers": ["a", 1],
    "tuples": [(1, 2), (3, (4, 5))],
    "sets": [{1, 2}, frozenset([3]), set()],
    "nested dicts": [{"k": (1, None)}, {"k": {"l": [1, (2,)]}}, {}],
    "lists": [[1], [], [None], [[1], [2.0]]],
    "unicode": ["ä", "日本", "\N{SNOWMAN}", "", "\0", "\ud800"],
    "bytes": [b"", b"\xff", bytearray(b"x")],
    "dataclasses": [Point(1, (2,)), Point(0, ())],
    "pydantic": [Person(name="Ada", tags={"x"}), Person(name="")],
    "numpy scalars": [np.int64(1), np.float32(2.5), np.str_("x"), np.bool_(True)],
    "numpy arrays": [np.arange(3), np.zeros((2, 2), dtype="f4"), np.array(["a"], dtype=object)],
    "enums and subclasses": [Colour.RED, Word("w")],
    "decimals": [Decimal("1.10"), Decimal("1.1")],
    "functions and types": [len, int, types.SimpleNamespace(a=1)],
    "exceptions": [ValueError("x"), KeyError(1)],
    "complex": [1j, complex("nan")],
    "arrow": [pa.array([1]), pa.scalar(1)],
}


def same(one, other):
    """Whether two values are equal, with their types."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return math.copysign(1, one) == math.copysign(1, other) and (one == other or math.isnan(one))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, set | frozenset):  # Pickle does not keep their order.
        return sorted(map(repr, one)) == sorted(map(repr, other))
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and bool((one == other).all())
    if isinstance(one, pa.Array):
        return one.equals(other)
    return repr(one) == repr(other)


@node(output_name="first")
def keep(x):
    return x


@node(output_name="second")
async def keep_later(first):
    return first


@node(output_name="third")
def keep_again(second, first):
    return second


# A plain, an async and a plain node are three stages, with columns of Daft between them.
pipeline = Pipeline([keep, keep_later, keep_again], name="keeping")


@pytest.mark.parametrize("column", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("options", BATCHES.values(), ids=BATCHES)
def test_any_value_comes_out_as_it_went_in(daft_runner, column, options):
    made = pipeline.with_engine(DaftEngine(**options)).map({"x": column}, "x")
    for output in ("first", "second", "third"):
        assert same(made[output], column), output
        if not ON_RAY:
            assert all(
                one is other
                for one, other in zip(made[output], column, strict=True)
                if not isinstance(other, int | float | str | bytes | list)
            )


@pytest.mark.parametrize("name", FIXED_ON_RAY if ON_RAY else VALUES)
def test_a_single_run_and_a_fixed_input_keep_any_value(daft_runner, name):
    column = VALUES[name]
    on_daft = pipeline.with_engine(DaftEngine())
    assert same(on_daft.run({"x": column}, "third")["third"], column)
    both = Pipeline([node(lambda i, x: (i, x), output_name="both")], engine=DaftEngine())
    assert same(both.map({"i": [0, 1], "x": column}, "i")["both"], [(0, column), (1, column)])


SIMPLE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(exclude_categories=[])),
    st.binary(),
    st.sampled_from([np.int32(1), 1j, (), Word("w")]),
)
ANY = st.recursive(
    SIMPLE,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.tuples(inner, inner), st.sets(st.integers())),
)


@settings(
    max_examples=5 if ON_RAY else 40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(column=st.one_of(st.lists(ANY, max_size=6), st.lists(st.integers()), st.lists(st.text())))
def test_random_columns_come_out_as_they_went_in(daft_runner, column):
    made = pipeline.with_engine(DaftEngine()).map({"x": column}, "x", output_name="third")["third"]
    assert same(made, column)


HINTED = {
    "int": (int, [1, None, -5]),
    "float": (float, [0.5, float("nan"), None]),
    "str": (str, ["a", "ä", None]),
    "bool": (bool, [True, False, None]),
    "bytes": (bytes, [b"x", None]),
    "list of ints": (list[int], [[1, 2], [], None]),
    "list of lists": (list[list[str]], [[["a"], []], None]),
    "optional": (int | None, [1, None]),
    "dict": (dict, [{"a": 1}, {}]),
    "model": (Person, [Person(name="Ada")]),
    "unresolvable": ("Nowhere", [1, "a"]),
}
HINTED = few_on_ray(HINTED, "float", "optional", "list of lists", "dict", "model")


@pytest.mark.filterwarnings("error::hypernodes.exceptions.HintWarning")
@pytest.mark.parametrize(("hint", "column"), HINTED.values(), ids=HINTED)
def test_values_that_fit_their_hint_come_out_as_they_went_in(daft_runner, hint, column):
    def give(x):
        return x

    give.__annotations__["return"] = hint
    hinted = Pipeline([node(give, output_name="first"), keep_later, keep_again], engine=DaftEngine())
    assert same(hinted.map({"x": column}, "x", output_name="third")["third"], column)


MISFITS = {
    "another type": (int, [1, "2", 3], True),
    "beyond 64 bits": (int, [1, 2**70], True),
    "half a character": (str, ["a", "\ud800"], True),
    "a bool": (int, [1, True], True),
    "a tuple for a list": (list[int], [[1], (2,)], True),
    "an int for a float": (float, [1, 2.5], False),
    "a numpy number": (int, [np.int64(1), 2], False),
    "a subclass": (str, [Word("w"), "x"], False),
}
MISFITS = few_on_ray(MISFITS, "another type", "half a character", "a numpy number", "a subclass")


@pytest.mark.parametrize(("hint", "column", "warns"), MISFITS.values(), ids=MISFITS)
@pytest.mark.parametrize("options", BATCHES.values(), ids=BATCHES)
def test_a_value_that_does_not_fit_its_hint_goes_as_an_object_with_one_warning(
    daft_runner, hint, column, warns, options, recwarn
):
    calls = []

    def give(x):
        calls.append(x)
        return x

    give.__annotations__["return"] = hint
    hinted = Pipeline([node(give, output_name="first"), keep_later, keep_again], engine=DaftEngine(**options))
    assert same(hinted.map({"x": column}, "x", output_name="third")["third"], column)
    messages = [str(warning.message) for warning in recwarn if warning.category is HintWarning]
    assert len(messages) == warns
    assert not warns or messages[0].startswith("output 'first' of node 'give' has a hint for ")
    assert ON_RAY or len(calls) == len(column)  # No item is computed twice for it.


def test_a_value_of_a_lazy_column_that_does_not_fit_its_hint_is_an_error(daft_runner):
    def give(x) -> int:
        return "2" if x == 2 else x

    lazy = Pipeline([node(give, output_name="first")], engine=DaftEngine(collect=False))
    frame = lazy.map({"x": [1, 2]}, "x")
    with pytest.raises(HintError) as caught:
        frame.collect()
    assert "output 'first' of node 'give' has a hint for Int64, but its value '2' is of type 'str'" in str(
        caught.value
    )
    assert lazy.map({"x": [1, 3]}, "x").to_pydict() == {"first": [1, 3]}


# ----------------------------------------------------------------------------- lazy columns in files


class Place(typing.TypedDict):
    name: str
    height: float | None


class Partial(typing.TypedDict, total=False):
    name: str


DAY, MOMENT = dt.date(2024, 2, 29), dt.datetime(2024, 2, 29, 12, 30, 1, 5)
PLACES = [{"name": "a", "height": 1.5}, {"name": "b", "height": None}]
READABLE = {
    "date": (dt.date, [DAY, None], "date32[day]"),
    "optional date": (dt.date | None, [None, DAY], "date32[day]"),
    "datetime": (dt.datetime, [MOMENT, MOMENT], "timestamp[us]"),
    "time": (dt.time, [MOMENT.time(), dt.time(0)], "time64[us]"),
    "timedelta": (dt.timedelta, [dt.timedelta(1, 2, 3), dt.timedelta(-1)], "duration[us]"),
    "typed dict": (Place, PLACES, "struct<name: large_string, height: double>"),
    "list of typed dicts": (
        list[Place],
        [PLACES, []],
        "large_list<item: struct<name: large_string, height: double>>",
    ),
    "list of optional ints": (list[int | None], [[1, None], []], "large_list<item: int64>"),
    "list of dates": (list[dt.date], [[DAY], [DAY, DAY]], "large_list<item: date32[day]>"),
    "list of lists": (list[list[str]], [[["a"], []], []], "large_list<item: large_list<item: large_string>>"),
    "numpy scalar": (np.float32, [np.float32(1.5), np.float32(0)], "float"),
    "floats": (float, [float("nan"), 1.0], "double"),
}
READABLE = few_on_ray(READABLE, "optional date", "list of typed dicts", "numpy scalar")


def given(hint, column):
    """Return a pipeline with one node, whose outputs are those of a column, and a frame for it."""

    def give(number):
        return column[number]

    give.__annotations__["return"] = hint
    pipeline = Pipeline([node(give, output_name="y")], engine=DaftEngine())
    return pipeline, daft.from_pydict({"number": list(range(len(column)))})


@pytest.mark.parametrize(("hint", "column", "stored"), READABLE.values(), ids=READABLE)
def test_a_hinted_column_of_a_lazy_frame_is_one_that_other_tools_read(
    daft_runner, tmp_path, hint, column, stored
):
    pipeline, frame = given(hint, column)
    pipeline.to_daft(frame).write_parquet(str(tmp_path))
    (file,) = tmp_path.glob("*.parquet")
    found = pq.read_table(file)["y"]
    assert str(found.type) == stored
    values = found.to_pylist()
    assert same(values, column) or values == column  # a NumPy scalar is a number of Python


def test_filters_and_sums_on_hinted_columns_are_daft_s_own(daft_runner):
    pipeline, frame = given(dt.date, [DAY, DAY - dt.timedelta(1), None])
    lazy = pipeline.to_daft(frame)
    assert lazy.where(lazy["y"] < DAY).to_pydict() == {"number": [1], "y": [DAY - dt.timedelta(1)]}


def test_an_array_whose_elements_have_a_type_is_a_tensor(daft_runner):
    arrays = [np.array([[1.0, float("nan")]]), np.zeros((2, 0))]
    pipeline, frame = given(npt.NDArray[np.float64], arrays)
    lazy = pipeline.to_daft(frame)
    assert lazy.schema()["y"].dtype.is_tensor()
    found = lazy.to_pydict()["y"]
    assert [value.shape for value in found] == [(1, 2), (2, 0)]
    assert np.array_equal(found[0], arrays[0], equal_nan=True)


def test_a_node_behind_a_column_of_a_map_gets_dictionaries(daft_runner):
    @node(output_name="counts")
    def count(text) -> dict[str, int]:
        return {letter: text.count(letter) for letter in text}

    @node(output_name="kind", num_cpus=1)
    def kind_of(counts) -> str:
        return type(counts).__name__

    frame = daft.from_pydict({"text": ["aab", "c"]})
    found = Pipeline([count, kind_of], engine=DaftEngine()).to_daft(frame).to_pydict()
    assert found["kind"] == ["dict", "dict"]
    assert [dict(one) for one in found["counts"]] == [{"a": 2, "b": 1}, {"c": 1}]


CHANGED = {
    "a moment for a day": (dt.date, [MOMENT]),
    "a moment with a time zone": (dt.datetime, [MOMENT.replace(tzinfo=dt.UTC)]),
    "a text for a day": (dt.date, ["2024-02-29"]),
    "a key too few": (Place, [{"name": "a"}]),
    "a key too many": (Place, [{"name": "a", "height": 1.0, "depth": 2}]),
    "a tuple for a list": (list[dt.date], [(DAY,)]),
    "other elements": (npt.NDArray[np.float64], [np.zeros(2, np.float32)]),
    "a number that is too large": (np.int8, [300]),
}
CHANGED = few_on_ray(CHANGED, "a text for a day", "other elements")


@pytest.mark.parametrize(("hint", "column"), CHANGED.values(), ids=CHANGED)
def test_a_value_that_the_type_of_a_lazy_column_would_change_is_an_error(daft_runner, hint, column):
    pipeline, frame = given(hint, column)
    with pytest.raises(HintError, match="output 'y' of node 'give' has a hint for"):
        pipeline.to_daft(frame).collect()


OBJECTS = {
    "decimal": (Decimal, Decimal("1.5"), "Decimal"),
    "array": (np.ndarray, np.zeros(2), "ndarray"),
    "union": (int | str, 1, "int | str"),
    "tuple": (tuple[int, int], (1, 2), "tuple[int, int]"),
    "model": (Person, Person(name="Ada"), "Person"),
    "optional keys": (Partial, {}, "Partial"),
    "list of decimals": (list[Decimal], [Decimal(1)], "list[decimal.Decimal]"),
}
OBJECTS = few_on_ray(OBJECTS, "decimal", "model")


@pytest.mark.parametrize(("hint", "value", "named"), OBJECTS.values(), ids=OBJECTS)
def test_a_hinted_column_that_stays_one_of_objects_is_warned_of(daft_runner, hint, value, named):
    pipeline, frame = given(hint, [value])
    with pytest.warns(HintWarning) as caught:
        lazy = pipeline.to_daft(frame)
    (warning,) = caught
    assert "output 'y' of node 'give': its column holds Python objects" in str(warning.message)
    assert f"for the hint {named}. " in str(warning.message)
    assert warning.filename == __file__
    assert same(lazy.to_pydict()["y"], [value])


@pytest.mark.parametrize("hint", [object, typing.Any, None])
def test_a_column_that_is_said_to_hold_anything_is_not_warned_of(daft_runner, hint):
    pipeline, frame = given(hint, [None])
    assert pipeline.to_daft(frame).to_pydict()["y"] == [None]
