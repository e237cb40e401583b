"""imap and aimap: items of any number, on every executor."""

import asyncio
import itertools
import time

import pytest
from conftest import ALIASES, Recorder
from hypothesis import given
from hypothesis import strategies as st

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
