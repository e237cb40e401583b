"""`stateful`: objects that are made once in each process, where they are used first."""

import asyncio
import gc
import inspect
import os
import pickle
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import cloudpickle
import pytest
from loaded import Model, load, load_plainly, multiplied, noted, predicted

import hypernodes
from hypernodes import DiskCache, HyperNodesEngine, HyperNodesError, Pipeline, node, stateful

ALIASES = ("sequential", "async", "threaded", "parallel", "ray")
LEVELS = ("node_executor", "map_executor")


def made(log):
    return Counter(process for what, process in noted(log) if what == "made")


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("alias", ALIASES)
@pytest.mark.parametrize("holder_of", [Model, load])
def test_an_object_is_made_at_most_once_in_each_process(alias, level, holder_of, tmp_path, engine_on):
    log, engine = tmp_path / "log", engine_on(level, alias)
    model = holder_of(log)
    pipeline = Pipeline([predicted, node(model.predict, output_name="z")], engine=engine)
    got = pipeline.map({"model": model, "x": list(range(8)), "offset": 1}, map_over="x")
    assert got == {"y": [2 * x for x in range(8)], "z": [2 * x + 1 for x in range(8)]}
    assert pipeline.run({"model": model, "x": 4, "offset": 0}) == {"y": 8, "z": 8}
    assert set(made(log).values()) == {1}
    here = str(os.getpid()) in made(log)
    assert here == (alias in ("sequential", "async", "threaded")) or level == "map_executor"


def test_an_object_is_made_once_in_a_daft_query(tmp_path):
    log = tmp_path / "log"
    model = Model(log)
    pipeline = Pipeline([predicted, model.quadruple], engine=hypernodes.DaftEngine(runner="native"))
    got = pipeline.map({"model": model, "x": [1, 2, 3]}, map_over="x")
    assert got == {"y": [2, 4, 6], "fourfold": [4, 8, 12]}
    assert sum(made(log).values()) == 1


def test_constructing_a_holder_and_its_nodes_makes_nothing(tmp_path):
    log = tmp_path / "log"
    model = Model(log, factor=5)
    nodes = [node(model.predict, output_name="a"), node(model, output_name="b"), model.quadruple]
    pipeline = Pipeline(nodes)
    assert pipeline.input_names == ("x", "offset")
    assert repr(model).endswith(", factor=5)>")
    assert isinstance(model, Model)
    assert Model.LIMIT == 100
    assert model.check(3)
    assert list(inspect.signature(Model).parameters) == ["log", "factor"]
    pickle.loads(pickle.dumps((model, pipeline)))
    assert not noted(log)
    assert pipeline(x=2, offset=1) == {"a": 11, "b": 10, "fourfold": 20}
    assert len(noted(log)) == 1


def test_wrong_arguments_are_an_error_where_the_holder_is_made(tmp_path):
    with pytest.raises(TypeError, match="unexpected keyword argument 'factors'"):
        Model(tmp_path, factors=2)


def test_equal_holders_share_one_object_and_others_have_their_own(tmp_path):
    log = tmp_path / "log"
    same = [Model(log, 3), Model(log, 3), pickle.loads(pickle.dumps(Model(log, 3)))]
    assert [model.predict(1) for model in same] == [3, 3, 3]
    assert len(noted(log)) == 1
    assert Model(log, 4).predict(1) == 4
    assert [what for what, _ in noted(log)] == ["made", "made", "closed"]


MADE = []
COUNT = 0


@stateful
class Noting:
    """Its code changes globals, which it does not read otherwise."""

    def __init__(self, *parts):
        global COUNT
        COUNT += 1
        MADE.append(parts)
        time.sleep(0.02)  # so that several threads need it meanwhile

    def size(self, x):
        MADE.append(x)
        return x


@stateful
class Around:
    def __init__(self, inner):
        self.inner = inner

    def size(self, x):
        return self.inner.size(x)


@pytest.mark.parametrize("alias", ["sequential", "async", "threaded", "daft"])
@pytest.mark.parametrize(
    "part", ["a", ["unhashable"], iter("no stable content")], ids=["text", "list", "iterator"]
)
def test_what_an_object_notes_in_globals_does_not_make_it_another_one(alias, part):
    engine = hypernodes.DaftEngine() if alias == "daft" else HyperNodesEngine(map_executor=alias)
    MADE.clear()
    model = Noting(part, alias)
    nodes = [
        node(model.size, output_name="y"),
        node(Around(model).size, output_name="z"),
        *([node(Noting(part, alias).size, output_name="other")] if isinstance(part, str | list) else []),
    ]
    Pipeline(nodes, engine=engine).map({"x": list(range(8))}, map_over="x")
    assert [made for made in MADE if isinstance(made, tuple)] == [(part, alias)]


def test_all_threads_wait_for_the_one_that_makes_the_object(tmp_path):
    class Slow:
        count = 0

        def __init__(self):
            time.sleep(0.05)
            Slow.count += 1
            self.value = Slow.count

    holder = stateful(Slow)()
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda _: holder.value, range(8))) == [1] * 8


def test_an_object_is_closed_when_no_holder_of_it_is_left(tmp_path):
    log = tmp_path / "log"
    model = Model(log)
    method = node(model.predict, output_name="y")
    assert method(2) == 4
    del model
    assert [what for what, _ in noted(log)] == ["made"]
    del method
    gc.collect()
    assert [what for what, _ in noted(log)] == ["made", "closed"]


@pytest.mark.parametrize("alias", ["sequential", "parallel"])
def test_objects_are_closed_at_the_end_of_their_process(alias, tmp_path):
    script = (
        "import sys\n"
        "from hypernodes import HyperNodesEngine, Pipeline\n"
        "from loaded import Model, predicted\n"
        "if __name__ == '__main__':\n"
        "    model = Model(sys.argv[1])\n"
        f"    pipeline = Pipeline([predicted], engine=HyperNodesEngine(map_executor={alias!r}))\n"
        "    print(pipeline.map({'model': model, 'x': [1, 2]}, map_over='x'))\n"
    )
    (tmp_path / "main.py").write_text(script)
    log = tmp_path / "log"
    done = subprocess.run(
        [sys.executable, tmp_path / "main.py", log], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "{'y': [2, 4]}\n", done.stderr
    notes = noted(log)
    assert notes
    assert {p for what, p in notes if what == "made"} == {p for what, p in notes if what == "closed"}


def test_shutting_down_an_engine_closes_the_objects_of_its_worker_processes(tmp_path):
    log = tmp_path / "log"
    with HyperNodesEngine(map_executor="parallel") as engine:
        Pipeline([predicted], engine=engine).map({"model": Model(log), "x": [1, 2, 3]}, map_over="x")
        assert "closed" not in dict(noted(log))
    closed = [process for what, process in noted(log) if what == "closed"]
    assert sorted(closed) == sorted(made(log))
    assert str(os.getpid()) not in closed


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_child_makes_its_own_object_and_leaves_that_of_its_parent_open(tmp_path):
    log = tmp_path / "log"
    script = (
        "import os, sys\n"
        "from loaded import Model\n"
        "model = Model(sys.argv[1])\n"
        "model.predict(1)\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    model.predict(1)\n"
        "    sys.exit(0)\n"
        "os.waitpid(child, 0)\n"
        "print(child, os.getpid())\n"
    )
    done = subprocess.run([sys.executable, "-c", script, log], capture_output=True, text=True, timeout=60)
    child, parent = done.stdout.split()
    assert noted(log) == [("made", parent), ("made", child), ("closed", child), ("closed", parent)]


def test_an_object_that_could_not_be_made_is_tried_again():
    tries = []

    class Fails:
        def __init__(self):
            tries.append(1)
            if len(tries) == 1:
                raise ConnectionError("not yet")

    holder = stateful(Fails)()
    take = Pipeline([node(lambda model: model.missing, output_name="y")])
    with pytest.raises(ConnectionError, match="not yet"):
        take(model=holder)
    with pytest.raises(AttributeError, match="missing"):
        take(model=holder)


@pytest.mark.parametrize("holder_of", [Model, load])
def test_nothing_is_made_for_what_comes_from_the_cache(holder_of, tmp_path):
    log, cache = tmp_path / "log", DiskCache(tmp_path / "cache")
    inputs = {"model": holder_of(log), "x": [1, 2], "offset": 0}
    for _ in range(2):
        model = holder_of(log)
        nodes = [predicted, node(model.predict, output_name="z"), model.quadruple]
        Pipeline(nodes, cache=cache).map({**inputs, "model": model}, map_over="x")
        del model, nodes
    assert [what for what, _ in noted(log)].count("made") == 1


def test_arguments_and_code_of_the_class_identify_what_was_computed(tmp_path):
    def model_of(body):
        namespace = {}
        constructor = "def __init__(self, a):\n        self.a = a\n"
        exec(f"class Model:\n    {constructor}    def predict(self, x):\n        return {body}\n", namespace)
        return stateful(namespace["Model"])

    cache, seen = DiskCache(tmp_path / "cache"), []

    @node(output_name="y")
    def take(model, x):
        return model.predict(x)

    pipeline = Pipeline([take], cache=cache)

    def verdict(model):
        hit = pipeline.explain({"model": model, "x": 2})["take"].status
        value = pipeline(model=model, x=2)["y"]
        seen.append((hit, value))

    verdict(model_of("self.a * x")(3))
    verdict(model_of("self.a * x")(3))
    verdict(model_of("self.a * x")(4))
    verdict(model_of("self.a + x")(3))
    assert seen == [("miss", 6), ("hit", 6), ("miss", 8), ("miss", 5)]


def test_a_global_holder_counts_in_the_signature_of_what_reads_it(tmp_path):
    cache = DiskCache(tmp_path / "cache")
    seen = []
    for factor in (2, 2, 3):
        namespace = {"MODEL": Model(tmp_path / "log", factor)}
        exec("def take(x):\n    return MODEL.predict(x)\n", namespace)
        pipeline = Pipeline([node(namespace["take"], output_name="y")], cache=cache)
        seen.append((pipeline.explain({"x": 2})["take"].status, pipeline(x=2)["y"]))
    assert seen == [("miss", 4), ("hit", 4), ("miss", 6)]


@pytest.mark.parametrize("alias", ALIASES)
def test_a_loader_function_holds_what_it_returns(alias, tmp_path, engine_on):
    log = tmp_path / "log"
    model = stateful(load_plainly)(log)
    pipeline = Pipeline([multiplied], engine=engine_on("map_executor", alias))
    assert pipeline.map({"model": model, "x": [1, 2, 3]}, map_over="x") == {"y": [2, 4, 6]}
    assert set(made(log).values()) == {1}


def test_an_async_method_is_an_async_node(tmp_path):
    method = node(Model(tmp_path / "log").predict_async, output_name="y")
    assert method.is_async
    assert Pipeline([method])(x=2) == {"y": 4}
    assert asyncio.run(Pipeline([method]).arun({"x": 3})) == {"y": 6}


def test_a_class_of_the_main_program_travels_too(tmp_path):
    script = (
        "from hypernodes import HyperNodesEngine, Pipeline, node, stateful\n"
        "@stateful\n"
        "class Adder:\n"
        "    def __init__(self, n):\n"
        "        print('made')\n"
        "        self.n = n\n"
        "    def add(self, x):\n"
        "        return x + self.n\n"
        "@stateful\n"
        "def number(n):\n"
        "    return [n]\n"
        "@node(output_name='z')\n"
        "def take(numbers, add):\n"
        "    return add + numbers[0]\n"
        "if __name__ == '__main__':\n"
        "    with HyperNodesEngine(map_executor='parallel') as engine:\n"
        "        pipeline = Pipeline([node(Adder(2).add), take], engine=engine)\n"
        "        print(pipeline.map({'x': [1, 2, 3], 'numbers': number(5)}, map_over='x', output_name='z'))\n"
    )
    (tmp_path / "main.py").write_text(script)
    done = subprocess.run([sys.executable, tmp_path / "main.py"], capture_output=True, text=True, timeout=60)
    assert done.stdout.endswith("{'z': [8, 9, 10]}\n"), done.stderr


def test_a_class_cannot_derive_from_a_stateful_one():
    with pytest.raises(TypeError, match=r"Model\.__wrapped__"):

        class Bigger(Model):
            pass


@pytest.mark.parametrize("wrong", [5, node(abs), asyncio.sleep], ids=["number", "node", "async"])
def test_only_classes_and_plain_functions_are_stateful(wrong):
    with pytest.raises(HyperNodesError, match="stateful takes a class"):
        stateful(wrong)


def test_an_error_of_close_is_logged_and_not_raised(caplog):
    class Stubborn:
        def close(self):
            raise OSError("it stays open")

    holder = stateful(Stubborn)()
    assert holder.__class__.__name__ == "Stubborn"
    with pytest.raises(AttributeError):
        holder.anything
    del holder
    gc.collect()
    assert "Stubborn: its close() raised" in caplog.text


def test_an_object_whose_arguments_have_no_stable_content_is_one_for_all_copies_of_its_holder():
    class Holds:
        def __init__(self, only):
            self.number = id(self)

        def get(self):
            return self.number

    holder = stateful(Holds)(object())
    other = stateful(Holds)(object())
    assert holder.get() == cloudpickle.loads(cloudpickle.dumps(holder)).get()
    assert other.get() != holder.get()
