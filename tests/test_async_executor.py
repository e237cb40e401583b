"""AsyncExecutor is a concurrent.futures.Executor wherever it is used."""

import asyncio
import threading
import time
from concurrent.futures import FIRST_COMPLETED, CancelledError, as_completed, wait

import pytest
import uvloop

from hypernodes import AsyncExecutor, Pipeline, node


async def double(x):
    await asyncio.sleep(0.001)
    return 2 * x


@pytest.fixture
def executor():
    with AsyncExecutor(3) as executor:
        yield executor


def test_it_runs_coroutine_functions_and_plain_callables(executor):
    assert executor.submit(double, 2).result() == 4
    assert executor.submit(abs, -2).result() == 2
    assert list(executor.map(double, range(5))) == [0, 2, 4, 6, 8]


def test_a_plain_callable_that_returns_a_coroutine_is_awaited(executor):
    assert executor.submit(lambda: double(3)).result() == 6


def test_errors_arrive_as_they_were_raised(executor):
    error = KeyError("missing")

    async def fail():
        raise error

    assert executor.submit(fail).exception() is error


class Empty(Exception):
    def __len__(self):
        return 0


def test_an_error_whose_truth_value_is_false_is_raised(executor):
    def fail():
        raise Empty

    async def fail_async():
        raise Empty

    for function in (fail, fail_async):
        future = executor.submit(function)
        assert isinstance(future.exception(), Empty)
        with pytest.raises(Empty):
            future.result()
        with pytest.raises(Empty):
            list(executor.map(lambda _: function(), [1]))


@pytest.mark.parametrize("error", [StopIteration, StopAsyncIteration, GeneratorExit])
def test_an_error_that_ends_iterators_is_the_error_of_its_future(executor, error):
    def fail():
        raise error

    async def fail_async():
        raise error

    async def fail_in_thread():
        await executor.in_thread(fail)

    # No coroutine can raise StopIteration: Python makes it another one.
    of_coroutine = RuntimeError if error is StopIteration else error
    assert isinstance(executor.submit(fail).exception(timeout=30), error)
    assert isinstance(executor.submit(fail_async).exception(timeout=30), of_coroutine)
    assert isinstance(executor.submit(fail_in_thread).exception(timeout=30), of_coroutine)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_error_that_ends_programs_is_the_error_of_its_future(executor, error):
    async def fail():
        raise error

    assert isinstance(executor.submit(fail).exception(), error)
    assert executor.submit(double, 1).result() == 2


def test_at_most_max_concurrent_submissions_run_at_once(executor):
    running, most = 0, 0

    async def watch():
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.005)
        running -= 1

    wait([executor.submit(watch) for _ in range(12)])
    assert most == 3


def test_cancelling_a_running_coroutine_ends_it(executor):
    cleaned = threading.Event()
    started = threading.Event()

    async def sleep():
        started.set()
        try:
            await asyncio.sleep(60)
        finally:
            cleaned.set()

    future = executor.submit(sleep)
    assert started.wait(20)
    assert future.running()
    assert future.cancel()
    with pytest.raises(CancelledError):
        future.result(timeout=20)
    assert future.cancelled()
    assert cleaned.wait(20)


def test_a_pending_submission_that_is_cancelled_never_starts():
    with AsyncExecutor(1) as executor:
        release = threading.Event()
        first = executor.submit(release.wait, 20)
        second = executor.submit(double, 1)
        assert second.cancel()
        release.set()
        assert first.result()
        assert second.cancelled()


def test_a_running_plain_callable_cannot_be_cancelled(executor):
    release, started = threading.Event(), threading.Event()
    future = executor.submit(lambda: (started.set(), release.wait(20)))
    assert started.wait(20)
    assert not future.cancel()
    release.set()


def test_submitting_after_shutdown_is_refused(executor):
    executor.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(abs, 1)


def test_shutdown_can_cancel_pending_submissions():
    executor = AsyncExecutor(1)
    release = threading.Event()
    first = executor.submit(release.wait, 20)
    rest = [executor.submit(double, n) for n in range(3)]
    executor.shutdown(wait=False, cancel_futures=True)
    release.set()
    assert first.result(timeout=20)
    assert all(future.cancelled() for future in rest)


def test_max_concurrent_below_one_is_refused():
    with pytest.raises(ValueError, match="greater than 0"):
        AsyncExecutor(0)


async def everything_that_waits(executor, loop_of_coroutines):
    async def where():
        await asyncio.sleep(0.001)
        return asyncio.get_running_loop()

    assert (executor.submit(where).result() is asyncio.get_running_loop()) is loop_of_coroutines
    futures = [executor.submit(double, n) for n in range(5)]
    assert sorted(future.result() for future in as_completed(futures)) == [0, 2, 4, 6, 8]
    futures = [executor.submit(double, n) for n in range(5)]
    done, _ = wait(futures, return_when=FIRST_COMPLETED)
    assert done
    assert wait(futures, timeout=20).not_done == set()
    long = executor.submit(asyncio.sleep, 60)
    with pytest.raises(TimeoutError):
        long.result(timeout=0.01)
    assert long.cancel()
    assert list(executor.map(double, [1, 2])) == [2, 4]
    assert await asyncio.wrap_future(executor.submit(double, 4)) == 8
    assert await asyncio.get_running_loop().run_in_executor(executor, abs, -1) == 1


def test_in_a_running_loop_coroutines_run_on_that_loop_and_waiting_runs_it():
    executor = AsyncExecutor(3)
    asyncio.run(everything_that_waits(executor, loop_of_coroutines=True))
    executor.shutdown(wait=False, cancel_futures=True)


def test_in_a_loop_that_cannot_be_reentered_coroutines_run_on_another_loop():
    executor = AsyncExecutor(3)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(everything_that_waits(executor, loop_of_coroutines=False))
    executor.shutdown(wait=False, cancel_futures=True)


def test_many_threads_can_submit(executor):
    results = []

    def work(k):
        results.extend(executor.submit(double, 10 * k + n).result() for n in range(10))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [2 * n for n in range(80)]


def test_submissions_of_a_garbage_collected_executor_are_done():
    future = AsyncExecutor(1).submit(lambda: time.sleep(0.01) or 5)
    assert future.result(timeout=20) == 5


def test_shutdown_cancels_a_coroutine_whose_loop_has_stopped():
    loop = asyncio.new_event_loop()
    executor = AsyncExecutor(1)

    async def leave_behind():
        return executor.submit(asyncio.sleep, 60)

    future = loop.run_until_complete(leave_behind())
    executor.shutdown(wait=True)
    assert future.cancelled()
    loop.run_until_complete(asyncio.sleep(0))
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


async def stop_loop(x):
    if x == 2:
        asyncio.get_running_loop().stop()
    await asyncio.sleep(0.01)
    return x


async def leave_what_ends_the_loop(x):
    async def end():
        raise SystemExit("left behind")

    if x == 2:
        asyncio.get_running_loop().create_task(end())
    await asyncio.sleep(0.01)
    return x


@pytest.mark.parametrize("function", [stop_loop, leave_what_ends_the_loop])
@pytest.mark.parametrize("level", ["node_executor", "map_executor"])
@pytest.mark.parametrize("alias", ["sequential", "async", "threaded", "parallel"])
def test_coroutines_go_on_when_one_of_them_ends_the_loop_of_the_process(engine_on, alias, level, function):
    pipeline = Pipeline([node(function, output_name="y")], engine=engine_on(level, alias))
    assert pipeline.map({"x": range(5)}, map_over="x") == {"y": [*range(5)]}
