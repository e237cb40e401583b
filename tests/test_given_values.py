"""Values given for what a nested pipeline computes: they count at any depth, as they do without nesting."""

import random

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from recorder import Recorder

from hypernodes import DaftEngine, DiskCache, Engine, HyperNodesEngine, Pipeline, node
from hypernodes.exceptions import MapError, MissingInputError, UnknownInputError


@node(output_name="y")
def add(a, b=1):
    return a + b


@node(output_name="z")
def double(y):
    return y * 2


@node(output_name="w")
def pair(y, z):
    return (y, z)


INNER = Pipeline([add, double], name="inner")
OUTER = Pipeline([INNER, pair], name="outer")
DEEP = Pipeline([Pipeline([Pipeline([INNER], name="low")], name="middle"), pair], name="outer")
RENAMED = Pipeline(
    [
        INNER.as_node({"first": "a"}, {"y": "total", "z": "twice"}, name="renamed"),
        pair.rename(inputs={"y": "total", "z": "twice"}),
    ],
    name="outer",
)
MAPPED = Pipeline(
    [INNER.as_node({"xs": "a"}, {"y": "ys", "z": "zs"}, map_over="xs"), pair.rename({"y": "ys", "z": "zs"})],
    name="outer",
)


@pytest.mark.parametrize("pipeline", [OUTER, DEEP], ids=["nested", "deep"])
def test_what_depends_on_a_given_value_is_computed_of_it_at_any_depth(pipeline, watched):
    assert watched(pipeline).run({"a": 1, "y": 7}) == {"y": 7, "z": 14, "w": (7, 14)}


@pytest.mark.parametrize("pipeline", [OUTER, DEEP], ids=["nested", "deep"])
def test_what_only_leads_to_a_given_value_is_not_needed_at_any_depth(pipeline, watched):
    assert watched(pipeline).run({"y": 7}) == {"y": 7, "z": 14, "w": (7, 14)}


def test_a_value_is_given_by_its_outer_name(watched):
    assert watched(RENAMED).run({"total": 7}) == {"total": 7, "twice": 14, "w": (7, 14)}


def test_the_inner_name_of_a_renamed_output_is_unknown():
    with pytest.raises(UnknownInputError, match="unknown input 'y'"):
        RENAMED.run({"y": 7})


def test_a_value_is_given_to_the_nested_pipeline_whose_output_has_its_name(watched):
    """Both make `y` inside; outside, one of the two is `other`."""
    both = Pipeline([INNER, INNER.as_node(output_mapping={"y": "other", "z": "more"}, name="second")])
    assert watched(both).run({"a": 1, "y": 7}) == {"y": 7, "z": 14, "other": 2, "more": 4}
    assert watched(both).run({"a": 1, "other": 7}) == {"y": 2, "z": 4, "other": 7, "more": 14}


def test_a_value_is_given_to_all_nested_pipelines_that_take_it(watched):
    after = Pipeline([pair], name="after")
    assert watched(Pipeline([INNER, after])).run({"y": 7}) == {"y": 7, "z": 14, "w": (7, 14)}


def test_the_node_of_a_given_value_does_not_run(recorder):
    Pipeline([INNER, pair], callbacks=[recorder], name="outer").run({"a": 1, "y": 7})
    assert [what[0] for _, what, *_ in recorder.of("node_end")] == ["double", "inner", "pair"]


def test_a_given_value_that_is_bound_outside_counts_inside(watched):
    assert watched(OUTER.bind(y=7)).run({}) == {"y": 7, "z": 14, "w": (7, 14)}
    assert watched(OUTER.bind(y=7)).run({"y": 8}) == {"y": 8, "z": 16, "w": (8, 16)}


def test_a_given_value_replaces_one_that_is_bound_inside(watched):
    outer = Pipeline([INNER.bind(y=5), pair])
    assert watched(outer).run({}) == {"y": 5, "z": 10, "w": (5, 10)}
    assert watched(outer).run({"y": 7}) == {"y": 7, "z": 14, "w": (7, 14)}


def test_what_only_leads_to_a_value_bound_inside_is_not_computed(watched):
    chain = Pipeline([node(lambda c: c + 1, output_name="a"), add, double], name="chain")
    assert watched(Pipeline([chain.bind(y=5)])).run({}) == chain.bind(y=5).run({}) == {"y": 5, "z": 10}


def test_a_missing_input_beside_a_given_value_is_still_an_error():
    other = node(lambda c: c, output_name="d")
    with pytest.raises(MissingInputError, match="'c'"):
        Pipeline([Pipeline([add, double, other])]).run({"y": 7})


# ------------------------------------------------------------------------------------- nested maps


def test_a_nested_map_takes_a_list_of_given_values(watched):
    assert watched(MAPPED).run({"ys": [7, 8]}) == {"ys": [7, 8], "zs": [14, 16], "w": ([7, 8], [14, 16])}


def test_no_given_values_are_no_items(watched):
    assert watched(MAPPED).run({"ys": []}, "zs") == {"zs": []}


def test_given_values_of_maps_in_maps_are_lists_of_lists(watched):
    inside = INNER.as_node({"xs": "a"}, {"y": "ys", "z": "zs"}, map_over="xs")
    outer = Pipeline([Pipeline([inside]).as_node({"rows": "xs"}, map_over="rows")])
    assert watched(outer).run({"ys": [[7], [], [8, 9]]}, "zs") == {"zs": [[14], [], [16, 18]]}


def used_beside(map_mode):
    shown = node(lambda a, b, y: (a, b, y), output_name="shown")
    inner = Pipeline([add, double, shown], name="inner")
    return Pipeline([inner.as_node(map_over=["a", "b"], map_mode=map_mode)], name="outer")


def test_given_values_are_zipped_with_the_collections_that_are_still_needed(watched):
    outputs = watched(used_beside("zip")).run({"a": [1, 2], "b": [3, 4], "y": [7, 8]}, "shown")
    assert outputs == {"shown": [(1, 3, 7), (2, 4, 8)]}


def test_of_a_product_each_combination_has_a_given_value(watched):
    outputs = watched(used_beside("product")).run({"a": [1, 2], "b": [3, 4], "y": [5, 6, 7, 8]}, "shown")
    assert outputs == {"shown": [(1, 3, 5), (1, 4, 6), (2, 3, 7), (2, 4, 8)]}


def test_collections_that_nothing_takes_are_not_needed_beside_given_values(watched):
    for map_mode in ("zip", "product"):
        assert watched(used_beside(map_mode)).run({"y": [7, 8]}, "z") == {"z": [14, 16]}
    prepared = Pipeline([node(lambda n: list(range(n)), output_name="xs"), *MAPPED.nodes])
    assert watched(prepared).run({"ys": [7]}, "zs") == {"zs": [14]}


@pytest.mark.parametrize(
    ("map_mode", "given", "message"),
    [
        ("zip", {"a": [1, 2], "b": [3, 4], "y": [7]}, "'a' has length 2, 'b' has length 2, 'y' has length 1"),
        ("product", {"a": [1, 2], "b": [3], "y": [7]}, "'y' must have a value for each combination"),
        (
            "zip",
            {"a": [1, 2], "b": [3, 4], "y": 7},
            "the value given for 'y', of type int, is not a collection",
        ),
    ],
)
def test_given_values_that_do_not_fit_the_items_are_an_error(map_mode, given, message):
    with pytest.raises(MapError, match=message):
        used_beside(map_mode).run(given)


def test_a_collection_of_a_product_that_is_missing_is_an_error():
    with pytest.raises(MissingInputError, match="'b'"):
        used_beside("product").run({"a": [1], "y": [7]})


# ------------------------------------------------------------------------- everywhere that values are given


@pytest.mark.parametrize("pipeline", [OUTER, DEEP], ids=["nested", "deep"])
def test_given_values_vary_over_the_items_of_a_map(pipeline, watched):
    expected = {"y": [7, 8], "z": [14, 16], "w": [(7, 14), (8, 16)]}
    assert watched(pipeline).map({"y": [7, 8]}, map_over="y") == expected


@pytest.mark.parametrize("pipeline", [OUTER, DEEP], ids=["nested", "deep"])
def test_given_values_stream(pipeline):
    assert list(pipeline.imap({"y": iter([7, 8])}, map_over="y", output_name="z")) == [
        (0, {"z": 14}),
        (1, {"z": 16}),
    ]


def of_daft(columns):
    import daft

    return daft.from_pydict(columns)


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, pa.table, of_daft])
def test_a_column_of_a_table_that_is_mapped_over_gives_values(make):
    assert OUTER.map(make({"y": [7, 8]}), map_over="y", output_name="z") == {"z": [14, 16]}


@pytest.mark.parametrize("executor", ["sequential", "async", "threaded", "parallel"])
def test_given_values_count_on_every_executor(executor, executor_named):
    for options in ({"map_executor": executor_named(executor)}, {"node_executor": executor_named(executor)}):
        with HyperNodesEngine(**options) as engine:
            mapped = MAPPED.with_engine(engine)
            assert mapped.run({"ys": [7, 8]}, "zs") == {"zs": [14, 16]}
            assert mapped.map({"ys": [[7, 8], [9]]}, map_over="ys", output_name="w") == {
                "w": [([7, 8], [14, 16]), ([9], [18])]
            }


def test_given_values_count_on_daft():
    engine = DaftEngine(runner="native")
    assert DEEP.with_engine(engine).run({"y": 7}) == {"y": 7, "z": 14, "w": (7, 14)}
    assert DEEP.with_engine(engine).map({"y": [7, 8]}, map_over="y") == {
        "y": [7, 8],
        "z": [14, 16],
        "w": [(7, 14), (8, 16)],
    }
    assert MAPPED.with_engine(engine).map({"ys": [[7, 8], [9]]}, map_over="ys", output_name="zs") == {
        "zs": [[14, 16], [18]]
    }


class ByHand(Engine):
    """An engine of the user's own, which works in a way of its own."""

    def run(self, pipeline, inputs, output_name=None, _ctx=None):
        return HyperNodesEngine().run(pipeline, inputs, output_name, _ctx)

    def map(self, pipeline, items, inputs, output_name=None, _ctx=None, *, on_error="raise"):
        return HyperNodesEngine().map(pipeline, items, inputs, output_name, _ctx, on_error=on_error)


def test_given_values_reach_a_nested_pipeline_with_an_engine_of_its_own():
    inner = INNER.with_engine(ByHand())
    assert Pipeline([inner, pair]).run({"y": 7}) == {"y": 7, "z": 14, "w": (7, 14)}
    mapped = Pipeline([inner.as_node({"xs": "a"}, map_over="xs")])
    assert mapped.run({"y": [7, 8]}) == {"y": [7, 8], "z": [14, 16]}


@pytest.mark.parametrize("pipeline", [OUTER, DEEP], ids=["nested", "deep"])
def test_a_result_is_kept_under_the_value_that_was_given(pipeline, tmp_path):
    with DiskCache(tmp_path) as cache:
        cached = pipeline.with_cache(cache)
        for given, z in ((7, 14), (8, 16), (7, 14)):
            assert cached.run({"y": given, "a": 1}, "z") == {"z": z}
        assert cached.run({"a": 1}, "z") == {"z": 4}
        assert [verdict.status for verdict in cached.explain({"y": 7}, "z")] == ["hit"]
        assert [verdict.status for verdict in cached.explain({"y": 9}, "z")] == ["miss"]


def test_given_lists_that_are_combined_and_those_that_are_not_have_entries_of_their_own(tmp_path):
    """The same lists give 2 items in one pipeline and 4 in the other."""
    plus = node(lambda a, b: a + b, output_name="s")
    last = node(lambda a, s: (a, s), output_name="t")
    total = node(lambda t: sorted(t), output_name="all")
    computed = Pipeline([plus, last]).as_node(map_over="a", map_mode="product")
    taken = Pipeline([last]).as_node(map_over=["a", "s"], map_mode="product")
    with DiskCache(tmp_path) as cache:
        for nested, count in ((computed, 2), (taken, 4), (computed, 2)):
            outputs = Pipeline([nested, total], cache=cache).run({"a": [1, 2], "s": [3, 4]}, "all")
            assert len(outputs["all"]) == count


# ------------------------------------------------------------------------------- nested as without nesting


def summed(name, count):
    """Make a function of some inputs, by the names of its parameters."""
    scope = {}
    parameters = [f"p{number}" for number in range(count)]
    exec(f"def {name}({', '.join(parameters)}): return ({name!r}, {', '.join(parameters)})", scope)
    return scope[name]


def random_nodes(chance):
    nodes, names = [], ["i0", "i1", "i2"]
    for number in range(chance.randint(2, 9)):
        takes = chance.sample(names, chance.randint(1, min(3, len(names))))
        outputs = [f"o{number}"] if chance.random() < 0.8 else [f"o{number}", f"q{number}"]
        function = summed(f"f{number}", len(takes))
        if len(outputs) == 2:
            function = (lambda inner: lambda **given: (inner(**given), 1))(function)
            function.__signature__ = __import__("inspect").signature(summed("g", len(takes)))
        made = node(function, output_name=tuple(outputs))
        nodes.append(made.rename(inputs={f"p{at}": name for at, name in enumerate(takes)}))
        names += outputs
    return nodes


def nested_at_random(nodes, chance, depth=3):
    """Put runs of nodes into pipelines, and those into others."""
    if depth == 0:
        return nodes
    members = []
    while nodes:
        size = chance.randint(1, len(nodes))
        part, nodes = nodes[:size], nodes[size:]
        if chance.random() < 0.6:
            members.append(Pipeline(nested_at_random(part, chance, depth - 1)))
        else:
            members += part
    return members


@pytest.mark.parametrize("seed", range(60))
def test_nesting_changes_nothing_about_given_values(seed):
    chance = random.Random(seed)
    nodes = random_nodes(chance)
    flat = Pipeline(nodes)
    nested = Pipeline(nested_at_random(nodes, chance))
    for _ in range(5):
        known = [*flat.input_names, *flat.output_names]
        given = {name: name for name in chance.sample(known, chance.randint(0, len(known)))}
        wanted = chance.sample(flat.output_names, 1) if chance.random() < 0.3 else None
        for recorder in (None, Recorder()):
            options = {} if recorder is None else {"callbacks": [recorder]}
            try:
                expected = Pipeline(nodes, **options).run(given, wanted)
            except MissingInputError:
                with pytest.raises(MissingInputError):
                    nested.run(given, wanted)
                continue
            own = nested if recorder is None else nested.with_callbacks([recorder])
            assert own.run(given, wanted) == expected
