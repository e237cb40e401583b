"""What a node returns and can be consumed only once is a list for everyone who takes it."""

import csv
import io
import itertools
import os
import sqlite3
from collections import Counter, OrderedDict, deque
from types import MappingProxyType

import numpy as np
import pandas as pd
import polars as pl
import pytest
from iterators import ByHand, Countdown, Later, awaited_map, ticking

import hypernodes
from hypernodes import DiskCache, HyperNodesEngine, Pipeline, node
from hypernodes.exceptions import MapError, OutputCountError

ITERATORS = {
    "map": (lambda n: map(str, range(n)), ["0", "1", "2"]),
    "filter": (lambda n: filter(None, range(n)), [1, 2]),
    "zip": (lambda n: zip(range(n), "abc"), [(0, "a"), (1, "b"), (2, "c")]),
    "enumerate": (lambda n: enumerate("abc"[:n]), [(0, "a"), (1, "b"), (2, "c")]),
    "reversed": (lambda n: reversed(range(n)), [2, 1, 0]),
    "iter of a list": (lambda n: iter([n, n]), [3, 3]),
    "iter of a dict": (lambda n: iter({n: 1, "b": 2}), [3, "b"]),
    "iter of a function": (lambda n: iter([1, 2, 0, 3].pop, 1), [3, 0, 2]),
    "chain": (lambda n: itertools.chain([n], [n]), [3, 3]),
    "islice": (lambda n: itertools.islice(itertools.count(), n), [0, 1, 2]),
    "accumulate": (lambda n: itertools.accumulate(range(n)), [0, 1, 3]),
    "repeat": (lambda n: itertools.repeat("x", n), ["x"] * 3),
    "product": (lambda n: itertools.product([n], "ab"), [(3, "a"), (3, "b")]),
    "a generator expression": (lambda n: (x * x for x in range(n)), [0, 1, 4]),
    "csv.reader": (lambda n: csv.reader(["a,b", f"1,{n}"]), [["a", "b"], ["1", "3"]]),
    "a cell of an array": (lambda n: map(int, np.arange(n)), [0, 1, 2]),
    "a class": (Countdown, [2, 1, 0]),
    "a generator that is not Python's": (ByHand, [0, 1, 2]),
    "an async generator": (ticking, [0, 1, 2]),
    "an async iterator": (lambda n: Later(n), [0, 1, 2]),
    "what an async function returns": (awaited_map, ["0", "1", "2"]),
}


def consumers():
    return [
        node(lambda items: list(items), output_name="first"),
        node(lambda items: list(items), output_name="second"),
    ]


@pytest.mark.parametrize("kind", ITERATORS)
def test_an_iterator_is_a_list_for_every_consumer(kind, watched):
    function, expected = ITERATORS[kind]
    pipeline = watched(Pipeline([node(function, output_name="items"), *consumers()]))
    for _ in range(2):  # with a cache, the second time from it
        assert pipeline.run({"n": 3}) == {"items": expected, "first": expected, "second": expected}


ITERATORS_BY_NAME = ["map", "zip", "a class", "an async iterator", "what an async function returns"]


@pytest.mark.parametrize("kind", ITERATORS_BY_NAME)
@pytest.mark.parametrize("executor", ["sequential", "async", "threaded", "parallel"])
def test_an_iterator_is_a_list_on_every_executor(executor, kind, engine_on):
    function, expected = ITERATORS[kind]
    made = node(function, output_name="items")
    both = node(lambda n: ("x", function(n)), output_name=("label", "items"))
    for level in ("map_executor", "node_executor"):
        for maker in (made, both) if kind != "what an async function returns" else (made,):
            pipeline = Pipeline([maker, *consumers()], engine=engine_on(level, executor))
            assert pipeline.map({"n": [3]}, map_over="n", output_name=["items", "second"]) == {
                "items": [expected],
                "second": [expected],
            }


@pytest.mark.parametrize("kind", ITERATORS_BY_NAME)
def test_an_iterator_is_a_list_on_daft(kind, tmp_path):
    function, expected = ITERATORS[kind]
    for options in ({}, {"cache": DiskCache(tmp_path)}):
        engine = hypernodes.DaftEngine(runner="native")
        pipeline = Pipeline([node(function, output_name="items"), *consumers()], engine=engine, **options)
        assert pipeline.map({"n": [3]}, map_over="n")["second"] == [expected]
        assert pipeline.run({"n": 3})["second"] == expected


@pytest.mark.parametrize(
    "function",
    [
        lambda n: (map(str, range(n)), filter(None, range(n))),
        lambda n: [map(str, range(n)), (x for x in range(1, n))],
        lambda n: iter([zip("012"), Countdown(n)]),
        lambda n: (Later(n), ticking(n)),
    ],
    ids=["tuple", "list", "iterator of iterators", "async"],
)
def test_iterators_among_several_outputs_are_lists(function, watched):
    pipeline = watched(Pipeline([node(function, output_name=("low", "high"))]))
    first = pipeline.run({"n": 3})
    assert [type(value) for value in first.values()] == [list, list]
    assert all(first.values())
    assert pipeline.run({"n": 3}) == first


def test_iterators_of_a_timed_and_a_retried_call_are_collected_within_it():
    calls = []

    def flaky(n):
        calls.append(n)

        def failing(x):
            if len(calls) == 1:
                raise OSError(x)
            return x

        return map(failing, range(n))

    made = node(flaky, output_name="items", retries=1, timeout=5)
    assert Pipeline([made]).run({"n": 3}) == {"items": [0, 1, 2]}
    assert calls == [3, 3]


def test_an_error_in_an_iterator_is_the_error_of_its_node():
    pipeline = Pipeline([node(lambda n: map(int, "1x"), output_name="items")], name="p")
    with pytest.raises(ValueError, match="invalid literal") as raised:
        pipeline.run({"n": 3})
    assert "of pipeline 'p'" in raised.value.__notes__[0]


@pytest.mark.parametrize("executor", ["sequential", "threaded"])
def test_iterators_of_a_batch_function_are_lists(executor, tmp_path):
    def one(n):
        return map(str, range(n))

    def columns(n):
        return (map(str, range(value)) for value in n.to_pylist())

    with HyperNodesEngine(map_executor=executor) as engine:
        made = node(one, output_name="items", batch=lambda n: list(columns(n)))
        lazy = node(one, output_name="items", batch=lambda n: map(list, columns(n)))
        for maker in (made, lazy):
            pipeline = Pipeline([maker, *consumers()], engine=engine)
            assert pipeline.map({"n": [1, 2]}, map_over="n")["second"] == [["0"], ["0", "1"]]


# ------------------------------------------------------------------------------------- what stays as it is


@pytest.mark.parametrize(
    "opened",
    [
        lambda path: path.open(),
        lambda path: path.open("rb"),
        lambda path: os.scandir(path.parent),
        lambda path: sqlite3.connect(":memory:").execute("SELECT 1"),
        lambda path: io.StringIO("a\nb"),
        lambda path: np.nditer(np.arange(3)),
    ],
    ids=["text file", "binary file", "scandir", "cursor", "StringIO", "nditer"],
)
def test_open_resources_are_handed_on_as_they_are(opened, tmp_path):
    path = tmp_path / "file"
    path.write_text("a\nb\n")
    seen = []

    def look(resource):
        seen.append(resource)
        return type(resource).__name__

    pipeline = Pipeline([node(opened, output_name="resource"), node(look, output_name="kind")])
    assert pipeline.run({"path": path})["resource"] is seen[0]
    assert not isinstance(seen[0], list)
    seen[0].close()


@pytest.mark.parametrize(
    "value", [range(3), {"a": 1}.values(), deque([1]), np.arange(3), pd.Series([1]), "text", b"bytes"]
)
def test_what_can_be_consumed_again_is_handed_on_as_it_is(value):
    assert Pipeline([node(lambda: value, output_name="same")]).run({})["same"] is value


@pytest.mark.parametrize("endless", [itertools.count(), itertools.cycle("ab"), itertools.repeat(1)])
def test_an_iterator_that_never_ends_is_an_error(endless):
    pipeline = Pipeline([node(lambda: endless, output_name="items")], name="p")
    with pytest.raises(OutputCountError, match="never ends") as raised:
        pipeline.run({})
    assert "of pipeline 'p'" in raised.value.__notes__[0]


def test_an_iterator_that_every_item_of_a_map_would_take_is_an_error():
    pipeline = Pipeline([node(lambda x, others: (x, list(others)), output_name="both")])
    for others in (map(str, range(3)), (n for n in range(3)), iter([1])):
        with pytest.raises(MapError, match="'others', but its .* can be consumed only once"):
            pipeline.map({"x": [1, 2], "others": others}, map_over="x")
        with pytest.raises(MapError, match="consumed only once"):
            list(pipeline.imap({"x": [1, 2], "others": others}, map_over="x"))
    assert pipeline.map({"x": [1, 2], "others": [3]}, map_over="x") == {"both": [(1, [3]), (2, [3])]}


def test_an_iterator_that_every_item_of_a_nested_map_would_take_is_an_error(watched):
    inner = Pipeline([node(lambda x, others: (x, list(others)), output_name="both")], name="inner")
    outer = Pipeline([inner.as_node({"xs": "x", "rest": "others"}, map_over="xs")], name="outer")
    with pytest.raises(MapError, match="every item takes the input 'rest'"):
        outer.run({"xs": [1, 2], "rest": map(str, range(3))})
    assert watched(outer).run({"xs": [1, 2], "rest": [3]}) == {"both": [(1, [3]), (2, [3])]}


# ------------------------------------------------------------------------------ several outputs have an order


@pytest.mark.parametrize(
    "returned",
    [
        {1, 2},
        frozenset((1, 2)),
        {"a": 1, "b": 2},
        {"a": 1, "b": 2}.keys(),
        {"a": 1, "b": 2}.items(),
        OrderedDict(a=1, b=2),
        Counter("ab"),
        MappingProxyType({"a": 1, "b": 2}),
        pd.DataFrame({"a": [1], "b": [2]}),
        pl.DataFrame({"a": [1], "b": [2]}),
        "ab",
        b"ab",
        bytearray(b"ab"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_several_outputs_are_not_taken_from_what_has_no_order(returned, recorder):
    for callbacks in ([], [recorder]):
        made = node(lambda: returned, output_name=("low", "high"))
        with pytest.raises(
            OutputCountError, match=f"has 2 outputs but returned one {type(returned).__name__}"
        ):
            Pipeline([made], callbacks=callbacks).run({})


@pytest.mark.parametrize(
    "returned", [(1, 2), [1, 2], np.array([1, 2]), {"a": 1, "b": 2}.values(), deque([1, 2]), range(1, 3)]
)
def test_several_outputs_are_taken_from_what_has_an_order(returned):
    assert Pipeline([node(lambda: returned, output_name=("low", "high"))]).run({}) == {"low": 1, "high": 2}


@pytest.mark.parametrize(
    "column", [{1, 2}, {1: "a", 2: "b"}, {1: "a", 2: "b"}.keys(), pd.DataFrame({"a": [1, 2], "b": [3, 4]})]
)
def test_a_batch_function_does_not_return_what_has_no_order(column):
    made = node(lambda x: x, output_name="y", batch=lambda x: column)
    with (
        HyperNodesEngine(map_executor="threaded") as engine,
        pytest.raises(ValueError, match="it returned a"),
    ):
        Pipeline([made], engine=engine).map({"x": [1, 2]}, map_over="x")
