"""Which nodes would a run find in the cache, and why are the others missing?"""

import numpy as np
import pytest

from hypernodes import DiskCache, Pipeline, PipelineCallback, node

FACTOR = 2


def scaled(x):
    return x * FACTOR


@node(output_name="a")
def first(x, k=5):
    return scaled(x) + k


@node(output_name="b")
def second(a):
    return a + 1


@node(output_name="c", cache=False)
def third(b):
    return b + 1


@node(output_name="d")
def fourth(c):
    return c + 1


@pytest.fixture
def cache(tmp_path):
    with DiskCache(tmp_path / "cache") as cache:
        yield cache


def statuses(explanation):
    return {verdict.node: verdict.status for verdict in explanation}


def test_before_anything_ran_every_node_is_a_miss(cache):
    explanation = Pipeline([first, second], cache=cache).explain({"x": 1})
    assert statuses(explanation) == {"first": "miss", "second": "miss"}
    assert explanation["first"].because == "the cache has no entry of first"
    assert len(cache) == 0


def test_after_a_run_every_node_is_a_hit_and_only_the_last_is_needed(cache):
    pipeline = Pipeline([first, second], cache=cache)
    pipeline.run({"x": 1})
    explanation = pipeline.explain({"x": 1}, output_name="b")
    assert statuses(explanation) == {"first": "hit", "second": "hit"}
    assert [verdict.is_needed for verdict in explanation] == [False, True]


def test_a_changed_input_is_named_with_both_values(cache):
    pipeline = Pipeline([first, second], cache=cache)
    pipeline.run({"x": 1, "k": 5})
    explanation = pipeline.explain({"x": 1, "k": 6})
    assert explanation["first"].because == "input k 5 → 6"
    assert explanation["second"].because == "upstream first changed"


def test_a_changed_global_is_named(cache, monkeypatch):
    pipeline = Pipeline([first, second], cache=cache)
    pipeline.run({"x": 1})
    monkeypatch.setitem(globals(), "FACTOR", 3)
    (change,) = pipeline.explain({"x": 1})["first"].changes
    assert (change.what, change.before, change.after) == ("global FACTOR of scaled", "2", "3")


def test_a_changed_helper_is_named(cache, monkeypatch):
    pipeline = Pipeline([first, second], cache=cache)
    pipeline.run({"x": 1})
    monkeypatch.setitem(globals(), "scaled", lambda x: x * 2 + FACTOR)
    assert pipeline.explain({"x": 1})["first"].because == "helper scaled changed"


def test_the_nodes_own_code_comes_first(cache):
    def make(source):
        scope = {}
        exec(source, scope)
        return Pipeline([node(scope["f"], output_name="y")], cache=cache)

    make("def g(x): return x\ndef f(x, n=1): return g(x) + n").run({"x": 1})
    changed = make("def g(x): return -x\ndef f(x, n=2): return g(x) - n").explain({"x": 1})["f"]
    assert [str(change) for change in changed.changes] == [
        "own code changed",
        "default of n 1 → 2",
        "helper g changed",
    ]


def test_another_cache_version_is_named(cache):
    def of_version(version):
        return Pipeline([node(abs, output_name="y", cache_version=version)], cache=cache)

    of_version("a").run({"x": 1})
    assert of_version("b").explain({"x": 1})["abs"].because == "cache_version 'a' → 'b'"


def test_nodes_that_are_not_cached_have_a_reason(cache):
    pipeline = Pipeline([first, second, third, fourth], cache=cache)
    pipeline.run({"x": 1})
    explanation = pipeline.explain({"x": 1})
    assert statuses(explanation) == {
        "first": "hit",
        "second": "hit",
        "third": "not cached",
        "fourth": "open",
    }
    assert explanation["third"].because == "marked cache=False"
    assert explanation["fourth"].because == "it depends on what c will be"
    without = pipeline.with_cache(None).explain({"x": 1})
    assert set(statuses(without).values()) == {"not cached"}


def test_inputs_without_a_fingerprint_are_named(cache):
    with pytest.warns(UserWarning, match="cannot be fingerprinted"):
        explanation = Pipeline([second], cache=cache).explain({"a": (n for n in [1])})
    assert explanation["second"].because == "a cannot be fingerprinted"


def test_the_items_of_a_map_are_counted(cache):
    pipeline = Pipeline([first, second], cache=cache)
    pipeline.map({"x": [1, 2, 3]}, map_over="x")
    explanation = pipeline.explain({"x": [1, 2, 3, 4, 5]}, map_over="x")
    assert statuses(explanation) == {"first": "3 hit, 2 miss", "second": "3 hit, 2 miss"}
    assert explanation["first"].because.startswith("input x ")


def test_the_nodes_of_nested_pipelines_are_explained(cache):
    inner = Pipeline([first], name="inner")
    outer = Pipeline([inner, second], cache=cache, name="outer")
    outer.run({"x": 1})
    assert statuses(outer.explain({"x": 1})) == {"first": "hit", "second": "hit"}
    explanation = outer.explain({"x": 2})
    assert explanation["outer/inner/first"].because == "input x 1 → 2"
    assert explanation["second"].status == "miss"


def test_the_items_of_a_nested_map_are_counted_when_they_are_known(cache):
    @node(output_name="xs")
    def listed(n):
        return list(range(n))

    inner = Pipeline([first], name="inner")
    outer = Pipeline(
        [listed, inner.as_node({"xs": "x"}, {"a": "all"}, map_over="xs")], cache=cache, name="outer"
    )
    assert outer.explain({"n": 3})["first"].because == "the items are not known yet"
    outer.run({"n": 3})
    assert outer.explain({"n": 3})["first"].status == "3 hit"
    outer.run({"n": 5}, "xs")
    assert outer.explain({"n": 5})["first"].status == "3 hit, 2 miss"


def test_a_run_does_what_its_explanation_says(cache):
    class Seen(PipelineCallback):
        def __init__(self):
            self.computed, self.cached = [], []

        def on_node_end(self, node_id, outputs, duration, ctx):
            self.computed.append(node_id)

        def on_node_cached(self, node_id, signature, ctx):
            self.cached.append(node_id)

    pipeline = Pipeline([first, second, third, fourth], cache=cache)
    pipeline.run({"x": 1})
    for inputs in ({"x": 1}, {"x": 2}, {"x": 1, "k": 9}):
        explanation = pipeline.explain(inputs, output_name="b")
        seen = Seen()
        pipeline.with_callbacks([seen]).run(inputs, "b")
        needed = [verdict for verdict in explanation if verdict.is_needed]
        assert seen.computed == [verdict.node for verdict in needed if verdict.status == "miss"]
        assert seen.cached == [verdict.node for verdict in needed if verdict.status == "hit"]


def test_an_explanation_is_a_table_in_text_and_html(cache):
    pipeline = Pipeline([first, second], cache=cache)
    pipeline.run({"x": 1})
    explanation = pipeline.explain({"x": 2}, output_name="b")
    lines = repr(explanation).splitlines()
    assert lines[0].split() == ["node", "cache", "why"]
    assert lines[2].split(maxsplit=2) == ["first", "miss", "input x 1 → 2"]
    html = explanation._repr_html_()
    assert html.count("<tr") == 3
    assert "input x 1 → 2" in html


def test_a_cache_with_only_get_and_put_is_explained_without_comparisons():
    from hypernodes.config import MISS

    class Plain:
        def __init__(self):
            self.values = {}

        def get(self, signature):
            return self.values.get(signature, MISS)

        def put(self, signature, value):
            self.values[signature] = value

    pipeline = Pipeline([first, second], cache=Plain())
    pipeline.run({"x": 1})
    assert statuses(pipeline.explain({"x": 1})) == {"first": "hit", "second": "hit"}
    assert pipeline.explain({"x": 2})["first"].because == "the cache has no entry of first"


# ------------------------------------------------------------- what is upstream, and what failed before


@node(output_name="data")
def table(n):
    return np.zeros((n, 34))


@node(output_name="cell")
def cell(data, i):
    return data[i].sum() + i


CELLS = Pipeline([cell], name="cells").as_node({"rows": "i"}, {"cell": "found"}, map_over="rows")


def test_a_value_that_a_nested_map_takes_from_outside_is_named_by_the_node_that_makes_it(cache):
    pipeline = Pipeline([table, CELLS], cache=cache)
    pipeline.run({"n": 199, "rows": [1, 2]})
    explanation = pipeline.explain({"n": 200, "rows": [1, 2]})
    assert explanation["cell"].because == "upstream table changed"
    deep = Pipeline([table, Pipeline([Pipeline([CELLS], name="low")], name="high")], cache=cache)
    assert deep.explain({"n": 200, "rows": [1, 2]})["cell"].because == "upstream table changed"


def test_an_explanation_has_no_empty_sides(cache):
    pipeline = Pipeline(
        [table, CELLS, node(sum, output_name="all").rename({"iterable": "found"})], cache=cache
    )
    pipeline.run({"n": 199, "rows": [1, 2]})
    for inputs in ({"n": 200, "rows": [1, 2]}, {"n": 199, "rows": [3]}, {"n": 5, "rows": []}):
        for verdict in pipeline.explain(inputs):
            assert all(bool(change.before) == bool(change.after) for change in verdict.changes)


@node(output_name="checked")
def check(a):
    if a == 7:
        raise ValueError(a)
    return a


@pytest.mark.parametrize("upstream", [[first], [Pipeline([first], name="made")]], ids=["node", "nested"])
def test_an_item_that_failed_before_has_nothing_that_changed_upstream(upstream, cache):
    pipeline = Pipeline([*upstream, check], cache=cache)
    pipeline.map({"x": [1, 2, 3]}, map_over="x", on_error="return")  # 2 * 1 + 5 is 7
    verdict = pipeline.explain({"x": 1})["check"]
    assert verdict.because.startswith("failed before, or was never computed, for this result of ")
    assert verdict.changes == ()
    changed = pipeline.explain({"x": 4})["check"]
    assert changed.because == f"upstream {upstream[0].name or 'made'} changed"


def test_what_really_differs_is_named_beside_a_known_result_of_another_node(cache):
    @node(output_name="s")
    def added(a, k):
        return a + k

    pipeline = Pipeline([node(lambda x: x, output_name="a"), added], cache=cache)
    pipeline.map({"x": [1, 2], "k": 5}, map_over="x", output_name="s")
    pipeline.run({"x": 3}, "a")
    assert pipeline.explain({"x": 3, "k": 6})["added"].because == "input k 5 → 6"


def test_many_nodes_that_share_code_are_explained_by_the_closest_entry(cache):
    """It takes seconds if the entries of a node are read for each node of its name."""

    def chain(start):
        later = [
            node(scaled, output_name="y").rename({"x": f"v{i}"}, {"y": f"v{i + 1}"}) for i in range(1, 1000)
        ]
        return Pipeline([node(start, output_name="v1"), *later], cache=cache)

    chain(lambda v0: v0 + 1).run({"v0": 1}, "v1000")
    explanation = chain(lambda v0: v0 + 2).explain({"v0": 1})
    assert [verdict.because for verdict in explanation][1:] == [
        "upstream <lambda> changed",
        *["upstream scaled changed"] * 998,
    ]
