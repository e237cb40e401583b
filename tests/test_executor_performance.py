"""Each executor is faster than a plain loop on work that is made for it.

The work waits, or is counted, so that a busy machine changes both sides: a loop waits for one item after the
other, and an executor for several at once. The bound is far from what each executor does.
"""

import asyncio
import time

import pytest

from hypernodes import AsyncExecutor, HyperNodesEngine, ParallelExecutor, Pipeline, node

ITEMS, WAIT_S, WORKERS = 24, 0.25, 8


@node(output_name="y")
def wait(x):
    time.sleep(WAIT_S)
    return x + 1


@node(output_name="y")
async def wait_on_loop(x):
    await asyncio.sleep(WAIT_S)
    return x + 1


def seconds(engine, member):
    pipeline = Pipeline([member], engine)
    pipeline.map({"x": range(WORKERS)}, map_over="x")  # workers start
    started = time.perf_counter()
    assert pipeline.map({"x": range(ITEMS)}, map_over="x")["y"] == list(range(1, ITEMS + 1))
    return time.perf_counter() - started


@pytest.mark.parametrize("executor", ["async", "threaded", "parallel", "ray"])
def test_an_executor_is_faster_than_a_loop_on_work_that_is_made_for_it(executor, request):
    if executor == "ray":
        request.getfixturevalue("ray_cluster")
    made = {
        "async": lambda: AsyncExecutor(WORKERS),
        "parallel": lambda: ParallelExecutor(WORKERS // 2),
    }.get(executor, lambda: executor)()
    member = wait_on_loop if executor == "async" else wait
    with HyperNodesEngine(map_executor=made) as engine:
        bound = ITEMS * WAIT_S * (0.9 if executor == "ray" else 0.7)  # a loop waits at least for all items
        assert any(seconds(engine, member) < bound for _ in range(2))
    if executor in ("async", "parallel"):
        made.shutdown()
