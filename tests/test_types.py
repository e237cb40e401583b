"""Type hints are checked when a pipeline is made, and values by `validate`. What cannot be decided passes."""

from __future__ import annotations

import collections
import decimal
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    Never,
    NewType,
    NoReturn,
    Protocol,
    TypedDict,
    TypeGuard,
    TypeVar,
)

import cloudpickle
import numpy as np
import pandas as pd
import pytest

from hypernodes import HyperNodesError, Pipeline, node, stateful
from hypernodes.exceptions import (
    GraphError,
    InputError,
    InputTypeError,
    MapError,
    MissingInputError,
    TypeHintError,
    UnknownInputError,
    UnknownOutputError,
)

if TYPE_CHECKING:
    from nowhere import Unknown  # noqa: F401

T = TypeVar("T")
UserId = NewType("UserId", int)


class Animal:
    def speak(self) -> str:
        return ""


class Dog(Animal):
    def fetch(self) -> str:
        return ""

    def __repr__(self) -> str:
        return "Dog()"  # the name of a case is the same in each process


class Speaks(Protocol):
    def speak(self) -> str: ...


class Named(Protocol):
    name: str


class Point(TypedDict):
    x: int
    y: int


class Point3(TypedDict):
    x: int
    y: int
    z: int


class TextPoint(TypedDict):
    x: str
    y: str


def maker(hint):
    def make(start):
        return start

    make.__annotations__["return"] = hint
    return node(make, output_name="value")


def taker(hint):
    def take(value):
        return value

    take.__annotations__["value"] = hint
    return node(take, output_name="taken")


FITTING = [
    (np.int64, int),
    (np.float32, float),
    (np.int32, complex),
    (Never, int),
    (NoReturn, str),
    (TypeGuard[int], bool),
    (Callable, Callable[[int], int]),
    (Iterable[int], list[int]),
    (Iterator[int], Iterator[int]),
    (Iterator[int], Iterable[int]),
    (int, int),
    (int, float),
    (float, complex),
    (bool, int),
    (Dog, Animal),
    (int, int | str),
    (int, int | None),
    (None, int | None),
    (int | str, int | str | None),
    (list[int], list[int]),
    (list[int], Sequence[int]),
    (list[int], Iterable[float]),
    (list[Dog], list[Animal]),
    (dict[str, int], Mapping[str, int]),
    (tuple[int, str], tuple[int, str]),
    (tuple[int, int], tuple[int, ...]),
    (tuple[int, int], Sequence[int]),
    (str, Sequence[str]),
    (Annotated[int, "meters"], int),
    (int, Annotated[int, "meters"]),
    (Literal["a"], str),
    (Literal["a"], Literal["a", "b"]),
    (UserId, int),
    (Dog, Speaks),
    (Point3, Point),
    (Point, dict[str, int]),
    (Point, Mapping[str, Any]),
    (Callable[[int], str], Callable[[int], str]),
    (type[Dog], type[Animal]),
    (collections.OrderedDict[str, int], dict[str, int]),
    (Iterator[int], list[int]),
    (np.ndarray, np.ndarray),
    (decimal.Decimal, decimal.Decimal),
]
UNDECIDED = [
    (Any, int),
    (int, Any),
    (object, int),
    (list, list[int]),
    (list[Any], list[int]),
    (dict[str, Any], dict[str, int]),
    (list[T], list[int]),
    (T, int),
    (int, T),
    (dict[str, int], Point),
    (Animal, Named),
    ("Unknown", int),
    (int, "Unknown"),
    ("list[Unknown]", int),
    (Callable, Callable[[int], str]),
    (Callable[..., Any], Callable[[int], str]),
]
WRONG = [
    (np.float32, int),
    (np.int64, str),
    (Iterable[int], list[str]),
    (Iterator[int], Iterator[str]),
    (str, int),
    (float, int),
    (int, bool),
    (Animal, Dog),
    (int | str, int),
    (int | None, int),
    (None, int),
    (list[str], list[int]),
    (list[int], tuple[int, ...]),
    (dict[str, int], dict[str, str]),
    (dict[int, str], Mapping[str, str]),
    (tuple[int, str], tuple[int, int]),
    (tuple[int, int], tuple[int, int, int]),
    (set[int], list[int]),
    (int, list[int]),
    (Annotated[str, "name"], Annotated[int, "age"]),
    (Literal["a"], int),
    (Literal["c"], Literal["a", "b"]),
    (str, UserId),
    (int, Speaks),
    (Point, Point3),
    (TextPoint, Point),
    (Point, int),
    (int, Point),
    (Iterator[str], list[int]),
    (Path, str),
    (list[list[str]], list[list[int]]),
    ("str", "int"),
]


@pytest.mark.parametrize(("given", "taken"), FITTING + UNDECIDED, ids=str)
def test_hints_that_fit_or_say_nothing_pass(given, taken):
    assert Pipeline([maker(given), taker(taken)]).output_names == ("value", "taken")


@pytest.mark.parametrize(("given", "taken"), WRONG, ids=str)
def test_hints_that_do_not_fit_are_an_error_that_names_both_nodes_and_hints(given, taken):
    with pytest.raises(
        TypeHintError, match="node 'make' returns .* as 'value', but node 'take' takes "
    ) as found:
        Pipeline([maker(given), taker(taken)], name="p")
    assert isinstance(found.value, GraphError | TypeError)
    assert "pipeline 'p'" in str(found.value)
    assert Pipeline([maker(given), taker(taken)], check_types=False).output_names == ("value", "taken")


def test_the_message_shows_hints_as_people_write_them():
    with pytest.raises(TypeHintError) as found:
        Pipeline([maker(list[str] | None), taker(int)], name="p")
    assert str(found.value) == (
        "pipeline 'p': node 'make' returns list[str] | None as 'value', "
        "but node 'take' takes int as 'value'. "
        "Change one of the hints, or switch this check off by Pipeline(..., check_types=False)."
    )


def test_renamed_nodes_are_checked_by_their_parameters():
    def double(x: int) -> int:
        return 2 * x

    doubled = node(double, output_name="doubled")
    again = doubled.rename(inputs={"x": "doubled"}, outputs={"doubled": "fourfold"})
    assert Pipeline([doubled, again])(x=2) == {"doubled": 4, "fourfold": 8}
    with pytest.raises(
        TypeHintError, match="'make' returns str as 'value', but node 'double' takes int as 'x'"
    ):
        Pipeline([maker(str), doubled.rename(inputs={"x": "value"})])


def test_each_of_several_outputs_has_its_own_hint():
    def both(x) -> tuple[int, str]:
        return 1, "a"

    def take(number: int, text: str) -> None: ...

    two = node(both, output_name=("number", "text"))
    Pipeline([two, node(take)])
    with pytest.raises(TypeHintError, match="'both' returns str as 'number'"):
        Pipeline([node(both, output_name=("text", "number")), node(take)])


def test_generators_give_lists():
    def numbers(x) -> Iterator[int]:
        yield x

    def stream(x) -> Iterable[int]:
        yield x

    async def later(x) -> AsyncIterator[int]:
        yield x

    for function in (numbers, stream, later):
        Pipeline([node(function, output_name="value"), taker(list[int])])
        with pytest.raises(TypeHintError, match=r"list\[int\]"):
            Pipeline([node(function, output_name="value"), taker(list[str])])


def test_async_nodes_partials_methods_and_callables_have_hints():
    def awaited(x) -> Awaitable[str]:
        return fetch(x)

    async def fetch(x) -> str:
        return ""

    class Maker:
        def make(self, x) -> str:
            return ""

        def __call__(self, x) -> str:
            return ""

    def scaled(factor: int, x) -> str:
        return ""

    for function in (
        fetch,
        awaited,
        Maker().make,
        Maker(),
        functools.partial(scaled, 2),
        stateful(Maker)().make,
    ):
        with pytest.raises(TypeHintError, match="returns str as 'value', but node 'take' takes int"):
            Pipeline([node(function, output_name="value"), taker(int)])


def test_a_parameter_whose_default_is_none_takes_none():
    def take(value: int = None):  # noqa: RUF013
        return value

    Pipeline([maker(int | None), node(take)])


def pipeline_of(function, output_name):
    return Pipeline([node(function, output_name=output_name)], name="inner")


def measure(word: str) -> int:
    return len(word)


@pytest.mark.parametrize("hint", [list[str], Sequence[str], tuple[str, ...], set[str], Any, list, np.ndarray])
def test_map_over_takes_collections_of_what_the_node_takes(hint):
    mapped = pipeline_of(measure, "length").as_node({"value": "word"}, map_over="value")
    Pipeline([maker(hint), mapped, node(lambda length: length, output_name="all")])


@pytest.mark.parametrize("hint", [list[int], str, int, list[list[str]], list[str] | None])
def test_map_over_does_not_take_other_collections(hint):
    mapped = pipeline_of(measure, "length").as_node({"value": "word"}, map_over="value")
    with pytest.raises(TypeHintError, match=r"node 'inner/measure' takes list\[str\] as 'word'"):
        Pipeline([maker(hint), mapped])


def test_the_outputs_of_a_map_are_lists():
    mapped = pipeline_of(measure, "length").as_node({"words": "word"}, {"length": "value"}, map_over="words")
    Pipeline([mapped, taker(list[int])])
    Pipeline([mapped, pipeline_of(lambda value: value, "one").as_node(map_over="value")])
    for hint in (int, list[str]):
        with pytest.raises(TypeHintError, match=r"'inner/measure' returns list\[int\] as 'value'"):
            Pipeline([mapped, taker(hint)])


def test_maps_within_maps_are_lists_of_lists():
    once = Pipeline(
        [pipeline_of(measure, "length").as_node({"words": "word"}, map_over="words")], name="line"
    )
    twice = once.as_node({"value": "words"}, {"length": "lengths"}, map_over="value")
    Pipeline([maker(list[list[str]]), twice])
    with pytest.raises(TypeHintError, match=r"'line/inner/measure' takes list\[list\[str\]\]"):
        Pipeline([maker(list[list[int]]), twice])


def test_nested_pipelines_are_checked_through_their_mappings():
    inner = pipeline_of(measure, "length")
    Pipeline([maker(str), inner.as_node({"value": "word"})])
    with pytest.raises(
        TypeHintError, match="'make' returns int as 'value', but node 'inner/measure' takes str as 'word'"
    ):
        Pipeline([maker(int), inner.as_node({"value": "word"})])
    with pytest.raises(
        TypeHintError, match="node 'named/measure' returns int as 'value', but node 'take' takes str"
    ):
        Pipeline([inner.as_node(output_mapping={"length": "value"}, name="named"), taker(str)])


def test_copies_and_pickles_keep_a_pipeline_that_is_not_checked():
    pipeline = Pipeline([maker(str), taker(int)], check_types=False)
    assert cloudpickle.loads(cloudpickle.dumps(pipeline.bind(start=1))).run() == {"value": 1, "taken": 1}


@pytest.mark.parametrize("wrong", ["no", 2, None])
def test_check_types_is_a_flag(wrong):
    with pytest.raises(HyperNodesError, match="check_types must be True or False"):
        Pipeline([maker(str)], check_types=wrong)


# ---------------------------------------------------------------------------------------- validate

CALLS = []


@node(output_name="total")
def total(x: int, factor: float = 2, labels: list[str] | None = None) -> float:
    CALLS.append(x)
    return x * factor


@node(output_name="text")
def text(total: float, prefix: str) -> str:
    return prefix + str(total)


PIPELINE = Pipeline([total, text], name="p")


@pytest.mark.parametrize(
    "inputs",
    [
        {"x": 1, "prefix": "a"},
        {"x": True, "prefix": "a", "factor": 3, "labels": ["a"]},
        {"total": 1.5, "prefix": "a"},
        {"x": 1, "prefix": "a", "labels": None},
    ],
)
def test_validate_accepts_what_run_takes_and_runs_nothing(inputs):
    assert PIPELINE.validate(inputs) is None
    assert not CALLS


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"x": "1", "prefix": "a"}, "x is '1', of type str, but node 'total' takes int as 'x'"),
        ({"x": 1, "prefix": 2}, "prefix is 2, of type int, but node 'text' takes str"),
        ({"x": 1, "prefix": "a", "factor": None}, "factor is None"),
        ({"x": 1, "prefix": "a", "labels": ["a"] * 99 + [1]}, "labels is "),
        ({"total": "high", "prefix": "a"}, "total is 'high'"),
    ],
)
def test_validate_names_the_value_the_node_and_the_hint(inputs, message):
    with pytest.raises(InputTypeError, match="pipeline 'p': ") as found:
        PIPELINE.validate(inputs)
    assert message in str(found.value)
    assert isinstance(found.value, InputError | TypeError)


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (({"x": 1},), MissingInputError),
        (({"x": 1, "prefixes": "a"},), UnknownInputError),
        (({"x": 1, "prefix": "a"}, "texts"), UnknownOutputError),
        (({"x": 1, "prefix": "a"}, None, "prefixes"), MapError),
        (({"x": 1, "prefix": "a"}, None, "x"), MapError),
        (({"x": [1], "prefix": ["a", "b"]}, None, ["x", "prefix"]), MapError),
        (([1],), InputError),
    ],
)
def test_validate_raises_the_errors_of_names_that_run_and_map_raise(arguments, kind):
    with pytest.raises(kind) as checked:
        PIPELINE.validate(*arguments)
    inputs, output_name, map_over = (*arguments, None, None)[:3]
    with pytest.raises(kind) as raised:
        if map_over is None:
            PIPELINE.run(inputs, output_name)
        else:
            PIPELINE.map(inputs, map_over)
    assert str(checked.value) == str(raised.value)
    assert not CALLS


def test_validate_checks_the_items_of_a_map_and_those_of_nested_maps():
    PIPELINE.validate({"x": [1, 2], "prefix": "a"}, map_over="x")
    PIPELINE.validate({"x": [1, 2], "prefix": ["a"]}, map_over=["x", "prefix"], map_mode="product")
    with pytest.raises(InputTypeError, match=r"x\[1\] is '2'"):
        PIPELINE.validate({"x": [1, "2"], "prefix": "a"}, map_over="x")
    outer = Pipeline([PIPELINE.as_node({"xs": "x"}, map_over="xs")])
    outer.validate({"xs": [1, 2], "prefix": "a"})
    with pytest.raises(InputTypeError, match=r"xs\[1\] is 'b', of type str, but node 'p/total' takes int"):
        outer.validate({"xs": [1, "b"], "prefix": "a"})
    with pytest.raises(InputTypeError, match=r"xs\[0\]\[1\] is 'b'"):
        outer.validate({"xs": [[1, "b"]], "prefix": "a"}, map_over="xs")


def test_validate_checks_tables_and_bound_values():
    frame = pd.DataFrame({"x": [1, 2], "prefix": ["a", 5]})
    with pytest.raises(InputTypeError, match=r"prefix\[1\] is 5"):
        PIPELINE.validate(frame)
    with pytest.raises(InputTypeError, match="prefix is 7"):
        PIPELINE.bind(prefix=7).validate({"x": 1})


def test_validate_consumes_no_iterator():
    numbers = iter([1, 2])
    PIPELINE.validate({"x": numbers, "prefix": "a"}, map_over="x")
    assert PIPELINE.map({"x": numbers, "prefix": "a"}, map_over="x", output_name="text") == {
        "text": ["a2", "a4"]
    }
    CALLS.clear()


def test_validate_makes_no_object_of_a_holder():
    def fail() -> int:
        raise AssertionError

    PIPELINE.validate({"x": stateful(fail)(), "prefix": "a"})


@pytest.mark.parametrize(
    ("value", "hint", "is_right"),
    [
        (1, int, True),
        (1, float, True),
        ("a", Literal["a", "b"], True),
        ("c", Literal["a", "b"], False),
        ({"x": 1, "y": 2}, Point, True),
        ({"x": 1}, Point, False),
        ({"x": 1, "y": "2"}, Point, False),
        (Dog(), Speaks, True),
        (1, Speaks, False),
        ((1, "a"), tuple[int, str], True),
        ((1, 2), tuple[int, str], False),
        ({"a": [1]}, dict[str, list[int]], True),
        ({"a": ["1"]}, dict[str, list[int]], False),
        ([1], Sequence[int], True),
        (1, UserId, True),
        (abs, Callable[[int], int], True),
        (1, Callable[[int], int], False),
        (int, type[int], True),
        (1, T, True),
        (1, "Unknown", True),
        (5, Annotated[int, "meters"], True),
        ("5", Annotated[int, "meters"], False),
    ],
    ids=str,
)
def test_values_are_checked_by_hints_of_all_kinds(value, hint, is_right):
    pipeline = Pipeline([taker(hint)])
    if is_right:
        pipeline.validate({"value": value})
    else:
        with pytest.raises(InputTypeError, match="value is"):
            pipeline.validate({"value": value})
