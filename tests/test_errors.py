"""What goes wrong is said in words that name the node, the pipeline and the item."""

import asyncio
import functools
import logging

import numpy as np
import pytest
from executor_names import ALIASES, INSTANCES
from recorder import Recorder

from hypernodes import DiskCache, HyperNodesEngine, HyperNodesError, Pipeline, PipelineCallback, node
from hypernodes import exceptions as errors


@node(output_name="y")
def double(x):
    return 2 * x


@node(output_name="z")
def add(y, offset):
    return y + offset


PIPELINE = Pipeline([double, add], name="sums")


def said(kind, *fragments):
    """Expect an error of this library, whose message has all these parts."""

    def check(error):
        assert isinstance(error, HyperNodesError)
        missing = [fragment for fragment in fragments if fragment not in str(error)]
        assert not missing, f"{missing} not in: {error}"
        return True

    return pytest.RaisesExc(kind, check=check)


# ------------------------------------------------------------------------------------------------ nodes


def test_something_that_cannot_be_called_is_no_node():
    with said(errors.NotANodeError, "5", "cannot be called"):
        node(5, output_name="five")


def test_a_node_is_not_made_a_node_again():
    with said(errors.NotANodeError, "double", "is a node already", "rename"):
        node(double)


def test_a_callable_whose_parameters_cannot_be_read_is_no_node():
    with said(errors.NotANodeError, "'dict'", "Wrap it in a function"):
        node(dict, output_name="d")


def test_an_output_that_is_named_like_an_input_is_refused():
    with said(errors.GraphError, "'double'", "'x' cannot be both an input and an output"):
        node(double.function, output_name="x")


def test_two_outputs_of_one_name_are_refused():
    with said(errors.GraphError, "'double'", "two outputs", "'a', 'a'"):
        node(double.function, output_name=("a", "a"))


def test_an_output_name_that_is_no_identifier_is_refused():
    with said(errors.GraphError, "'double'", "'not this'", "not an identifier"):
        node(double.function, output_name="not this")


def test_a_lambda_must_be_given_an_output_name():
    with said(errors.GraphError, "'<lambda>'", "output_name"):
        node(lambda x: x)


@pytest.mark.parametrize("output_name", [(), 5, (1, 2)])
def test_an_output_name_that_is_no_name_is_refused(output_name):
    with said(errors.GraphError, "'double'", "output_name", repr(output_name)):
        node(double.function, output_name=output_name)


@pytest.mark.parametrize("retries", [-1, "3"])
def test_retries_are_a_number(retries):
    with said(errors.GraphError, "'double'", "retries", repr(retries)):
        node(double.function, output_name="y", retries=retries)


def test_renaming_an_input_that_a_node_does_not_have_is_refused():
    with said(errors.MappingError, "'add'", "no input 'offst'", "Did you mean 'offset'?"):
        add.rename(inputs={"offst": "o"})


def test_renaming_an_output_that_a_node_does_not_have_is_refused():
    with said(errors.MappingError, "'add'", "no output 'w'", "it has 'z'"):
        add.rename(outputs={"w": "o"})


# ------------------------------------------------------------------------------------ making a pipeline


def test_an_output_that_is_made_twice_is_refused():
    with said(errors.DuplicateOutputError, "'sums'", "'y'", "double", "<lambda>", "rename"):
        Pipeline([double, node(lambda a: a, output_name="y")], name="sums")


def test_the_same_node_twice_is_refused():
    with said(errors.DuplicateOutputError, "'y'", "double"):
        Pipeline([double, double])


def test_an_output_that_a_nested_pipeline_makes_too_is_refused():
    with said(errors.DuplicateOutputError, "'y'", "sums", "output_mapping"):
        Pipeline([double, PIPELINE])


def test_nodes_that_depend_on_each_other_are_shown_as_a_cycle():
    @node(output_name="b")
    def hen(a):
        return a

    @node(output_name="a")
    def egg(b):
        return b

    with said(errors.CycleError, "'barn'", "form a cycle") as caught:
        Pipeline([hen, egg], name="barn")
    assert "hen -> egg -> hen" in str(caught.value) or "egg -> hen -> egg" in str(caught.value)


def test_lambdas_in_a_cycle_are_told_by_their_outputs():
    nodes = [node(lambda a: a, output_name="b"), node(lambda b: b, output_name="a")]
    with said(errors.CycleError, "<lambda> (which makes 'b')", "<lambda> (which makes 'a')"):
        Pipeline(nodes)


def test_one_function_twice_in_a_cycle_is_told_by_its_outputs():
    nodes = [double.rename({"x": "b"}, {"y": "a"}), double.rename({"x": "a"}, {"y": "b"})]
    with said(errors.CycleError, "cycle", "double (which makes 'a')", "double (which makes 'b')"):
        Pipeline(nodes)


def test_a_nested_pipeline_that_takes_its_own_output_is_a_cycle():
    with said(errors.CycleError, "cycle: sums -> sums"):
        Pipeline([PIPELINE.as_node({"z": "x"})])
    with said(errors.GraphError, "'x'", "cycle"):
        node(lambda x: x, output_name="x")


def test_two_nested_pipelines_with_the_same_output_say_how_to_rename_or_hide_it():
    made = [Pipeline([node(lambda x: x, output_name="model")], name=name) for name in ("linear", "tree")]
    with said(errors.DuplicateOutputError, "'model'", "linear", "tree") as caught:
        Pipeline(made)
    assert "as_node(output_mapping={'model': 'model_2'})" in str(caught.value)
    assert "hidden" in str(caught.value)
    both = Pipeline([made[0], made[1].as_node(output_mapping={"model": "model_2"})])
    assert both.run({"x": 1}) == {"model": 1, "model_2": 1}
    renamed = made[1].as_node(output_mapping={"model": "model"}, name="other")
    with said(errors.DuplicateOutputError, "output_mapping={'model': 'model_3'}"):
        Pipeline([made[0], made[1].as_node(output_mapping={"model": "model_2"}), renamed])
    with said(errors.DuplicateOutputError, "rename(outputs={'model': 'model_2'})"):
        Pipeline([node(lambda x: x, output_name="model"), node(lambda x: -x, output_name="model")])


def test_a_plain_function_among_the_nodes_is_refused_with_a_hint():
    def plain(x):
        return x

    with said(errors.NotANodeError, "'sums'", "nodes[1]", "plain", "Mark it with @node."):
        Pipeline([double, plain], name="sums")


def test_something_else_among_the_nodes_is_refused():
    with said(errors.NotANodeError, "nodes[0]", "'double'"):
        Pipeline(["double"])


def test_a_single_node_in_place_of_a_list_is_refused_by_name():
    with said(errors.NotANodeError, "double", "list"):
        Pipeline(double)


def test_errors_about_graphs_are_value_errors():
    with pytest.raises(ValueError, match="produced twice"):
        Pipeline([double, add.rename(outputs={"z": "y"}, inputs={"y": "w"})])


def test_something_that_is_no_engine_is_refused():
    with said(errors.GraphError, "'sums'", "engine='threaded'", "HyperNodesEngine"):
        Pipeline([double], engine="threaded", name="sums")


def test_something_that_is_no_cache_is_refused():
    with said(errors.GraphError, "'sums'", "cache='somewhere'", "DiskCache"):
        Pipeline([double], cache="somewhere", name="sums")


@pytest.mark.parametrize("option", ["node_executor", "map_executor"])
def test_an_unknown_executor_is_refused_with_the_known_ones(option):
    with said(
        errors.UnknownExecutorError,
        f"{option}='thread'",
        "'sequential', 'async', 'threaded', 'parallel', 'ray'",
        "Did you mean 'threaded'",
    ):
        HyperNodesEngine(**{option: "thread"})


def test_an_object_that_cannot_submit_is_no_executor():
    with said(errors.UnknownExecutorError, "map_executor=5", "submit"):
        HyperNodesEngine(map_executor=5)


# ---------------------------------------------------------------------------------------------- nesting


def test_an_input_mapping_to_a_name_that_the_inner_pipeline_lacks_is_refused():
    with said(errors.MappingError, "'sums'", "input_mapping", "'offst'", "Did you mean 'offset'?"):
        PIPELINE.as_node(input_mapping={"o": "offst"})


def test_an_output_mapping_of_a_name_that_the_inner_pipeline_lacks_is_refused():
    with said(errors.MappingError, "'sums'", "output_mapping", "'w'", "Known: 'y', 'z'"):
        PIPELINE.as_node(output_mapping={"w": "o"})


def test_map_over_of_a_nested_pipeline_goes_by_its_outer_names():
    with said(errors.MappingError, "'sums'", "map_over", "'x'", "Known: 'xs', 'offset'"):
        PIPELINE.as_node({"xs": "x"}, map_over="x")


def test_two_outer_names_for_one_inner_input_are_refused():
    with said(errors.MappingError, "'sums'", "twice"):
        PIPELINE.as_node({"a": "x", "b": "x"})


def test_two_outputs_mapped_to_one_name_are_refused():
    with said(errors.MappingError, "'sums'", "two outputs", "'z', 'z'"):
        PIPELINE.as_node(output_mapping={"y": "z"})


def test_an_unknown_map_mode_of_a_nested_pipeline_is_refused():
    with said(errors.MapError, "'sums'", "'crossed'", "'zip'", "or 'product'"):
        PIPELINE.as_node(map_over="x", map_mode="crossed")


def test_a_missing_input_of_a_nested_pipeline_goes_by_its_outer_name():
    outer = Pipeline([PIPELINE.as_node({"start": "x", "shift": "offset"})], name="outer")
    with said(errors.MissingInputError, "'outer'", "'shift'", "Given: 'start'") as caught:
        outer.run({"start": 1})
    assert "'offset'" not in str(caught.value)
    assert caught.value.names == ("shift",)


def test_a_missing_input_two_levels_deep_goes_by_its_outermost_name():
    middle = Pipeline([PIPELINE.as_node({"b": "offset"})], name="middle")
    outer = Pipeline([middle.as_node({"c": "b"})], name="outer")
    with said(errors.MissingInputError, "'outer'", "'c'"):
        outer.run({"x": 1})


# ---------------------------------------------------------------------------------- what a run is given


def test_a_missing_input_is_named_with_the_node_that_needs_it(watched):
    with said(errors.MissingInputError, "'sums'", "missing input 'offset'", "'add'", "Given: 'x'") as caught:
        watched(PIPELINE).run({"x": 1})
    assert caught.value.names == ("offset",)


def test_all_missing_inputs_are_named_at_once():
    with said(errors.MissingInputError, "'x'", "'offset'", "Given: nothing"):
        PIPELINE.run()


def test_an_unknown_input_is_named_with_near_matches(watched):
    with said(errors.UnknownInputError, "'sums'", "'ofset'", "Did you mean 'offset'?"):
        watched(PIPELINE).run({"x": 1, "ofset": 2})


def test_an_unknown_input_is_refused_for_a_map_too(watched):
    with said(errors.UnknownInputError, "'sums'", "'ofset'", "Did you mean 'offset'?"):
        watched(PIPELINE).map({"x": [1], "ofset": 2}, "x")


def test_an_unknown_output_is_named_with_the_known_ones(watched):
    with said(errors.UnknownOutputError, "'sums'", "'zz'", "'y', 'z'", "Did you mean 'z'?"):
        watched(PIPELINE).run({"x": 1, "offset": 1}, "zz")


def test_an_input_is_no_output():
    with said(errors.UnknownOutputError, "'x'"):
        PIPELINE.run({"x": 1, "offset": 1}, "x")


def test_wrong_inputs_are_an_error_before_anything_runs(recorder):
    with pytest.raises(errors.MissingInputError):
        PIPELINE.with_callbacks([recorder]).run({"x": 1})
    assert recorder.events == []


def test_wrong_inputs_are_an_error_for_no_items_too():
    with said(errors.MissingInputError, "'offset'"):
        PIPELINE.map({"x": []}, "x")


def test_binding_a_name_that_nothing_knows_is_refused():
    with said(errors.UnknownInputError, "'sums'", "'ofset'", "Did you mean 'offset'?"):
        PIPELINE.bind(ofset=1)


@pytest.mark.parametrize("inputs", [[1, 2], "x", 5])
def test_inputs_that_are_no_mapping_are_refused(inputs):
    with said(errors.InputError, "'sums'", type(inputs).__name__):
        PIPELINE.run(inputs)


# ------------------------------------------------------------------------------------------------- maps


def test_map_over_that_was_not_given_is_refused(watched):
    with said(errors.MapError, "'sums'", "'offset'", "'x'"):
        watched(PIPELINE).map({"x": [1]}, "offset")


def test_map_over_that_names_nothing_is_refused(watched):
    with said(errors.MapError, "'sums'", "names no input"):
        watched(PIPELINE).map({"x": [1]}, [])


@pytest.mark.parametrize("value", ["abc", 5, {"a": 1}, b"abc", None])
def test_walking_what_is_no_collection_is_refused(watched, value):
    with said(errors.MapError, "'sums'", "'x'", f"of type {type(value).__name__}"):
        watched(PIPELINE).map({"x": value, "offset": 1}, "x")


@pytest.mark.parametrize("value", ["abc", 5, {"a": 1}])
def test_walking_what_is_no_collection_is_refused_in_a_nested_map(watched, value):
    outer = Pipeline([PIPELINE.as_node({"xs": "x"}, map_over="xs")], name="outer")
    with said(errors.MapError, "sums", "'x", f"of type {type(value).__name__}"):
        watched(outer).run({"xs": value, "offset": 1})


def test_lists_walked_together_must_be_equally_long(watched):
    with said(
        errors.MapError,
        "'sums'",
        "same length",
        "'x' has length 2",
        "'offset' has length 3",
        "map_mode='product'",
    ):
        watched(PIPELINE).map({"x": [1, 2], "offset": [1, 2, 3]}, ["x", "offset"])


def test_lists_walked_together_in_a_nested_map_must_be_equally_long(watched):
    outer = Pipeline([PIPELINE.as_node(map_over=["x", "offset"])], name="outer")
    with said(errors.MapError, "sums", "same length", "'x' has length 2", "'offset' has length 3") as caught:
        watched(outer).run({"x": [1, 2], "offset": [1, 2, 3]})
    assert "'sums' of pipeline 'outer'" in caught.value.__notes__[0]


def test_a_name_twice_in_map_over_is_refused():
    with said(errors.MapError, "'sums'", "'x'", "twice"):
        PIPELINE.map({"x": [1, 2], "offset": 1}, ["x", "x"], map_mode="product")


def test_an_unknown_map_mode_is_refused():
    with said(errors.InputError, "'sums'", "'zipped'", "'zip'", "or 'product'"):
        PIPELINE.map({"x": [1], "offset": 1}, "x", map_mode="zipped")


def test_an_unknown_on_error_is_refused():
    with said(errors.InputError, "'sums'", "'ignore'", "'raise'", "or 'return'"):
        PIPELINE.map({"x": [1], "offset": 1}, "x", on_error="ignore")


# ----------------------------------------------------------------------------------- what nodes return


@pytest.mark.parametrize(
    ("returned", "told"),
    [((1, 2, 3), "3 values"), ((1,), "1 value"), (5, "one int"), ("ab", "one str"), (None, "one NoneType")],
)
def test_another_number_of_values_than_outputs_is_an_error(watched, returned, told):
    @node(output_name=("low", "high"))
    def bounds(x):
        return returned

    with said(errors.OutputCountError, "'bounds'", "'limits'", "2 outputs", told):
        watched(Pipeline([bounds], name="limits")).run({"x": 1})


# ------------------------------------------------------------------------------------- the users' errors


class Refused(Exception):
    """An error of the user's own."""


def failing(error):
    @node(output_name="failed")
    def fail(x, text="short"):
        raise error

    return Pipeline([fail], name="failing").with_cache(None)


def test_an_error_arrives_as_the_object_that_was_raised(watched):
    error = Refused("no")
    with pytest.raises(Refused) as caught:
        watched(failing(error)).with_cache(None).run({"x": 1})
    assert caught.value is error
    assert str(caught.value) == "no"


def fail_at_two(x, text="short"):
    if x == 2:
        raise Refused("no")
    return x


FAILING = Pipeline([node(fail_at_two, output_name="failed")], name="failing")


def note_of(run):
    with pytest.raises(Refused) as caught:
        run()
    (note,) = caught.value.__notes__
    return note


def test_the_one_note_on_an_error_names_the_node_the_pipeline_and_the_inputs(watched):
    note = note_of(lambda: watched(FAILING).run({"x": 2, "text": "abc"}))
    assert note == "in node 'fail_at_two' of pipeline 'failing', called with x=2, text='abc'"


def test_the_note_names_the_item(watched):
    note = note_of(lambda: watched(FAILING).map({"x": [0, 1, 2]}, "x"))
    assert note == "in node 'fail_at_two' of pipeline 'failing', item 2, called with x=2"


def test_the_note_names_the_path_of_nested_pipelines_and_every_item_index(watched):
    inner = FAILING.as_node({"xs": "x"}, map_over="xs")
    outer = Pipeline([inner], name="outer")
    note = note_of(lambda: watched(outer).map({"xs": [[0], [1, 2]]}, "xs"))
    assert note == "in node 'fail_at_two' of pipeline 'outer/failing', item 1.1, called with x=2"


def test_errors_that_are_returned_have_the_note_too(watched):
    mapped = watched(FAILING).map({"x": [1, 2]}, "x", on_error="return")
    assert mapped["failed"][1].__notes__ == [
        "in node 'fail_at_two' of pipeline 'failing', item 1, called with x=2"
    ]


def test_the_note_keeps_long_inputs_short(watched):
    note = note_of(lambda: watched(FAILING).run({"x": 2, "text": "a" * 10_000}))
    assert len(note) < 300
    assert "text='aaaa" in note


def test_an_input_whose_repr_raises_does_not_hide_the_error(watched):
    class Shy:
        def __repr__(self):
            raise RuntimeError("I'd rather not")

    note = note_of(lambda: watched(FAILING.with_cache(None)).with_cache(None).run({"x": 2, "text": Shy()}))
    assert "Shy" in note


def test_an_error_of_an_async_node_has_the_note(watched):
    @node(output_name="failed")
    async def fail(x):
        await asyncio.sleep(0)
        raise Refused("no")

    note = note_of(lambda: watched(Pipeline([fail], name="failing")).run({"x": 2}))
    assert note == "in node 'fail' of pipeline 'failing', called with x=2"


def test_an_error_of_a_generator_node_has_the_note(watched):
    @node(output_name="failed")
    def fail(x):
        yield x
        raise Refused("no")

    note = note_of(lambda: watched(Pipeline([fail], name="failing")).run({"x": 2}))
    assert note == "in node 'fail' of pipeline 'failing', called with x=2"


def test_an_error_that_passes_through_a_pipeline_run_by_a_node_has_one_note(watched):
    @node(output_name="inner")
    def run_inner(x):
        return FAILING.run({"x": x})

    pipeline = watched(Pipeline([run_inner.rename()], name="outer")).with_cache(None)
    assert note_of(lambda: pipeline.run({"x": 2})).startswith("in node 'fail_at_two' of pipeline 'failing'")


def test_notes_of_the_users_own_are_kept(watched):
    @node(output_name="failed")
    def fail(x):
        error = Refused("no")
        error.add_note("mind the gap")
        raise error

    with pytest.raises(Refused) as caught:
        watched(Pipeline([fail], name="failing")).run({"x": 2})
    assert caught.value.__notes__ == [
        "mind the gap",
        "in node 'fail' of pipeline 'failing', called with x=2",
    ]


class Empty(Refused):
    """An error that is false, as one is that counts what it found."""

    def __len__(self):
        return 0


class Undecided(Refused):
    def __bool__(self):
        raise RuntimeError("neither true nor false")


@node(output_name="failed")
def raise_it(kind):
    raise kind("no")


@node(output_name="failed")
async def raise_it_async(kind):
    raise kind("no")


@node(output_name="failed")
def raise_it_late(kind):
    yield 1
    raise kind("no")


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::UserWarning:distributed"
)
@pytest.mark.parametrize("executor", [*ALIASES, *INSTANCES])
def test_an_error_that_is_false_is_an_error_all_the_same(executor, executor_named, tmp_path):
    cache = DiskCache(tmp_path / "cache")
    for level in ("node_executor", "map_executor"):
        with HyperNodesEngine(**{level: executor_named(executor)}) as engine:
            for step in (raise_it, raise_it_async, raise_it_late):
                pipeline = Pipeline([step], engine=engine, name="failing", cache=cache)
                for kind in (Empty, Undecided):
                    with pytest.raises(kind, match="no") as caught:
                        pipeline.run({"kind": kind})
                    assert f"in node '{step.name}' of pipeline 'failing'" in caught.value.__notes__[0]
                    (row,) = pipeline.map({"kind": [kind]}, "kind", on_error="return")["failed"]
                    assert type(row) is kind
                    with pytest.raises(kind, match="no"):
                        asyncio.run(pipeline.arun({"kind": kind}))
    assert set(cache) == set()


def test_stop_iteration_of_a_node_reaches_the_caller(watched):
    @node(output_name="failed")
    def fail(x):
        raise StopIteration("done")

    with pytest.raises(StopIteration, match="done"):
        watched(Pipeline([fail])).run({"x": 1})


@node(output_name="kind")
async def stop_of(stop):
    return stop


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::UserWarning:distributed"
)
@pytest.mark.parametrize("watch", [False, True])
@pytest.mark.parametrize("executor", [*ALIASES, *INSTANCES])
def test_what_ends_iterators_is_an_error_of_its_node_like_any_other(executor, watch, executor_named):
    """Of coroutines and generators, Python itself makes it a RuntimeError."""
    callbacks = [Recorder()] if watch else []
    for level in ("node_executor", "map_executor"):
        with HyperNodesEngine(**{level: executor_named(executor)}) as engine:
            for step in (raise_it, raise_it_async, raise_it_late):
                after_another = Pipeline([stop_of, step], name="failing", engine=engine, callbacks=callbacks)
                pipeline = Pipeline([step], name="failing", engine=engine, callbacks=callbacks)
                for kind in (StopIteration, StopAsyncIteration):
                    known = (
                        StopAsyncIteration if step is not raise_it else (StopIteration, StopAsyncIteration)
                    )
                    raised = kind if issubclass(kind, known) else RuntimeError
                    for run in (
                        lambda: pipeline.run({"kind": kind}),
                        lambda: pipeline.map({"kind": [kind]}, "kind"),
                        lambda: after_another.map({"stop": [kind]}, "stop"),
                    ):
                        with pytest.raises(raised) as caught:
                            run()
                        assert f"in node '{step.name}' of pipeline 'failing'" in caught.value.__notes__[0]
                    (row,) = pipeline.map({"kind": [kind]}, "kind", on_error="return")["failed"]
                    assert type(row) is raised
                    assert f"in node '{step.name}' of pipeline 'failing', item 0" in row.__notes__[0]


@pytest.mark.parametrize("executor", ["sequential", "async", "threaded"])
def test_stop_iteration_where_only_another_error_can_be_raised(executor):
    """It would end the generator or the coroutine that the caller holds, as if nothing had happened."""

    async def drain():
        return [row async for row in pipeline.aimap({"kind": [StopIteration]}, "kind")]

    with HyperNodesEngine(map_executor=executor) as engine:
        pipeline = Pipeline([raise_it], name="failing", engine=engine)
        for run in (
            lambda: list(pipeline.imap({"kind": [StopIteration]}, "kind")),
            lambda: asyncio.run(pipeline.arun({"kind": StopIteration})),
            lambda: asyncio.run(pipeline.amap({"kind": [StopIteration]}, "kind")),
            lambda: asyncio.run(drain()),
        ):
            with pytest.raises(RuntimeError, match=r"StopIteration\('no'\)") as caught:
                run()
            assert isinstance(caught.value.__cause__, StopIteration)
            assert "in node 'raise_it' of pipeline 'failing'" in caught.value.__notes__[0]


@pytest.mark.parametrize("kind", [GeneratorExit, SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("executor", ["sequential", "async", "threaded", "parallel"])
def test_what_ends_more_than_an_item_ends_the_run_as_itself(executor, kind, engine_on):
    for level in ("node_executor", "map_executor"):
        for step in (raise_it, raise_it_async, raise_it_late):
            pipeline = Pipeline([step], engine=engine_on(level, executor))
            with pytest.raises(kind):
                pipeline.map({"kind": [kind]}, "kind", on_error="return")


def test_the_note_names_a_renamed_node_by_its_parameters(watched):
    pipeline = Pipeline([node(fail_at_two, output_name="failed").rename({"x": "n"})], name="failing")
    assert "x=2" in note_of(lambda: watched(pipeline).run({"n": 2}))


# ---------------------------------------------------------------------------------------------- retries


@pytest.fixture
def tried(tmp_path):
    """A node's function that fails so many times, and how often it was called."""
    marks = tmp_path / "marks"
    marks.touch()

    def call(x, failures, error):
        with marks.open("a") as file:
            file.write("x")
        if len(marks.read_text()) <= failures:
            raise error
        return x

    def make(failures, error, **options):
        function = functools.partial(call, failures=failures, error=error)
        bound = node(function, output_name="y", cache=False, **options)
        return Pipeline([bound], name="trying"), lambda: len(marks.read_text())

    return make


def test_a_node_that_fails_is_called_again_as_often_as_it_may_be(watched, tried):
    pipeline, calls = tried(2, OSError("not yet"), retries=2)
    assert watched(pipeline).run({"x": 1}) == {"y": 1}
    assert calls() == 3


def test_the_last_error_is_raised_when_all_attempts_failed(watched, tried):
    pipeline, calls = tried(9, OSError("not yet"), retries=2)
    with pytest.raises(OSError, match="not yet"):
        watched(pipeline).run({"x": 1})
    assert calls() == 3


def test_without_retries_a_node_is_called_once(watched, tried):
    pipeline, calls = tried(1, OSError("not yet"))
    with pytest.raises(OSError, match="not yet"):
        watched(pipeline).run({"x": 1})
    assert calls() == 1


def test_only_the_errors_worth_a_retry_are_retried(watched, tried):
    pipeline, calls = tried(1, KeyError("never"), retries=5, retry_on=(OSError, ValueError))
    with pytest.raises(KeyError):
        watched(pipeline).run({"x": 1})
    assert calls() == 1


def test_an_error_that_was_retried_has_one_note(watched, tried):
    pipeline, _ = tried(9, OSError("not yet"), retries=2)
    with pytest.raises(OSError, match="not yet") as caught:
        watched(pipeline).run({"x": 1})
    assert len(caught.value.__notes__) == 1


def test_async_nodes_and_generators_are_retried(watched, tmp_path):
    marks = tmp_path / "marks"
    marks.touch()

    def attempts(name):
        with marks.open("a") as file:
            file.write(name)
        return marks.read_text().count(name)

    @node(output_name="fetched", retries=1, cache=False)
    async def fetch(x):
        await asyncio.sleep(0)
        if attempts("f") == 1:
            raise OSError("not yet")
        return x

    @node(output_name="counted", retries=1, cache=False)
    def count(x):
        yield x
        if attempts("c") == 1:
            raise OSError("not yet")

    assert watched(Pipeline([fetch, count])).run({"x": 1}) == {"fetched": 1, "counted": [1]}


# ------------------------------------------------------------------------------------- hooks that raise


class Broken(PipelineCallback):
    """A callback whose hook raises at every node."""

    def on_node_end(self, node_id, outputs, duration, ctx):
        raise RuntimeError("broken hook")


def test_a_hook_that_raises_is_reported_once_and_the_run_goes_on(caplog, recorder):
    pipeline = PIPELINE.with_callbacks([Broken(), recorder])
    with caplog.at_level(logging.DEBUG, "hypernodes"):
        assert pipeline.map({"x": [1, 2, 3], "offset": 1}, "x", output_name="z") == {"z": [3, 5, 7]}
    (record,) = [record for record in caplog.records if record.name == "hypernodes"]
    assert record.levelno == logging.ERROR
    assert "on_node_end" in record.getMessage()
    assert "Broken" in record.getMessage()
    assert "'sums'" in record.getMessage()
    assert "broken hook" in str(record.exc_info[1])
    assert len(recorder.of("node_end")) == 6


# ------------------------------------------------------------------------------------- what cannot be mapped


@pytest.mark.parametrize("value", [np.array(3), np.array("text"), np.array(None)])
def test_an_array_without_dimensions_cannot_be_mapped_over(value):
    with said(errors.MapError, "'sums'", "map_over names 'x'", "ndarray without dimensions"):
        PIPELINE.map({"x": value, "offset": 1}, map_over="x")
    with said(errors.MapError, "map_over names 'x'"):
        list(PIPELINE.imap({"x": value, "offset": 1}, map_over="x"))
    with said(errors.MapError, "map_over names 'xs'"):
        Pipeline([PIPELINE.as_node({"xs": "x"}, map_over="xs")]).run({"xs": value, "offset": 1})


@pytest.mark.parametrize("columns", [[0, 1], [("a", 1), ("a", 2)], [None, 1.5]])
def test_a_frame_whose_columns_are_no_texts_says_so(columns):
    import pandas as pd  # Workers import this module.

    frame = pd.DataFrame([[1, 2], [3, 4]], columns=columns)
    with said(errors.MapError, "The names of its columns are no texts", "frame.rename(columns={"):
        PIPELINE.map(frame)


def nested_map(**options):
    return Pipeline([PIPELINE.as_node({"xs": "x", "os": "offset"}, map_over=["xs", "os"], **options)])


@pytest.mark.parametrize("callbacks", [[], [Recorder()]], ids=["compiled", "general"])
def test_errors_of_a_nested_map_have_the_names_that_the_user_wrote(callbacks):
    outer = nested_map().with_callbacks(callbacks)
    with said(errors.MapError, "'xs' has length 1", "'os' has length 2", "same length"):
        outer.run({"xs": [1], "os": [1, 2]})
    with said(errors.MapError, "map_over names 'xs'", "of type int"):
        outer.run({"xs": 1, "os": [1, 2]})
    deep = Pipeline([Pipeline([nested_map()]).as_node({"rows": "xs", "o": "os"}, map_over="rows")])
    with said(errors.MapError, "'xs' has length 1", "'os' has length 2"):
        deep.run({"rows": [[1]], "o": [1, 2]})


def test_a_batch_of_another_length_says_so():
    made = node(lambda x: x, output_name="y", batch=lambda x: [*x, 0])
    with (
        HyperNodesEngine(map_executor="threaded") as engine,
        said(errors.BatchError, "length", "values for"),
    ):
        Pipeline([made], engine=engine).map({"x": [1, 2]}, map_over="x")
