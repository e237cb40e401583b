"""What a call finds around it: context variables, filters of warnings, random numbers, threads."""

from __future__ import annotations

import asyncio
import decimal
import importlib
import os
import random
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
import sample

import hypernodes
from hypernodes import (
    AsyncExecutor,
    DiskCache,
    HyperNodesEngine,
    ParallelExecutor,
    Pipeline,
    PipelineCallback,
    node,
)
from hypernodes.executors import native_threads

REQUEST = ContextVar("request", default="none")

ITEMS = {"x": [1, 2, 3, 4, 5, 6]}


@node
def third(x):
    return Decimal(x) / 3


@node(cache_version="1")
def request(x):
    return f"{REQUEST.get()}{x}"


@node(output_name="requests", cache_version="1")
def yielded(x):
    yield REQUEST.get()


@node(cache_version="1")
async def awaited(x):
    await asyncio.sleep(0)
    return REQUEST.get()


@node
def quotient(x):
    try:
        return np.float64(x) / np.float64(0)
    except FloatingPointError:
        return "an error"


def all_requests(x):
    return [REQUEST.get()] * len(x)


@node(batch=all_requests, cache_version="1")
def batched(x):
    return REQUEST.get()


@node(cache_version="1")
def change(x):
    found = REQUEST.get(), decimal.getcontext().prec
    REQUEST.set(f"that of {x}")
    decimal.getcontext().prec = 30 + x
    return found


@node
def change_later(x):
    REQUEST.set(f"that of {x}")
    yield REQUEST.get()


@node(cache_version="1")
async def change_on_loop(x):
    await asyncio.sleep(0)
    found = REQUEST.get(), decimal.getcontext().prec
    REQUEST.set(f"that of {x}")
    decimal.getcontext().prec = 30 + x
    await asyncio.sleep(0)
    return found


def in_request(work):
    """Do work as a web framework does: in a context of its own, with an id and a precision."""

    def inside():
        REQUEST.set("mine")
        decimal.setcontext(decimal.Context(prec=5))
        with np.errstate(divide="raise"):
            done = work()
        assert (REQUEST.get(), decimal.getcontext().prec) == ("mine", 5), "a call has changed its caller"
        return done

    return copy_context().run(inside)


THREADS = {
    "items in threads": lambda: HyperNodesEngine(map_executor="threaded"),
    "nodes in threads": lambda: HyperNodesEngine(node_executor="threaded"),
    "items on a loop": lambda: HyperNodesEngine(map_executor="async"),
    "nodes on a loop": lambda: HyperNodesEngine(node_executor="async"),
    "both": lambda: HyperNodesEngine(node_executor="async", map_executor="threaded"),
    "a pool": lambda: HyperNodesEngine(map_executor=ThreadPoolExecutor(2)),
    "Daft": lambda: hypernodes.DaftEngine(runner="native"),
}


@pytest.fixture(scope="module")
def engines():
    made = {name: make() for name, make in THREADS.items()}
    yield made
    for engine in made.values():
        engine.shutdown()


@pytest.fixture(params=["compiled", "observed", "cached"])
def path(request, tmp_path):
    return {
        "compiled": {},
        "observed": {"callbacks": [PipelineCallback()]},
        "cached": {"cache": DiskCache(tmp_path / "cache")},
    }[request.param]


EXPECTED = {
    "third": (third, [Decimal(text) for text in ("0.33333", "0.66667", "1", "1.3333", "1.6667", "2")]),
    "request": (request, [f"mine{x}" for x in ITEMS["x"]]),
    "requests": (yielded, [["mine"]] * 6),
    "awaited": (awaited, ["mine"] * 6),
    "quotient": (quotient, ["an error"] * 6),
    "batched": (batched, ["mine"] * 6),
}


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize("where", THREADS)
def test_a_call_in_a_thread_finds_the_context_variables_of_its_caller(engines, where, name, path):
    one, expected = EXPECTED[name]
    pipeline = Pipeline([one], engine=engines[where], **path)
    assert in_request(lambda: pipeline.map(ITEMS, map_over="x"))[name] == expected


@pytest.mark.parametrize("change_it", [change, change_on_loop])
@pytest.mark.parametrize("where", THREADS)
def test_what_a_call_in_a_thread_sets_reaches_neither_the_next_item_nor_the_caller(
    engines, where, change_it, path
):
    pipeline = Pipeline([change_it], engine=engines[where], **path)
    found = in_request(lambda: pipeline.map(ITEMS, map_over="x"))
    assert found == {change_it.name: [("mine", 5)] * 6}


@node(cache_version="1")
def change_now_and_then(x):
    found = REQUEST.get()
    if x % 10 == 3:
        REQUEST.set(np.zeros(3))  # which cannot be compared
    if x == 157:
        raise ValueError(x)
    return found


@pytest.mark.parametrize("where", THREADS)
def test_items_after_one_that_changes_the_context_are_themselves(engines, where):
    pipeline = Pipeline([change_now_and_then, request], engine=engines[where])
    found = in_request(lambda: pipeline.map({"x": list(range(150))}, map_over="x"))
    assert found["change_now_and_then"] == ["mine"] * 150
    with pytest.raises(ValueError, match="157") as caught:
        in_request(lambda: pipeline.map({"x": list(range(200))}, map_over="x"))
    assert "item 157" in caught.value.__notes__[0]


@pytest.mark.parametrize("where", THREADS)
def test_what_a_generator_sets_reaches_no_other_item(engines, where):
    pipeline = Pipeline([change_later, request], engine=engines[where])
    found = in_request(lambda: pipeline.map(ITEMS, map_over="x"))
    assert found["change_later"] == [[f"that of {x}"] for x in ITEMS["x"]]
    assert in_request(lambda: pipeline.run({"x": 1}, "request")) == {"request": "mine1"}


@pytest.mark.parametrize("where", THREADS)
def test_nested_and_streamed_items_find_the_context_variables_of_the_caller(engines, where):
    inner = Pipeline([request], name="inner")
    pipeline = Pipeline([inner.as_node(map_over="x")], engine=engines[where])
    expected = [f"mine{x}" for x in ITEMS["x"]]
    assert in_request(lambda: pipeline.run(ITEMS)) == {"request": expected}
    streamed = Pipeline([request], engine=engines[where])
    rows = in_request(lambda: list(streamed.imap(ITEMS, map_over="x")))
    assert [row["request"] for _, row in rows] == expected


@pytest.mark.parametrize("where", ["items in threads", "items on a loop", "Daft"])
def test_calls_of_an_awaited_map_find_the_context_variables_of_the_coroutine(engines, where):
    pipeline = Pipeline([request, third, awaited], engine=engines[where])

    async def main():
        REQUEST.set("mine")
        decimal.setcontext(decimal.Context(prec=5))
        mapped = await pipeline.amap(ITEMS, map_over="x")
        streamed = [row async for _, row in pipeline.aimap({"x": [1]}, map_over="x")]
        return mapped, streamed, await pipeline.arun({"x": 1})

    first = {"request": "mine1", "third": Decimal("0.33333"), "awaited": "mine"}
    mapped, streamed, once = asyncio.run(main())
    assert mapped == {name: EXPECTED[name][1] for name in first}
    assert (streamed, once) == ([first], first)


def test_an_awaited_run_in_a_plain_loop_leaves_the_coroutine_as_it_is():
    async def main():
        REQUEST.set("mine")
        decimal.setcontext(decimal.Context(prec=5))
        await Pipeline([change]).arun({"x": 1})
        return REQUEST.get(), decimal.getcontext().prec

    assert asyncio.run(main()) == ("mine", 5)


def test_a_plain_loop_calls_functions_as_python_does():
    def inside():
        REQUEST.set("mine")
        decimal.setcontext(decimal.Context(prec=5))
        return Pipeline([change]).map({"x": [1, 2]}, map_over="x")["change"]

    assert copy_context().run(inside) == [("mine", 5), ("that of 1", 31)]


def test_worker_processes_begin_each_call_with_the_context_of_a_new_process(executor_named):
    engine = HyperNodesEngine(map_executor=executor_named("ParallelExecutor"))
    pipeline = Pipeline([node(sample.change_precision, output_name="found")], engine=engine)
    with decimal.localcontext(prec=5):
        found = pipeline.map({"x": list(range(40))}, map_over="x")["found"]
    assert found == [(28, "none")] * 40


def test_async_executor_by_itself_gives_each_call_a_copy_of_the_context():
    with AsyncExecutor(2) as executor:

        def work():
            changed = [executor.submit(change.function, x) for x in (1, 2, 3)]
            return [future.result() for future in changed]

        assert in_request(work) == [("mine", 5)] * 3


def test_node_contexts_of_callbacks_are_entered_in_the_context_of_the_call(engines):
    from contextlib import contextmanager

    seen = []

    @contextmanager
    def note(call):
        seen.append(REQUEST.get())
        yield

    class Noting(PipelineCallback):
        def node_context(self, ctx):
            return note

    pipeline = Pipeline([request], engine=engines["items in threads"], callbacks=[Noting()])
    in_request(lambda: pipeline.map(ITEMS, map_over="x"))
    assert seen == ["mine"] * 6


# -------------------------------------------------------------------------------- other processes

PROCESSES = {
    "items in processes": ("map_executor", "parallel"),
    "nodes in processes": ("node_executor", "parallel"),
    "items on Ray": ("map_executor", "ray"),
    "nodes on Ray": ("node_executor", "ray"),
    "processes of Daft": None,
}


@pytest.fixture
def engine_elsewhere(engine_on):
    def make(name):
        return (
            engine_on(*PROCESSES[name])
            if PROCESSES[name]
            else hypernodes.DaftEngine(runner="native", concurrency=1)
        )

    return make


@node
def warn(x):
    warnings.warn("careful", UserWarning, stacklevel=1)
    return x


@pytest.mark.parametrize("where", ["items in threads", *PROCESSES])
def test_a_call_warns_by_the_filters_of_its_caller(engines, engine_elsewhere, where):
    engine = engines[where] if where in engines else engine_elsewhere(where)
    pipeline = Pipeline([warn], engine=engine)
    for _ in range(2 if where != "processes of Daft" else 1):  # Each query of Daft has new processes.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert pipeline.map({"x": [1, 2, 3]}, map_over="x") == {"warn": [1, 2, 3]}
        with warnings.catch_warnings(), pytest.raises(UserWarning, match="careful"):
            warnings.simplefilter("error", UserWarning)
            pipeline.map({"x": [1, 2, 3]}, map_over="x")
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            warnings.filterwarnings("ignore", message="care")
            assert pipeline.map({"x": [1]}, map_over="x") == {"warn": [1]}


RARE = """
class Careful(UserWarning):
    pass


class VeryCareful(Careful):
    pass
"""


@node(output_name="was_imported")
def warn_rarely(x):
    was_imported = "rare_warnings" in sys.modules
    if x:
        category = importlib.import_module("rare_warnings").VeryCareful
        warnings.warn("careful", category, stacklevel=1)
    return was_imported


@pytest.fixture
def rare(tmp_path, monkeypatch):
    """A module with warnings, which workers can import."""
    (tmp_path / "rare_warnings.py").write_text(RARE)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("rare_warnings")
    del sys.modules["rare_warnings"]


@pytest.mark.parametrize("several", [False, True])
def test_a_filter_imports_no_module_in_a_worker_and_counts_when_a_call_does(rare, several):
    category = (rare.Careful, ArithmeticError) if several else rare.Careful
    with ParallelExecutor(1) as executor, warnings.catch_warnings():
        pipeline = Pipeline([warn_rarely], engine=HyperNodesEngine(map_executor=executor))
        warnings.simplefilter("ignore", category)
        assert pipeline.map({"x": [0, 0]}, map_over="x") == {"was_imported": [False, False]}
        assert pipeline.map({"x": [0]}, map_over="x") == {"was_imported": [False]}
        warnings.simplefilter("error", category)
        with pytest.raises(rare.VeryCareful):
            pipeline.map({"x": [1]}, map_over="x")
        warnings.simplefilter("ignore", rare.VeryCareful)
        assert pipeline.map({"x": [1]}, map_over="x") == {"was_imported": [True]}


def closure():
    uniform, normal = random.uniform, np.random.normal

    def draw(a, b):
        return uniform(a, b), normal(a, b)

    return draw


DRAWS = {
    "random": random.uniform,
    "random in a lambda": lambda a, b: random.random() + a * b,
    "numpy": np.random.uniform,
    "a closure": closure(),
}


# Daft starts processes for each query, which takes seconds: there, one function uses both generators.
DRAWING = [
    pytest.param(where, draw, id=f"{where}-{name}")
    for where in PROCESSES
    for name, draw in DRAWS.items()
    if where != "processes of Daft" or name == "a closure"
]


@pytest.mark.parametrize(("where", "draw"), DRAWING)
def test_workers_draw_other_random_numbers(engine_elsewhere, where, draw):
    def number(low, high):
        time.sleep(0.005)  # so that all workers draw
        return draw(low, high)

    pipeline = Pipeline([node(number, output_name="y")], engine=engine_elsewhere(where))
    drawn = pipeline.map({"low": [0] * 40, "high": 1}, map_over="low")["y"]
    drawn += pipeline.map({"low": [0] * 40, "high": 1}, map_over="low")["y"]
    assert len(set(drawn)) == 80


@pytest.mark.parametrize("function", [random.uniform, random.triangular, random.gauss])
def test_a_function_of_random_is_a_node_itself(engine_elsewhere, function):
    pipeline = Pipeline([node(function, output_name="y")], engine=engine_elsewhere("items in processes"))
    first, *_ = pipeline.input_names
    given = dict.fromkeys(pipeline.input_names, 1.0) | {first: [0.0] * 50}
    assert len(set(pipeline.map(given, map_over=first)["y"])) == 50


def test_a_generator_of_the_user_travels_as_it_is(engine_elsewhere):
    draw = random.Random(7).random
    pipeline = Pipeline(
        [node(lambda x: draw(), output_name="y")], engine=engine_elsewhere("items in processes")
    )
    assert pipeline.map({"x": [1]}, map_over="x") == {"y": [random.Random(7).random()]}


def limits_of():
    """Return a function that travels by value, as workers import this module for one that does not."""
    names = native_threads.VARIABLES
    return lambda: {name: os.environ.get(name) for name in names}


@pytest.mark.parametrize("workers", [1, 64])
def test_a_worker_process_uses_its_share_of_the_cores_for_native_threads(monkeypatch, workers):
    for name in native_threads.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with ParallelExecutor(workers) as executor:
        found = executor.submit(limits_of()).result()
    share = str(max(1, (os.cpu_count() or 1) // workers))
    assert found == dict.fromkeys(native_threads.VARIABLES, share)
    assert not set(native_threads.VARIABLES) & set(os.environ)


def test_numbers_of_native_threads_that_the_user_has_set_stay(monkeypatch):
    for name in native_threads.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("MKL_NUM_THREADS", "5")
    with ParallelExecutor(2) as executor:
        found = executor.submit(limits_of()).result()
    assert (found["OMP_NUM_THREADS"], found["OPENBLAS_NUM_THREADS"]) == ("3", "3")
    assert found["MKL_NUM_THREADS"] == "5"


def test_a_worker_process_has_the_environment_and_the_directory_of_its_start(monkeypatch, tmp_path):
    monkeypatch.setenv("SURROUNDING", "first")
    monkeypatch.chdir(tmp_path)
    look = node(lambda x: (os.environ["SURROUNDING"], str(Path.cwd())), output_name="y")
    with ParallelExecutor(1) as executor:
        pipeline = Pipeline([look], engine=HyperNodesEngine(map_executor=executor))
        first = pipeline.map({"x": [1]}, map_over="x")
        monkeypatch.setenv("SURROUNDING", "second")
        monkeypatch.chdir(tmp_path.parent)
        assert pipeline.map({"x": [1]}, map_over="x") == first == {"y": [("first", str(tmp_path))]}


class Counted:
    def __init__(self):
        self.count = 0


def changed_list(value, i):
    value.append(i)
    return list(value)


def changed_array(value, i):
    if not value.flags.writeable:  # It is a view of memory that nobody can change.
        return "not changed"
    value += 1
    return float(value[0])


def changed_object(value, i):
    value.count += 1
    return value.count


CHANGED = {
    "list": (changed_list, lambda: [2], [2, 7]),
    "small array": (changed_array, lambda: np.zeros(4), 1.0),
    "large array": (changed_array, lambda: np.zeros(10**5), 1.0),
    "object": (changed_object, Counted, 1),
}


@pytest.mark.parametrize("kind", CHANGED)
@pytest.mark.parametrize("level", ["node_executor", "map_executor"])
@pytest.mark.parametrize("alias", ["sequential", "threaded", "parallel", "ray"])
def test_what_a_call_does_to_an_input_is_not_there_in_the_next_run(engine_on, alias, level, kind):
    function, make, expected = CHANGED[kind]
    inner = Pipeline([node(function, output_name="y", cache_version="1")], name="inner")
    for pipeline in (inner, Pipeline([inner], name="outer")):
        pipeline = pipeline.with_engine(engine_on(level, alias))
        for _ in range(3):
            for found in (
                pipeline.run({"value": make(), "i": 7})["y"],
                pipeline.map({"value": make(), "i": [7]}, "i")["y"][0],
            ):
                assert found in (expected, "not changed")


def test_nor_in_the_next_query_of_daft():
    engine = hypernodes.DaftEngine(runner="native", concurrency=1)  # in a process of Daft
    functions, makes, expected = zip(*CHANGED.values(), strict=True)
    changing = [
        node(function, output_name=f"y{number}", cache_version="1").rename(inputs={"value": f"value{number}"})
        for number, function in enumerate(functions)
    ]
    pipeline = Pipeline(changing, engine)
    for _ in range(2):
        made = {f"value{number}": make() for number, make in enumerate(makes)}
        found = pipeline.map({**made, "i": [7]}, "i")
        for number, value in enumerate(expected):
            assert found[f"y{number}"][0] in (value, "not changed")
