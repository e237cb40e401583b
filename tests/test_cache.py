"""The cache gives back what was computed, and never what would be computed differently now."""

import contextlib
import dataclasses
import functools
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import threading
import warnings
from collections import Counter
from pathlib import Path

import pytest
from recorder import Recorder

from hypernodes import DaftEngine, DiskCache, HyperNodesEngine, Pipeline, node
from hypernodes.config import MISS
from hypernodes.exceptions import CacheWarning


@pytest.fixture
def cache(tmp_path):
    with DiskCache(tmp_path / "cache") as cache:
        yield cache


def observed(pipeline, inputs, output_name=None):
    """Run, and return the outputs, the nodes that were computed, and those that came from the cache."""
    recorder = Recorder()
    outputs = pipeline.with_callbacks([recorder]).run(inputs, output_name)
    return outputs, computed(recorder), cached(recorder)


def computed(recorder):
    return [what[0] for _, what, *_ in recorder.of("node_end")]


def cached(recorder):
    return [what[0] for _, what, *_ in recorder.of("node_cached")]


def computes(pipeline, inputs, output_name=None):
    return observed(pipeline, inputs, output_name)[1]


@node(output_name="a")
def first(x):
    return x + 1


@node(output_name="b")
def second(a):
    return a * 10


@node(output_name="c")
def third(b, y=0):
    return b + y


CHAIN = Pipeline([first, second, third], name="chain")


# ------------------------------------------------------------------------------------------------- hits


def test_a_second_run_computes_nothing(cache):
    pipeline = CHAIN.with_cache(cache)
    assert observed(pipeline, {"x": 1}) == ({"a": 2, "b": 20, "c": 20}, ["first", "second", "third"], [])
    outputs, ran, hits = observed(pipeline, {"x": 1})
    assert (outputs, ran, sorted(hits)) == ({"a": 2, "b": 20, "c": 20}, [], ["first", "second", "third"])


class Remembering:
    """A cache that remembers which values were fetched."""

    def __init__(self):
        self.values = {}
        self.fetched = []

    def get(self, signature):
        value = self.values.get(signature, MISS)
        if value is not MISS:
            self.fetched.append(signature)
        return value

    def put(self, signature, value):
        self.values[signature] = value


PARTLY = {  # what was asked for before, what is asked for then, and how many values of each item are of use
    "one of three": ("a", ["a", "b", "c"], 1),
    "two of three": ("b", ["a", "b", "c"], 2),
    "one of two": ("a", ["a", "b"], 1),
    "the one before": ("b", "c", 1),
    "the first": ("a", "c", 1),
    "all": ("c", ["a", "b", "c"], 3),
}


def map_chain(pipeline, way, outputs):
    if way == "map":
        return pipeline.map({"x": [1, 2, 3]}, "x", output_name=outputs)
    return list(pipeline.imap({"x": [1, 2, 3]}, "x", output_name=outputs))


@pytest.mark.parametrize("way", ["map", "imap"])
@pytest.mark.parametrize("part", PARTLY)
@pytest.mark.parametrize("alias", ["sequential", "async", "threaded", "daft"])
def test_each_value_that_is_cached_of_an_item_is_fetched_once(alias, part, way):
    before, then, number = PARTLY[part]
    cache = Remembering()
    with DaftEngine(runner="native") if alias == "daft" else HyperNodesEngine(map_executor=alias) as engine:
        pipeline = CHAIN.with_engine(engine).with_cache(cache)
        map_chain(pipeline, way, before)
        map_chain(pipeline, way, then)
    assert set(Counter(cache.fetched).values()) == {1}
    assert len(cache.fetched) == 3 * number


@pytest.mark.parametrize("way", ["map", "imap"])
@pytest.mark.parametrize("part", PARTLY)
@pytest.mark.parametrize("executor", ["sequential", "ThreadPoolExecutor", "ParallelExecutor"])
def test_each_value_that_is_cached_of_an_item_counts_as_one_hit(executor_named, executor, part, way, cache):
    before, then, number = PARTLY[part]
    engine = HyperNodesEngine(map_executor=executor_named(executor))
    pipeline = CHAIN.with_engine(engine).with_cache(cache)
    map_chain(pipeline, way, before)
    map_chain(pipeline, way, then)
    assert cache.stats().hits == 3 * number


@pytest.mark.parametrize("part", PARTLY)
def test_of_a_single_run_each_cached_value_is_fetched_once(part, cache):
    before, then, number = PARTLY[part]
    remembering = Remembering()
    for own in (cache, remembering):
        pipeline = CHAIN.with_cache(own)
        pipeline.run({"x": 1}, before)
        pipeline.run({"x": 1}, then)
    assert len(set(remembering.fetched)) == len(remembering.fetched) == number
    assert cache.stats().hits == number


def test_another_input_computes_anew(cache):
    pipeline = CHAIN.with_cache(cache)
    pipeline.run({"x": 1})
    assert observed(pipeline, {"x": 2}, "c") == ({"c": 30}, ["first", "second", "third"], [])


def test_only_what_depends_on_a_changed_input_is_computed(cache):
    pipeline = CHAIN.with_cache(cache)
    pipeline.run({"x": 1})
    assert observed(pipeline, {"x": 1, "y": 5}, "c") == ({"c": 25}, ["third"], ["second"])


def test_another_cache_object_on_the_same_directory_has_the_entries(tmp_path):
    with DiskCache(tmp_path) as cache:
        CHAIN.with_cache(cache).run({"x": 1})
    with DiskCache(str(tmp_path)) as again:
        assert computes(CHAIN.with_cache(again), {"x": 1}) == []


def test_a_result_of_none_is_a_result(cache):
    pipeline = Pipeline([node(lambda x: None, output_name="nothing")], cache=cache)
    pipeline.run({"x": 1})
    assert observed(pipeline, {"x": 1}) == ({"nothing": None}, [], ["<lambda>"])


def test_several_outputs_are_cached_as_one(cache):
    bounds = node(lambda x: (x - 1, x + 1), output_name=("low", "high"))
    pipeline = Pipeline([bounds, node(lambda high: high * 2, output_name="twice")], cache=cache)
    pipeline.run({"x": 1})
    assert len(cache) == 2
    assert observed(pipeline, {"x": 1}, ["low", "twice"])[:2] == ({"low": 0, "twice": 4}, [])


def test_each_of_several_outputs_is_an_input_of_its_own(cache):
    bounds = node(lambda x: (x - 1, x + 1), output_name=("low", "high"))
    negate = node(lambda high: -high, output_name="n")
    other = Pipeline([bounds, negate.rename({"high": "low"})], cache=cache)
    assert Pipeline([bounds, negate], cache=cache).run({"x": 1}, "n") == {"n": -2}
    assert other.run({"x": 1}, "n") == {"n": 0}


def test_names_do_not_matter_for_what_is_computed(cache):
    CHAIN.with_cache(cache).run({"x": 1})
    renamed = Pipeline([first.rename({"x": "p"}, {"a": "q"}), second.rename({"a": "q"})], cache=cache)
    assert observed(renamed, {"p": 1})[:2] == ({"q": 2, "b": 20}, [])


def test_swapping_two_inputs_is_another_computation(cache):
    subtract = node(lambda p, q: p - q, output_name="d")
    swapped = Pipeline([subtract.rename({"p": "q", "q": "p"})], cache=cache)
    assert Pipeline([subtract], cache=cache).run({"p": 1, "q": 5}) == {"d": -4}
    assert swapped.run({"p": 1, "q": 5}) == {"d": 4}


def test_a_default_left_out_and_given_as_it_is_give_the_same_result(cache):
    pipeline = CHAIN.with_cache(cache)
    assert pipeline.run({"x": 1}, "c") == pipeline.run({"x": 1, "y": 0}, "c")


def test_the_default_of_a_nested_map_given_as_it_is_is_the_same_computation(cache):
    inner = CHAIN.as_node({"xs": "x"}, {"c": "cs"}, map_over="xs")
    pipeline = Pipeline([inner, node(lambda cs: sum(cs), output_name="total")], cache=cache)
    first = pipeline.run({"xs": [1, 2]}, "total")
    assert observed(pipeline, {"xs": [1, 2], "y": 0}, "total") == (first, [], ["<lambda>"])


def test_what_the_items_of_a_nested_map_compute_on_an_event_loop_is_stored(cache):
    calls = []

    async def double(x):
        calls.append(x)
        return 2 * x

    inner = Pipeline([node(double, output_name="y")], name="inner")
    nested = inner.as_node({"xs": "x"}, {"y": "ys"}, map_over="xs")
    with HyperNodesEngine(map_executor="async") as engine:
        outer = Pipeline([nested], engine=engine, cache=cache)
        for _ in range(2):
            assert outer.map({"xs": [[1, 2], [3]]}, "xs") == {"ys": [[2, 4], [6]]}
    assert sorted(calls) == [1, 2, 3]


def test_signatures_do_not_depend_on_which_outputs_are_asked_for(cache, tmp_path):
    for wanted in ("a", "b", "c"):
        CHAIN.with_cache(cache).run({"x": 1}, wanted)
    with DiskCache(tmp_path / "other") as other:
        CHAIN.with_cache(other).run({"x": 1})
        assert sorted(cache) == sorted(other)


def test_a_hit_on_the_wanted_output_looks_up_nothing_behind_it(cache):
    pipeline = CHAIN.with_cache(cache)
    pipeline.run({"x": 1}, "c")
    assert observed(pipeline, {"x": 1}, "c") == ({"c": 20}, [], ["third"])


def test_a_hit_on_the_wanted_output_needs_no_entry_behind_it(cache):
    pipeline = CHAIN.with_cache(cache)
    pipeline.run({"x": 1}, "b")
    behind = set(cache)
    pipeline.run({"x": 1}, "c")
    for signature in behind:
        cache.delete(signature)
    assert observed(pipeline, {"x": 1}, "c") == ({"c": 20}, [], ["third"])


def test_only_the_evicted_part_of_a_chain_is_computed(cache):
    pipeline = CHAIN.with_cache(cache)
    pipeline.run({"x": 1}, "b")
    behind = set(cache)
    pipeline.run({"x": 1}, "c")
    for signature in set(cache) - behind:
        cache.delete(signature)
    assert observed(pipeline, {"x": 1}, "c") == ({"c": 20}, ["third"], ["second"])


def test_a_given_intermediate_value_counts_by_its_content(cache):
    pipeline = CHAIN.with_cache(cache)
    assert pipeline.run({"b": 1}, "c") == {"c": 1}
    assert pipeline.run({"b": 2}, "c") == {"c": 2}
    assert computes(pipeline, {"b": 1}, "c") == []


def test_bound_inputs_count_by_their_content(cache):
    pipeline = CHAIN.with_cache(cache)
    assert pipeline.bind(y=1).run({"x": 1}, "c") == {"c": 21}
    assert pipeline.bind(y=2).run({"x": 1}, "c") == {"c": 22}
    assert computes(pipeline.bind(y=1), {"x": 1}, "c") == []
    assert computes(pipeline, {"x": 1, "y": 1}, "c") == []


def test_async_and_generator_nodes_are_cached(cache):
    @node(output_name="fetched")
    async def fetch(x):
        return x + 1

    @node(output_name="counted")
    def count(fetched):
        yield from range(fetched)

    pipeline = Pipeline([fetch, count], cache=cache)
    pipeline.run({"x": 1})
    assert observed(pipeline, {"x": 1}, "counted") == ({"counted": [0, 1]}, [], ["count"])


def test_clearing_the_cache_makes_everything_run_again(cache):
    pipeline = CHAIN.with_cache(cache)
    pipeline.run({"x": 1})
    assert cache.clear() == 3
    assert computes(pipeline, {"x": 1}) == ["first", "second", "third"]


def test_a_failing_node_leaves_no_entry(cache):
    pipeline = Pipeline([first, node(lambda a: a / 0, output_name="never")], cache=cache)
    with pytest.raises(ZeroDivisionError):
        pipeline.run({"x": 1})
    assert len(cache) == 1


def test_changing_a_result_after_the_run_does_not_change_the_entry(cache):
    pipeline = Pipeline([node(lambda x: [x], output_name="items")], cache=cache)
    pipeline.run({"x": 1})["items"].append("mine")
    pipeline.run({"x": 1})["items"].append("mine")
    assert pipeline.run({"x": 1}) == {"items": [1]}


# ---------------------------------------------------------------------------------------- cache=False


def test_a_node_that_must_not_be_cached_runs_every_time(cache):
    pipeline = Pipeline([node(first.function, output_name="a", cache=False), second], cache=cache)
    assert computes(pipeline, {"x": 1}) == ["first", "second"]
    assert observed(pipeline, {"x": 1}) == ({"a": 2, "b": 20}, ["first"], ["second"])


def test_what_an_uncached_node_returns_counts_by_its_content(cache, tmp_path):
    file = tmp_path / "number"

    @node(output_name="a", cache=False)
    def read(path):
        return int(path.read_text())

    pipeline = Pipeline([read, second], cache=cache)
    for content, ran in (("1", ["read", "second"]), ("2", ["read", "second"]), ("1", ["read"])):
        file.write_text(content)
        assert observed(pipeline, {"path": file}, "b")[:2] == ({"b": int(content) * 10}, ran)


def test_a_nested_pipeline_around_an_uncached_node_counts_by_content(cache, tmp_path):
    file = tmp_path / "number"

    @node(output_name="a", cache=False)
    def read(path):
        return int(path.read_text())

    for inner in (Pipeline([read], name="inner"), Pipeline([Pipeline([read])], name="inner")):
        pipeline = Pipeline([inner, second], cache=cache)
        for content in ("1", "2"):
            file.write_text(content)
            assert pipeline.run({"path": file}, "b") == {"b": int(content) * 10}


def test_a_nested_pipeline_that_is_not_cached_counts_by_content(cache, tmp_path):
    file = tmp_path / "number"

    @node(output_name="a")
    def read(path):
        return int(path.read_text())

    pipeline = Pipeline([Pipeline([read], cache=None), second], cache=cache)
    for content in ("1", "2", "1"):
        file.write_text(content)
        assert pipeline.run({"path": file}, "b") == {"b": int(content) * 10}
    assert len(cache) == 2


# ------------------------------------------------------------------------------------- changed code


def define(source, name="f", **world):
    """Return a function from a module of its own with these globals."""
    namespace = {"__name__": "written", **world}
    exec(textwrap.dedent(source), namespace)
    return namespace[name]


def results_of_changes(cache, *functions, x=1):
    """Run the pipeline ``f -> last`` with each function as ``f``; return results and numbers of calls."""
    results = []
    for function in functions:
        pipeline = Pipeline(
            [first, node(function, output_name="v"), node(lambda v: v, output_name="last")], cache=cache
        )
        outputs, ran, _ = observed(pipeline, {"x": x}, "last")
        results.append((outputs["last"], len(ran)))
    return results


def test_a_changed_constant_in_the_code_computes_from_there_on(cache):
    one, two = (define(f"def f(a): return a + {number}") for number in (1, 2))
    assert results_of_changes(cache, one, two, one) == [(3, 3), (4, 2), (3, 0)]


def test_comments_formatting_and_the_place_in_the_file_do_not_count(cache):
    one = define("def f(a):\n    'Old.'\n    return a + 1")
    two = define("\n\n# moved\ndef f(a):\n    'New.'\n    # adds\n    return (a + 1)")
    assert results_of_changes(cache, one, two) == [(3, 3), (3, 0)]


def test_a_docstring_that_is_added_does_not_count(cache):
    one = define("def f(a):\n    return a + 1")
    two = define("def f(a):\n    'Says what it does.'\n    return a + 1")
    assert results_of_changes(cache, one, two) == [(3, 3), (3, 0)]


def test_a_changed_helper_computes_anew(cache):
    source = "def help(v): return v + {0}\ndef f(a): return help(a)"
    one, two = (define(source.format(number)) for number in (1, 2))
    assert results_of_changes(cache, one, two, one) == [(3, 3), (4, 2), (3, 0)]


def test_a_changed_helper_of_a_helper_computes_anew(cache):
    source = "def deep(v): return v + {0}\ndef help(v): return deep(v)\ndef f(a): return help(a)"
    one, two = (define(source.format(number)) for number in (1, 2))
    assert results_of_changes(cache, one, two) == [(3, 3), (4, 2)]


def test_a_changed_helper_that_is_called_inside_a_comprehension_computes_anew(cache):
    source = "def help(v): return v + {0}\ndef f(a): return sum([help(v) for v in [a]])"
    one, two = (define(source.format(number)) for number in (1, 2))
    assert results_of_changes(cache, one, two) == [(3, 3), (4, 2)]


def test_a_changed_method_of_a_class_that_is_used_computes_anew(cache):
    source = "class C:\n    def m(self, v): return v + {0}\ndef f(a): return C().m(a)"
    one, two = (define(source.format(number)) for number in (1, 2))
    assert results_of_changes(cache, one, two) == [(3, 3), (4, 2)]


def test_a_changed_base_class_computes_anew(cache):
    source = "class B:\n    def m(self, v): return v + {0}\nclass C(B): pass\ndef f(a): return C().m(a)"
    one, two = (define(source.format(number)) for number in (1, 2))
    assert results_of_changes(cache, one, two) == [(3, 3), (4, 2)]


def test_a_changed_global_computes_anew(cache):
    one, two = (define("def f(a): return a + NUMBER", NUMBER=number) for number in (1, 2))
    assert results_of_changes(cache, one, two, one) == [(3, 3), (4, 2), (3, 0)]


def test_a_global_counts_as_it_stands_when_a_run_starts(cache):
    function = define("def f(a): return a + NUMBER", NUMBER=1)
    pipeline = Pipeline([first, node(function, output_name="v")], cache=cache)
    assert pipeline.run({"x": 1}, "v") == {"v": 3}
    function.__globals__["NUMBER"] = 5
    assert pipeline.run({"x": 1}, "v") == {"v": 7}


def test_a_global_that_is_read_through_a_module_of_the_users_own_counts(cache):
    import types

    settings = types.ModuleType("settings_of_the_user")
    settings.NUMBER = 1
    function = define("def f(a): return a + settings.NUMBER", settings=settings)
    pipeline = Pipeline([first, node(function, output_name="v")], cache=cache)
    assert pipeline.run({"x": 1}, "v") == {"v": 3}
    settings.NUMBER = 5
    assert pipeline.run({"x": 1}, "v") == {"v": 7}


def test_a_global_that_the_code_only_changes_is_no_input(cache):
    source = "LOG, SEEN = [], {}\ndef f(a):\n    LOG.append(a)\n    SEEN[a] = a\n    return a"
    function = define(source)
    assert results_of_changes(cache, function, function) == [(2, 3), (2, 0)]
    assert function.__globals__["LOG"] == [2]


def test_a_changed_closure_value_computes_anew(cache):
    def adding(number):
        def f(a):
            return a + number

        return f

    assert results_of_changes(cache, adding(1), adding(2), adding(1)) == [(3, 3), (4, 2), (3, 0)]


def test_a_changed_default_computes_anew(cache):
    one, two = (define(f"def f(a, b={number}): return a + b") for number in (1, 2))
    assert results_of_changes(cache, one, two, one) == [(3, 3), (4, 2), (3, 0)]


def test_a_changed_keyword_only_default_computes_anew(cache):
    one, two = (define(f"def f(a, *, b={number}): return a + b") for number in (1, 2))
    assert results_of_changes(cache, one, two) == [(3, 3), (4, 2)]


def test_a_changed_partial_argument_computes_anew(cache):
    def add(a, b):
        return a + b

    one, two = (functools.partial(add, b=number) for number in (1, 2))
    assert results_of_changes(cache, one, two, one) == [(3, 3), (4, 2), (3, 0)]


class Adder:
    """A callable with state."""

    def __init__(self, number, label=""):
        self.number = number
        self._label = label

    def add(self, a):
        return a + self.number

    def __call__(self, a):
        return a + self.number


def test_a_changed_state_of_a_bound_methods_object_computes_anew(cache):
    assert results_of_changes(cache, Adder(1).add, Adder(2).add, Adder(1).add) == [(3, 3), (4, 2), (3, 0)]


def test_a_changed_state_of_a_callable_object_computes_anew(cache):
    assert results_of_changes(cache, Adder(1), Adder(2), Adder(1)) == [(3, 3), (4, 2), (3, 0)]


def test_private_attributes_of_a_callable_object_count(cache):
    one, other, same = Adder(1, "a"), Adder(1, "b"), Adder(1, "a")
    assert results_of_changes(cache, one, other, same) == [(3, 3), (3, 2), (3, 0)]


def test_a_changed_node_that_is_called_as_a_function_computes_anew(cache):
    one, two = (
        define(
            "def f(a): return helper(a)", helper=node(define(f"def f(v): return v + {n}"), output_name="h")
        )
        for n in (1, 2)
    )
    assert results_of_changes(cache, one, two) == [(3, 3), (4, 2)]


def test_a_changed_pipeline_that_a_node_runs_computes_anew(cache):
    one, two = (
        define(
            "def f(a): return inner.run({'v': a})['h']",
            inner=Pipeline([node(define(f"def f(v): return v + {n}"), output_name="h")]),
        )
        for n in (1, 2)
    )
    assert results_of_changes(cache, one, two, one) == [(3, 3), (4, 2), (3, 0)]


def test_a_decorated_helper_counts_with_what_it_wraps(cache):
    source = """
        import functools
        def noisy(function):
            @functools.wraps(function)
            def wrapper(*args):
                return function(*args)
            return wrapper
        @noisy
        def help(v): return v + {0}
        def f(a): return help(a)
    """
    one, two = (define(source.format(number)) for number in (1, 2))
    assert results_of_changes(cache, one, two) == [(3, 3), (4, 2)]


def test_a_memoized_helper_counts_by_its_code(cache):
    source = """
        import functools
        @functools.lru_cache
        def help(v): return v + {0}
        def f(a): return help(a)
    """
    one, two = (define(source.format(number)) for number in (1, 2))
    assert results_of_changes(cache, one, two) == [(3, 3), (4, 2)]


def test_functions_that_call_each_other_can_be_cached_and_changed(cache):
    source = """
        def even(n): return True if n == 0 else odd(n - 1)
        def odd(n): return {0} if n == 0 else even(n - 1)
        def f(a): return even(a)
    """
    one, two = (define(source.format(value)) for value in (False, None))
    assert results_of_changes(cache, one, two, one, x=2) == [(False, 3), (None, 2), (False, 0)]


def test_code_without_a_fingerprint_is_not_cached_and_a_warning_names_the_node(cache):
    numbers = (number for number in range(9))

    @node(output_name="n")
    def draw(x):
        return next(numbers)

    pipeline = Pipeline([draw], cache=cache, name="drawing")
    with pytest.warns(CacheWarning, match=r"'draw' of pipeline 'drawing'.*numbers of 'draw'"):
        assert pipeline.run({"x": 1}) == {"n": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CacheWarning)
        assert pipeline.run({"x": 1}) == {"n": 1}


def test_code_without_a_fingerprint_is_warned_of_once(cache):
    numbers = (number for number in range(9))
    pipeline = Pipeline([node(lambda x: next(numbers), output_name="n")], cache=cache)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            pipeline.run({"x": 1})
    assert len(caught) == 1


# --------------------------------------------------------------------------------------- input values


class Box:
    """An input with public and private state."""

    def __init__(self, value, session=None):
        self.value = value
        self._session = session


class Secretive:
    """An input whose whole state is private."""

    def __init__(self, weight):
        self._weight = weight

    def weigh(self):
        return self._weight


class Keyed:
    """An input that defines its own cache key."""

    def __init__(self, key, value):
        self.key, self.value = key, value

    def __cache_key__(self):
        return self.key


@dataclasses.dataclass
class Point:
    """A plain dataclass."""

    x: int
    _y: int


SEE = Pipeline([node(lambda thing: vars(thing), output_name="seen")])


def test_public_attributes_of_an_input_count(cache):
    pipeline = SEE.with_cache(cache)
    pipeline.run({"thing": Box(1)})
    assert computes(pipeline, {"thing": Box(1)}) == []
    assert computes(pipeline, {"thing": Box(2)}) == ["<lambda>"]


def test_private_attributes_of_an_input_count(cache):
    pipeline = SEE.with_cache(cache)
    pipeline.run({"thing": Box(1, session="a")})
    assert computes(pipeline, {"thing": Box(1, session="a")}) == []
    assert computes(pipeline, {"thing": Box(1, session="b")}) == ["<lambda>"]


def test_private_attributes_count_where_there_are_no_others(cache):
    pipeline = Pipeline([node(lambda thing: thing.weigh(), output_name="w")], cache=cache)
    assert pipeline.run({"thing": Secretive(1)}) == {"w": 1}
    assert pipeline.run({"thing": Secretive(2)}) == {"w": 2}


def test_an_object_with_a_cache_key_counts_by_that(cache):
    pipeline = SEE.with_cache(cache)
    pipeline.run({"thing": Keyed("k", 1)})
    assert computes(pipeline, {"thing": Keyed("k", 2)}) == []
    assert computes(pipeline, {"thing": Keyed("other", 1)}) == ["<lambda>"]


def test_an_input_without_stable_content_is_not_cached_and_is_warned_of_once(cache):
    pipeline = Pipeline([node(lambda thing: next(thing), output_name="n")], cache=cache)
    with pytest.warns(CacheWarning, match="generator") as caught:
        for number in (5, 6):
            assert pipeline.run({"thing": (n for n in [number])}) == {"n": number}
    assert len(caught) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        (1, True),
        (1, "1"),
        (0.0, -0.0),
        ((1,), [1]),
        ({1}, frozenset({1})),
        ("a", b"a"),
        (b"a", bytearray(b"a")),
        (Point(1, 2), Point(1, 3)),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    ],
)
def test_values_that_compare_equal_but_are_not_the_same_are_computed_anew(cache, one, other):
    pipeline = Pipeline([node(lambda v: repr(v), output_name="text")], cache=cache)
    assert pipeline.run({"v": one}) == {"text": repr(one)}
    assert pipeline.run({"v": other}) == {"text": repr(other)}


# ---------------------------------------------------------------------------------------------- maps


def test_items_of_a_map_are_cached_singly(cache):
    pipeline = CHAIN.with_cache(cache)
    pipeline.map({"x": [1, 2, 3]}, "x")
    recorder = Recorder()
    mapped = pipeline.with_callbacks([recorder]).map({"x": [3, 4, 1]}, "x", output_name="a")
    assert mapped == {"a": [4, 5, 2]}
    assert computed(recorder) == ["first"]


def test_an_item_and_a_single_run_share_their_entries(cache):
    pipeline = CHAIN.with_cache(cache)
    pipeline.map({"x": [1, 2]}, "x")
    assert computes(pipeline, {"x": 2}) == []


def test_what_all_items_have_in_common_is_computed_once(cache):
    common = node(lambda y: y * 100, output_name="base")
    pipeline = Pipeline([common, node(lambda x, base: x + base, output_name="s")], cache=cache)
    recorder = Recorder()
    mapped = pipeline.with_callbacks([recorder]).map({"x": [1, 2], "y": 1}, "x", output_name="s")
    assert mapped == {"s": [101, 102]}
    assert (len(computed(recorder)), cached(recorder)) == (3, [])


def test_a_fixed_input_counts_for_every_item(cache):
    pipeline = CHAIN.with_cache(cache)
    assert pipeline.map({"x": [1, 2], "y": 1}, "x", output_name="c") == {"c": [21, 31]}
    assert pipeline.map({"x": [1, 2], "y": 2}, "x", output_name="c") == {"c": [22, 32]}


def test_items_that_are_equal_share_an_entry(cache):
    recorder = Recorder()
    pipeline = CHAIN.with_cache(cache).with_callbacks([recorder])
    assert pipeline.map({"x": [1, 1]}, "x", output_name="c") == {"c": [20, 20]}
    assert computed(recorder) == ["first", "second", "third"]


def test_good_items_are_cached_when_another_one_fails(cache):
    pipeline = Pipeline([node(lambda x: 1 / x, output_name="inverse")], cache=cache)
    pipeline.map({"x": [1, 0, 2]}, "x", on_error="return")
    assert len(cache) == 2


# -------------------------------------------------------------------------------------------- nesting


def test_nested_pipelines_are_cached_node_by_node(cache):
    outer = Pipeline([CHAIN, node(lambda c: -c, output_name="end")], cache=cache)
    outer.run({"x": 1}, "end")
    assert observed(outer, {"x": 1}, "end") == ({"end": -20}, [], ["<lambda>"])


def test_a_pipeline_alone_and_nested_share_their_entries(cache):
    CHAIN.with_cache(cache).run({"x": 1})
    outer = Pipeline([CHAIN.as_node({"start": "x"}, {"c": "end"})], cache=cache)
    assert computes(outer, {"start": 1}) == ["chain"]
    assert len(cache) == 3


def test_a_changed_node_deep_inside_computes_what_follows_outside(cache):
    def outer(number):
        change = node(define(f"def f(c): return c + {number}"), output_name="d")
        inner = Pipeline([CHAIN, change], name="inner")
        middle = Pipeline([inner.as_node({"start": "x"})], name="middle")
        return Pipeline([middle, node(lambda d: d * 2, output_name="end")], cache=cache)

    assert outer(1).run({"start": 1}, "end") == {"end": 42}
    assert outer(2).run({"start": 1}, "end") == {"end": 44}
    assert computes(outer(1), {"start": 1}, "end") == []


def test_a_nested_map_computes_only_the_new_item(cache):
    maps = CHAIN.as_node({"xs": "x"}, {"c": "cs"}, map_over="xs")
    outer = Pipeline([maps, node(lambda cs: sum(cs), output_name="total")], cache=cache)
    outer.run({"xs": [1, 2]}, "total")
    assert computes(outer, {"xs": [1, 2]}, "total") == []
    outputs, ran, _ = observed(outer, {"xs": [1, 2, 3]}, "total")
    assert outputs == {"total": 90}
    assert ran.count("first") == 1


@pytest.mark.parametrize("inputs", [{"xs": [1, 2], "ys": [3, 4]}])
def test_zip_and_product_over_the_same_lists_are_different_computations(cache, inputs):
    pair = Pipeline([node(lambda x, y: (x, y), output_name="p")])
    names = {"xs": "x", "ys": "y"}
    outcomes = []
    for mode in ("zip", "product"):
        maps = pair.as_node(names, {"p": "ps"}, map_over=["xs", "ys"], map_mode=mode)
        outer = Pipeline([maps, node(lambda ps: len(ps), output_name="count")], cache=cache)
        outcomes.append(outer.run(inputs, "count"))
    assert outcomes == [{"count": 2}, {"count": 4}]


def test_the_order_of_a_nested_product_counts(cache):
    pair = Pipeline([node(lambda x, y: (x, y), output_name="p")])
    names = {"xs": "x", "ys": "y"}
    outcomes = []
    for order in (["xs", "ys"], ["ys", "xs"]):
        maps = pair.as_node(names, {"p": "ps"}, map_over=order, map_mode="product")
        outer = Pipeline([maps, node(lambda ps: ps[1], output_name="second")], cache=cache)
        outcomes.append(outer.run({"xs": [1, 2], "ys": [3, 4]}, "second"))
    assert outcomes == [{"second": (1, 4)}, {"second": (2, 3)}]


def test_mapping_over_a_list_and_passing_it_whole_are_different_computations(cache):
    inner = Pipeline([node(lambda x: x * 2, output_name="y")])
    last = node(lambda y: y, output_name="end")
    plain = Pipeline([inner, last], cache=cache)
    mapped = Pipeline([inner.as_node(map_over="x"), last], cache=cache)
    assert plain.run({"x": [1, 2]}, "end") == {"end": [1, 2, 1, 2]}
    assert mapped.run({"x": [1, 2]}, "end") == {"end": [2, 4]}


def test_a_list_made_by_a_node_and_walked_inside_computes_only_what_changed(cache):
    split = node(lambda text: text.split(), output_name="words")
    inner = Pipeline([node(lambda word: word.upper(), output_name="loud")])
    outer = Pipeline([split, inner.as_node({"words": "word"}, map_over="words")], cache=cache)
    assert outer.run({"text": "a b"}, "loud") == {"loud": ["A", "B"]}
    assert len(cache) == 3
    assert outer.run({"text": "a b c"}, "loud") == {"loud": ["A", "B", "C"]}
    assert len(cache) == 5


# --------------------------------------------------------------------------------------- what can break


def damage(cache, change):
    """Change the database without the cache."""
    signatures = list(cache)
    with contextlib.closing(sqlite3.connect(cache.path / "cache.db")) as database, database:
        for signature in signatures:
            where = "FROM Cache WHERE key = ?", (signature,)
            ((value,),) = database.execute(f"SELECT value {where[0]}", where[1]).fetchall()
            database.execute("UPDATE Cache SET value = ? WHERE key = ?", (change(value), signature))


@pytest.mark.parametrize(
    "change",
    [
        lambda entry: entry[:-1] + bytes([entry[-1] ^ 1]),
        lambda entry: entry[: len(entry) // 2],
        lambda entry: b"",
        lambda entry: b"something else",
        lambda entry: "not bytes",
    ],
    ids=["bit flipped", "truncated", "empty", "foreign bytes", "foreign value"],
)
def test_a_damaged_entry_is_computed_again_with_one_warning(cache, change):
    pipeline = CHAIN.with_cache(cache)
    pipeline.run({"x": 1})
    damage(cache, change)
    with pytest.warns(CacheWarning, match="dropped and computed again") as caught:
        assert observed(pipeline, {"x": 1})[:2] == (
            {"a": 2, "b": 20, "c": 20},
            ["first", "second", "third"],
        )
    assert len(caught) == 1
    assert computes(pipeline, {"x": 1}) == []


def test_entries_that_changed_places_are_computed_again(cache):
    pipeline = CHAIN.with_cache(cache)
    pipeline.run({"x": 1}, "a")
    (one,) = cache
    pipeline.run({"x": 2}, "a")
    (two,) = set(cache) - {one}
    with contextlib.closing(sqlite3.connect(cache.path / "cache.db")) as database, database:
        database.execute(
            "UPDATE Cache SET value = (SELECT value FROM Cache WHERE key = ?) WHERE key = ?", (one, two)
        )
    with pytest.warns(CacheWarning):
        assert pipeline.run({"x": 2}, "a") == {"a": 3}


def test_entries_written_with_another_key_are_computed_again(tmp_path):
    with DiskCache(tmp_path, key="secret") as cache:
        CHAIN.with_cache(cache).run({"x": 1})
        assert computes(CHAIN.with_cache(cache), {"x": 1}) == []
    with DiskCache(tmp_path, key="guess") as other, pytest.warns(CacheWarning, match="another key"):
        assert computes(CHAIN.with_cache(other), {"x": 1}) == ["first", "second", "third"]


def test_an_entry_without_the_key_is_never_unpickled(tmp_path):
    mark = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(mark),)

    with DiskCache(tmp_path / "cache") as cache:
        cache.put("signature", Evil())
    with DiskCache(tmp_path / "cache", key="secret") as cache, pytest.warns(CacheWarning):
        cache.get("signature")
    assert not mark.exists()


def test_keys_may_be_longer_than_a_digest_takes(tmp_path):
    with DiskCache(tmp_path, key="k" * 64 + "one") as cache:
        CHAIN.with_cache(cache).run({"x": 1})
    with DiskCache(tmp_path, key="k" * 64 + "two") as other, pytest.warns(CacheWarning):
        assert computes(CHAIN.with_cache(other), {"x": 1}) == ["first", "second", "third"]


def test_the_key_can_come_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("HYPERNODES_CACHE_KEY", "secret")
    with DiskCache(tmp_path) as cache:
        CHAIN.with_cache(cache).run({"x": 1})
    monkeypatch.delenv("HYPERNODES_CACHE_KEY")
    with DiskCache(tmp_path, key="secret") as cache:
        assert computes(CHAIN.with_cache(cache), {"x": 1}) == []


def test_a_result_that_is_not_picklable_is_returned_and_not_stored(cache):
    pipeline = Pipeline([node(lambda x: [x, threading.Lock()], output_name="pair")], cache=cache)
    with pytest.warns(CacheWarning, match="not picklable") as caught:
        for _ in range(2):
            assert pipeline.run({"x": 1})["pair"][0] == 1
    assert len(caught) == 1
    assert len(cache) == 0


def test_nodes_after_a_result_that_is_not_picklable_are_cached(cache):
    make = node(lambda x: [x, threading.Lock()], output_name="pair")
    pipeline = Pipeline([make, node(lambda pair: pair[0], output_name="first")], cache=cache)
    with pytest.warns(CacheWarning, match="not picklable"):
        pipeline.run({"x": 3}, "first")
    assert observed(pipeline, {"x": 3}, "first") == ({"first": 3}, [], ["<lambda>"])


def test_an_entry_that_cannot_be_unpickled_any_more_is_computed_again(cache, tmp_path, monkeypatch):
    class Fragile:
        def __reduce__(self):
            return open, (str(tmp_path / "gone"),)

    (tmp_path / "gone").touch()
    pipeline = Pipeline([node(lambda x: [x], output_name="items")], cache=cache)
    pipeline.run({"x": 1})
    (signature,) = cache
    cache.put(signature, (Fragile(),))
    (tmp_path / "gone").unlink()
    with pytest.warns(CacheWarning, match="cannot be unpickled"):
        assert pipeline.run({"x": 1}) == {"items": [1]}


def test_a_directory_that_is_deleted_meanwhile_costs_only_the_entries(tmp_path):
    with DiskCache(tmp_path / "cache") as cache:
        pipeline = CHAIN.with_cache(cache)
        pipeline.run({"x": 1})
        shutil.rmtree(tmp_path / "cache")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CacheWarning)
            assert pipeline.run({"x": 1}) == {"a": 2, "b": 20, "c": 20}
            assert pipeline.run({"x": 2}) == {"a": 3, "b": 30, "c": 30}


READ_ONLY = """
import os, sys, tempfile, warnings
from hypernodes import DiskCache, Pipeline, node
warnings.simplefilter("always")
big = node(lambda x: [x] * 50_000, output_name="big")
pipeline = Pipeline([node(lambda x: x + 1, output_name="a"), big])
with tempfile.TemporaryDirectory() as elsewhere, DiskCache(elsewhere) as cache:
    pipeline.with_cache(cache).run({"x": 1})  # This imports all modules, which perhaps only root can read.
if os.geteuid() == 0:  # Root could write to the directory.
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
pipeline = pipeline.with_cache(DiskCache(sys.argv[1]))
for x in (1, 2, 2):
    outputs = pipeline.run({"x": x})
    assert (outputs["a"], len(outputs["big"])) == (x + 1, 50_000)
print("fine")
"""


def test_a_cache_that_was_closed_stays_closed(tmp_path):
    before = set(threading.enumerate())
    with DiskCache(tmp_path / "cache") as cache:
        CHAIN.with_cache(cache).run({"x": 1})
    shutil.rmtree(tmp_path / "cache")
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=30)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("existing", [True, False])
def test_a_read_only_directory_costs_only_the_entries(existing):
    with tempfile.TemporaryDirectory() as parent:
        directory = Path(parent, "cache")
        directory.mkdir()
        if existing:
            with DiskCache(directory) as cache:
                cache.put("something", 1)
        for file in directory.iterdir():
            file.chmod(0o444)
        directory.chmod(0o555)
        Path(parent).chmod(0o555)
        done = subprocess.run(
            [sys.executable, "-c", READ_ONLY, str(directory)], capture_output=True, text=True, check=False
        )
        Path(parent).chmod(0o755)
        directory.chmod(0o755)
    assert done.stdout == "fine\n", done.stderr
    assert "CacheWarning" in done.stderr


def test_a_path_that_is_a_file_is_refused(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(NotADirectoryError, match="Give another path"):
        DiskCache(file)


def test_a_cache_with_a_size_limit_drops_what_was_not_used_for_longest(tmp_path):
    with DiskCache(tmp_path, size_limit=200_000) as cache:
        pipeline = Pipeline([node(lambda x: bytes([x]) * 20_000, output_name="blob")], cache=cache)
        pipeline.map({"x": range(40)}, "x")
        assert len(cache) < 40
        assert computes(pipeline, {"x": 39}) == []
        assert computes(pipeline, {"x": 0}) == ["<lambda>"]


SCRIPT = """
import functools, sys
from hypernodes import DiskCache, Pipeline, node

OPTIONS = {"b", "a", "c"}

def scale(v):
    return v * 2 if v in {1, 2, 3} else v

@functools.lru_cache
def memoized(v):
    return v + 0

@node(output_name="y")
def double(x, names=frozenset({"p", "q"})):
    print("computed")
    return memoized(x) - x + scale(x) + len(OPTIONS) + len(names)

cache = DiskCache(sys.argv[1])
print(Pipeline([double], cache=cache).run({"x": 1}))
"""


def test_another_process_with_another_hash_seed_hits(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    results = [
        subprocess.run(
            [sys.executable, str(script), str(tmp_path / "cache")],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert results == ["computed\n{'y': 7}\n", "{'y': 7}\n"]


def test_an_edited_script_computes_again(tmp_path):
    script = tmp_path / "script.py"
    results = []
    for old, new in (("", ""), ("v * 2", "v * 3"), ("v + 0", "v + 10")):
        script.write_text(SCRIPT.replace(old, new) if old else SCRIPT)
        command = [sys.executable, str(script), str(tmp_path / "cache")]
        results.append(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert results == [f"computed\n{{'y': {result}}}\n" for result in (7, 8, 17)]
