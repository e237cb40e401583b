"""What a user lets go is freed at once: no reference cycle keeps it until the garbage collector comes."""

import asyncio
import collections
import gc
import itertools
import os
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest

from hypernodes import (
    AsyncExecutor,
    DaftEngine,
    DiskCache,
    HyperNodesEngine,
    ParallelExecutor,
    Pipeline,
    PipelineCallback,
    node,
)

ALIVE = weakref.WeakSet()
WORKERS = 2


@pytest.fixture(autouse=True)
def without_collector():
    """Nothing but the last reference frees anything here."""
    ALIVE.clear()
    gc.disable()
    yield
    gc.enable()


class Payload:
    """Something large that a node makes."""

    def __new__(cls, x=None):
        payload = super().__new__(cls)
        ALIVE.add(payload)  # also one that has arrived from another process
        return payload

    def __init__(self, x):
        self.x = x


class Refused(Exception):
    pass


@node(output_name="y")
def make(x):
    return Payload(x)


@node(output_name="y")
def refuse(x):
    raise Refused(Payload(x))


@node(output_name="y")
async def make_later(x):
    return Payload(x)


@node(output_name="y")
async def refuse_later(x):
    raise Refused(Payload(x))


class Told(PipelineCallback):
    """Hears everything, and keeps nothing."""

    def on_node_end(self, node_id, outputs, duration, ctx):
        pass

    def on_error(self, node_id, error, ctx):
        pass


@pytest.fixture(scope="module")
def executors():
    with ThreadPoolExecutor(WORKERS) as threads, AsyncExecutor(WORKERS) as loop:
        made = {"threads": threads, "async": loop}
        for executor in made.values():
            settle(executor)  # their threads are there
        yield made


def settle(executor):
    """Wait until an executor has let go of what it has done."""
    if executor is None:
        # Daft's threads let go of the last chunk a little later.
        deadline = time.monotonic() + 10
        while len(ALIVE) and time.monotonic() < deadline:
            time.sleep(0.01)
        return
    if isinstance(executor, AsyncExecutor):
        executor.submit(asyncio.sleep, 0).result()
    met = threading.Barrier(WORKERS, timeout=30)
    for future in [executor.submit(met.wait) for _ in range(WORKERS)]:
        future.result()


def quietly(call):
    """Call, and let go of what is returned or raised."""
    try:
        call()
    except Refused:
        pass


def drain(rows):
    collections.deque(
        rows, maxlen=0
    )  # A loop variable would hold the last row: since Python 3.12, an error keeps this frame.


def close_early(rows):
    next(rows)
    rows.close()


WAYS = {
    "run": lambda pipeline, on_error: pipeline.run({"x": 1}),
    "map": lambda pipeline, on_error: pipeline.map({"x": range(4)}, "x", on_error=on_error),
    "imap": lambda pipeline, on_error: drain(pipeline.imap({"x": range(4)}, "x", on_error=on_error)),
    "imap, closed": lambda pipeline, on_error: close_early(
        pipeline.imap({"x": itertools.count()}, "x", on_error=on_error)
    ),
}
ENGINES = ("sequential", "threads at nodes", "threads at items", "async at nodes", "async at items", "Daft")
OUTCOMES = {
    "values": (make, "raise"),
    "values of coroutines": (make_later, "raise"),
    "errors that are raised": (refuse, "raise"),
    "errors that are returned": (refuse, "return"),
    "errors of coroutines": (refuse_later, "return"),
}
CASES = [
    case
    for case in itertools.product(ENGINES, ("plain", "told"), OUTCOMES)
    if "coroutines" not in case[2] or case[0] in ("sequential", "async at nodes", "async at items")
]


def left_alive(call, executor):
    """Return how much of what is made meanwhile is there after a call whose result nobody keeps."""
    ALIVE.clear()
    quietly(call)
    settle(executor)
    return len(ALIVE)


@pytest.mark.parametrize(("engine", "watched", "outcome"), CASES)
def test_results_and_errors_are_freed_when_the_user_lets_go(executors, engine, watched, outcome):
    name, _, level = engine.partition(" at ")
    executor = executors.get(name)
    if engine == "Daft":
        made = DaftEngine(runner="native")
    elif executor is None:
        made = HyperNodesEngine()
    else:
        made = HyperNodesEngine(**{f"{'map' if level == 'items' else 'node'}_executor": executor})
    member, on_error = OUTCOMES[outcome]
    inner = Pipeline([member], name="inner")
    pipeline = Pipeline([inner], made, name="outer", callbacks=[Told()] if watched == "told" else [])
    ways = [way for way in WAYS if not (way == "run" and on_error == "return")]
    left = {way: left_alive(partial(WAYS[way], pipeline, on_error), executor) for way in ways}
    assert left == dict.fromkeys(ways, 0)


def refuse_all(x):
    raise Refused(Payload(x[0]))


OPTIONS = [
    *((refuse.function, options) for options in ({"retries": 2}, {"timeout": 30})),
    *((refuse_later.function, options) for options in ({"retries": 2}, {"timeout": 30})),
    *((refuse.function, {"batch": refuse_all, **options}) for options in ({}, {"retries": 1})),
]


@pytest.mark.parametrize(("function", "options"), OPTIONS)
@pytest.mark.parametrize("engine", ENGINES[:-1])
def test_errors_are_freed_whatever_the_options_of_a_node_are(executors, engine, function, options):
    name, _, level = engine.partition(" at ")
    made = (
        {} if name == "sequential" else {f"{'map' if level == 'items' else 'node'}_executor": executors[name]}
    )
    pipeline = Pipeline([node(function, output_name="y", **options)], HyperNodesEngine(**made))
    ways = {way: partial(WAYS[way], pipeline, "return") for way in ("map", "imap", "imap, closed")}
    left = {way: left_alive(call, executors.get(name)) for way, call in ways.items()}
    assert left == dict.fromkeys(ways, 0)


@pytest.mark.parametrize("level", ["node_executor", "map_executor"])
@pytest.mark.parametrize("member", [make, refuse], ids=["values", "errors"])
def test_so_is_what_comes_from_other_processes(processes, level, member):
    members = [member.rename(inputs={"x": f"x{n}"}, outputs={"y": f"y{n}"}) for n in range(3)]
    pipeline = Pipeline(members, HyperNodesEngine(**{level: processes}))
    for _ in range(3):  # at first one by one, then in a group
        quietly(lambda: pipeline.run({"x0": 0, "x1": 1, "x2": 2}))
        quietly(lambda: pipeline.map({"x0": range(4), "x1": 1, "x2": 2}, "x0"))
    deadline = time.monotonic() + 10
    while len(ALIVE) and time.monotonic() < deadline:  # the executor's own thread lets go a little later
        processes.submit(abs, 1).result()
    assert len(ALIVE) == 0


@pytest.fixture(scope="module")
def processes():
    with ParallelExecutor(1) as executor:
        yield executor


@pytest.mark.parametrize("watched", ["plain", "told"])
def test_so_are_results_that_are_awaited(watched):
    async def main():
        await pipeline.arun({"x": 1})
        await pipeline.amap({"x": range(4)}, "x")

    pipeline = Pipeline([make], callbacks=[Told()] if watched == "told" else [])
    before = set(threading.enumerate())
    asyncio.run(main())
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=30)
    assert len(ALIVE) == 0


@pytest.mark.parametrize("level", ["nodes", "items"])
@pytest.mark.parametrize("watched", ["plain", "told"])
def test_a_stream_keeps_few_of_the_failures_that_nobody_keeps(executors, level, watched):
    @node(output_name="y")
    def refuse_slowly(x):
        time.sleep(0.003)  # so that items go one by one
        raise Refused(Payload(x))

    callbacks = [Told()] if watched == "told" else []
    engine = HyperNodesEngine(**{f"{'map' if level == 'items' else 'node'}_executor": executors["threads"]})
    pipeline = Pipeline([refuse_slowly], engine, callbacks=callbacks)
    most = 0
    for _, row in pipeline.imap({"x": range(60)}, "x", on_error="return"):
        assert isinstance(row, Refused)
        del row
        most = max(most, len(ALIVE))
    assert most <= 20


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="counts open files by /proc")
@pytest.mark.parametrize("level", ["sequential", "threads", "async"])
@pytest.mark.parametrize("way", ["run", "map", "imap"])
def test_values_from_the_cache_keep_no_file_open_once_they_are_dropped(executors, level, way, tmp_path):
    def open_files():
        return len(os.listdir("/proc/self/fd"))

    @node(output_name="y")
    def fill(x):
        return np.full(1 << 19, x)  # large enough to be mapped into memory

    engine = HyperNodesEngine() if level == "sequential" else HyperNodesEngine(map_executor=executors[level])
    with DiskCache(tmp_path) as cache:
        pipeline = Pipeline([fill], engine, cache)
        pipeline.map({"x": range(4)}, "x")
        WAYS[way](pipeline, "raise")
        before = open_files()
        for _ in range(3):  # Each time four files are mapped.
            WAYS[way](pipeline, "raise")
        assert open_files() < before + 4
