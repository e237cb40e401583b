"""Pipeline.map: one pipeline, many items."""

import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypernodes import Pipeline, node


@node(output_name="power")
def power(base, exponent=2):
    return base**exponent


@node(output_name="half")
def halve(power):
    return power / 2


PIPELINE = Pipeline([power, halve], name="powers")


def test_every_output_is_a_list_in_the_order_of_the_items(watched):
    assert watched(PIPELINE).map({"base": [3, 1, 2]}, map_over="base") == {
        "power": [9, 1, 4],
        "half": [4.5, 0.5, 2.0],
    }


def test_only_the_outputs_asked_for_come_back(watched):
    assert watched(PIPELINE).map({"base": [3, 1]}, "base", output_name="half") == {"half": [4.5, 0.5]}


def test_inputs_that_are_not_mapped_over_are_the_same_for_every_item(watched):
    given = {"base": [2, 3], "exponent": 3}
    assert watched(PIPELINE).map(given, "base", output_name="power") == {"power": [8, 27]}


def test_a_list_that_is_not_mapped_over_is_one_value(watched):
    pipeline = Pipeline([node(lambda base, weights: base * sum(weights), output_name="w")])
    assert watched(pipeline).map({"base": [1, 2], "weights": [1, 2]}, "base") == {"w": [3, 6]}


def test_several_collections_are_zipped(watched):
    given = {"base": [2, 3], "exponent": [3, 2]}
    assert watched(PIPELINE).map(given, ["base", "exponent"], output_name="power") == {"power": [8, 9]}


def test_a_product_takes_every_combination_the_last_varying_fastest(watched):
    given = {"base": [2, 3], "exponent": [1, 2]}
    mapped = watched(PIPELINE).map(given, ["base", "exponent"], map_mode="product", output_name="power")
    assert mapped == {"power": [2, 4, 3, 9]}


def test_the_order_of_map_over_is_the_order_of_the_product(watched):
    given = {"base": [2, 3], "exponent": [1, 2]}
    mapped = watched(PIPELINE).map(given, ("exponent", "base"), map_mode="product", output_name="power")
    assert mapped == {"power": [2, 3, 4, 9]}


def test_no_items_give_empty_lists(watched):
    assert watched(PIPELINE).map({"base": []}, "base") == {"power": [], "half": []}


def test_no_items_give_empty_lists_of_the_outputs_asked_for(watched):
    assert watched(PIPELINE).map({"base": []}, "base", output_name="half") == {"half": []}


def test_a_product_with_an_empty_collection_gives_empty_lists(watched):
    given = {"base": [1, 2], "exponent": []}
    mapped = watched(PIPELINE).map(given, ["base", "exponent"], map_mode="product", output_name="power")
    assert mapped == {"power": []}


@pytest.mark.parametrize(
    "collection",
    [(number for number in (1, 2)), (1, 2), range(1, 3), {1: "a", 2: "b"}.keys(), iter([1, 2])],
    ids=["generator", "tuple", "range", "keys", "iterator"],
)
def test_any_iterable_can_be_mapped_over(collection):
    assert PIPELINE.map({"base": collection}, "base", output_name="power") == {"power": [1, 4]}


def test_an_array_can_be_mapped_over():
    import numpy as np

    assert PIPELINE.map({"base": np.array([1, 2])}, "base", output_name="power") == {"power": [1, 4]}


def test_an_intermediate_value_can_be_mapped_over(watched):
    assert watched(PIPELINE).map({"power": [2, 4]}, "power", output_name="half") == {"half": [1.0, 2.0]}


def test_the_given_lists_are_left_as_they_were(watched):
    bases = [1, 2]
    mapped = watched(PIPELINE).map({"base": bases}, "base", output_name="power")
    assert bases == [1, 2]
    assert mapped["power"] is not bases


def test_thousands_of_items_need_no_deep_recursion(watched):
    pipeline = Pipeline([node(lambda x: x, output_name="same", cache=False)])
    assert watched(pipeline).map({"x": range(3000)}, "x") == {"same": list(range(3000))}


# ------------------------------------------------------------------------------------ failing items


class Refused(Exception):
    pass


@node(output_name="checked")
def check(x):
    if x < 0:
        raise Refused(f"{x} is negative")
    return x


@node(output_name="root")
def root(checked):
    return checked**0.5


CHECKING = Pipeline([check, root], name="checking")


def test_the_first_failing_item_ends_the_map(watched, recorder):
    with pytest.raises(Refused, match="-1 is negative"):
        watched(CHECKING).map({"x": [1, -1, -2]}, "x")


def test_after_the_first_failing_item_nothing_more_is_started(recorder):
    with pytest.raises(Refused):
        CHECKING.with_callbacks([recorder]).map({"x": [1, -1, 4]}, "x")
    assert [what for _, what, *_ in recorder.of("item_start")] == [0, 1]


def test_a_failing_item_does_not_stop_the_others_when_errors_are_returned(watched):
    mapped = watched(CHECKING).map({"x": [1, -1, 4]}, "x", on_error="return")
    assert mapped["checked"][::2] == [1, 4]
    assert mapped["root"][::2] == [1.0, 2.0]


def test_the_error_stands_in_the_place_of_each_output_of_its_item(watched):
    mapped = watched(CHECKING).map({"x": [1, -1, 4]}, "x", on_error="return")
    assert list(mapped) == ["checked", "root"]
    assert isinstance(mapped["root"][1], Refused)
    assert mapped["root"][1] is mapped["checked"][1]


def test_outputs_have_their_names_when_every_item_failed(watched):
    mapped = watched(CHECKING).map({"x": [-1, -2]}, "x", on_error="return")
    assert {name: list(map(str, column)) for name, column in mapped.items()} == {
        "checked": ["-1 is negative", "-2 is negative"],
        "root": ["-1 is negative", "-2 is negative"],
    }


def test_errors_returned_are_the_ones_that_were_raised(watched):
    errors = [KeyError(0), KeyError(1)]
    fail = node(lambda error: error.throw(), output_name="never", cache=False)

    class Thrower:
        def __init__(self, error):
            self._error = error

        def throw(self):
            raise self._error

    pipeline = watched(Pipeline([fail]))
    mapped = pipeline.map({"error": list(map(Thrower, errors))}, "error", on_error="return")
    assert [a is b for a, b in zip(mapped["never"], errors, strict=True)] == [True, True]


def test_a_failing_item_of_a_nested_map_fails_the_outer_item_only(watched):
    inner = CHECKING.as_node({"xs": "x"}, {"root": "roots"}, map_over="xs")
    mapped = watched(Pipeline([inner])).map(
        {"xs": [[1, 4], [9, -1], [16]]}, "xs", output_name="roots", on_error="return"
    )
    assert mapped["roots"][::2] == [[1.0, 2.0], [4.0]]
    assert isinstance(mapped["roots"][1], Refused)


def test_ctrl_c_in_a_node_ends_the_map_also_when_errors_are_returned(watched):
    @node(output_name="never")
    def interrupt(x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        watched(Pipeline([interrupt])).map({"x": [1]}, "x", on_error="return")


# -------------------------------------------------------------------------------------------- awaiting


@node(output_name="fetched")
async def fetch(x):
    await asyncio.sleep(0)
    return x + 1


def test_a_map_can_be_awaited(watched):
    pipeline = watched(Pipeline([fetch]))
    assert asyncio.run(pipeline.amap({"x": [1, 2]}, "x")) == {"fetched": [2, 3]}


def test_a_map_that_is_awaited_takes_every_option(watched):
    pipeline = watched(Pipeline([node(lambda a, b: a / b, output_name="q")]))
    mapped = asyncio.run(
        pipeline.amap(
            {"a": [1, 2], "b": [1, 0]}, ["a", "b"], map_mode="product", output_name="q", on_error="return"
        )
    )
    assert mapped["q"][::2] == [1.0, 2.0]
    assert isinstance(mapped["q"][3], ZeroDivisionError)


@pytest.mark.parametrize("has_callbacks", [False, True])
def test_async_nodes_of_an_awaited_map_run_on_the_loop_of_the_caller(has_callbacks, recorder):
    async def main():
        lock = asyncio.Lock()

        @node(output_name="locked")
        async def locked(x):
            async with lock:
                await asyncio.sleep(0)
                return x

        pipeline = Pipeline([locked], callbacks=[recorder] if has_callbacks else [])
        return await pipeline.amap({"x": [1, 2]}, "x")

    assert asyncio.run(main()) == {"locked": [1, 2]}


@pytest.mark.parametrize("has_callbacks", [False, True])
def test_cancelling_a_map_that_is_awaited_starts_no_more_items(has_callbacks, recorder):
    async def main():
        started, seen = asyncio.Event(), []

        @node(output_name="slept")
        async def sleep(x):
            seen.append(x)
            started.set()
            await asyncio.sleep(600)

        pipeline = Pipeline([sleep], callbacks=[recorder] if has_callbacks else [])
        run = asyncio.create_task(pipeline.amap({"x": [1, 2, 3]}, "x"))
        async with asyncio.timeout(20):
            await started.wait()
            run.cancel()
            with pytest.raises(asyncio.CancelledError):
                await run
        await asyncio.sleep(0.05)
        return seen

    assert asyncio.run(main()) == [1]


@given(*[st.lists(st.integers(), max_size=4)] * 3)
def test_a_product_has_the_order_of_itertools_product(a, b, c):
    rows = Pipeline([node(lambda a, b, c: (a, b, c), output_name="row")])
    mapped = rows.map({"a": a, "b": b, "c": c}, ["a", "b", "c"], map_mode="product")
    assert mapped["row"] == list(itertools.product(a, b, c))
