"""A map with fewer items than workers, over nested maps with many: every worker gets some inner items."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from hypernodes import DiskCache, HyperNodesEngine, ParallelExecutor, Pipeline, PipelineCallback, node
from hypernodes.execution.plan.build import build_plan
from hypernodes.execution.scheduler.pace import nested_lengths
from hypernodes.mapping import Columns


def numbers(n, m):
    return [10 * n + i for i in range(m)]


def halve(x):
    if x == 12:
        raise ValueError(f"no half of {x}")
    return x / 2


def total(halves):
    return sum(halves)


def pipeline(half=halve, **settings):
    inner = Pipeline([node(half, output_name="half", cache=True)], name="inner")
    mapped = inner.as_node(input_mapping={"xs": "x"}, output_mapping={"half": "halves"}, map_over="xs")
    return Pipeline(
        [node(numbers, output_name="xs"), mapped, node(total, output_name="sum")], name="outer", **settings
    )


@pytest.mark.timeout(60)
def test_inner_items_of_two_outer_ones_keep_six_workers_busy():
    together = threading.Barrier(6)

    def meet(x):
        together.wait(30)
        return x

    with ThreadPoolExecutor(6) as pool:
        outer = pipeline(meet, engine=HyperNodesEngine(map_executor=pool))
        assert outer.map({"n": [0, 1], "m": 3}, map_over="n")["sum"] == [3, 33]


@pytest.mark.timeout(60)
def test_inner_items_of_one_long_item_among_many_keep_six_workers_busy():
    together = threading.Barrier(6)

    def meet(x):
        if x >= 100:
            together.wait(30)
        return x

    lists = [[n] for n in range(7)] + [list(range(100, 106))] + [[n] for n in range(7)]
    inner = Pipeline([node(meet, output_name="y")], name="inner")
    mapped = inner.as_node(input_mapping={"xs": "x"}, output_mapping={"y": "ys"}, map_over="xs")
    with ThreadPoolExecutor(6) as pool:
        outer = Pipeline([mapped], HyperNodesEngine(map_executor=pool), name="outer")
        assert outer.map({"xs": lists}, map_over="xs")["ys"] == lists


class NoLength(list):
    def __len__(self):
        raise RuntimeError("no length")


@pytest.mark.parametrize("map_mode", ["zip", "product"])
def test_which_items_are_long_is_told_by_the_lengths_of_what_their_nested_maps_go_over(map_mode):
    inner = Pipeline([node(lambda x, z: (x, z), output_name="y")], name="inner")
    mapped = inner.as_node(input_mapping={"xs": "x", "zs": "z"}, map_over=("xs", "zs"), map_mode=map_mode)
    with ThreadPoolExecutor(4) as pool:
        plan = build_plan(
            Pipeline([mapped], name="outer"),
            ("xs", "zs"),
            None,
            HyperNodesEngine(map_executor=pool).placement(),
            mapped=True,
            varying=("xs", "zs"),
        ).plan
    items = Columns({"xs": [[1, 2], [3], (), NoLength([1])], "zs": [[1, 2], [3], [4], [5]]})
    assert nested_lengths(plan, items) == ([2, 1, 0, 0] if map_mode == "zip" else [4, 1, 0, 0])


class Seen(PipelineCallback):
    def __init__(self):
        self.events = Counter()

    def on_node_end(self, node_id, outputs, duration, ctx):
        if node_id != "halve":  # How many items of a nested map are under way when one fails, differs.
            self.events["end", node_id] += 1

    def on_error(self, node_id, error, ctx):
        self.events["error", node_id, str(error)] += 1

    def on_map_item_end(self, item_index, duration, ctx):
        if len(ctx.item_path) == 1:
            self.events["item", item_index] += 1


def results(engine, cache, on_error):
    seen = Seen()
    outer = pipeline(engine=engine, callbacks=[seen], cache=cache)
    try:
        found = outer.map({"n": [0, 2, 1], "m": 3}, map_over="n", on_error=on_error)
    except ValueError as error:
        return str(error), error.__notes__
    columns = {
        name: [value if isinstance(value, float | list) else str(value) for value in found[name]]
        for name in found
    }
    notes = [value.__notes__ for value in found["sum"] if isinstance(value, Exception)]
    return columns, notes, seen.events


@pytest.mark.parametrize("on_error", ["raise", "return"])
@pytest.mark.parametrize("is_cached", [False, True], ids=["plain", "cached"])
@pytest.mark.parametrize("executor", ["threads", "parallel", "ray"])
def test_shared_items_give_what_a_loop_gives(executor, is_cached, on_error, tmp_path, request):
    def cache(name):
        return DiskCache(tmp_path / name) if is_cached else None

    expected = results(HyperNodesEngine(), cache("loop"), on_error)
    if executor == "threads":
        with ThreadPoolExecutor(8) as pool:
            assert results(HyperNodesEngine(map_executor=pool), cache("shared"), on_error) == expected
    elif executor == "parallel":
        with ParallelExecutor(2) as pool:
            found = results(HyperNodesEngine(map_executor=pool), cache("shared"), on_error)
            assert found == expected
    else:
        request.getfixturevalue("ray_cluster")
        with HyperNodesEngine(map_executor="ray") as engine:
            assert results(engine, cache("shared"), on_error) == expected
