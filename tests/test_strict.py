"""A strict pipeline refuses nodes that change what they are given."""

import asyncio

import numpy as np
import pytest

from hypernodes import DiskCache, HyperNodesEngine, Pipeline, node
from hypernodes.exceptions import MutationError


@node(output_name="longer")
def appended(values):
    values.append(1)
    return values


@node(output_name="total")
def total(values):
    return sum(values)


def test_a_node_that_changes_its_input_is_an_error_that_names_it():
    with pytest.raises(MutationError, match=r"node 'appended' of pipeline 'p' .* input 'values' \(a list\)"):
        Pipeline([appended], name="p", strict=True).run({"values": []})


def test_a_node_that_leaves_its_input_alone_runs():
    assert Pipeline([total], strict=True).run({"values": [1, 2]}) == {"total": 3}


def test_without_strict_nothing_is_checked():
    assert Pipeline([appended]).run({"values": []}) == {"longer": [1]}


@pytest.mark.parametrize("executor", ["sequential", "async", "threaded", "parallel"])
def test_every_executor_checks(executor):
    with HyperNodesEngine(map_executor=executor) as engine:
        pipeline = Pipeline([appended], engine=engine, strict=True)
        with pytest.raises(MutationError):
            pipeline.map({"values": [[], []]}, map_over="values")


def test_a_nested_pipeline_is_strict_when_the_one_around_is():
    inner = Pipeline([appended], name="inner")
    with pytest.raises(MutationError, match="'outer/inner'"):
        Pipeline([inner], name="outer", strict=True).run({"values": []})


def test_a_strict_pipeline_is_strict_when_nested():
    inner = Pipeline([appended], name="inner", strict=True)
    with pytest.raises(MutationError):
        Pipeline([inner]).run({"values": []})


def test_changed_arrays_and_attributes_are_seen():
    class Box:
        def __init__(self):
            self.content = 1
            self._uses = 0

    @node(output_name="y")
    def filled(box):
        box.content = 2
        return 1

    @node(output_name="y")
    def used(box):
        box._uses += 1
        return 1

    @node(output_name="y")
    def zeroed(array):
        array[0] = 0
        return array

    with pytest.raises(MutationError, match="'box'"):
        Pipeline([filled], strict=True)(box=Box())
    with pytest.raises(MutationError, match="'array'"):
        Pipeline([zeroed], strict=True)(array=np.ones(3))
    assert Pipeline([used], strict=True)(box=Box()) == {"y": 1}


def test_coroutines_are_checked():
    @node(output_name="y")
    async def emptied(values):
        await asyncio.sleep(0)
        values.clear()

    with pytest.raises(MutationError):
        Pipeline([emptied], strict=True)(values=[1])


def test_a_result_of_a_call_that_changed_its_input_is_not_cached(tmp_path):
    with DiskCache(tmp_path / "cache") as cache:
        with pytest.raises(MutationError):
            Pipeline([appended], cache=cache, strict=True)(values=[])
        assert len(cache) == 0


def test_inputs_that_cannot_be_fingerprinted_are_not_watched():
    @node(output_name="y")
    def drained(values):
        return list(values)

    assert Pipeline([drained], strict=True)(values=(n for n in [1, 2])) == {"y": [1, 2]}


def test_a_copy_stays_strict():
    pipeline = Pipeline([appended], strict=True).with_name("other").bind(values=[])
    with pytest.raises(MutationError):
        pipeline.run()
