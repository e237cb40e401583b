"""imap and aimap: items of any number, on every executor."""

import asyncio
import contextlib
import itertools
import sqlite3
import threading
import time
import weakref

import numpy as np
import pytest
from executor_names import ALIASES
from hypothesis import given
from hypothesis import strategies as st
from recorder import Recorder

from hypernodes import DiskCache, HyperNodesEngine, Pipeline, node
from hypernodes.exceptions import InputError, MapError, MissingInputError


@node(output_name="y")
def double(x):
    return 2 * x


@node(output_name="z")
def add(y, k=1):
    if y == 14:
        raise ValueError("seven")
    return y + k


@node(output_name="slept")
def sleep(x):
    time.sleep(0.2 if x == 0 else 0.001)
    return x


@node(output_name="y")
async def double_later(x):
    await asyncio.sleep(0.001)
    return 2 * x


@pytest.fixture(params=ALIASES)
def alias(request):
    if request.param == "ray":
        request.getfixturevalue("ray_cluster")
    return request.param


@pytest.fixture(params=["map_executor", "node_executor"])
def engine(request, alias, engine_on):
    return engine_on(request.param, alias)


def test_it_gives_what_map_gives(engine, watched):
    pipeline = watched(Pipeline([double, add], engine=engine))
    items = {"x": [*range(7), *range(8, 40)]}
    rows = list(pipeline.imap({**items, "k": 3}, "x"))
    assert [index for index, _ in rows] == list(range(39))
    columns = pipeline.map({**items, "k": 3}, "x")
    assert [row["z"] for _, row in rows] == columns["z"]
    assert [row["y"] for _, row in rows] == columns["y"]


def test_an_endless_iterable_is_drawn_from_as_there_is_room(engine):
    drawn = []

    def source():
        for n in itertools.count():
            drawn.append(n)
            yield n

    pipeline = Pipeline([double], engine=engine)
    rows = pipeline.imap({"x": source()}, "x")
    assert drawn == []
    assert list(itertools.islice(rows, 50)) == [(n, {"y": 2 * n}) for n in range(50)]
    rows.close()
    assert len(drawn) < 40_000


def test_errors_stop_it_or_stand_in_the_place_of_outputs(engine, watched):
    pipeline = watched(Pipeline([double, add], engine=engine))
    seen = []
    with pytest.raises(ValueError, match="seven") as caught:
        for index, row in pipeline.imap({"x": range(30)}, "x"):
            seen.append((index, row["z"]))
    assert seen == [(n, 2 * n + 1) for n in range(len(seen))]
    assert len(seen) <= 7
    assert "item 7" in caught.value.__notes__[0]
    rows = dict(pipeline.imap({"x": range(30)}, "x", on_error="return", output_name="z"))
    assert isinstance(rows.pop(7), ValueError)
    assert rows == {n: {"z": 2 * n + 1} for n in range(30) if n != 7}


def test_as_completed(alias):
    if alias in ("sequential", "async"):
        pytest.skip("one after the other")
    pipeline = Pipeline([sleep], engine=HyperNodesEngine(node_executor=alias, map_executor=alias))
    list(pipeline.imap({"x": range(1, 4)}, "x"))  # the workers are there
    rows = [index for index, _ in pipeline.imap({"x": range(12)}, "x", ordered=False)]
    assert sorted(rows) == list(range(12))
    assert [index for index, _ in pipeline.imap({"x": range(12)}, "x")] == list(range(12))


def test_what_is_cached_is_not_computed_again(engine, tmp_path):
    with DiskCache(tmp_path / "cache") as cache:
        recorder = Recorder()
        pipeline = Pipeline([double, add], engine=engine, cache=cache, callbacks=[recorder])
        first = list(pipeline.imap({"x": range(8, 48)}, "x"))
        again = list(pipeline.imap({"x": iter(range(8, 48))}, "x"))
    assert first == again
    assert len(recorder.of("item_cached")) == 40
    assert len(recorder.of("pipeline_end")) == 2


def test_modes(watched):
    pipeline = watched(Pipeline([node(pow, output_name="power")]))
    product = pipeline.imap({"base": itertools.count(), "exp": [1, 2]}, ["base", "exp"], map_mode="product")
    assert [row["power"] for _, row in itertools.islice(product, 6)] == [0, 0, 1, 1, 2, 4]
    zipped = pipeline.imap({"base": iter([2, 3]), "exp": itertools.repeat(2, 2)}, ["base", "exp"])
    assert list(zipped) == [(0, {"power": 4}), (1, {"power": 9})]
    uneven = pipeline.imap({"base": [2, 3], "exp": iter([2])}, ["base", "exp"])
    with pytest.raises(MapError, match="'exp' ended after 1 items"):
        list(uneven)
    assert list(pipeline.imap({"base": [], "exp": 1}, "base")) == []


def test_what_is_wrong_is_said_at_once():
    pipeline = Pipeline([double])
    with pytest.raises(MapError, match="is not a collection"):
        pipeline.imap({"x": 1}, "x")
    with pytest.raises(InputError, match="map_mode"):
        pipeline.imap({"x": [1]}, "x", map_mode="both")
    with pytest.raises(MapError, match="not among the inputs"):
        pipeline.imap({"x": [1]}, "z")
    with pytest.raises(MissingInputError):
        Pipeline([double, add]).imap({"k": [1]}, "k")


def test_an_error_of_the_source_is_its_own(engine):
    def source():
        yield from range(3)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="disk is gone"):
        list(Pipeline([double], engine=engine).imap({"x": source()}, "x"))


def test_an_engine_of_ones_own_needs_no_imap():
    from hypernodes.engines import Engine

    class Plain(Engine):
        def run(self, pipeline, inputs, output_name=None, _ctx=None):
            return {"y": 2 * inputs["x"]}

        def map(self, pipeline, items, inputs, output_name=None, _ctx=None, *, on_error="raise"):
            return [self.run(pipeline, {**inputs, **item}) for item in items]

    rows = Pipeline([double], engine=Plain()).imap({"x": itertools.count()}, "x")
    assert next(itertools.islice(rows, 1500, None)) == (1500, {"y": 3000})


def test_aimap(alias, engine_on):
    async def main():
        engine = engine_on("map_executor", alias)
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                await asyncio.sleep(0.001)
                ticks += 1

        ticking = asyncio.create_task(tick())
        pipeline = Pipeline([double_later, add], engine=engine)
        rows = [row async for row in pipeline.aimap({"x": range(8, 60), "k": 0}, "x")]
        assert rows == [(n - 8, {"y": 2 * n, "z": 2 * n}) for n in range(8, 60)]
        async for index, _ in pipeline.aimap({"x": itertools.count(8)}, "x"):
            if index == 20:
                break
        with pytest.raises(ValueError, match="seven"):
            _ = [row async for row in pipeline.aimap({"x": itertools.count()}, "x")]
        ticking.cancel()
        assert ticks > 5

    asyncio.run(main())


def test_aimap_can_be_cancelled():
    async def main():
        pipeline = Pipeline([double_later], engine=HyperNodesEngine(map_executor="async"))

        async def consume():
            async for _ in pipeline.aimap({"x": itertools.count()}, "x"):
                pass

        task = asyncio.create_task(consume())
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_imap_of_async_nodes_in_a_running_loop():
    async def main():
        return list(Pipeline([double_later]).imap({"x": range(5)}, "x"))

    assert asyncio.run(main()) == [(n, {"y": 2 * n}) for n in range(5)]


@given(st.lists(st.integers(0, 50), max_size=80), st.booleans())
def test_any_items_in_any_order(items, ordered):
    pipeline = Pipeline([double], engine=HyperNodesEngine(map_executor="threaded"), callbacks=[Recorder()])
    rows = list(pipeline.imap({"x": iter(items)}, "x", ordered=ordered))
    assert [index for index, _ in sorted(rows, key=lambda row: row[0])] == list(range(len(items)))
    assert all(row == {"y": 2 * items[index]} for index, row in rows)
    pipeline.effective_engine.shutdown()


# ----------------------------------------------------------------------------- sources and memory


def fails_after(count):
    yield from range(count)
    raise OSError("the disk is gone")


@pytest.mark.parametrize("ordered", [True, False])
def test_the_items_before_an_error_of_the_source_are_delivered(engine, watched, ordered):
    pipeline = watched(Pipeline([double], engine=engine, name="doubling"))
    found = []
    with pytest.raises(OSError, match="disk is gone") as caught:
        for index, row in pipeline.imap({"x": fails_after(20)}, "x", ordered=ordered):
            assert row == {"y": 2 * index}
            found.append(index)
    assert sorted(found) == list(range(20))
    assert caught.value.__notes__ == ["in the items of pipeline 'doubling', after 20 of them"]


def test_an_error_of_the_source_is_raised_with_errors_as_results_too(engine):
    found = []
    with pytest.raises(OSError, match="disk is gone"):
        for _, row in Pipeline([double, add], engine=engine).imap(
            {"x": fails_after(12)}, "x", on_error="return"
        ):
            found.append(row)
    assert [type(row) for row in found] == [dict] * 7 + [ValueError] + [dict] * 4


def test_a_source_that_fails_at_once_delivers_nothing(engine):
    with pytest.raises(OSError, match="disk is gone"):
        list(Pipeline([double], engine=engine).imap({"x": fails_after(0)}, "x"))


def test_zipped_sources_of_other_lengths_deliver_what_they_have_in_common(engine):
    found = []
    with pytest.raises(MapError, match="'k' ended after 5 items"):
        for index, _ in Pipeline([double, add], engine=engine).imap(
            {"x": range(9), "k": range(5)}, ["x", "k"]
        ):
            found.append(index)
    assert found == list(range(5))


def test_an_engine_without_imap_delivers_the_items_before_an_error_of_the_source():
    from hypernodes.engines import Engine

    class Plain(Engine):
        def run(self, pipeline, inputs, output_name=None, _ctx=None):
            raise NotImplementedError

        def map(self, pipeline, items, inputs, output_name=None, _ctx=None, *, on_error="raise"):
            return [{"y": 2 * item["x"]} for item in items]

    found = []
    with pytest.raises(OSError, match="disk is gone"):
        found.extend(Pipeline([double], engine=Plain()).imap({"x": fails_after(7)}, "x"))
    assert len(found) == 7


def endless(log):
    try:
        yield from itertools.count()
    finally:
        log.append("closed")


def test_generators_are_closed_when_the_stream_is(engine, watched):
    log, pipeline = [], watched(Pipeline([double], engine=engine))
    source = endless(log)
    rows = pipeline.imap({"x": source}, "x")
    next(rows)
    assert log == []
    rows.close()
    assert log == ["closed"]


def test_generators_are_closed_when_an_item_fails(engine):
    log = []
    source, others = endless(log), endless(log)
    with pytest.raises(ValueError, match="seven"):
        list(Pipeline([double, add], engine=engine).imap({"x": source, "k": others}, ["x", "k"]))
    assert log == ["closed", "closed"]


def test_what_the_user_has_opened_otherwise_stays_open(tmp_path):
    path = tmp_path / "lines"
    path.write_text("a\nb\n")
    with path.open() as file:
        rows = Pipeline([double]).imap({"x": file}, "x")
        assert next(rows) == (0, {"y": "a\na\n"})
        rows.close()
        assert not file.closed


SIZE = 8_000_000


class Held:
    """A source of large values that knows how many of them are in memory."""

    def __init__(self, count, make):
        self.count, self.make, self.alive, self.most = count, make, 0, 0

    def __iter__(self):
        for number in range(self.count):
            value = self.make(number)
            self.alive += 1
            weakref.finalize(value if not isinstance(value, list) else value[0], self.dropped)
            self.most = max(self.most, self.alive)
            yield value
            del value

    def dropped(self):
        self.alive -= 1


def array(number):
    return np.full(SIZE, number, np.uint8)


@node(output_name="first")
def first_of(x):
    return int(x[0])


@node(output_name="first")
async def first_later(x):
    await asyncio.sleep(0)
    return int(x[0])


WATCHED = [  # To digest large values takes long, and is the same for both kinds of functions.
    *(("unwatched", first_of), ("unwatched", first_later), ("told", first_of), ("told", first_later)),
    ("cached", first_of),
]


@pytest.mark.parametrize(("watched", "first"), WATCHED, indirect=["watched"])
@pytest.mark.parametrize("level", ["map_executor", "node_executor"])
@pytest.mark.parametrize("name", ["sequential", "async", "threaded"])
def test_few_large_items_are_in_memory(engine_on, level, name, first, watched):
    held = Held(40, array)
    pipeline = watched(Pipeline([first], engine=engine_on(level, name)))
    rows = pipeline.imap({"x": held}, "x")
    assert [row["first"] for _, row in rows] == list(range(40))
    assert held.most <= 30


def test_few_large_rows_wait_for_a_slow_consumer(engine_on):
    made = []

    @node(output_name="large")
    async def enlarge(x):
        made.append(x)
        return np.full(SIZE, x, np.uint8)

    rows = Pipeline([enlarge], engine=engine_on("map_executor", "async")).imap({"x": range(60)}, "x")
    ahead = []
    for index, _ in rows:
        ahead.append(len(made) - index)
        time.sleep(0.001)
    assert max(ahead) <= 25


def test_small_items_are_as_many_as_before(engine_on):
    drawn = []

    def source():
        for number in range(20_000):
            drawn.append(number)
            yield number

    rows = Pipeline([double], engine=engine_on("map_executor", "threaded")).imap({"x": source()}, "x")
    assert [row["y"] for _, row in rows] == [2 * number for number in range(20_000)]


# ---------------------------------------------------------------------------- sources of coroutines


@pytest.fixture
def cursor():
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("create table numbers (x)")
        connection.executemany("insert into numbers values (?)", [(number,) for number in range(50)])
        yield connection.execute("select x from numbers order by x")


def test_amap_draws_from_iterators_in_the_thread_of_the_loop(cursor, engine_on):
    pipeline = Pipeline(
        [node(lambda row: row[0], output_name="y")], engine=engine_on("map_executor", "threaded")
    )
    assert asyncio.run(pipeline.amap({"row": cursor}, "row")) == {"y": list(range(50))}


def test_amap_takes_a_generator_that_belongs_to_a_thread():
    owner = threading.get_ident()

    def source():
        for number in range(5):
            assert threading.get_ident() == owner
            yield number

    assert asyncio.run(Pipeline([double]).amap({"x": source()}, "x")) == {"y": [0, 2, 4, 6, 8]}


async def later(count, log=None):
    try:
        for number in range(count):
            await asyncio.sleep(0)
            yield number
        if count == 20:
            raise OSError("the disk is gone")
    finally:
        if log is not None:
            log.append("closed")


class Feed:
    """An async iterable that is no generator."""

    def __aiter__(self):
        return later(7)


@pytest.mark.parametrize("name", ["sequential", "threaded", "async"])
@pytest.mark.parametrize("one", [double, double_later])
def test_aimap_and_amap_take_async_iterables(engine_on, name, one):
    async def main():
        pipeline = Pipeline([one], engine=engine_on("map_executor", name))
        rows = [row async for row in pipeline.aimap({"x": later(7)}, "x")]
        assert rows == [(n, {"y": 2 * n}) for n in range(7)]
        assert await pipeline.amap({"x": Feed()}, "x") == {"y": [2 * n for n in range(7)]}

    asyncio.run(main())


def test_aimap_zips_async_iterables_with_others():
    async def main():
        given = {"x": Feed(), "k": iter(range(7))}
        rows = [row async for row in Pipeline([double, add]).aimap(given, ["x", "k"])]
        assert [row["z"] for _, row in rows] == [3 * n for n in range(7)]

    asyncio.run(main())


def test_aimap_delivers_the_items_before_an_error_of_an_async_iterable(engine_on):
    async def main():
        pipeline = Pipeline([double], engine=engine_on("map_executor", "threaded"))
        found = []
        with pytest.raises(OSError, match="disk is gone"):
            async for index, _ in pipeline.aimap({"x": later(20)}, "x"):
                found.append(index)
        return found

    assert asyncio.run(main()) == list(range(20))


@pytest.mark.parametrize("name", ["sequential", "threaded", "async"])
def test_an_async_generator_is_closed_when_the_stream_is(engine_on, name):
    if hasattr(asyncio, "_nest_patched"):  # by another test of this process
        pytest.skip("loops that nest_asyncio has patched close no async generators")

    async def main():
        log = []
        pipeline = Pipeline([double], engine=engine_on("map_executor", name))
        async with contextlib.aclosing(pipeline.aimap({"x": later(10_000, log)}, "x")) as rows:
            async for _ in rows:
                break
        return log

    assert asyncio.run(main()) == ["closed"]


def test_a_generator_is_closed_when_the_consumer_of_aimap_is_cancelled():
    async def main():
        log, begun = [], asyncio.Event()

        async def consume():
            async for _ in Pipeline([double]).aimap({"x": endless(log)}, "x"):
                begun.set()
                await asyncio.sleep(0.001)

        task = asyncio.create_task(consume())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(20):
            while not log:  # Python closes the generator of a consumer that is gone soon after that
                await asyncio.sleep(0.01)
        return log

    assert asyncio.run(main()) == ["closed"]
