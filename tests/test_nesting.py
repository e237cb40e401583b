"""Nested pipelines: names, maps, and the configuration that they inherit."""

import pytest
from recorder import Recorder

from hypernodes import DiskCache, HyperNodesEngine, Pipeline, node
from hypernodes.exceptions import MapError


@node(output_name="y")
def double(x):
    return 2 * x


@node(output_name="z")
def add(y, offset=1):
    return y + offset


@node(output_name="total")
def total(zs):
    return sum(zs)


INNER = Pipeline([double, add], name="inner")


def test_a_pipeline_among_the_nodes_is_nested_as_it_is(watched):
    last = node(lambda z: -z, output_name="end")
    assert watched(Pipeline([INNER, last])).run({"x": 1}) == {"y": 2, "z": 3, "end": -3}


def test_as_node_without_options_does_the_same(watched):
    assert watched(Pipeline([INNER.as_node()])).run({"x": 1}) == {"y": 2, "z": 3}


def test_inputs_are_mapped_from_outer_to_inner_names(watched):
    outer = Pipeline([INNER.as_node(input_mapping={"start": "x"})])
    assert outer.input_names == ("start", "offset")
    assert watched(outer).run({"start": 1}) == {"y": 2, "z": 3}


def test_outputs_are_mapped_from_inner_to_outer_names(watched):
    outer = Pipeline([INNER.as_node(output_mapping={"z": "end"})])
    assert watched(outer).run({"x": 1}) == {"y": 2, "end": 3}


def test_one_pipeline_is_nested_twice_under_different_names(watched):
    outer = Pipeline(
        [
            INNER.as_node(output_mapping={"y": "y1", "z": "z1"}, name="one"),
            INNER.as_node({"z1": "x"}, {"y": "y2", "z": "z2"}, name="two"),
        ]
    )
    assert watched(outer).run({"x": 1}) == {"y1": 2, "z1": 3, "y2": 6, "z2": 7}


def test_a_mapping_can_swap_two_inputs(watched):
    inner = Pipeline([node(lambda a, b: a - b, output_name="d")])
    outer = Pipeline([inner.as_node({"a": "b", "b": "a"})])
    assert watched(outer).run({"a": 1, "b": 5}) == {"d": 4}


def test_a_default_inside_stays_optional_outside(watched):
    outer = Pipeline([INNER])
    assert outer.optional == {"offset"}
    assert watched(outer).run({"x": 1, "offset": 10}, "z") == {"z": 12}


def test_only_what_the_wanted_outputs_need_is_computed_inside(recorder):
    Pipeline([INNER], callbacks=[recorder]).run({"x": 1}, "y")
    assert [what[0] for _, what, *_ in recorder.of("node_end")] == ["double", "inner"]


def test_a_nested_pipeline_whose_outputs_are_not_needed_does_not_run(recorder):
    other = node(lambda w: w, output_name="v")
    assert Pipeline([INNER, other], callbacks=[recorder]).run({"w": 1}, "v") == {"v": 1}
    assert recorder.of("nested_start") == []


def test_a_value_for_an_output_of_a_nested_pipeline_may_be_given(watched):
    last = node(lambda z: -z, output_name="end")
    assert watched(Pipeline([INNER, last])).run({"z": 7}, "end") == {"end": -7}


def test_bound_inputs_of_a_nested_pipeline_are_no_inputs_of_the_outer_one(watched):
    outer = Pipeline([INNER.bind(offset=100)])
    assert outer.input_names == ("x",)
    assert watched(outer).run({"x": 1}, "z") == {"z": 102}


def test_an_intermediate_value_bound_inside_keeps_its_node_from_running(watched):
    outer = Pipeline([INNER.bind(y=5)])
    assert watched(outer).run({}, "z") == {"z": 6}


def test_a_nested_pipeline_with_map_over_takes_lists_and_gives_lists(watched):
    outer = Pipeline([INNER.as_node({"xs": "x"}, {"z": "zs"}, map_over="xs"), total])
    assert watched(outer).run({"xs": [1, 2, 3]}) == {"y": [2, 4, 6], "zs": [3, 5, 7], "total": 15}


def test_inputs_that_are_not_mapped_over_are_the_same_for_every_item(watched):
    outer = Pipeline([INNER.as_node({"xs": "x"}, {"z": "zs"}, map_over="xs")])
    assert watched(outer).run({"xs": [1, 2], "offset": 100}, "zs") == {"zs": [102, 104]}


def test_several_lists_are_zipped_by_default(watched):
    outer = Pipeline([INNER.as_node({"xs": "x", "os": "offset"}, {"z": "zs"}, map_over=["xs", "os"])])
    assert watched(outer).run({"xs": [1, 2], "os": [10, 20]}, "zs") == {"zs": [12, 24]}


def test_a_product_takes_every_combination_the_last_varying_fastest(watched):
    outer = Pipeline(
        [INNER.as_node({"xs": "x", "os": "offset"}, {"z": "zs"}, map_over=["xs", "os"], map_mode="product")]
    )
    assert watched(outer).run({"xs": [1, 2], "os": [10, 20]}, "zs") == {"zs": [12, 22, 14, 24]}


def test_the_order_of_map_over_is_the_order_of_the_product(watched):
    outer = Pipeline(
        [INNER.as_node({"xs": "x", "os": "offset"}, {"z": "zs"}, map_over=["os", "xs"], map_mode="product")]
    )
    assert watched(outer).run({"xs": [1, 2], "os": [10, 20]}, "zs") == {"zs": [12, 14, 22, 24]}


@pytest.mark.parametrize("items", [[], (), range(0)])
def test_no_items_inside_give_empty_lists(watched, items):
    outer = Pipeline([INNER.as_node({"xs": "x"}, {"z": "zs"}, map_over="xs"), total])
    assert watched(outer).run({"xs": items}) == {"y": [], "zs": [], "total": 0}


def test_a_nested_map_runs_over_the_list_of_a_generator_node(watched):
    @node(output_name="xs")
    def numbers(n):
        yield from range(n)

    outer = Pipeline([numbers, INNER.as_node({"xs": "x"}, {"z": "zs"}, map_over="xs")])
    assert watched(outer).run({"n": 3}, "zs") == {"zs": [1, 3, 5]}


def test_an_optional_input_that_is_mapped_over_must_be_given():
    outer = Pipeline([INNER.as_node(map_over="offset")])
    with pytest.raises(ValueError, match="'offset'"):
        outer.run({"x": 1})


def three_levels():
    """A map over rows, in it a plain pipeline, and in that a map over the row's cells."""
    cells = Pipeline([double], name="cell").as_node({"cells": "x"}, {"y": "doubled"}, map_over="cells")
    row = Pipeline([cells, node(lambda doubled: sum(doubled), output_name="row_sum")], name="row")
    middle = Pipeline([row.as_node({"line": "cells"})], name="middle")
    lines = middle.as_node({"lines": "line"}, {"row_sum": "sums", "doubled": "table"}, map_over="lines")
    return Pipeline([lines, node(lambda sums: max(sums), output_name="largest")], name="outer")


def test_maps_at_two_of_three_levels_give_lists_of_lists(watched):
    assert watched(three_levels()).run({"lines": [[1, 2], [], [3]]}) == {
        "table": [[2, 4], [], [6]],
        "sums": [6, 0, 6],
        "largest": 6,
    }


def test_a_map_over_a_pipeline_with_nested_maps_keeps_every_order(watched):
    tables = [[[1], [2, 3]], [], [[4]]]
    pipeline = Pipeline([three_levels().as_node(output_mapping={"largest": "top"})])
    assert watched(pipeline).map({"lines": tables}, "lines", output_name="table") == {
        "table": [[[2], [4, 6]], [], [[8]]]
    }


def test_many_levels_nest(watched):
    pipeline = Pipeline([double], name="level0")
    for level in range(30):
        pipeline = Pipeline([pipeline], name=f"level{level + 1}")
    assert watched(pipeline).run({"x": 1}) == {"y": 2}


def test_async_nodes_run_inside_nested_maps(watched):
    @node(output_name="y")
    async def fetch(x):
        return x + 1

    outer = Pipeline([Pipeline([fetch]).as_node({"xs": "x"}, {"y": "ys"}, map_over="xs")])
    assert watched(outer).run({"xs": [1, 2]}) == {"ys": [2, 3]}


# --------------------------------------------------------------------------------- what is inherited


def run_names(recorder):
    return [what[0] for _, what, *_ in recorder.of("node_end")]


def test_a_nested_pipeline_inherits_the_cache_and_the_callbacks_at_every_depth(tmp_path, recorder):
    middle = Pipeline([INNER], name="middle")
    with DiskCache(tmp_path) as cache:
        outer = Pipeline([middle], cache=cache, callbacks=[recorder])
        outer.run({"x": 1})
        assert len(cache) == 2
        assert run_names(recorder) == ["double", "add", "inner", "middle"]


def test_a_pipeline_alone_has_no_cache_and_no_callbacks():
    assert (INNER.effective_cache, INNER.effective_callbacks) == (None, ())


def test_a_nested_pipeline_keeps_a_cache_of_its_own(tmp_path):
    with DiskCache(tmp_path / "inner") as own, DiskCache(tmp_path / "outer") as other:
        outer = Pipeline([INNER.with_cache(own), node(lambda z: -z, output_name="end")], cache=other)
        outer.run({"x": 1})
        assert (len(own), len(other)) == (2, 1)


def test_a_cache_of_none_switches_caching_off_inside_only(tmp_path):
    with DiskCache(tmp_path) as cache:
        outer = Pipeline([INNER.with_cache(None), node(lambda z: -z, output_name="end")], cache=cache)
        outer.run({"x": 1})
        assert len(cache) == 1


def test_a_nested_pipeline_uses_its_own_cache_if_the_enclosing_one_has_none(tmp_path):
    with DiskCache(tmp_path) as cache:
        middle = Pipeline([INNER.with_cache(cache)], name="middle", cache=None)
        outer = Pipeline([middle, node(lambda z: -z, output_name="end")])
        outer.run({"x": 1})
        assert len(cache) == 2


def test_no_callbacks_switches_them_off_inside_only(recorder):
    quiet = INNER.with_callbacks([])
    Pipeline([quiet, node(lambda z: -z, output_name="end")], callbacks=[recorder]).run({"x": 1})
    assert run_names(recorder) == ["inner", "<lambda>"]


def test_callbacks_of_a_nested_pipeline_replace_those_of_the_enclosing_one(recorder):
    own = Recorder()
    Pipeline([INNER.with_callbacks([own])], callbacks=[recorder]).run({"x": 1})
    assert run_names(own) == ["double", "add"]
    assert run_names(recorder) == ["inner"]


def test_each_setting_is_inherited_separately(tmp_path, recorder):
    with DiskCache(tmp_path) as cache:
        quiet = Pipeline([double], callbacks=[], name="quiet")
        uncached = Pipeline([add], cache=None, name="uncached")
        Pipeline([quiet, uncached], cache=cache, callbacks=[recorder]).run({"x": 1})
        assert len(cache) == 1
        assert run_names(recorder) == ["quiet", "add", "uncached"]


def test_nested_maps_inherit_the_configuration_of_the_outer_map(tmp_path, recorder):
    with DiskCache(tmp_path) as cache:
        pipeline = three_levels().with_cache(cache).with_callbacks([recorder])
        pipeline.run({"lines": [[1, 2], [3]]})
        assert run_names(recorder).count("double") == 3
        assert len(cache) == 3 + 2 + 1


def test_nesting_leaves_the_inner_pipeline_as_it_was(tmp_path, recorder):
    with DiskCache(tmp_path) as cache:
        Pipeline([INNER], cache=cache, callbacks=[recorder]).run({"x": 1})
    before = len(recorder.events)
    assert INNER.run({"x": 1}) == {"y": 2, "z": 3}
    assert len(recorder.events) == before


class Unreadable:
    """A collection that fails when its items are read, as a file of records may."""

    def __init__(self, before):
        self.before = before

    def __iter__(self):
        yield from range(self.before)
        raise OSError("unreadable")


@pytest.mark.parametrize("before", [0, 2])
@pytest.mark.parametrize(
    "targets", [{}, {"node_executor": "threaded"}, {"map_executor": "threaded"}, {"map_executor": "async"}]
)
def test_a_collection_that_fails_while_a_nested_map_reads_it_is_the_error_of_its_item(
    watched, recorder, targets, before
):
    chosen = node(lambda n: Unreadable(before) if n == 1 else [n], output_name="starts")
    outer = Pipeline(
        [chosen, INNER.as_node(input_mapping={"starts": "x"}, map_over="starts", name="inner")], name="outer"
    )
    with HyperNodesEngine(**targets) as engine:
        pipeline = watched(outer.with_engine(engine))
        rows = pipeline.map({"n": [0, 1, 2]}, "n", on_error="return")
        assert (rows["z"][0], rows["z"][2]) == ([1], [5])
        assert isinstance(rows["z"][1], OSError)
        assert "in node 'inner' of pipeline 'outer', item 1" in rows["z"][1].__notes__[0]
        with pytest.raises(OSError, match="unreadable") as caught:
            pipeline.with_callbacks([recorder]).run({"n": 1})
        assert "in node 'inner' of pipeline 'outer'" in caught.value.__notes__[0]
    assert not recorder.unfinished


@pytest.mark.parametrize("given", [{"n": 1}, {"n": 1, "xs": [1, 2]}], ids=["made", "given"])
def test_nothing_starts_after_a_nested_map_whose_collections_do_not_fit(watched, recorder, given):
    added = Pipeline([node(lambda p, q: p + q, output_name="sum")], name="added")
    outer = Pipeline(
        [
            node(lambda n: [n, n], output_name="xs"),
            added.as_node(input_mapping={"xs": "p", "others": "q"}, map_over=["xs", "others"]),
            INNER.as_node(input_mapping={"xs": "x"}, map_over="xs"),
            node(lambda n: n, output_name="m"),
        ],
        name="outer",
    )
    wanted = ["sum", "z", "m"]
    for pipeline in (watched(outer), watched(outer).with_callbacks([recorder])):
        with pytest.raises(MapError, match="same length"):
            pipeline.run({**given, "others": [1, 2, 3]}, wanted)
    assert not recorder.unfinished
