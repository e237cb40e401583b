"""Workers that have imported other code than the driver: they call the driver's code, or nothing."""

import importlib
import os
import sys
from itertools import count

import pytest

import hypernodes
from hypernodes import DiskCache, HyperNodesEngine, Pipeline, RayExecutor, node
from hypernodes.exceptions import OtherCodeError

pytestmark = pytest.mark.timeout(240)

AID = """
K = {k}
def help(x): return x + {k}
class Helper:
    def help(self, x): return x + {k}
"""

WAYS = """
import {aid}
from {aid} import help
def by_its_module(x): return {aid}.help(x)
def by_its_name(x): return help(x)
def by_its_class(x): return {aid}.Helper().help(x)
def in_a_default(x, by={aid}.help): return by(x)
def made(by):
    def inside(x): return by(x)
    return inside
in_a_closure = made({aid}.help)
def a_global_number(x): return x + {aid}.K
"""
NAMES = ("by_its_module", "by_its_name", "by_its_class", "in_a_default", "in_a_closure", "a_global_number")

WITHIN = "def f(x):\n    import {aid}\n    return {aid}.help(x)\n"

ENGINES = {
    "parallel map": lambda executor: HyperNodesEngine(map_executor="parallel"),
    "parallel node": lambda executor: HyperNodesEngine(node_executor="parallel"),
    "ray map": lambda executor: HyperNodesEngine(map_executor=executor()),
    "ray node": lambda executor: HyperNodesEngine(node_executor=executor()),
    "daft": lambda executor: hypernodes.DaftEngine(concurrency=1),
}
numbers = count()

# Daft starts a process for each query, which takes seconds.
without_daft = pytest.mark.parametrize("engine", [name for name in ENGINES if name != "daft"], indirect=True)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A directory of modules that the workers import, too, if they are started from now on."""
    home = tmp_path_factory.mktemp("modules")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(home))
        patch.setattr(sys, "dont_write_bytecode", True)
        patch.setenv("PYTHONDONTWRITEBYTECODE", "1")
        patch.setenv("PYTHONPATH", os.pathsep.join((str(home), os.environ.get("PYTHONPATH", ""))))
        yield home


@pytest.fixture(scope="module")
def executor_on_ray(home, ray_cluster):
    return RayExecutor(runtime_env={"env_vars": {"PYTHONPATH": os.environ["PYTHONPATH"]}})


@pytest.fixture(scope="module", params=ENGINES)
def engine(home, request):
    engine = ENGINES[request.param](lambda: request.getfixturevalue("executor_on_ray"))
    yield engine
    engine.shutdown()


class Modules:
    """The modules of a user, one of which imports the other."""

    def __init__(self, home):
        self.home = home
        number = next(numbers)
        self.names = {"aid": f"aid{number}", "written": f"written{number}"}

    def write(self, k, written=None):
        (self.home / f"{self.names['aid']}.py").write_text(AID.format(k=k))
        if written is not None:
            (self.home / f"{self.names['written']}.py").write_text(written.format(**self.names))

    def load(self):
        importlib.invalidate_caches()
        for name in self.names.values():
            module = sys.modules.get(name)
            importlib.import_module(name) if module is None else importlib.reload(module)
        return sys.modules[self.names["written"]]

    @property
    def aid(self):
        return sys.modules[self.names["aid"]]


@pytest.fixture
def modules(home):
    return Modules(home)


def run(module, engine, cache, names=NAMES):
    nodes = [node(getattr(module, name), output_name=name) for name in names]
    got = Pipeline(nodes, engine=engine, cache=cache).map({"x": [1, 2, 3]}, map_over="x")
    assert got.keys() == set(names)
    first, *others = got.values()
    assert all(other == first for other in others), got
    return first


@without_daft
def test_workers_use_what_is_reloaded_in_the_driver(engine, modules, tmp_path):
    cache = DiskCache(tmp_path / "cache")
    modules.write(1, WAYS)
    assert run(modules.load(), engine, cache) == [2, 3, 4]
    modules.write(100)
    module = modules.load()
    assert run(module, engine, cache) == [101, 102, 103]
    assert run(module, HyperNodesEngine(), cache) == [101, 102, 103]
    modules.write(1)
    assert run(modules.load(), engine, cache) == [2, 3, 4]


def test_workers_do_not_use_what_is_edited_and_not_reloaded(engine, modules, tmp_path):
    cache = DiskCache(tmp_path / "cache")
    modules.write(1, WAYS)
    module = modules.load()
    modules.write(100)
    assert run(module, engine, cache) == [2, 3, 4]
    assert run(module, HyperNodesEngine(), cache) == [2, 3, 4]


@without_daft
def test_workers_use_the_value_of_a_global_variable_that_the_driver_has_set(engine, modules, tmp_path):
    cache = DiskCache(tmp_path / "cache")
    modules.write(1, WAYS)
    module = modules.load()
    assert run(module, engine, cache, ["a_global_number"]) == [2, 3, 4]
    modules.aid.K = 100
    assert run(module, engine, cache, ["a_global_number"]) == [101, 102, 103]


@without_daft
def test_short_calls_that_go_together_use_the_code_of_the_driver(engine, modules, tmp_path):
    modules.write(1, WAYS)
    module = modules.load()
    steps = [
        node(module.a_global_number, output_name=f"y{n + 1}").rename(inputs={"x": f"y{n}"}) for n in range(6)
    ]
    pipeline = Pipeline(steps, engine=engine, cache=DiskCache(tmp_path / "cache"))
    for start in (0, 1000):  # With the first run the engine learns that the node is short.
        assert pipeline.run({"y0": start})["y6"] == start + 6
    modules.aid.K = 100
    assert pipeline.run({"y0": 1000})["y6"] == 1600
    assert pipeline.with_engine(HyperNodesEngine()).run({"y0": 1000})["y6"] == 1600


def test_a_name_that_the_module_of_a_worker_lacks_comes_from_the_driver(engine, modules):
    modules.write(1, "def f(x): return x + 1\n")
    assert run(modules.load(), engine, None, ["f"]) == [2, 3, 4]
    modules.write(1, "def f(x): return x + 1\ndef g(x): return x * 10\n")
    assert run(modules.load(), engine, None, ["g"]) == [10, 20, 30]


@without_daft
def test_objects_of_a_class_that_was_reloaded_are_of_the_class_of_the_driver(engine, modules, tmp_path):
    source = "class P:\n    def __init__(self, x): self.x = {factor} * x\ndef f(x): return P(x)\n"
    cache = DiskCache(tmp_path / "cache")
    for factor in (1, 2):
        modules.write(1, source.replace("{factor}", str(factor)))
        module = modules.load()
        pipeline = Pipeline([node(module.f, output_name="y")], engine=engine, cache=cache)
        made = pipeline.map({"x": [1, 2]}, map_over="x")["y"]
        assert [(type(y), y.x) for y in made] == [(module.P, factor), (module.P, 2 * factor)]


def test_where_the_code_of_the_driver_cannot_travel_the_node_is_not_called(engine, modules, tmp_path):
    cache = DiskCache(tmp_path / "cache")
    modules.write(1, WITHIN)
    module = modules.load()
    modules.write(100)
    pipeline = Pipeline([node(module.f, output_name="y")], name="stale", engine=engine, cache=cache)
    with pytest.raises(OtherCodeError, match=r"other code for node 'f'.*importlib.reload.*engine.shutdown"):
        pipeline.map({"x": [1, 2, 3]}, map_over="x")
    errors = pipeline.map({"x": [1, 2, 3]}, map_over="x", on_error="return")["y"]
    assert [type(error) for error in errors] == [OtherCodeError] * 3
    assert "pipeline 'stale'" in "".join(errors[0].__notes__)
    assert run(module, HyperNodesEngine(), cache, ["f"]) == [2, 3, 4]
