"""A value whose unpickling raises an error costs its own item, with a note that names node and item."""

import contextlib
import os
import pickle
import subprocess
import sys
import textwrap
import threading
from collections import UserDict
from pathlib import Path

import pytest

import hypernodes
from hypernodes import HyperNodesEngine, Pipeline, PipelineCallback, node
from hypernodes.exceptions import RemoteError, TransportError, UnpackError, WorkerDiedError
from hypernodes.serialization.pickling import serialize
from hypernodes.serialization.salvage import find_lost, load_what_is_left

ITEMS = 100
BAD = 70
TARGETS = ["map parallel", "node parallel", "map ray", "node ray", "daft processes"]


@pytest.fixture(scope="module")
def engine(request, engine_on):
    if request.param == "daft processes":
        return hypernodes.DaftEngine(runner="native", concurrency=1)
    level, alias = request.param.split()
    return engine_on(f"{level}_executor", alias)


on_processes = pytest.mark.parametrize("engine", TARGETS, indirect=True)


def refuse(in_process, pid, value):
    """Return a value, or raise an error in a process, or in all others."""
    if (os.getpid() == pid) == in_process:
        raise ValueError(f"{value} is not for this process")
    return value


class NotHere:
    """It can be unpickled in other processes than this one."""

    def __init__(self, value, pid):
        self.value, self.pid = value, pid

    def __reduce__(self):
        return refuse, (True, self.pid, self.value)


class OnlyHere:
    """It can be unpickled in this process only."""

    def __init__(self, value):
        self.value, self.pid = value, os.getpid()

    def __reduce__(self):
        return refuse, (False, self.pid, self.value)


def error_at(rows, bad=BAD):
    """Return the one error among rows, which are right otherwise."""
    error = rows[bad]
    assert [*rows[:bad], *rows[bad + 1 :]] == [x for x in range(len(rows)) if x != bad]
    assert isinstance(error, UnpackError)
    return error


@on_processes
def test_a_result_that_cannot_be_unpickled_costs_its_own_item_and_is_computed_once(engine, tmp_path):
    def compute(x, pid, folder):
        (folder / f"{x}-{os.urandom(4).hex()}").touch()
        return NotHere(x, pid) if x == BAD else x

    pipeline = Pipeline([node(compute, output_name="y")], engine=engine, name="items")
    inputs = {"x": range(ITEMS), "pid": os.getpid(), "folder": tmp_path}
    error = error_at(pipeline.map(inputs, map_over="x", on_error="return")["y"])
    assert f"cannot be unpickled here (ValueError: {BAD} is not for this process)" in str(error)
    (note,) = error.__notes__
    assert note.startswith(f"in node 'compute' of pipeline 'items', item {BAD}, called with x={BAD}, pid=")
    assert len([*tmp_path.iterdir()]) == ITEMS
    with pytest.raises(UnpackError) as caught:
        pipeline.map(inputs, map_over="x")
    assert caught.value.__notes__[0].startswith(f"in node 'compute' of pipeline 'items', item {BAD}, called")


@on_processes
def test_an_input_that_cannot_be_unpickled_costs_its_own_item(engine, recorder):
    def value_of(x):
        return x

    pipeline = Pipeline([node(value_of, output_name="y")], engine=engine, name="items")
    items = {"x": [OnlyHere(x) if x == BAD else x for x in range(ITEMS)]}
    watched = pipeline.with_callbacks([recorder])
    error = error_at(watched.map(items, map_over="x", on_error="return")["y"])
    assert f"cannot be unpickled there: ValueError: {BAD} is not for this process" in str(error)
    assert f"item {BAD}" in error.__notes__[0]
    assert "'value_of'" in error.__notes__[0]
    assert [(what[0], items) for _, what, _, items in recorder.of("error")] == [
        ("value_of" if len(recorder.of("node_start")) == ITEMS else "items", (BAD,))
    ]
    with pytest.raises(UnpackError) as caught:
        pipeline.map(items, map_over="x")
    assert f"item {BAD}" in caught.value.__notes__[0]


@on_processes
def test_an_input_that_all_items_have_in_common_is_named(engine):
    class OfManyBytes(OnlyHere):
        def __reduce__(self):
            return refuse, (False, self.pid, bytes(200_000))

    pipeline = Pipeline([node(lambda x, table: x, output_name="y")], engine=engine, name="items")
    with pytest.raises(UnpackError, match="in common|input 'table'"):
        pipeline.map({"x": [1, 2], "table": OfManyBytes(1)}, map_over="x")


def add_one(x):
    return x + 1


def lock_at_bad(more, k):
    return threading.Lock() if more == BAD + 1 else more + k


@on_processes
@pytest.mark.parametrize("on_error", ["raise", "return"])
def test_the_note_of_a_result_that_cannot_be_pickled_says_what_the_call_was_given(engine, on_error):
    nodes = [node(add_one, output_name="more"), node(lock_at_bad, output_name="y")]
    pipeline = Pipeline(nodes, engine=engine, name="items")
    inputs = {"x": range(ITEMS), "k": -1}
    if on_error == "return":
        rows = pipeline.map(inputs, map_over="x", output_name="y", on_error="return")["y"]
        error = rows.pop(BAD)
        assert rows == [x for x in range(ITEMS) if x != BAD]
    else:
        with pytest.raises(TransportError) as caught:
            pipeline.map(inputs, map_over="x", output_name="y")
        error = caught.value
    (note,) = error.__notes__
    assert note.startswith(f"in node 'lock_at_bad' of pipeline 'items', item {BAD}, called with more=")
    assert f"more={BAD + 1}, k=-1" in note or f"in a run given k=-1, x={BAD}" in note


@pytest.mark.parametrize(
    ("level", "said"), [("map_executor", "given x=70"), ("node_executor", "called with x=70")]
)
def test_the_note_of_an_item_whose_worker_has_died_says_what_it_was_given(engine_on, level, said):
    def die_at_bad(x):
        return os._exit(1) if x == BAD else x

    inner = Pipeline([node(die_at_bad, output_name="y")], engine=engine_on(level, "parallel"), name="inner")
    outer = Pipeline([inner.as_node(map_over="x")], name="outer")
    with pytest.raises(WorkerDiedError) as caught:
        outer.map({"x": [[1, 2], range(65, 75)]}, map_over="x")
    (note,) = caught.value.__notes__
    assert "'outer/inner'" in note
    assert "item 1.5" in note
    assert "'die_at_bad'" in note
    assert said in note


def fail_here(pid):
    raise_if = refuse(True, pid, pid)
    return Sealed(raise_if)


class Sealed(Exception):
    """An error that cannot be unpickled in the driver."""

    def __init__(self, pid):
        super().__init__(f"sealed by {pid}")
        self.pid = pid

    def __reduce__(self):
        return fail_here, (self.pid,)


@on_processes
def test_an_error_that_cannot_be_unpickled_keeps_its_text_and_its_note(engine):
    def raise_sealed(x, pid):
        if x == BAD:
            raise Sealed(pid)
        return x

    pipeline = Pipeline([node(raise_sealed, output_name="y")], engine=engine, name="items")
    inputs = {"x": range(ITEMS), "pid": os.getpid()}
    rows = pipeline.map(inputs, map_over="x", on_error="return")["y"]
    error = rows.pop(BAD)
    assert rows == [x for x in range(ITEMS) if x != BAD]
    assert isinstance(error, RemoteError)
    assert f"Sealed: sealed by {os.getpid()}" in str(error)
    assert f"node 'raise_sealed' of pipeline 'items', item {BAD}" in error.__notes__[0]


class Noting(PipelineCallback):
    """Has each call send a note home, one of which cannot be unpickled there."""

    def __init__(self):
        self.notes = []

    def node_context(self, ctx):
        return NoteOfItem(os.getpid())

    def on_node_notes(self, node_id, notes, ctx):
        self.notes += notes


class NoteOfItem:
    def __init__(self, pid):
        self.pid = pid

    @contextlib.contextmanager
    def __call__(self, call):
        (index,) = call.item_path
        yield [NotHere(index, self.pid) if index == BAD else index]


@on_processes
def test_a_note_that_cannot_be_unpickled_is_lost_alone(engine, caplog):
    noting = Noting()
    pipeline = Pipeline([node(abs, output_name="y")], engine, callbacks=[noting], name="items")
    assert pipeline.map({"x": range(ITEMS)}, map_over="x")["y"] == [*range(ITEMS)]
    assert sorted(noting.notes) == [x for x in range(ITEMS) if x != BAD]
    assert "a note around node 'abs' is lost" in caplog.text


class Grumpy:
    """An object whose state raises an error here: it is half made when it does."""

    def __init__(self, value):
        self.value = value

    def __getstate__(self):
        return {"value": self.value}

    def __setstate__(self, state):
        raise LookupError("grumpy")


class FullDict(dict):
    def __setitem__(self, key, value):
        raise OverflowError("full")


class Exits:
    def __reduce__(self):
        return sys.exit, (3,)


def odd_rows():
    """Return rows by name; what is bad in one must not spoil another one that has parts of it."""
    grumpy, shared = Grumpy(1), ["shared"]
    return {
        "good before": {"y": (shared, Path("a"))},
        "state": {"y": grumpy},
        "the same object again": {"y": {"deep": [1, (grumpy,)]}},
        "made of it": {"y": UserDict({"a": grumpy})},
        "a subclass that is filled": {"y": FullDict(a=1)},
        "a call": {"y": NotHere(1, os.getpid())},
        "exit": {"y": [Exits()]},
        "in a set": {"y": {NotHere(1, os.getpid())}},
        "good between": {"y": UserDict({"a": shared, "b": Path("b")})},
        "good after": {"y": (shared, {Path("c")}, FullDict)},
    }


def test_all_that_is_right_in_a_pickle_is_saved():
    names = [*odd_rows()]
    rows = serialize([*odd_rows().values()])
    with pytest.raises(LookupError):
        rows.deserialize()
    saved = rows.salvage()
    lost = {
        name: type(part.error) for name, row in zip(names, saved, strict=True) if (part := find_lost(row))
    }
    assert lost == {
        "state": LookupError,
        "the same object again": LookupError,
        "made of it": LookupError,
        "a subclass that is filled": OverflowError,
        "a call": ValueError,
        "exit": SystemExit,
        "in a set": ValueError,
    }
    first, between, last = saved[0]["y"], saved[names.index("good between")]["y"], saved[-1]["y"]
    assert first == (["shared"], Path("a"))
    assert between.data["a"] is first[0] is last[0]  # what rows have in common stays one object
    assert last[1] == {Path("c")}
    assert last[2] is FullDict


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_pickle_without_errors_is_saved_as_it_is(protocol):
    value = [{1: (2, "3")}, {4.0}, frozenset([5]), UserDict(a=[6]), Path("7"), range(8), b"9", None, int]
    assert load_what_is_left(pickle.dumps(value, protocol), ()) == value


def test_a_class_that_the_driver_lacks_costs_its_own_item(tmp_path):
    (tmp_path / "script.py").write_text(
        textwrap.dedent("""
        import sys
        from pathlib import Path
        from hypernodes import HyperNodesEngine, Pipeline, node

        def compute(x):
            sys.path.insert(0, "elsewhere")
            import only_there
            return only_there.Thing() if x == 70 else x

        if __name__ == "__main__":
            Path("elsewhere").mkdir()
            Path("elsewhere/only_there.py").write_text("class Thing: pass")
            engine = HyperNodesEngine(map_executor="parallel")
            pipeline = Pipeline([node(compute, output_name="y")], engine=engine)
            rows = pipeline.map({"x": range(100)}, map_over="x", on_error="return")["y"]
            print([(x, str(row)) for x, row in enumerate(rows) if row != x])
        """)
    )
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=100
    )
    assert done.stderr == ""
    assert done.stdout.startswith("[(70, \"the result 'y' came back")
    assert "No module named 'only_there'" in done.stdout


class ExitsPickled:
    """It ends the program that pickles it, unless that program catches SystemExit."""

    def __reduce__(self):
        raise SystemExit(4)


@on_processes
def test_a_value_that_exits_when_it_is_pickled_costs_its_own_item(engine):
    def compute(x):
        return ExitsPickled() if x == BAD else x

    pipeline = Pipeline([node(compute, output_name="y")], engine=engine, name="items")
    rows = pipeline.map({"x": range(ITEMS)}, map_over="x", on_error="return")["y"]
    items = [ExitsPickled() if x == BAD else x for x in range(ITEMS)]
    sent = pipeline.map({"x": items}, map_over="x", on_error="return")["y"]
    for found in (rows, sent):
        error = found.pop(BAD)
        assert found == [x for x in range(ITEMS) if x != BAD]
        assert isinstance(error, TransportError)
        assert "its pickling raises SystemExit: 4" in str(error)
        assert f"item {BAD}" in error.__notes__[0]


@pytest.mark.parametrize("level", ["map_executor", "node_executor"])
def test_a_large_result_on_ray_that_cannot_be_unpickled_is_located(engine_on, level):
    class OfManyBytes(NotHere):
        def __reduce__(self):
            return refuse, (True, self.pid, bytes(200_000))

    def make(x, pid):
        return OfManyBytes(x, pid) if x == 2 else x

    engine: HyperNodesEngine = engine_on(level, "ray")
    pipeline = Pipeline([node(make, output_name="y")], engine=engine, name="items")
    rows = pipeline.map({"x": range(4), "pid": os.getpid()}, map_over="x", on_error="return")["y"]
    error = error_at(rows, 2)
    assert error.__notes__[0].startswith("in node 'make' of pipeline 'items', item 2, called with x=2")
