"""Two values have the same digest, in every process, if and only if they are the same."""

import array
import collections
import copy
import dataclasses
import datetime as dt
import decimal
import enum
import functools
import gc
import importlib.util
import ipaddress
import os
import pathlib
import pickle
import subprocess
import sys
import threading
import types
import uuid
import weakref
from typing import NamedTuple

import networkx as nx
import numpy as np
import pandas as pd
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypernodes import DiskCache, Pipeline, node
from hypernodes.cache.content import digest
from hypernodes.cache.reach import Reach
from hypernodes.exceptions import SignatureError

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.complex_numbers()
    | st.text()
    | st.binary()
    | st.decimals()
    | st.fractions()
    | st.datetimes()
    | st.dates()
    | st.timedeltas()
    | st.uuids()
)
HASHABLE = st.booleans() | st.integers() | st.text() | st.binary() | st.tuples(st.integers(), st.text())
VALUES = st.recursive(
    SCALARS | st.sets(HASHABLE) | st.frozensets(HASHABLE),
    lambda inner: (
        st.lists(inner) | st.tuples(inner) | st.tuples(inner, inner) | st.dictionaries(HASHABLE, inner)
    ),
    max_leaves=20,
)


def rebuilt(value):
    """Return an equal value of other objects, with sets and strings built in another order."""
    match value:
        case bool() | None:
            return value
        case list():
            return [rebuilt(part) for part in value]
        case tuple():
            return tuple([rebuilt(part) for part in value])
        case dict():
            return {rebuilt(key): rebuilt(part) for key, part in value.items()}
        case set() | frozenset():
            return type(value)(sorted(map(rebuilt, value), key=repr, reverse=True))
        case str():
            return "".join(list(value))
        case int():
            return int(str(value)) if abs(value) < 1 << 200 else value + 0
        case float():
            return float(np.float64(value))
    return value


def spelled(value):
    """Return a text that differs for values that are not the same."""
    match value:
        case list() | tuple():
            return f"{type(value).__name__}({','.join(map(spelled, value))})"
        case set() | frozenset():
            return f"{type(value).__name__}{{{','.join(sorted(map(spelled, value)))}}}"
        case dict():
            return f"dict{{{','.join(spelled(k) + ':' + spelled(v) for k, v in value.items())}}}"
        case float() | complex():
            return f"{type(value).__name__}:{np.array(value).tobytes().hex()}"
    return f"{type(value).__name__}:{value!r}"


@given(VALUES)
def test_equal_values_share_a_digest(value):
    assert digest(rebuilt(value)) == digest(value)


@given(VALUES, VALUES)
def test_values_that_are_not_the_same_do_not_share_a_digest(one, other):
    assert (digest(one) == digest(other)) is (spelled(one) == spelled(other))


@given(st.lists(VALUES, min_size=1, max_size=5), st.data())
def test_one_changed_element_changes_the_digest(values, data):
    at = data.draw(st.integers(0, len(values) - 1))
    changed = [*values[:at], ["changed", values[at]], *values[at + 1 :]]
    assert digest(changed) != digest(values)


@given(st.lists(st.lists(st.integers())))
def test_the_same_numbers_grouped_differently_are_not_the_same(groups):
    flat = [number for group in groups for number in group]
    assert (digest(groups) == digest([flat])) is (groups == [flat])


class Colour(enum.Enum):
    RED = 1
    GREEN = 2


class Size(enum.Enum):
    RED = 1


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Level(enum.IntEnum):
    LOW = 1


@dataclasses.dataclass
class Point:
    x: object
    _y: object = None


@dataclasses.dataclass
class Spot:
    x: object
    _y: object = None


@dataclasses.dataclass(slots=True, frozen=True)
class Slim:
    x: object


@dataclasses.dataclass
class Table(dict):
    name: str = ""


class Pair(NamedTuple):
    a: object
    b: object


class MyPair(Pair):
    pass


class Public:
    def __init__(self, value, hidden=None):
        self.value, self._hidden = value, hidden


class Hidden:
    def __init__(self, value):
        self._value = value


class Mangled:
    __slots__ = ("__value",)

    def __init__(self, value):
        self.__value = value


class MangledToo:
    def __init__(self, value, hidden):
        self.value, self.__hidden = value, hidden


class Slotted:
    __slots__ = ("_hidden", "value")

    def __init__(self, value, hidden):
        self.value, self._hidden = value, hidden


class SlottedToo(Slotted):
    __slots__ = ("more",)


class Model(pydantic.BaseModel):
    a: int = 1
    _rows: list[int] = pydantic.PrivateAttr(default_factory=list)


def model(row):
    made = Model(a=1)
    made._rows.append(row)
    return made


class MyArray(np.ndarray):
    pass


class MyGraph(nx.Graph):
    pass


class MyDeque(collections.deque):
    pass


class MyTime(dt.datetime):
    pass


class MyError(Exception):
    pass


class MyDecimal(decimal.Decimal):
    pass


class MyComplex(complex):
    pass


class MyBytes(bytearray):
    pass


class MyPath(type(pathlib.Path())):
    pass


class MyList(list):
    pass


class MyDict(dict):
    pass


def with_attribute(value, **attributes):
    for name, part in attributes.items():
        setattr(value, name, part)
    return value


def table(content, name=""):
    made = Table(name)
    made.update(content)
    return made


class Kept:
    def __init__(self):
        self.value = 1

    @functools.cached_property
    def total(self):
        return self.value

    @functools.cached_property
    def _hidden(self):
        return self.value


class KeptInList(list):
    @functools.cached_property
    def total(self):
        return sum(self)


def asked(thing, *names):
    for name in names:
        getattr(thing, name)
    return thing


def anew(text):
    """Return an equal string that is another object."""
    return "".join(list(text))


def matrix(rows):
    return np.array(rows).view(np.matrix)


def frame(**options):
    made = pd.DataFrame([[1]], columns=pd.Index(["a"], name=options.pop("columns_name", None)), **options)
    return made


def advanced(iterator, steps):
    for _ in range(steps):
        next(iterator)
    return iterator


def categories(*values, **options):
    return pd.Series(pd.Categorical(["a"], categories=values, **options))


DIFFERENT = {
    "int and float": (1, 1.0),
    "int and bool": (1, True),
    "int and str": (1, "1"),
    "float and bool": (0.0, False),
    "zero and minus zero": (0.0, -0.0),
    "none and its name": (None, "None"),
    "str and bytes": ("a", b"a"),
    "bytes and bytearray": (b"a", bytearray(b"a")),
    "tuple and list": ((1,), [1]),
    "nested tuple and list": ([(1,)], [[1]]),
    "set and frozenset": ({1}, frozenset({1})),
    "empty containers": ([], ()),
    "grouping of lists": ([1, [2]], [[1], 2]),
    "grouping of texts": (["ab", "c"], ["a", "bc"]),
    "depth of empty lists": ([[], []], [[[]]]),
    "grouping of dicts": ({1: {2: 3}}, {1: 2, 3: 0}),
    "order of a dict": ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    "very large and very small": (2**70, -(2**70)),
    "surrogates": ("\ud800", "\ud801"),
    "ranges": (range(1), range(2)),
    "slices": (slice(1), slice(None, 1, 1)),
    "datetime and its zone": (dt.datetime(2020, 1, 1), dt.datetime(2020, 1, 1, tzinfo=dt.UTC)),
    "datetime and its fold": (dt.datetime(2020, 1, 1), dt.datetime(2020, 1, 1, fold=1)),
    "date and datetime": (dt.date(2020, 1, 1), dt.datetime(2020, 1, 1)),
    "decimals of other precision": (decimal.Decimal("1.0"), decimal.Decimal("1.00")),
    "paths": (pathlib.Path("a"), pathlib.Path("b")),
    "path and text": (pathlib.Path("a"), "a"),
    "members of an enum": (Colour.RED, Colour.GREEN),
    "members of two enums": (Colour.RED, Size.RED),
    "enum and its value": (Level.LOW, 1),
    "flags": (Access.READ, Access.READ | Access.WRITE),
    "no flag and another": (Access(0), Access(3)),
    "dataclass": (Point(1), Point(2)),
    "private field of a dataclass": (Point(1, 2), Point(1, 3)),
    "two dataclasses": (Point(1), Spot(1)),
    "dataclass with slots": (Slim(1), Slim(2)),
    "dataclass that is a dict": (table({1: 1}), table({1: 2})),
    "attribute added to a dataclass": (with_attribute(Point(1), more=1), with_attribute(Point(1), more=2)),
    "named tuple": (Pair(1, 2), Pair(1, 3)),
    "named tuple and tuple": (Pair(1, 2), (1, 2)),
    "public attribute": (Public(1), Public(2)),
    "private attribute where there is no other": (Hidden(1), Hidden(2)),
    "private attribute beside a public one": (Public(1, 2), Public(1, 3)),
    "private attribute of an item": ([{"a": Public(1, 2)}], [{"a": Public(1, 3)}]),
    "private attribute of an attribute": (Public(Public(1, 2)), Public(Public(1, 3))),
    "private attribute of a private attribute": (Public(1, Hidden(2)), Public(1, Hidden(3))),
    "private attribute of a list": (
        with_attribute(MyList([1]), a=1, _b=1),
        with_attribute(MyList([1]), a=1, _b=2),
    ),
    "private attribute of a dict": (with_attribute(MyDict(), a=1, _b=1), with_attribute(MyDict(), a=1, _b=2)),
    "private attribute of a named tuple": (
        with_attribute(MyPair(1, 2), _b=1),
        with_attribute(MyPair(1, 2), _b=2),
    ),
    "private attribute of an error": (
        with_attribute(MyError(1), a=1, _b=1),
        with_attribute(MyError(1), a=1, _b=2),
    ),
    "private attribute of a deque": (
        with_attribute(MyDeque(), a=1, _b=1),
        with_attribute(MyDeque(), a=1, _b=2),
    ),
    "private attribute of an array": (
        with_attribute(np.array([1]).view(MyArray), a=1, _b=1),
        with_attribute(np.array([1]).view(MyArray), a=1, _b=2),
    ),
    "private attribute that was added": (Public(1), with_attribute(Public(1), _more=1)),
    "private attribute of a bound method's object": (Public(1, 2).__repr__, Public(1, 3).__repr__),
    "private attribute of an argument of a partial": (
        functools.partial(print, Public(1, 2)),
        functools.partial(print, Public(1, 3)),
    ),
    "private slot beside a public one": (Slotted(1, 2), Slotted(1, 3)),
    "private slot of a base": (SlottedToo(1, 2), SlottedToo(1, 3)),
    "private attribute of a model": (model(1), model(2)),
    "fields of a model that were given": (Model(a=1), Model()),
    "mangled slot": (Mangled(1), Mangled(2)),
    "mangled attribute beside a public one": (MangledToo(1, 2), MangledToo(1, 3)),
    "class and instance": (Public, Public(1)),
    "list of a class of its own": (MyList([1]), [1]),
    "attribute of a list": (with_attribute(MyList([1]), more=1), with_attribute(MyList([1]), more=2)),
    "dict of a class of its own": (MyDict({1: 1}), MyDict({1: 2})),
    "array of a class of its own": (np.array([1]).view(MyArray), np.array([2]).view(MyArray)),
    "deque of a class of its own": (MyDeque([1]), MyDeque([2])),
    "datetime of a class of its own": (MyTime(2020, 1, 1), MyTime(2021, 1, 1)),
    "error of a class of its own": (MyError(1), MyError(2)),
    "error": (ValueError(1), ValueError(2)),
    "decimal of a class of its own": (MyDecimal(1), MyDecimal(2)),
    "complex of a class of its own": (MyComplex(1), MyComplex(2)),
    "bytes of a class of their own": (MyBytes(b"1"), MyBytes(b"2")),
    "path of a class of its own": (MyPath("a"), MyPath("b")),
    "ordered dict": (collections.OrderedDict(a=1), collections.OrderedDict(a=2)),
    "ordered dict and dict": (collections.OrderedDict(a=1), {"a": 1}),
    "room of a deque": (collections.deque([1], 2), collections.deque([1], 3)),
    "default of a dict": (collections.defaultdict(int), collections.defaultdict(list)),
    "array of the standard library": (array.array("i", [1]), array.array("l", [1])),
    "view of a dict": (types.MappingProxyType({1: 1}), types.MappingProxyType({1: 2})),
    "namespace": (types.SimpleNamespace(a=1), types.SimpleNamespace(a=2)),
    "iterator that has moved on": (iter([1, 2]), advanced(iter([1, 2]), 1)),
    "type alias": (list[int], list[str]),
    "partial": (functools.partial(int, base=2), functools.partial(int, base=3)),
    "bound builtin": ("a".upper, "b".upper),
    "numpy dtype": (np.array([1], "i4"), np.array([1], "i8")),
    "numpy byte order": (np.array([1], "<i4"), np.array([1], ">i4")),
    "numpy dates of other units": (np.array(["2020"], "M8[D]"), np.array(["2020"], "M8[s]")),
    "numpy shape": (np.zeros((2, 3)), np.zeros((3, 2))),
    "numpy element": (np.zeros(100_000), np.append(np.zeros(99_999), 1)),
    "numpy order of elements": (np.array([[1, 2], [3, 4]]), np.array([[1, 3], [2, 4]])),
    "numpy array and list": (np.array([1]), [1]),
    "numpy number and array": (np.int64(1), np.array(1)),
    "numpy numbers": (np.float32(1), np.float64(1)),
    "numpy and python numbers": (np.float64(1), 1.0),
    "numpy objects": (np.array([1], object), np.array([1.0], object)),
    "numpy matrix of another shape": (matrix([[1, 2]]), matrix([[1], [2]])),
    "numpy matrix and array": (matrix([[1]]), np.array([[1]])),
    "numpy record array of another shape": (np.rec.array([(1,), (2,)]), np.rec.array([[(1,)], [(2,)]])),
    "numpy mask": (np.ma.array([1, 2], mask=[0, 1]), np.ma.array([1, 2], mask=[0, 0])),
    "numpy masked and filled": (
        np.ma.array([1, 5], mask=[0, 1], fill_value=5),
        np.ma.array([1, 5], mask=[0, 0], fill_value=5),
    ),
    "numpy masked number and number": (
        np.ma.array(1, mask=True, fill_value=5),
        np.ma.array(5, mask=False, fill_value=5),
    ),
    "numpy record with an object": (
        np.array([(1, [1])], [("a", int), ("b", object)])[0],
        np.array([(1, [2])], [("a", int), ("b", object)])[0],
    ),
    "numpy functions": (np.add, np.subtract),
    "unions of types": (int | None, str | None),
    "numpy generators": (np.random.default_rng(1), np.random.default_rng(2)),
    "pandas row": (pd.DataFrame({"a": [1, 2]}), pd.DataFrame({"a": [1, 3]})),
    "pandas dtype": (pd.DataFrame({"a": [1]}), pd.DataFrame({"a": [1.0]})),
    "pandas index": (pd.DataFrame({"a": [1]}, index=[0]), pd.DataFrame({"a": [1]}, index=[1])),
    "pandas index without columns": (pd.DataFrame(index=[1]), pd.DataFrame(index=[2])),
    "pandas column": (pd.DataFrame({"a": [1]}), pd.DataFrame({"b": [1]})),
    "pandas order of columns": (pd.DataFrame({"a": [1], "b": [1]}), pd.DataFrame({"b": [1], "a": [1]})),
    "pandas name of the columns": (frame(columns_name="k"), frame(columns_name="j")),
    "pandas name of the index": (pd.Index([1], name="a"), pd.Index([1], name="b")),
    "pandas name of a series": (pd.Series([1], name="a"), pd.Series([1], name="b")),
    "pandas categories": (categories("a", "b"), categories("a", "c")),
    "pandas order of categories": (categories("a", ordered=True), categories("a", ordered=False)),
    "pandas missing number": (pd.Series([1, None], dtype="Int64"), pd.Series([1, 0], dtype="Int64")),
    "pandas duplicate labels": (
        pd.DataFrame({"a": [1]}).set_flags(allows_duplicate_labels=True),
        pd.DataFrame({"a": [1]}).set_flags(allows_duplicate_labels=False),
    ),
    "pandas attrs": (
        with_attribute(pd.DataFrame({"a": [1]}), attrs={"unit": "m"}),
        with_attribute(pd.DataFrame({"a": [1]}), attrs={"unit": "km"}),
    ),
}


@pytest.mark.parametrize("case", DIFFERENT)
def test_values_that_are_not_the_same_have_digests_of_their_own(case):
    one, other = DIFFERENT[case]
    assert digest(one) != digest(other)


SAME = {
    "NaN": lambda: float("nan"),
    "array with NaN": lambda: np.array([np.nan]),
    "set": lambda: {"a", "b", "c"},
    "set of tuples": lambda: {("a", 1), ("b", 2)},
    "enum": lambda: Colour.RED,
    "flags": lambda: Access.READ | Access.WRITE,
    "dataclass": lambda: Point([1], {2}),
    "object": lambda: Public(1),
    "private attribute beside a public one": lambda: Public(1, hidden=[1]),
    "array that is not contiguous": lambda: np.arange(10)[::2],
    "objects in an array": lambda: np.array(["a", None, {1}], object),
    "record with an object": lambda: np.array([(1, [1])], [("a", int), ("b", object)])[0],
    "union of types": lambda: int | None,
    "series": lambda: pd.Series(["a", None]),
    "frame": lambda: pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}),
    "frame with several levels": lambda: pd.DataFrame([[1]], columns=pd.MultiIndex.from_tuples([("a", "b")])),
    "ordered dict": lambda: collections.OrderedDict(a={1, 2}),
    "counter": lambda: collections.Counter("abca"),
    "deque": lambda: collections.deque([{"a"}, anew("xy"), "xy"]),
    "lambda": lambda: lambda x: x + 1,
    "partial": lambda: functools.partial(max, 1, key=abs),
    "lock": lambda: __import__("threading").Lock(),
    "logger": lambda: __import__("logging").getLogger("x"),
    "module": lambda: sys,
}


def padded(dtype, byte):
    """Return zeros in memory that had another content before."""
    values = np.full(2 * np.dtype(dtype).itemsize, byte, "u1").view(dtype)
    if values.dtype.names is None:
        values[:] = 0
    else:
        values["a"] = values["b"]["c"] = values["b"]["d"] = 0
    return values


def with_content_below(value):
    """Return a missing number, below which pandas keeps another one."""
    numbers = pd.Series([1, value], dtype="Int64")
    numbers[1] = pd.NA
    return numbers


def asked_of(value, *questions):
    """Return a value that has been asked for something, which it may keep."""
    for question in questions:
        question(value)
    return value


ALIGNED = np.dtype([("a", "i1"), ("b", [("c", "i2"), ("d", "f8")])], align=True)
USED = {
    "a UUID that knows how it was made": lambda: (
        uuid.UUID(int=5, is_safe=uuid.SafeUUID.safe),
        pickle.loads(pickle.dumps(uuid.UUID(int=5))),
    ),
    "a UUID of a class of its own": lambda: (MyUUID(int=5, is_safe=uuid.SafeUUID.safe), MyUUID(int=5)),
    "a UUID in an array": lambda: (
        np.array([uuid.UUID(int=5, is_safe=uuid.SafeUUID.unsafe)], object),
        np.array([uuid.UUID(int=5)], object),
    ),
    "a path": lambda: (MyPath("/a/b"), asked_of(MyPath("/a") / "b", hash, str, lambda path: path.parts)),
    "a pure path": lambda: (
        PurePath("a/b"),
        asked_of(PurePath("a") / "b", hash, str, lambda path: path.parts),
    ),
    "a network": lambda: (
        ipaddress.ip_network("10.0.0.0/24"),
        asked_of(ipaddress.ip_network("10.0.0.0/24"), hash, lambda one: one.broadcast_address),
    ),
    "a structure with padding": lambda: (padded(ALIGNED, 0), padded(ALIGNED, 255)),
    "an item of a structure with padding": lambda: (padded(ALIGNED, 0)[0], padded(ALIGNED, 255)[0]),
    "long doubles": lambda: (padded(np.longdouble, 0), padded(np.longdouble, 255)),
    "a long double": lambda: (padded(np.longdouble, 0)[1], padded(np.longdouble, 255)[1]),
    "complex long doubles": lambda: (padded(np.clongdouble, 0), padded(np.clongdouble, 255)),
    "a missing number": lambda: (with_content_below(7), with_content_below(8)),
    "a part of a column of texts": lambda: (
        pd.Series(["a", "b", None], dtype="string").iloc[1:].reset_index(drop=True),
        pd.Series(["b", None], dtype="string"),
    ),
    "dates": lambda: (
        pd.date_range("2020", periods=3),
        asked_of(pd.date_range("2020", periods=3), list, lambda dates: dates.is_unique),
    ),
    "a column of dates": lambda: (
        pd.Series(pd.date_range("2020", periods=3, tz="UTC")),
        asked_of(pd.Series(pd.date_range("2020", periods=3, tz="UTC")), list, lambda dates: dates.array),
    ),
}
UNLIKE = {
    "UUIDs": lambda: (MyUUID(int=5), MyUUID(int=6)),
    "paths": lambda: (MyPath("/a"), MyPath("/b")),
    "structures": lambda: (np.array([(1, (2, 3.0))], ALIGNED), np.array([(1, (2, 4.0))], ALIGNED)),
    "long doubles": lambda: (np.array([1], np.longdouble), np.nextafter(np.array([1], np.longdouble), 2)),
    "missing numbers": lambda: (pd.Series([1, None], dtype="Int64"), pd.Series([None, 1], dtype="Int64")),
    "a missing number and a number": lambda: (
        pd.Series([0, None], dtype="Float64"),
        pd.Series([0, 0], dtype="Float64"),
    ),
    "dates": lambda: (pd.date_range("2020", periods=3), pd.date_range("2020", periods=3, freq="2D")),
    "frequencies": lambda: (
        pd.date_range("2020", periods=3),
        pd.DatetimeIndex(list(pd.date_range("2020", periods=3)), freq=None),
    ),
}


class MyUUID(uuid.UUID):
    pass


class MyPath(pathlib.PosixPath):
    pass


class PurePath(pathlib.PurePosixPath):
    __slots__ = ()


@pytest.mark.parametrize("case", USED)
def test_what_a_value_keeps_of_its_making_and_its_use_does_not_count(case):
    one, other = USED[case]()
    assert digest(one) == digest(other)


@pytest.mark.parametrize("case", UNLIKE)
def test_values_of_the_same_kind_with_other_content_have_digests_of_their_own(case):
    one, other = UNLIKE[case]()
    assert digest(one) != digest(other)


@pytest.mark.parametrize("case", SAME)
def test_values_of_the_same_content_share_a_digest(case):
    assert digest(SAME[case]()) == digest(SAME[case]())


KEPT = {
    "an object": lambda: (Kept(), asked(Kept(), "total", "_hidden")),
    "an object that derives from a list": lambda: (KeptInList([1]), asked(KeptInList([1]), "total")),
    "an object in an object": lambda: (Public(Kept()), Public(asked(Kept(), "total"))),
    "an object of a library": lambda: (
        nx.Graph([(1, 2)]),
        asked(nx.Graph([(1, 2)]), "nodes", "edges", "adj"),
    ),
    "an object whose class derives from a library's": lambda: (
        MyGraph([(1, 2)]),
        asked(MyGraph([(1, 2)]), "nodes", "edges", "adj"),
    ),
}


@pytest.mark.parametrize("case", KEPT)
def test_the_stored_result_of_a_cached_property_does_not_count(case):
    fresh, used = KEPT[case]()
    assert digest(fresh) == digest(used)


def test_private_attributes_of_a_class_made_by_attrs_count():
    attrs = pytest.importorskip("attrs")

    @attrs.define
    class Made:
        name: str
        _rows: list[int]

    assert digest(Made("a", [1])) == digest(Made("a", [1])) != digest(Made("a", [2]))


def test_the_edges_of_a_graph_of_a_class_of_its_own_count():
    assert digest(MyGraph([(1, 2)])) == digest(MyGraph([(1, 2)])) != digest(MyGraph([(1, 3)]))


def test_an_attribute_of_a_member_of_an_enumeration_counts():
    class Planet(enum.Enum):
        EARTH = 1

    before = digest(Planet.EARTH)
    Planet.EARTH._moons = 1
    with_one = digest(Planet.EARTH)
    Planet.EARTH._moons = 2
    assert len({before, with_one, digest(Planet.EARTH)}) == 3
    del Planet.EARTH._moons
    assert digest(Planet.EARTH) == before


def test_a_chain_of_private_attributes_that_is_too_long_has_no_digest():
    link = Public(0)
    for number in range(5_000):
        link = Public(number, link)
    with pytest.raises(SignatureError, match="too deeply"):
        digest(link)


def test_an_array_that_is_not_contiguous_is_the_same_as_its_copy():
    view = np.arange(10)[::2]
    assert digest(view) == digest(view.copy())


def test_equal_texts_in_a_library_container_need_not_be_the_same_object():
    text = anew("xy")
    assert digest(collections.deque([text, text])) == digest(collections.deque([text, anew("xy")]))


def test_one_list_twice_is_the_same_as_two_equal_lists():
    shared = [1]
    assert digest([shared, shared]) == digest([[1], [1]])


def test_a_list_that_contains_itself_has_a_digest():
    def ring(*values):
        made = list(values)
        made.append(made)
        return made

    assert digest(ring(1)) == digest(ring(1))
    assert digest(ring(1)) != digest(ring(2))


def test_a_dict_and_an_object_that_contain_themselves_have_digests():
    mapping = {}
    mapping["self"] = mapping
    thing = Public(None)
    thing.value = thing
    assert digest(mapping) == digest(mapping)
    assert digest(thing) == digest(thing)


def test_a_value_that_is_nested_too_deeply_has_no_digest():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(SignatureError, match="too deeply"):
        digest(deep)
    while deep:  # Freeing the whole value would recurse, so that the outer layers go first.
        deep = deep[0]


@pytest.mark.parametrize(
    "make",
    [lambda: (n for n in ()), lambda: open(os.devnull), threading.local],
    ids=["generator", "file", "local"],
)
def test_a_value_without_stable_content_has_no_digest(make):
    value = make()
    with pytest.raises(SignatureError, match=type(value).__name__):
        digest(value)
    value.close() if hasattr(value, "close") else None


IN_ANOTHER_PROCESS = """
import collections, dataclasses, enum, functools
import numpy as np, pandas as pd
from hypernodes.cache.content import digest

class Colour(enum.Enum):
    RED = "red"

@dataclasses.dataclass
class Point:
    x: object

class Thing:
    names = {"x", "y", "z"}
    def __init__(self):
        self.tags = {"p", "q", "r"}

def helper(v, allowed=frozenset({"a", "b", "c"})):
    return v in {"k", "l", "m"} and v in allowed

def function(v):
    return helper(v) or Thing() or Colour.RED or {w for w in "ab"}

values = [
    {"a", "b", "c"}, frozenset({("a", 1), ("b", 2)}), {"x": {"a", "b"}, "y": [{"c", "d"}]}, "text", 1.5,
    Colour.RED, Point({"a", "b"}), Thing(), Thing, helper, function,
    functools.partial(function, v={"a", "b"}),
    np.array([{"a", "b"}], object), pd.DataFrame({"a": ["x", "y"]}), collections.Counter("abc"),
    collections.deque([{"a", "b", "c"}]), collections.OrderedDict(a={"a", "b", "c"}),
    collections.defaultdict(set, a={"a", "b", "c"}), ValueError({"a", "b", "c"}),
    Colour, np.random.default_rng(1),
    __import__("types").SimpleNamespace(a={"a", "b"}),
]
print([digest(value).hex() for value in values])
"""


def test_digests_are_equal_in_every_process():
    digests = {
        subprocess.run(
            [sys.executable, "-c", IN_ANOTHER_PROCESS],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(digests) == 1


# ------------------------------------------------------------------- changes that must give new results


CHANGES = {
    "helper": ("def help(v): return v + 1\ndef f(x): return help(x)", "v + 1", "v + 2"),
    "global constant": ("NUMBER = 1\ndef f(x): return x + NUMBER", "NUMBER = 1", "NUMBER = 2"),
    "global constant read in a nested function": (
        "NUMBER = 1\ndef f(x):\n    def inner(): return x + NUMBER\n    return inner()",
        "NUMBER = 1",
        "NUMBER = 2",
    ),
    "closure value": (
        "def make(n):\n    def f(x): return x + n\n    return f\nf = make(1)",
        "make(1)",
        "make(2)",
    ),
    "argument of a partial": (
        "import functools\ndef g(n, x): return x + n\nf = functools.partial(g, 1)",
        "g, 1",
        "g, 2",
    ),
    "default": ("def f(x, n=1): return x + n", "n=1", "n=2"),
    "state of a bound method's object": (
        "class C:\n    def __init__(self, n): self.n = n\n    def m(self, x): return x + self.n\nf = C(1).m",
        "C(1)",
        "C(2)",
    ),
    "private state of a bound method's object": (
        "class C:\n    def __init__(self, n): self._n = n\n    def m(self, x): return self._n\nf = C(1).m",
        "C(1)",
        "C(2)",
    ),
    "method of a class": (
        "class C:\n    def m(self, x): return x + 1\ndef f(x): return C().m(x)",
        "x + 1",
        "x + 2",
    ),
    "method of a base class": (
        "class B:\n    def m(self, x): return x + 1\nclass C(B): pass\ndef f(x): return C().m(x)",
        "x + 1",
        "x + 2",
    ),
    "method of a metaclass": (
        "class M(type):\n    def m(c, x): return x + 1\nclass C(metaclass=M): pass\ndef f(x): return C.m(x)",
        "x + 1",
        "x + 2",
    ),
    "property": (
        "class C:\n    @property\n    def p(self): return 1\nc = C()\ndef f(x): return x + c.p",
        "return 1",
        "return 2",
    ),
    "static method": (
        "class C:\n    @staticmethod\n    def m(x): return x + 1\ndef f(x): return C.m(x)",
        "x + 1",
        "x + 2",
    ),
    "descriptor": (
        "class D:\n    def __get__(self, *_): return 1\nclass C:\n    d = D()\ndef f(x): return x + C().d",
        "return 1",
        "return 2",
    ),
    "partial method": (
        (
            "import functools\nclass C:\n    def m(self, n, x): return x + n\n"
            "    p = functools.partialmethod(m, 1)\ndef f(x): return C().p(x)"
        ),
        "m, 1",
        "m, 2",
    ),
    "class attribute": ("class C:\n    n = 1\ndef f(x): return x + C.n", "n = 1", "n = 2"),
    "memoized helper": (
        "import functools\n@functools.lru_cache\ndef help(v): return v + 1\ndef f(x): return help(x)",
        "v + 1",
        "v + 2",
    ),
    "generic function": (
        (
            "import functools\n@functools.singledispatch\ndef help(v): return 0\n@help.register\n"
            "def _(v: int): return v + 1\ndef f(x): return help(x)"
        ),
        "v + 1",
        "v + 2",
    ),
    "decorator": (
        "def deco(g):\n    def wrapper(x): return g(x) + 1\n    return wrapper\n@deco\ndef f(x): return x",
        "g(x) + 1",
        "g(x) + 2",
    ),
    "function in a list": (
        "def help(v): return v + 1\nTABLE = [help]\ndef f(x): return TABLE[0](x)",
        "v + 1",
        "v + 2",
    ),
    "function as a default": (
        "def help(v): return v + 1\ndef f(x, g=help): return g(x)",
        "v + 1",
        "v + 2",
    ),
    "function in a defaultdict": (
        (
            "import collections\ndef help(): return 1\nTABLE = collections.defaultdict(help)\n"
            "def f(x): return x + dict(TABLE).get(x, TABLE.default_factory())"
        ),
        "return 1",
        "return 2",
    ),
    "function in a library's object": (
        "import numpy\ndef help(v): return v + 1\nvec = numpy.vectorize(help)\ndef f(x): return int(vec(x))",
        "v + 1",
        "v + 2",
    ),
    "class of an item in a library's container": (
        (
            "import collections\nclass C:\n    def m(self, x): return x + 1\nQ = collections.deque([C()])\n"
            "def f(x): return Q[0].m(x)"
        ),
        "x + 1",
        "x + 2",
    ),
    "method of a list's class": (
        "class L(list):\n    def m(self, x): return x + 1\nl = L()\ndef f(x): return l.m(x)",
        "x + 1",
        "x + 2",
    ),
    "lambda": ("g = lambda v: v + 1\ndef f(x): return g(x)", "v + 1", "v + 2"),
    "constant in a comprehension": ("def f(x): return sum([v + 1 for v in [x]])", "v + 1", "v + 2"),
    "order of arguments in a call": ("def f(x): return pow(x, 3)", "x, 3", "3, x"),
    "keyword of a call": ("def f(x): return int(str(x), base=8)", "base=8", "base=9"),
    "attribute that is read": ("def f(x): return complex(x, 2).real", ".real", ".imag"),
    "type of a constant": ("def f(x): return repr(1)", "repr(1)", "repr(1.0)"),
    "constant minus zero": ("def f(x): return repr(0.0)", "repr(0.0)", "repr(-0.0)"),
    "constant inside a tuple": ("def f(x): return repr((1, 2))", "(1, 2)", "(1, 2.0)"),
    "constant set": ("def f(x): return x in {1, 2}", "{1, 2}", "{2, 3}"),
    "exception that is caught": (
        "def f(x):\n    try:\n        return [][x]\n    except IndexError:\n        return 'a'",
        "'a'",
        "'b'",
    ),
    "mutable global that is only read": ("T = {1: 1}\ndef f(x): return T[x]", "{1: 1}", "{1: 2}"),
    "annotations that a dataclass reads": (
        "import dataclasses\n@dataclasses.dataclass\nclass C:\n    a: int = 1\ndef f(x): return C().a + x",
        "int = 1",
        "int = 2",
    ),
    "enum member": (
        "import enum\nclass E(enum.Enum):\n    A = 1\ndef f(x): return E.A.value + x",
        "A = 1",
        "A = 2",
    ),
}


def run_written(directory, name, source, cache):
    """Run the function ``f`` of a module in a file."""
    from importlib import util

    path = directory / f"{name}.py"
    path.write_text(source)
    spec = util.spec_from_file_location("written_by_a_user", path)
    module = util.module_from_spec(spec)
    sys.modules["written_by_a_user"] = module
    try:
        spec.loader.exec_module(module)
        return Pipeline([node(module.f, output_name="y")], cache=cache).run({"x": 1})["y"]
    finally:
        del sys.modules["written_by_a_user"]


@pytest.mark.parametrize("case", CHANGES)
def test_a_change_that_changes_the_result_gives_the_new_result(case, tmp_path):
    from hypernodes import DiskCache

    source, old, new = CHANGES[case]
    changed = source.replace(old, new)
    assert changed != source
    with DiskCache(tmp_path / "cache") as cache:
        before = run_written(tmp_path, "before", source, cache)
        assert run_written(tmp_path, "after", changed, cache) == run_written(tmp_path, "plain", changed, None)
        assert run_written(tmp_path, "back", source, cache) == before


@pytest.mark.parametrize("case", CHANGES)
def test_a_source_that_is_read_again_unchanged_hits(case, tmp_path):
    from hypernodes import DiskCache

    source, *_ = CHANGES[case]
    with DiskCache(tmp_path / "cache") as cache:
        run_written(tmp_path, "before", source, cache)
        assert len(cache) == 1
        run_written(tmp_path, "after", source, cache)
        assert len(cache) == 1


def test_a_changed_class_of_an_input_gives_a_new_digest(tmp_path):
    namespaces = []
    for number in (1, 2, 1):
        namespace = {"__name__": "written"}
        exec(f"class C:\n    def m(self): return {number}", namespace)
        namespaces.append(namespace)
    one, two, again = (digest(namespace["C"]()) for namespace in namespaces)
    assert one != two
    assert one == again


def test_a_changed_class_of_an_input_in_a_library_container_gives_a_new_digest():
    digests = []
    for number in (1, 2):
        module = types.ModuleType("written_by_a_user")
        exec(f"class C:\n    def m(self): return {number}", module.__dict__)
        sys.modules["written_by_a_user"] = module
        digests.append(digest(collections.deque([module.C()])))
    del sys.modules["written_by_a_user"]
    assert digests[0] != digests[1]


def test_copying_an_object_does_not_change_the_digest_of_its_class():
    class Fresh:
        def __init__(self, value):
            self.value = value

    before = digest(Fresh(1))
    copy.copy(Fresh(1))  # This stores `__slotnames__` in the class, as pickle does.
    assert digest(Fresh(1)) == before


def test_combining_flags_does_not_change_the_digest_of_their_class():
    class Fresh(enum.Flag):
        A = 1
        B = 2

    before = digest(Fresh.A)
    assert Fresh.A | Fresh.B
    assert digest(Fresh.A) == before


@pytest.mark.parametrize("library", ["pyarrow", "polars"])
def test_how_columns_were_put_together_does_not_count(library):
    module = pytest.importorskip(library)
    if library == "pyarrow":
        whole = module.table({"a": [1, 2, 3], "b": ["x", "y", None]})
        parts = module.concat_tables([whole.slice(0, 1), whole.slice(1)])
        assert digest(module.chunked_array([[1], [2]])) == digest(module.chunked_array([[1, 2]]))
        assert digest(module.array([1, 2])) != digest(module.array([1, 2], module.int8()))
        assert digest(whole.slice(1)) == digest(module.table({"a": [2, 3], "b": ["y", None]}))
        assert digest(whole) != digest(whole.rename_columns(["a", "c"]))
        encoded = [module.array(values).dictionary_encode() for values in (["a", "b"], ["a", "c"])]
        assert digest(encoded[0]) != digest(encoded[1])
        assert digest(module.table({"a": encoded[0]})) != digest(module.table({"a": encoded[1]}))
        other = whole.set_column(1, "b", module.array(["x", "y", "z"]))
    else:
        whole = module.DataFrame({"a": [1, 2, 3], "b": ["x", "y", None]})
        parts = module.concat([whole[:1], whole[1:]])
        assert digest(whole["a"]) != digest(whole["a"].rename("c"))
        assert digest(whole["b"]) != digest(module.Series("b", ["x", "y", "z"]))
        encoded = [module.Series(values, dtype=module.Categorical) for values in (["a", "b"], ["a", "c"])]
        assert digest(encoded[0]) != digest(encoded[1])
        objects = [module.Series([{value}], dtype=module.Object) for value in (1, 1, 2)]
        assert digest(objects[0]) == digest(objects[1]) != digest(objects[2])
        other = whole.with_columns(b=module.Series(["x", "y", "z"]))
    assert digest(parts) == digest(whole)
    assert digest(other) != digest(whole)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([1] * 100, [True] * 100),
        ([1] * 100, [1.0] * 100),
        ([0.0] * 100, [-0.0] * 100),
        (["a", "bc"] * 50, ["ab", "c"] * 50),
        (["a"] * 100, [b"a"] * 100),
        ([1] * 100, (1,) * 100),
        ([1] * 99 + [2], [1] * 99 + [3]),
        ([1] * 99 + [2**70], [1] * 99 + [2**71]),
    ],
)
def test_long_lists_that_are_not_the_same_have_digests_of_their_own(one, other):
    assert digest(one) == digest(copy.deepcopy(one)) != digest(other)


def test_a_large_array_that_is_not_contiguous_is_the_same_as_its_copy():
    array = np.arange(400_000.0).reshape(200, 2000)
    assert digest(array[:, ::2]) == digest(array[:, ::2].copy()) != digest(array[:, 1::2])


def test_the_analysis_of_code_keeps_no_value_alive():
    class Large:
        pass

    class Box:
        def __init__(self, value):
            self._value, self._calls = value, 0

        def call(self):
            self._calls += 1

    large = Large()
    reference = weakref.ref(large)

    def function(box, large=large):
        return box.call(), large

    reach = Reach(function)
    gc.collect()
    gc.disable()
    try:
        digest(Box([1]), reach)
        del function, large
        assert reference() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("package", ["pyarrow", "sklearn", "yaml", "colorsys", "google.protobuf"])
def test_what_is_said_of_an_installed_package_does_not_depend_on_whether_it_is_imported(package):
    """A worker that has not imported it yet would have other code than the driver."""
    code = """
import importlib, sys
from hypernodes.cache.installed import _release_of, release
before = release(sys.argv[1])
_release_of.cache_clear()
importlib.import_module(sys.argv[1])
print(before == release(sys.argv[1]), before)
"""
    if importlib.util.find_spec(package.partition(".")[0]) is None:
        pytest.skip(f"{package} is not installed")
    done = subprocess.run(
        [sys.executable, "-c", code, package], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.startswith("True ")


FACTOR = 2


def aided(x):
    return x * FACTOR


def scaled(x, by=1):
    return aided(x) * by


def test_one_pipeline_sees_between_its_runs_what_has_been_replaced(tmp_path, monkeypatch):
    """Its functions are plain, so that their fingerprints are kept while nothing is."""
    cell = [3]

    def closed(y):
        return y + offset

    offset = 10
    pipeline = Pipeline(
        [node(scaled, output_name="y"), node(closed, output_name="z")], cache=DiskCache(tmp_path / "cache")
    )
    for _ in range(3):
        assert pipeline.run({"x": 5}) == {"y": 10, "z": 20}
    monkeypatch.setitem(globals(), "FACTOR", 3)
    assert pipeline.run({"x": 5}) == {"y": 15, "z": 25}
    monkeypatch.setattr(scaled, "__defaults__", (2,))
    assert pipeline.run({"x": 5}) == {"y": 30, "z": 40}
    offset = 100
    assert pipeline.run({"x": 5}) == {"y": 30, "z": 130}
    monkeypatch.setitem(globals(), "aided", lambda x: -x)
    assert pipeline.run({"x": 5}) == {"y": -10, "z": 90}
    monkeypatch.setattr(closed, "__code__", (lambda y: y - offset).__code__)
    assert pipeline.run({"x": 5}) == {"y": -10, "z": -110}
    offset = cell  # A list may change in place: it is read in each run.
    monkeypatch.setattr(closed, "__code__", (lambda y: y - offset[0]).__code__)
    for value in (1, 2, 1):
        cell[0] = value
        assert pipeline.run({"x": 5}) == {"y": -10, "z": -10 - value}
