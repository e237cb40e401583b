"""Groups and chains of errors, and errors that end a run or look as if they did: the same everywhere."""

import asyncio
import concurrent.futures
import sys
import threading

import pytest

import hypernodes
from hypernodes import HyperNodesEngine, Pipeline, node

ITEMS = 20
BAD = 13
PLACES = [
    "sequential",
    *(f"{level} {alias}" for alias in ("threaded", "async", "parallel", "ray") for level in ("map", "node")),
    "daft threads",
    "daft by hand",
]
DAFT = {
    "threads": {"runner": "native"},
    "processes": {"runner": "native", "concurrency": 1},
    "hand": {"debug": True},
}


@pytest.fixture(scope="module")
def engine(request, engine_on):
    if request.param == "sequential":
        return HyperNodesEngine()
    first, *_, last = request.param.split()
    return hypernodes.DaftEngine(**DAFT[last]) if first == "daft" else engine_on(f"{first}_executor", last)


everywhere = pytest.mark.parametrize("engine", PLACES, indirect=True)


# --------------------------------------------------------------------------------- groups and chains


class Odd(Exception):
    """An error that its arguments do not make again."""

    def __init__(self, code, text):
        super().__init__(f"{code}: {text}")
        self.code = code


class OddGroup(ExceptionGroup):
    """A group that its arguments do not make again."""

    def __new__(cls, code, errors):
        self = super().__new__(cls, f"code {code}", errors)
        self.code = code
        return self

    def derive(self, excs):
        return OddGroup(self.code, excs)


class Locked(Exception):
    """An error with an attribute and an argument that cannot be pickled."""

    def __init__(self):
        super().__init__(lambda: None, (x for x in ()))
        self.state = (x for x in ())


def raise_group(x):
    if x != BAD:
        return x
    try:
        raise KeyError("handled")
    except KeyError:
        noted = Odd(1, "noted")
        noted.add_note("a note")
        noted.__cause__ = Odd(9, "cause of a member")
        inner = ExceptionGroup("inner", [Odd(2, "deep"), Locked(), ValueError(3)])
        raise OddGroup(7, [noted, inner]) from Odd(8, "cause")


async def raise_group_soon(x):
    await asyncio.sleep(0)
    return raise_group(x)


@pytest.mark.parametrize(
    ("engine", "function"),
    [(place, function) for place in PLACES for function in (raise_group, raise_group_soon)]
    + [("daft processes", raise_group)],
    indirect=["engine"],
)
def test_the_members_of_a_group_arrive_as_single_errors_do(engine, function):
    pipeline = Pipeline([node(function, output_name="y")], engine=engine, name="groups")
    rows = pipeline.map({"x": range(ITEMS)}, map_over="x", on_error="return")["y"]
    group = rows.pop(BAD)
    assert rows == [x for x in range(ITEMS) if x != BAD]
    assert (type(group), group.code, group.message) == (OddGroup, 7, "code 7")
    assert group.__notes__[0].startswith(f"in node {function.__name__!r} of pipeline 'groups', item {BAD}")
    noted, inner = group.exceptions
    assert (type(noted), noted.code, str(noted), noted.__notes__) == (Odd, 1, "1: noted", ["a note"])
    assert (type(noted.__cause__), noted.__cause__.code) == (Odd, 9)
    assert [type(member) for member in inner.exceptions] == [Odd, Locked, ValueError]
    assert inner.exceptions[0].code == 2
    assert (type(group.__cause__), group.__cause__.code) == (Odd, 8)
    assert type(group.__context__) is KeyError
    assert len(group.split(Odd)[0].exceptions) == 2  # it is used as every group is


def raise_in_except(x):
    try:
        raise Odd(4, "first")
    except Odd as first:
        if x % 2:
            raise LookupError(x) from None
        raise LookupError(x) from first


@everywhere
def test_cause_and_context_arrive(engine):
    pipeline = Pipeline([node(raise_in_except, output_name="y")], engine=engine, name="chains")
    caused, suppressed = pipeline.map({"x": [0, 1]}, map_over="x", on_error="return")["y"]
    assert (type(caused), type(caused.__cause__), caused.__cause__.code) == (LookupError, Odd, 4)
    assert suppressed.__suppress_context__
    assert (type(suppressed.__context__), suppressed.__context__.code) == (Odd, 4)


def raise_deep_group(x):
    group = ExceptionGroup("0", [ValueError(0)])
    for level in range(1, 300):
        group = ExceptionGroup(str(level), [group, ValueError(level)])
    raise group


@everywhere
def test_a_group_of_groups_arrives_however_deep_it_is(engine):
    pipeline = Pipeline([node(raise_deep_group, output_name="y")], engine=engine, name="deep")
    with pytest.raises(ExceptionGroup, match="299") as caught:
        pipeline.map({"x": [1]}, map_over="x")
    assert caught.value.__notes__[0].startswith("in node 'raise_deep_group' of pipeline 'deep', item 0")
    inner, error = caught.value.exceptions[0].exceptions
    assert (type(inner), inner.message) == (ExceptionGroup, "297")
    assert (type(error), error.args) == (ValueError, (298,))


@pytest.mark.parametrize("alias", ["parallel", "ray"])
def test_the_text_of_a_long_chain_and_a_circle_arrives(engine_on, alias):
    def raise_long_chain(x):
        error = first = ValueError(0)
        for number in range(1, 200):
            error.__context__ = ValueError(number)
            error = error.__context__
        first.__cause__, error.__context__ = error, first
        raise first

    pipeline = Pipeline([node(raise_long_chain, output_name="y")], engine=engine_on("map_executor", alias))
    with pytest.raises(ValueError, match="0") as caught:
        pipeline.map({"x": [1]}, map_over="x")
    assert "ValueError: 199" in str(caught.value.__cause__.__cause__)


def raise_base_group(x):
    if x == BAD:
        raise BaseExceptionGroup("ends", [SystemExit(4), Odd(5, "five")])
    return x


@everywhere
def test_a_group_with_what_ends_a_run_ends_the_run_and_says_where(engine):
    pipeline = Pipeline([node(raise_base_group, output_name="y")], engine=engine, name="groups")
    with pytest.raises(BaseExceptionGroup) as caught:
        pipeline.map({"x": range(ITEMS)}, map_over="x", on_error="return")
    ended, odd = caught.value.exceptions
    assert (ended.code, odd.code) == (4, 5)
    assert f"item {BAD}" in caught.value.__notes__[0]


# -------------------------------------------------------------- classes that define what errors consist of


def refuse(what):
    def refused(*_):
        raise RuntimeError(f"{what} is refused")

    return refused


class Frozen(Exception):
    __setattr__ = refuse("__setattr__")


class NoTraceback(Exception):
    __traceback__ = property(refuse("__traceback__"))
    with_traceback = refuse("with_traceback")


class NoAttributes(Exception):
    __dict__ = property(refuse("__dict__"))


class NoClass(Exception):
    __class__ = property(refuse("__class__"))


class NoChain(Exception):
    __cause__ = property(refuse("__cause__"))
    __context__ = property(refuse("__context__"))


class NoArguments(Exception):
    args = property(refuse("args"))


class Nothing(Exception):
    def __getattribute__(self, name):
        raise RuntimeError(f"{name} is refused")


class NoNotes(Exception):
    add_note = refuse("add_note")


class ExitsInReduce(Exception):
    def __reduce__(self):
        raise SystemExit(5)


class ExitsInUnpickling(Exception):
    def __reduce__(self):
        return sys.exit, (5,)


class ExitsInText(Exception):
    def __str__(self):
        raise SystemExit(5)


KINDS = [
    *(Frozen, NoTraceback, NoAttributes, NoClass, NoChain, NoArguments, Nothing, NoNotes),
    *(ExitsInReduce, ExitsInUnpickling, ExitsInText),
]


def raise_kind(x):
    if x % 2:
        raise KINDS[x // 2]("why")
    return x


async def raise_kind_soon(x):
    await asyncio.sleep(0)
    return raise_kind(x)


def raw(error, name):
    return BaseException.__dict__[name].__get__(error)


@pytest.mark.parametrize(
    ("engine", "function"),
    [(place, function) for place in PLACES for function in (raise_kind, raise_kind_soon)]
    + [("daft processes", raise_kind)],
    indirect=["engine"],
)
def test_an_error_arrives_as_itself_whatever_its_class_refuses(engine, function, recorder):
    items = range(2 * len(KINDS))
    unwatched = Pipeline([node(function, output_name="y")], engine=engine, name="refusing")
    for pipeline in (unwatched, unwatched.with_callbacks([recorder])):
        rows = pipeline.map({"x": items}, map_over="x", on_error="return")["y"]
        assert rows[::2] == [*items[::2]]
        assert [type(row) for row in rows[1::2]] == KINDS
        for x, error in zip(items[1::2], rows[1::2], strict=True):
            assert raw(error, "args") == ("why",)
            (said,) = raw(error, "__dict__")["__notes__"]
            assert said.startswith(f"in node {function.__name__!r} of pipeline 'refusing', item {x}")


@everywhere
@pytest.mark.parametrize("kind", [NoClass, ExitsInReduce])
def test_an_error_is_raised_as_itself_whatever_its_class_refuses(engine, kind):
    pipeline = Pipeline([node(raise_kind, output_name="y")], engine=engine, name="refusing")
    with pytest.raises(kind):
        pipeline.map({"x": [0, 2 * KINDS.index(kind) + 1]}, map_over="x")


class Slotted(Exception):
    """An error with attributes that are no keys of its ``__dict__``."""

    __slots__ = ("code", "empty", "lock")

    def __init__(self, code):
        super().__init__()
        self.code, self.lock = code, threading.Lock()


def raise_slotted(x):
    if x == BAD:
        raise Slotted(7)
    return x


@pytest.mark.parametrize("engine", [*PLACES, "daft processes"], indirect=True)
def test_the_slots_of_an_error_arrive(engine):
    pipeline = Pipeline([node(raise_slotted, output_name="y")], engine=engine, name="slots")
    error = pipeline.map({"x": range(ITEMS)}, map_over="x", on_error="return")["y"][BAD]
    assert (type(error), error.code, hasattr(error, "empty")) == (Slotted, 7, False)
    assert f"item {BAD}" in error.__notes__[0]


# ----------------------------------------------------------------- what ends a run, or looks as if it did

ENDINGS = {SystemExit: (3,), KeyboardInterrupt: (), GeneratorExit: ()}


def ending(kind, is_async):
    """Return a function that raises an error for one item."""

    def stop(x):
        if x == BAD:
            raise kind(*ENDINGS.get(kind, ("why",)))
        return x

    async def stop_soon(x):
        await asyncio.sleep(0)
        return stop(x)

    return stop_soon if is_async else stop


@pytest.mark.parametrize(
    ("engine", "kind", "is_async"),
    [(place, kind, is_async) for place in PLACES for kind in ENDINGS for is_async in (False, True)]
    + [("daft processes", SystemExit, False)],
    indirect=["engine"],
)
def test_what_ends_a_run_reaches_the_caller_and_says_where(engine, kind, is_async):
    function = ending(kind, is_async)
    pipeline = Pipeline([node(function, output_name="y")], engine=engine, name="ends")
    with pytest.raises(kind) as caught:
        pipeline.map({"x": range(ITEMS)}, map_over="x", on_error="return")
    assert caught.value.args == ENDINGS[kind]
    assert "in node 'stop" in caught.value.__notes__[0]
    assert f"of pipeline 'ends', item {BAD}, called with x={BAD}" in caught.value.__notes__[0]
    assert pipeline.map({"x": [1]}, map_over="x") == {"y": [1]}  # the engine goes on


CANCELLED = [asyncio.CancelledError, concurrent.futures.CancelledError]


@pytest.mark.parametrize(
    ("engine", "kind", "is_async"),
    [(place, kind, is_async) for place in PLACES for kind in CANCELLED for is_async in (False, True)]
    + [("daft processes", asyncio.CancelledError, False)],
    indirect=["engine"],
)
def test_a_future_that_was_cancelled_in_a_node_is_the_error_of_its_item(engine, kind, is_async, recorder):
    function = ending(kind, is_async)
    unwatched = Pipeline([node(function, output_name="y")], engine=engine, name="ends")
    for pipeline in (unwatched, unwatched.with_callbacks([recorder])):
        rows = pipeline.map({"x": range(ITEMS)}, map_over="x", on_error="return")["y"]
        error = rows.pop(BAD)
        assert rows == [x for x in range(ITEMS) if x != BAD]
        assert type(error) is concurrent.futures.CancelledError
        assert error.args == ("why",)
        assert f"of pipeline 'ends', item {BAD}, called with x={BAD}" in error.__notes__[0]
    with pytest.raises(concurrent.futures.CancelledError):
        unwatched.map({"x": range(ITEMS)}, map_over="x")
    with pytest.raises(concurrent.futures.CancelledError):
        unwatched.run({"x": BAD})


async def await_cancelled_task(x):
    task = asyncio.ensure_future(asyncio.sleep(60))
    if x == BAD:
        asyncio.get_running_loop().call_soon(task.cancel)
        await task
    task.cancel()
    return x


async def await_cancelled_future(x):
    future = concurrent.futures.Future()
    if x == BAD:
        future.cancel()
        await asyncio.wrap_future(future)
    return x


def result_of_cancelled_future(x):
    future = concurrent.futures.Future()
    if x == BAD:
        future.cancel()
        return future.result()
    return x


@everywhere
@pytest.mark.parametrize(
    "function", [await_cancelled_task, await_cancelled_future, result_of_cancelled_future]
)
def test_real_cancelled_futures_are_errors_of_their_items(engine, function):
    pipeline = Pipeline([node(function, output_name="y")], engine=engine, name="ends")
    rows = pipeline.map({"x": range(ITEMS)}, map_over="x", on_error="return")["y"]
    assert type(rows.pop(BAD)) is concurrent.futures.CancelledError
    assert rows == [x for x in range(ITEMS) if x != BAD]


@pytest.mark.parametrize("alias", ["sequential", "threaded", "async"])
@pytest.mark.parametrize("is_async", [False, True])
def test_a_cancelled_future_in_a_node_does_not_cancel_what_awaits_the_map(engine_on, alias, is_async):
    function = ending(asyncio.CancelledError, is_async)
    pipeline = Pipeline([node(function, output_name="y")], engine=engine_on("map_executor", alias))

    async def main():
        with pytest.raises(concurrent.futures.CancelledError):
            await pipeline.amap({"x": range(ITEMS)}, map_over="x")
        rows = (await pipeline.amap({"x": range(ITEMS)}, map_over="x", on_error="return"))["y"]
        assert type(rows[BAD]) is concurrent.futures.CancelledError
        return asyncio.current_task().cancelling()

    assert asyncio.run(main()) == 0


@pytest.mark.parametrize("kind", [*ENDINGS, *CANCELLED])
def test_a_batch_function_that_is_ended_says_where(kind, recorder):
    def batch(x):
        raise kind(*ENDINGS.get(kind, ("why",)))

    batched = node(lambda x: x, output_name="y", batch=batch)
    expected = kind if kind in ENDINGS else concurrent.futures.CancelledError
    with HyperNodesEngine(map_executor="threaded") as engine:
        pipeline = Pipeline([batched], engine=engine, name="batches")
        for callbacks in ([], [recorder]):
            with pytest.raises(expected) as caught:
                pipeline.with_callbacks(callbacks).map({"x": range(50)}, map_over="x")
            assert "in node '<lambda>' of pipeline 'batches', item" in caught.value.__notes__[0]
            assert "in its batch function" in caught.value.__notes__[0]


@pytest.mark.parametrize("kind", CANCELLED)
def test_retries_apply_to_cancelled_futures(kind):
    tries = []

    def twice(x):
        tries.append(x)
        if len(tries) < 2:
            raise kind("why")
        return x

    assert Pipeline([node(twice, output_name="y", retries=1)]).run({"x": 1}) == {"y": 1}
