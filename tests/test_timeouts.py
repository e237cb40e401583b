"""Calls that take longer than they may have timed out, whatever they do about it."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import time

import pytest
from test_interrupt import is_running

import hypernodes
from hypernodes import HyperNodesEngine, ParallelExecutor, Pipeline, node
from hypernodes.exceptions import NodeTimeoutError

LIMIT_S = 0.3


@node(output_name="y", timeout=LIMIT_S)
def swallow(x):
    """Catch whatever is an Exception, over and over."""
    until = time.monotonic() + (20 if x == 1 else 0)
    while time.monotonic() < until:
        try:
            time.sleep(0.01)
        except Exception:
            continue
    return x


@node(output_name="y", timeout=LIMIT_S)
def swallow_all(x):
    """Catch everything, and return as if nothing had happened."""
    if x == 1:
        try:
            time.sleep(2 * LIMIT_S)
        except BaseException:
            return "swallowed"
    return x


@node(output_name="y", timeout=LIMIT_S)
def replace(x):
    """Raise another error in the place of the interrupt."""
    if x == 1:
        try:
            time.sleep(2 * LIMIT_S)
        except BaseException as error:
            raise ConnectionError("no answer") from error
        raise ConnectionError("a late answer")
    return x


@node(output_name="y", timeout=LIMIT_S)
def yield_late(x):
    """Take too long between two values."""
    yield x
    time.sleep(2 * LIMIT_S if x == 1 else 0)
    yield x


@node(output_name="y", timeout=LIMIT_S)
async def swallow_cancel(x):
    """Catch the cancellation, and return as if nothing had happened."""
    if x == 1:
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            return "swallowed"
    return x


@node(output_name="y", timeout=LIMIT_S)
async def block(x):
    """Block the event loop, so that nothing can be cancelled."""
    time.sleep(2 * LIMIT_S if x == 1 else 0)
    return x


@node(output_name="y", timeout=LIMIT_S)
async def raise_timeout(x):
    """Raise a TimeoutError of its own, in time."""
    if x == 1:
        raise TimeoutError("of its own")
    return x


LATE = (swallow, swallow_all, replace, yield_late, swallow_cancel, block)

ENGINES = {
    "a plain loop": ("map_executor", "sequential"),
    "items in threads": ("map_executor", "threaded"),
    "items on a loop": ("map_executor", "async"),
    "items in processes": ("map_executor", "parallel"),
    "nodes in processes": ("node_executor", "parallel"),
    "items on Ray": ("map_executor", "ray"),
    "Daft": None,
}


@pytest.fixture
def engine_named(engine_on):
    def make(name):
        return engine_on(*ENGINES[name]) if ENGINES[name] else hypernodes.DaftEngine(runner="native")

    return make


@pytest.mark.parametrize("late", LATE, ids=lambda late: late.name)
@pytest.mark.parametrize("where", ENGINES)
def test_a_call_that_takes_too_long_has_timed_out_whatever_it_returns_or_raises(engine_named, where, late):
    pipeline = Pipeline([late], engine=engine_named(where))
    rows = pipeline.map({"x": [0, 1, 2]}, map_over="x", on_error="return")["y"]
    assert [rows[0], rows[2]] == ([[0, 0], [2, 2]] if late is yield_late else [0, 2])
    assert type(rows[1]) is NodeTimeoutError
    assert f"node {late.name!r}" in rows[1].__notes__[0]
    assert "item 1" in rows[1].__notes__[0]


@pytest.mark.parametrize("where", ["a plain loop", "items in threads", "items in processes"])
def test_a_timeout_error_of_the_function_itself_stays_what_it_is(engine_named, where):
    rows = Pipeline([raise_timeout], engine=engine_named(where)).map({"x": [0, 1]}, "x", on_error="return")
    assert (type(rows["y"][1]), str(rows["y"][1])) == (TimeoutError, "of its own")


def test_the_error_that_came_too_late_is_the_cause():
    with pytest.raises(NodeTimeoutError) as caught:
        Pipeline([replace]).run({"x": 1})
    assert isinstance(caught.value.__cause__, ConnectionError)


def test_a_late_call_is_tried_again():
    calls = []

    @node(output_name="y", timeout=LIMIT_S, retries=1)
    def swallow_once(x):
        calls.append(x)
        if len(calls) == 1:
            try:
                time.sleep(20)
            except BaseException:
                return "swallowed"
        return x

    assert Pipeline([swallow_once]).run({"x": 1}) == {"y": 1}
    assert calls == [1, 1]


def test_a_call_of_a_batch_function_that_swallows_the_interrupt_has_timed_out():
    def all_late(x):
        try:
            time.sleep(2 * LIMIT_S)
        except BaseException:
            return x
        return x

    @node(output_name="y", batch=all_late, timeout=LIMIT_S)
    def late(x):
        try:
            time.sleep(2 * LIMIT_S)
        except BaseException:
            return x
        return x

    with pytest.raises(NodeTimeoutError):
        Pipeline([late], engine=hypernodes.DaftEngine(runner="native")).map({"x": [1, 2]}, map_over="x")


def test_a_call_whose_pipeline_catches_the_timeout_of_a_node_goes_on():
    inner = Pipeline([swallow_all])

    @node(output_name="z", timeout=20)
    def recover(x):
        try:
            return inner.run({"x": x})["y"]
        except NodeTimeoutError:
            return "recovered"

    assert Pipeline([recover]).run({"x": 1}) == {"z": "recovered"}


# ------------------------------------------------------------------------ processes that hear nothing


@node(output_name="y", timeout=LIMIT_S)
def stop(x):
    """Stop this process, as a debugger or a terminal does."""
    if x == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    return x


@node(output_name="y", timeout=LIMIT_S)
async def stop_on_loop(x):
    if x == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    return x


@node(output_name="y", timeout=LIMIT_S)
def insist(x):
    """Never end, and catch everything."""
    while x == 1:
        try:
            time.sleep(20)
        except BaseException:
            continue
    return x


@node(output_name="y", timeout=LIMIT_S)
async def block_for_ever(x):
    while x == 1:
        time.sleep(20)
    return x


DEAF = {
    "items in processes": (stop, stop_on_loop, insist, block_for_ever),
    # The same ends them as for items, after seconds; so these are of both kinds only.
    "nodes in processes": (stop, block_for_ever),
    "items on Ray": (stop_on_loop, insist),
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("where", "deaf"),
    [pytest.param(where, deaf, id=f"{where}-{deaf.name}") for where in DEAF for deaf in DEAF[where]],
)
def test_a_process_that_hears_nothing_is_ended(engine_named, where, deaf):
    patient = node(lambda y: y, output_name="z", timeout=100)  # the shortest timeout of an item counts
    pipeline = Pipeline([deaf, patient], engine=engine_named(where))
    rows = pipeline.map({"x": [0, 1, 2]}, map_over="x", on_error="return", output_name="z")["z"]
    assert [rows[0], rows[2]] == [0, 2]
    assert type(rows[1]) is NodeTimeoutError
    assert pipeline.map({"x": [3, 4, 5]}, map_over="x", output_name="z") == {"z": [3, 4, 5]}


def test_a_process_whose_call_ends_soon_after_its_timeout_goes_on():
    def late(x):
        """Sleep in C code, which hears no interrupt."""
        if x:
            ctypes.PyDLL(None).usleep(int(2.5 * LIMIT_S * 1e6))
        return os.getpid()

    with HyperNodesEngine(map_executor=ParallelExecutor(1)) as engine:
        pipeline = Pipeline([node(late, output_name="y", timeout=LIMIT_S)], engine=engine)
        first, error, last = pipeline.map({"x": [0, 1, 0]}, "x", on_error="return")["y"]
    assert type(error) is NodeTimeoutError
    assert first == last


def test_a_process_that_watches_another_one_ends_with_it():
    def watchers():
        import subprocess

        found = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True)
        lines = [line.split(None, 2) for line in found.stdout.splitlines()[1:]]
        return {int(pid) for pid, parent, _ in lines if int(parent) in pids}

    with HyperNodesEngine(map_executor="parallel") as engine:
        pipeline = Pipeline([node(lambda x: os.getpid(), output_name="y", timeout=20)], engine=engine)
        pids = set(pipeline.map({"x": [1, 2, 3]}, map_over="x")["y"])
        watching = watchers()
        assert watching
    until = time.monotonic() + 20
    while any(map(is_running, watching)):
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.parametrize("alias", ["sequential", "threaded"])
def test_a_timeout_that_is_over_before_the_call_begins_is_a_timeout(alias):
    hasty = Pipeline([node(lambda x: x, output_name="y", timeout=1e-6)], HyperNodesEngine(map_executor=alias))
    errors = hasty.map({"x": range(300)}, "x", on_error="return")["y"]
    assert {type(error) for error in errors} == {NodeTimeoutError}
