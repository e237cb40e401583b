"""Cancelling and timing out what a coroutine awaits: nothing begins afterwards, and all has ended before."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from test_interrupt import is_running

import hypernodes
from hypernodes import AsyncExecutor, HyperNodesEngine, Pipeline, PipelineCallback, node

ENGINES = {
    "a plain loop": HyperNodesEngine,
    "items in threads": lambda: HyperNodesEngine(map_executor="threaded"),
    "nodes in threads": lambda: HyperNodesEngine(node_executor="threaded"),
    "items on a loop": lambda: HyperNodesEngine(map_executor="async"),
    "nodes on a loop": lambda: HyperNodesEngine(node_executor="async"),
    "a pool": lambda: HyperNodesEngine(map_executor=ThreadPoolExecutor(3)),
    "Daft": lambda: hypernodes.DaftEngine(runner="native"),
}

CALL_S = 0.01
CLEANUP_S = 0.2  # of a coroutine that is cancelled
MANY = 3_000  # items: more than are computed before the test ends


@pytest.fixture(scope="module")
def engines():
    made = {name: make() for name, make in ENGINES.items()}
    yield made
    for engine in made.values():
        engine.shutdown()


@pytest.fixture(params=["compiled", "observed"])
def callbacks(request):
    return [] if request.param == "compiled" else [PipelineCallback()]


class Calls:
    """Nodes that count how many of their calls have begun and ended."""

    def __init__(self):
        self.begun = self.ended = 0

    def plain(self, x):
        self.begun += 1
        try:
            time.sleep(CALL_S)
        finally:
            self.ended += 1
        return x

    async def awaited(self, x):
        self.begun += 1
        try:
            await asyncio.sleep(CALL_S)
        except asyncio.CancelledError:
            await asyncio.sleep(CLEANUP_S)
            raise
        finally:
            self.ended += 1
        return x

    async def begin(self):
        while self.begun < 3:
            await asyncio.sleep(CALL_S / 2)


async def cancelled(work, calls):
    """Cancel work after some calls, and check that calls have ended, and that none follows."""
    task = asyncio.ensure_future(work)
    async with asyncio.timeout(60):
        await calls.begin()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    begun = calls.begun
    assert calls.ended == begun
    await asyncio.sleep(10 * CALL_S)
    assert calls.begun == begun


async def all_rows(rows):
    async for _ in rows:
        pass


@pytest.mark.parametrize("kind", ["plain", "awaited"])
@pytest.mark.parametrize("where", ENGINES)
def test_after_a_map_is_cancelled_no_call_begins_and_all_have_ended(engines, where, kind, callbacks):
    calls = Calls()
    pipeline = Pipeline(
        [node(getattr(calls, kind), output_name="y")], engine=engines[where], callbacks=callbacks
    )
    asyncio.run(cancelled(pipeline.amap({"x": list(range(MANY))}, map_over="x"), calls))


@pytest.mark.parametrize("kind", ["plain", "awaited"])
@pytest.mark.parametrize("where", ENGINES)
def test_after_a_stream_is_cancelled_no_call_begins_and_all_have_ended(engines, where, kind):
    calls = Calls()
    pipeline = Pipeline([node(getattr(calls, kind), output_name="y")], engine=engines[where])
    asyncio.run(cancelled(all_rows(pipeline.aimap({"x": iter(range(MANY))}, map_over="x")), calls))


def chain(function, length):
    """Return nodes that call a function one after the other."""
    one = node(function, output_name="y")
    return [
        one.rename(inputs={"x": f"y{step}"} if step else {}, outputs={"y": f"y{step + 1}"})
        for step in range(length)
    ]


@pytest.mark.parametrize("kind", ["plain", "awaited"])
@pytest.mark.parametrize("where", ENGINES)
def test_after_a_run_is_cancelled_no_call_begins_and_all_have_ended(engines, where, kind):
    calls = Calls()
    nodes = chain(getattr(calls, kind), 60)
    pipeline = Pipeline(nodes, engine=engines[where])
    asyncio.run(cancelled(pipeline.arun({"x": 1}, "y60"), calls))


def test_a_run_that_was_made_before_without_awaiting_it_can_be_cancelled():
    calls = Calls()
    pipeline = Pipeline(chain(calls.plain, 30))
    for _ in range(3):
        pipeline.run({"x": 1})
    calls.begun = calls.ended = 0
    asyncio.run(cancelled(pipeline.arun({"x": 1}), calls))


@pytest.mark.parametrize("has_map", [False, True])
def test_nested_pipelines_are_cancelled(callbacks, has_map):
    calls = Calls()
    inner = Pipeline([node(calls.plain, output_name="y")], name="inner")
    if has_map:
        outer = Pipeline([inner.as_node(map_over="x")], callbacks=callbacks)
        work = outer.arun({"x": list(range(MANY))})
    else:
        work = Pipeline([inner.as_node()], callbacks=callbacks).amap({"x": list(range(MANY))}, map_over="x")
    asyncio.run(cancelled(work, calls))


def test_a_map_that_a_node_runs_itself_is_cancelled():
    calls = Calls()
    inner = Pipeline([node(calls.plain, output_name="y")])

    @node(output_name="all")
    def run_inner(items):
        return inner.map({"x": list(range(items))}, map_over="x")

    asyncio.run(cancelled(Pipeline([run_inner]).arun({"items": MANY}), calls))


def test_plain_and_async_nodes_of_the_same_item_are_cancelled():
    calls = Calls()
    nodes = [node(calls.plain, output_name="y"), node(calls.awaited, output_name="z")]
    with AsyncExecutor(4) as executor:
        pipeline = Pipeline(nodes, engine=HyperNodesEngine(map_executor=executor))
        asyncio.run(cancelled(pipeline.amap({"x": list(range(MANY))}, map_over="x"), calls))


def test_items_after_which_the_map_would_go_on_are_cancelled_with_errors_as_results():
    calls = Calls()

    def fail(x):
        calls.plain(x)
        raise ValueError(x)

    work = Pipeline([node(fail, output_name="y")]).amap({"x": range(MANY)}, "x", on_error="return")
    asyncio.run(cancelled(work, calls))


def test_a_timeout_ends_a_map():
    calls = Calls()
    pipeline = Pipeline([node(calls.plain, output_name="y")])

    async def main():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pipeline.amap({"x": list(range(MANY))}, map_over="x"), 10 * CALL_S)
        begun = calls.begun
        assert begun == calls.ended
        await asyncio.sleep(10 * CALL_S)
        return begun == calls.begun

    assert asyncio.run(main())


@pytest.mark.parametrize("where", ["a plain loop", "items on a loop", "Daft"])
def test_other_awaited_work_goes_on_when_one_is_cancelled(engines, where):
    calls = Calls()
    pipeline = Pipeline([node(calls.awaited, output_name="y")], engine=engines[where])

    async def main():
        other = asyncio.ensure_future(pipeline.amap({"x": [1, 2, 3] * 5}, map_over="x"))
        task = asyncio.ensure_future(pipeline.amap({"x": list(range(MANY))}, map_over="x"))
        await calls.begin()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        return await other

    assert asyncio.run(main()) == {"y": [1, 2, 3] * 5}


def test_workers_in_other_processes_have_ended_their_chunk_when_a_map_is_cancelled(executor_named, tmp_path):
    log = tmp_path / "log"

    def note(x):
        with log.open("a") as file:
            file.write("<")
        time.sleep(CALL_S)
        with log.open("a") as file:
            file.write(">")
        return x

    engine = HyperNodesEngine(map_executor=executor_named("ParallelExecutor"))
    pipeline = Pipeline([node(note, output_name="y")], engine=engine)

    async def main():
        task = asyncio.ensure_future(pipeline.amap({"x": list(range(MANY))}, map_over="x"))
        async with asyncio.timeout(60):
            while not log.exists():
                await asyncio.sleep(CALL_S)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        return log.read_text()

    found = asyncio.run(main())
    assert found.count("<") == found.count(">")
    time.sleep(10 * CALL_S)
    assert log.read_text() == found


@pytest.mark.parametrize("alias", ["parallel", "ray"])
def test_a_call_in_another_process_that_goes_on_is_ended_when_its_map_is_cancelled(
    engine_on, alias, tmp_path
):
    """Calls are waited for, for seconds: so both levels are cancelled at once."""

    def start_child(x, level):
        child = subprocess.Popen(["sleep", "300"])
        (tmp_path / level / f"child-{child.pid}").touch()
        child.wait()
        return x

    engines = {level: engine_on(level, alias) for level in ("map_executor", "node_executor")}

    async def cancel(level):
        (tmp_path / level).mkdir()
        pipeline = Pipeline([node(start_child, output_name="y")], engine=engines[level])
        task = asyncio.ensure_future(pipeline.amap({"x": [1, 2], "level": level}, map_over="x"))
        async with asyncio.timeout(60):
            while not [*(tmp_path / level).iterdir()]:
                await asyncio.sleep(CALL_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def main():
        await asyncio.gather(*map(cancel, engines))

    asyncio.run(main())
    if alias == "parallel":
        deadline = time.monotonic() + 60
        while any(is_running(int(path.name.removeprefix("child-"))) for path in tmp_path.rglob("child-*")):
            assert time.monotonic() < deadline
            time.sleep(CALL_S)
    for engine in engines.values():
        assert Pipeline([node(abs, output_name="y")], engine).map({"x": [-1]}, map_over="x") == {"y": [1]}


ABANDONED = """
    import asyncio, time
    from hypernodes import DaftEngine, Pipeline, PipelineCallback, node

    {node}

    async def main():
        engine = DaftEngine(runner="native")
        pipeline = Pipeline([slow], engine=engine, callbacks={callbacks})
        try:
            await asyncio.wait_for(pipeline.amap({{"x": list(range(3000))}}, map_over="x"), 1)
        except TimeoutError:
            print("timed out")

    asyncio.run(main())
"""
SLEEPS = {
    "plain": "@node(output_name='y')\ndef slow(x):\n    time.sleep({0})\n    return x",
    "awaited": "@node(output_name='y')\nasync def slow(x):\n    await asyncio.sleep({0})\n    return x",
}


@pytest.mark.parametrize(
    ("kind", "seconds", "callbacks"),
    [
        ("plain", 0.05, "[]"),
        ("plain", 7, "[]"),  # longer than the coroutine waits for it
        ("plain", 0.05, "[PipelineCallback()]"),
        ("awaited", 0.05, "[]"),
    ],
)
def test_a_program_that_has_cancelled_a_daft_query_ends_as_usual(kind, seconds, callbacks):
    function = textwrap.indent(SLEEPS[kind].format(seconds), "    ")[4:]
    program = textwrap.dedent(ABANDONED.format(node=function, callbacks=callbacks))
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "DAFT_RUNNER": "native"},
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "timed out\n"), done.stderr
