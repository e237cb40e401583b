"""Pipelines: nodes connected by name, run for the outputs that are requested."""

import asyncio
import copy
import inspect
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import networkx
import pytest
import uvloop

from hypernodes import INHERIT, DaftEngine, DiskCache, HyperNodesEngine, Pipeline, RunReport, node
from hypernodes.exceptions import GraphError, ImmutableError, NotANodeError


@node(output_name="a")
def first(x):
    return x + 1


@node(output_name="b")
def second(a):
    return a * 10


@node(output_name="c")
def third(a, b, y=0):
    return a + b + y


CHAIN = Pipeline([first, second, third], name="chain")


def nodes_run(recorder):
    return [what[0] for _, what, *_ in recorder.of("node_end")]


def test_all_outputs_come_back_by_name(watched):
    assert watched(CHAIN).run({"x": 1}) == {"a": 2, "b": 20, "c": 22}


def test_inputs_may_be_given_as_keywords(watched):
    assert watched(CHAIN)(x=1, y=5) == {"a": 2, "b": 20, "c": 27}


def test_the_order_of_the_nodes_does_not_matter(watched):
    pipeline = Pipeline([third, second, first])
    assert watched(pipeline).run({"x": 1}) == {"a": 2, "b": 20, "c": 22}
    assert [member.name for member in pipeline.execution_order] == ["first", "second", "third"]


def test_an_empty_pipeline_makes_nothing(watched):
    assert watched(Pipeline([])).run({}) == {}


def test_one_output_is_asked_for_by_its_name(watched):
    assert watched(CHAIN).run({"x": 1}, "b") == {"b": 20}


def test_several_outputs_are_asked_for_by_their_names(watched):
    assert watched(CHAIN).run({"x": 1}, ["c", "a"]) == {"c": 22, "a": 2}


def test_outputs_come_in_the_order_in_which_they_were_asked_for(watched):
    assert list(watched(CHAIN).run({"x": 1}, ["c", "a"])) == ["c", "a"]


def test_no_outputs_asked_for_are_no_outputs(watched):
    assert watched(CHAIN).run({"x": 1}, []) == {}


def test_only_what_the_wanted_outputs_need_is_computed(recorder):
    CHAIN.with_callbacks([recorder]).run({"x": 1}, "b")
    assert nodes_run(recorder) == ["first", "second"]


def test_inputs_that_the_wanted_outputs_do_not_need_may_be_missing(watched):
    other = node(lambda z: z, output_name="d")
    assert watched(Pipeline([first, other])).run({"x": 1}, "a") == {"a": 2}


def test_a_given_intermediate_value_is_taken_and_its_node_not_run(recorder):
    pipeline = CHAIN.with_callbacks([recorder])
    assert pipeline.run({"x": 1, "b": 5}, "c") == {"c": 7}
    assert nodes_run(recorder) == ["first", "third"]


def test_what_leads_to_a_given_value_is_not_required(watched):
    assert watched(CHAIN).run({"a": 1}, "c") == {"c": 11}
    assert watched(CHAIN).run({"a": 1, "b": 2}, "c") == {"c": 3}


def test_a_given_value_is_taken_with_all_outputs_too(watched):
    assert watched(CHAIN).run({"a": 1})["c"] == 11


def test_a_value_that_only_leads_to_a_given_one_is_not_required_with_all_outputs(recorder):
    @node(output_name="b")
    def only_from(a):
        return a * 10

    @node(output_name="c")
    def last(b):
        return b + 1

    pipeline = Pipeline([first, only_from, last], callbacks=[recorder])
    assert pipeline.run({"b": 5})["c"] == 6
    assert nodes_run(recorder) == ["last"]


def test_a_given_value_that_is_asked_for_comes_back(watched):
    assert watched(CHAIN).run({"a": 1}, ["a", "b"]) == {"a": 1, "b": 10}


def test_one_of_several_outputs_may_be_given(watched):
    bounds = node(lambda x: (x - 1, x + 1), output_name=("low", "high"))
    width = node(lambda low, high: high - low, output_name="width")
    assert watched(Pipeline([bounds, width])).run({"x": 5, "low": 0}, "width") == {"width": 6}


def test_a_given_none_is_a_value(watched):
    assert watched(Pipeline([first, node(lambda a: a is None, output_name="none")])).run(
        {"a": None}, "none"
    ) == {"none": True}


def test_bound_inputs_need_not_be_given(watched):
    pipeline = watched(CHAIN.bind(x=1, y=3))
    assert pipeline.run() == {"a": 2, "b": 20, "c": 25}
    assert pipeline.input_names == ()


def test_a_bound_input_may_still_be_given(watched):
    assert watched(CHAIN.bind(x=1)).run({"x": 2}, "a") == {"a": 3}


def test_a_bound_intermediate_value_keeps_its_node_from_running(watched):
    assert watched(CHAIN.bind(a=0)).run({}, "c") == {"c": 0}


def test_bindings_add_up(watched):
    assert watched(CHAIN.bind(x=1).bind(y=1).bind(x=2)).run({}, "c") == {"c": 34}


def test_bind_leaves_the_original_as_it_was(watched):
    CHAIN.bind(x=1)
    assert CHAIN.input_names == ("x", "y")
    assert watched(CHAIN).run({"x": 3}, "a") == {"a": 4}


def test_bound_values_are_fixed_over_all_items(watched):
    assert watched(CHAIN.bind(y=100)).map({"x": [0, 1]}, "x", output_name="c") == {"c": [111, 122]}


def test_every_with_method_leaves_the_original_as_it_was(tmp_path, recorder):
    before = dict(vars(CHAIN))
    CHAIN.run({"x": 1})
    with HyperNodesEngine(map_executor="threaded") as engine, DiskCache(tmp_path / "cache") as cache:
        copy = CHAIN.with_engine(engine).with_cache(cache).with_callbacks([recorder]).with_name("copy")
        assert copy.run({"x": 1}) == {"a": 2, "b": 20, "c": 22}
        assert (copy.effective_engine, copy.effective_cache) == (engine, cache)
        assert copy.effective_callbacks == (recorder,)
        assert copy.name == "copy"
        assert len(cache) == 3
    assert vars(CHAIN) == before
    assert (CHAIN.name, CHAIN.effective_cache, CHAIN.effective_callbacks) == ("chain", None, ())


def test_a_copy_runs_with_its_own_configuration_after_the_original_ran(recorder):
    CHAIN.run({"x": 1})
    CHAIN.with_callbacks([recorder]).run({"x": 1})
    assert len(nodes_run(recorder)) == 3
    CHAIN.run({"x": 1})
    assert len(nodes_run(recorder)) == 3


def test_the_inputs_that_were_given_are_left_as_they_were(watched):
    inputs = {"x": 1}
    watched(CHAIN).run(inputs)
    assert inputs == {"x": 1}


def test_values_are_handed_on_as_the_same_objects(watched):
    thing = object()
    pipeline = Pipeline([node(lambda x: x, output_name="a", cache=False)])
    assert watched(pipeline.with_cache(None)).run({"x": thing})["a"] is thing


def test_a_long_chain_runs_without_deep_recursion(watched):
    step = node(lambda v: v + 1, output_name="w")
    nodes = [step.rename({"v": f"v{n}"}, {"w": f"v{n + 1}"}) for n in range(1500)]
    assert watched(Pipeline(nodes)).run({"v0": 0}, "v1500") == {"v1500": 1500}


def test_a_pipeline_says_what_it_takes_and_makes():
    assert CHAIN.input_names == ("x", "y")
    assert CHAIN.optional == {"y"}
    assert CHAIN.output_names == ("a", "b", "c")
    assert repr(CHAIN) == "<Pipeline chain(x, y=…) -> a, b, c, 3 nodes>"


def test_a_pipeline_shows_itself_as_a_graph_a_flowchart_and_a_table():
    graph = CHAIN.graph
    assert isinstance(graph, networkx.DiGraph)
    assert graph.has_edge(first, second)
    assert graph.has_edge("x", first)
    assert CHAIN.visualize(return_type="mermaid").startswith("flowchart")
    assert "second" in CHAIN._repr_html_()


# -------------------------------------------------------------------------------------- immutability


def test_the_configuration_of_a_pipeline_can_be_read(tmp_path, recorder):
    with HyperNodesEngine() as engine, DiskCache(tmp_path / "cache") as cache:
        pipeline = Pipeline([first], engine=engine, cache=cache, callbacks=[recorder], name="configured")
        assert (pipeline.engine, pipeline.cache) == (engine, cache)
        assert (pipeline.callbacks, pipeline.name) == ((recorder,), "configured")
    plain = Pipeline([first])
    assert (plain.engine, plain.cache, plain.callbacks, plain.name) == (None, INHERIT, INHERIT, None)
    assert (plain.pipeline_id, plain.strict, plain.nodes) == ("pipeline-a", False, (first,))
    assert Pipeline([first], cache=None, callbacks=[]).callbacks == ()


ATTRIBUTES = ("engine", "cache", "callbacks", "name", "bound", "strict", "nodes", "input_names", "new")


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_setting_an_attribute_is_an_error_and_changes_nothing(attribute):
    before = dict(vars(CHAIN))
    with pytest.raises(ImmutableError, match=f"pipeline 'chain' is immutable: '{attribute}' cannot be set"):
        setattr(CHAIN, attribute, None)
    assert vars(CHAIN) == before


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_deleting_an_attribute_is_an_error_and_changes_nothing(attribute):
    before = dict(vars(CHAIN))
    with pytest.raises(ImmutableError, match=f"'{attribute}' cannot be deleted"):
        delattr(CHAIN, attribute)
    assert vars(CHAIN) == before


@pytest.mark.parametrize("attribute", ["engine", "cache", "callbacks", "name"])
def test_the_error_of_a_change_names_the_method_that_makes_a_copy(attribute):
    with pytest.raises(ImmutableError, match=rf"pipeline\.with_{attribute}\(\.\.\.\), which returns a copy"):
        setattr(CHAIN, attribute, None)


def test_the_error_of_a_change_of_bound_inputs_names_bind():
    with pytest.raises(ImmutableError, match=r"pipeline\.bind\(\.\.\.\)"):
        CHAIN.bound = {"x": 1}


def test_an_attribute_that_cannot_be_set_is_an_attribute_error():
    with pytest.raises(AttributeError):
        CHAIN.engine = HyperNodesEngine()


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, lambda pipeline: pickle.loads(pickle.dumps(pipeline))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_copies_and_pickled_pipelines_have_the_same_configuration_and_run(copied, watched):
    import sample

    pipeline = sample.diamond.bind(offset=1).with_name("copied")
    pipeline.run({"x": 1})
    again = copied(pipeline)
    assert type(again) is Pipeline
    for attribute in ("engine", "cache", "callbacks", "name", "pipeline_id", "strict", "bound"):
        assert getattr(again, attribute) == getattr(pipeline, attribute)
    assert repr(again) == repr(pipeline)
    assert watched(again).run({"x": 1}) == pipeline.run({"x": 1})
    with pytest.raises(ImmutableError):
        again.name = "other"


def test_a_copy_and_its_original_do_not_share_compiled_plans(recorder):
    CHAIN.run({"x": 1})
    again = copy.copy(CHAIN).with_callbacks([recorder])
    assert again.run({"x": 1}) == CHAIN.run({"x": 1})
    assert len(nodes_run(recorder)) == 3


def test_the_methods_that_copy_keep_the_class_of_the_pipeline():
    class Named(Pipeline):
        def greet(self):
            return f"I am {self.pipeline_id}"

    assert Named([first]).bind(x=1).with_name("copied").greet() == "I am copied"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": HyperNodesEngine}, "engine=<class .*> is not an engine"),
        ({"cache": DiskCache}, "cache=<class .*> is not a cache"),
        ({"callbacks": 5}, "callbacks=5 is not a list"),
        (
            {"callbacks": [RunReport]},
            r"callbacks\[0\] is the class RunReport. Give an instance of it: RunReport\(\)",
        ),
        ({"name": 5}, "name must be a text, not 5"),
    ],
)
def test_a_configuration_of_a_wrong_type_is_an_error(options, message):
    with pytest.raises(GraphError, match=message):
        Pipeline([first], **options)


@pytest.mark.parametrize("nodes", [5, first, CHAIN])
def test_nodes_that_are_not_a_list_are_an_error(nodes):
    with pytest.raises(NotANodeError, match=r"is not a list of nodes"):
        Pipeline(nodes)


# ------------------------------------------------------------------------------------------ awaiting


@node(output_name="fetched")
async def fetch(x):
    await asyncio.sleep(0)
    return x + 1


@node(output_name="doubled")
def double(fetched):
    return 2 * fetched


FETCHING = Pipeline([fetch, double], name="fetching")


def test_a_pipeline_can_be_awaited(watched):
    assert asyncio.run(watched(FETCHING).arun({"x": 1})) == {"fetched": 2, "doubled": 4}


def test_the_loop_goes_on_while_a_pipeline_is_awaited(watched):
    async def main():
        gate = threading.Event()

        @node(output_name="waited")
        def wait(x):
            return gate.wait(20)

        run = asyncio.create_task(watched(Pipeline([wait]).with_cache(None)).arun({"x": 1}))
        await asyncio.sleep(0.01)
        gate.set()
        return await run

    assert asyncio.run(main()) == {"waited": True}


def test_async_nodes_run_on_the_loop_that_awaits_them(recorder):
    async def main(callbacks):
        lock, ready = asyncio.Lock(), asyncio.Event()
        loops = []

        @node(output_name="locked")
        async def locked(x):
            loops.append(asyncio.get_running_loop())
            await ready.wait()
            async with lock:
                return x

        asyncio.get_running_loop().call_later(0.01, ready.set)
        async with lock:
            run = asyncio.create_task(Pipeline([locked], callbacks=callbacks).arun({"x": 1}))
            await asyncio.sleep(0.02)
        return await run, loops == [asyncio.get_running_loop()]

    assert asyncio.run(main([])) == ({"locked": 1}, True)
    assert asyncio.run(main([recorder])) == ({"locked": 1}, True)


def test_several_pipelines_can_be_awaited_at_once():
    async def main():
        meeting = asyncio.Barrier(3)

        @node(output_name="met")
        async def meet(x):
            async with asyncio.timeout(20):
                await meeting.wait()
            return x

        pipeline = Pipeline([meet])
        return await asyncio.gather(*(pipeline.arun({"x": n}) for n in range(3)))

    assert asyncio.run(main()) == [{"met": 0}, {"met": 1}, {"met": 2}]


@pytest.mark.parametrize("has_callbacks", [False, True])
def test_cancelling_the_wait_ends_the_running_coroutine(has_callbacks, recorder):
    async def main():
        started, ended = asyncio.Event(), asyncio.Event()

        @node(output_name="slept")
        async def sleep(x):
            started.set()
            try:
                await asyncio.sleep(600)
            finally:
                ended.set()

        pipeline = Pipeline([sleep], callbacks=[recorder] if has_callbacks else [])
        run = asyncio.create_task(pipeline.arun({"x": 1}))
        async with asyncio.timeout(20):
            await started.wait()
            run.cancel()
            with pytest.raises(asyncio.CancelledError):
                await run
            await ended.wait()

    asyncio.run(main())


def test_a_timeout_ends_the_wait():
    async def main():
        @node(output_name="slept")
        async def sleep(x):
            await asyncio.sleep(600)

        async with asyncio.timeout(0.05):
            await Pipeline([sleep]).arun({"x": 1})

    with pytest.raises(TimeoutError):
        asyncio.run(main())


def test_an_error_reaches_the_one_who_awaits():
    error = KeyError("gone")

    @node(output_name="failed")
    async def fail(x):
        raise error

    with pytest.raises(KeyError) as caught:
        asyncio.run(Pipeline([fail]).arun({"x": 1}))
    assert caught.value is error


def test_an_async_node_may_run_a_pipeline_itself():
    @node(output_name="inner")
    async def inside(x):
        return (await FETCHING.arun({"x": x}))["doubled"]

    pipeline = Pipeline([inside])
    assert pipeline.run({"x": 1}) == {"inner": 4}
    assert asyncio.run(pipeline.arun({"x": 1})) == {"inner": 4}


def test_a_node_may_run_a_pipeline_itself(watched):
    @node(output_name="inner")
    def inside(x):
        return FETCHING.run({"x": x})["doubled"]

    assert watched(Pipeline([inside]).with_cache(None)).run({"x": 1}) == {"inner": 4}


async def run_plainly(pipeline):
    return pipeline.run({"x": 1}), pipeline.map({"x": [1, 2]}, "x", output_name="doubled")


def test_a_plain_run_works_inside_a_running_loop(watched):
    assert asyncio.run(run_plainly(watched(FETCHING))) == (
        {"fetched": 2, "doubled": 4},
        {"doubled": [4, 6]},
    )


def test_a_plain_run_inside_a_running_loop_uses_that_loop(watched):
    async def main():
        lock = asyncio.Lock()

        @node(output_name="same")
        async def same(x):
            async with lock:
                return asyncio.get_running_loop()

        pipeline = Pipeline([same]).with_cache(None)
        return watched(pipeline.with_cache(None)).with_cache(None).run({"x": 1})["same"] is (
            asyncio.get_running_loop()
        )

    assert asyncio.run(main())


def test_the_loop_goes_on_while_a_plain_run_inside_it_waits_for_async_nodes():
    async def main():
        done = asyncio.Event()

        @node(output_name="waited")
        async def wait(x):
            await done.wait()
            return x

        helper = asyncio.create_task(asyncio.sleep(0.01))
        helper.add_done_callback(lambda _: done.set())
        return Pipeline([wait]).run({"x": 1})

    assert asyncio.run(main()) == {"waited": 1}


def test_a_plain_run_works_inside_a_uvloop(watched):
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        outcome = runner.run(run_plainly(watched(FETCHING)))
    assert outcome == ({"fetched": 2, "doubled": 4}, {"doubled": [4, 6]})


def test_a_pipeline_can_be_awaited_inside_a_uvloop(watched):
    async def main():
        lock = asyncio.Lock()

        @node(output_name="locked")
        async def locked(x):
            async with lock:
                return x

        return await Pipeline([locked]).arun({"x": 1}), await watched(FETCHING).arun({"x": 1})

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(main()) == ({"locked": 1}, {"fetched": 2, "doubled": 4})


def test_context_variables_of_the_caller_are_seen_by_nodes(watched):
    from contextvars import ContextVar

    user = ContextVar("user", default="nobody")

    @node(output_name="seen", cache=False)
    async def see(x):
        return user.get()

    user.set("me")
    pipeline = watched(Pipeline([see]).with_cache(None)).with_cache(None)

    async def main():
        return await pipeline.arun({"x": 1})

    assert asyncio.run(main()) == {"seen": "me"}


# ------------------------------------------------------------------------------------ values of None


def test_callbacks_of_none_are_inherited_from_the_enclosing_pipeline(recorder):
    inner = Pipeline([first], callbacks=None, name="inner")
    assert inner.run({"x": 1}) == {"a": 2}
    assert inner.callbacks is INHERIT
    Pipeline([inner, Pipeline([second]).with_callbacks(None)], callbacks=[recorder]).run({"x": 1})
    assert set(nodes_run(recorder)) == {"first", "inner", "second", "pipeline-b"}


@pytest.mark.parametrize(
    ("function", "parameter"),
    [
        (Pipeline, "callbacks"),
        (Pipeline.with_callbacks, "callbacks"),
        (HyperNodesEngine, "node_executor"),
        (HyperNodesEngine, "map_executor"),
    ],
)
def test_type_hints_allow_none(function, parameter):
    assert "None" in str(inspect.signature(function).parameters[parameter].annotation)


# -------------------------------------------------------------------- engines that are called directly


ENGINES = {
    "plain": HyperNodesEngine,
    "threads": lambda: HyperNodesEngine("threaded", "threaded"),
    "daft": DaftEngine,
    "daft, debug": lambda: DaftEngine(debug=True),
}


DOUBLED = Pipeline(
    [node(lambda x: 2 * x, output_name="doubled"), node(lambda doubled: -doubled, output_name="negative")],
    name="numbers",
)


@pytest.mark.parametrize(
    "wanted",
    ["doubled", ["doubled"], ("doubled",)],
    ids=repr,
)
@pytest.mark.parametrize("has_callbacks", [False, True])
@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_that_is_called_directly_takes_names_of_outputs_in_any_form(
    engine, wanted, has_callbacks, recorder
):
    pipeline = DOUBLED.with_callbacks([recorder]) if has_callbacks else DOUBLED
    with ENGINES[engine]() as made:
        assert made.run(pipeline, {"x": 1}, wanted) == {"doubled": 2}
        assert made.run(pipeline, {"x": 1}, output_name=wanted) == {"doubled": 2}
        rows = made.map(pipeline, [{"x": 1}, {"x": 2}], {}, wanted)
        assert [dict(row) for row in rows] == [{"doubled": 2}, {"doubled": 4}]
        stream = made.imap(pipeline, iter([{"x": 1}, {"x": 2}]), ("x",), {}, wanted)
        assert list(stream) == [(0, {"doubled": 2}), (1, {"doubled": 4})]


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_that_is_called_directly_gives_every_output_by_default(engine):
    every = {"doubled": 2, "negative": -2}
    with ENGINES[engine]() as made:
        assert made.run(DOUBLED, {"x": 1}) == made.run(DOUBLED, {"x": 1}, None) == every
        assert made.run(DOUBLED, {"x": 1}, ()) == {}
        assert [dict(row) for row in made.map(DOUBLED, [{"x": 1}], {})] == [every]


def test_an_executor_of_none_is_the_plain_loop():
    assert repr(HyperNodesEngine(None, None)) == repr(HyperNodesEngine())
    assert HyperNodesEngine(node_executor=None).run(CHAIN, {"x": 1}, ("b",)) == {"b": 20}
    assert CHAIN.with_engine(HyperNodesEngine(map_executor=None)).map({"x": [1]}, "x")["b"] == [20]


@pytest.mark.parametrize("engine", ENGINES)
def test_engines_have_the_shutdown_of_executors(engine):
    made = ENGINES[engine]()
    for shut_down in (
        lambda: made.shutdown(),
        lambda: made.shutdown(wait=True),
        lambda: made.shutdown(True),
        lambda: made.shutdown(wait=False),
    ):
        assert CHAIN.with_engine(made).map({"x": [1, 2]}, "x", output_name="b") == {"b": [20, 30]}
        shut_down()


def test_shutdown_without_waiting_lets_running_calls_end():
    started, release = threading.Event(), threading.Event()

    @node(output_name="y")
    def wait(x):
        started.set()
        return release.wait(10)

    engine = HyperNodesEngine("threaded")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(Pipeline([wait], engine).run, {"x": 1})
        try:
            assert started.wait(10)
            engine.shutdown(wait=False)
            assert not running.done()
        finally:
            release.set()
        assert running.result() == {"y": True}
