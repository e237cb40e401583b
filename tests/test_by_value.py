"""Functions and classes of a script or a notebook, which travel by value, are the same in workers."""

import functools
import os
import subprocess
import sys
import textwrap
import warnings

import pytest

import hypernodes
from hypernodes import DiskCache, Pipeline, node

PLACES = ["map parallel", "node parallel", "map ray", "node ray", "daft processes"]


@pytest.fixture(scope="module")
def engine(request, engine_on):
    if request.param == "daft processes":
        return hypernodes.DaftEngine(runner="native", concurrency=1)
    level, alias = request.param.split()
    return engine_on(f"{level}_executor", alias)


on_processes = pytest.mark.parametrize("engine", PLACES, indirect=True)

CELL = """
import logging, sys, warnings

def where(x):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.warn("careful")
    records = []
    logger = logging.Logger("of a node")
    logger.addFilter(records.append)
    logger.warning("logged")
    return (caught[0].filename, caught[0].lineno), (records[0].pathname, records[0].lineno)

def fail(x):
    raise ValueError(x)

def outer(x):
    return fail(x)
"""


def cell(path):
    """Return what a cell of a notebook defines, whose code is in no module."""
    names = {"__name__": "__main__"}
    exec(compile(CELL, path, "exec"), names)
    return names


@on_processes
def test_tracebacks_warnings_and_logs_of_workers_show_file_and_line(engine):
    path = "/tmp/ipykernel_1/2345.py"
    names = cell(path)
    place = Pipeline([node(names["where"], output_name="place")], engine=engine)
    assert place.map({"x": [1]}, map_over="x") == {"place": [((path, 7), (path, 11))]}
    failing = Pipeline([node(names["outer"], output_name="y")], engine=engine)
    with pytest.raises(ValueError, match="1") as caught:
        failing.map({"x": [1]}, map_over="x")
    text = str(caught.value.__cause__)
    assert f'File "{path}", line 18, in outer' in text
    assert f'File "{path}", line 15, in fail' in text
    assert "dynamic-code" not in text


def test_signatures_do_not_depend_on_file_names(tmp_path, recorder):
    for path in ("/tmp/a.py", "/tmp/b.py"):
        names = cell(path)
        pipeline = Pipeline([node(names["where"], output_name="place")], cache=DiskCache(tmp_path))
        pipeline.with_callbacks([recorder]).map({"x": [1, 2]}, map_over="x")
    assert len(recorder.of("node_cached")) == 2


SCRIPT = """
    import functools, sys, tempfile, warnings
    from hypernodes import DaftEngine, DiskCache, HyperNodesEngine, Pipeline, node
    from hypernodes.exceptions import CacheWarning

    warnings.simplefilter("error", CacheWarning)

    @functools.lru_cache(maxsize=7, typed=True)
    def times_ten(x):
        return 10 * x

    @functools.cache
    def fibonacci(n):
        return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

    fibonacci.label = "of mine"

    @functools.singledispatch
    def kind_of(value):
        return "object"

    @kind_of.register
    def _(value: int):
        return "int"

    class Doubled(functools.cached_property):
        pass

    class Model:
        def __init__(self, k):
            self.k = k

        @functools.cached_property
        def big(self):
            return 100 * self.k

        @Doubled
        def doubled(self):
            return 2 * self.k

        @functools.lru_cache
        def plus(self, x):
            return self.k + x

        @staticmethod
        @functools.cache
        def minus(x):
            return x - 1

    def use_caches(x):
        again = fibonacci(x), fibonacci(x)
        parameters = times_ten.cache_parameters()
        return times_ten(x), again, fibonacci.cache_info().hits > 0, fibonacci.label, parameters["maxsize"]

    def use_model(x, model):
        made = Model(x)
        return made.big, made.doubled, made.plus(1), Model.minus(x), model.big, kind_of(x), kind_of("x")

    def make_model(x):
        model = Model(x)
        assert model.big == 100 * x
        return model

    if __name__ == "__main__":
        engines = {
            "parallel": lambda: HyperNodesEngine(map_executor="parallel"),
            "nodes": lambda: HyperNodesEngine(node_executor="parallel"),
            "daft": lambda: DaftEngine(runner="native", concurrency=1),
            "ray": lambda: HyperNodesEngine(map_executor="ray"),
        }
        nodes = [
            node(times_ten, output_name="ten"),
            node(use_caches, output_name="caches"),
            node(use_model, output_name="used"),
            node(make_model, output_name="made"),
        ]
        engine = engines[sys.argv[1]]()
        for cache in (None, DiskCache(tempfile.mkdtemp())):
            pipeline = Pipeline(nodes, engine=engine, cache=cache)
            model = Model(7)
            assert model.big == 700
            for _ in range(1 if cache is None else 2):
                rows = pipeline.map({"x": [3, 5], "model": model}, map_over="x")
                assert all(isinstance(made, Model) and made.big == 100 * made.k for made in rows.pop("made"))
                print(rows)
"""

EXPECTED = {
    "ten": [30, 50],
    "caches": [(30, (2, 2), True, "of mine", 7), (50, (5, 5), True, "of mine", 7)],
    "used": [(300, 6, 4, 2, 700, "int", "object"), (500, 10, 6, 4, 700, "int", "object")],
}


@pytest.mark.parametrize("place", ["parallel", "nodes", "daft", "ray"])
def test_caches_of_functools_travel_from_a_script(place, tmp_path, request):
    environment = request.getfixturevalue("environment_on_ray") if place == "ray" else os.environ
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    done = subprocess.run(
        [sys.executable, "script.py", place],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.stderr == ""
    assert done.stdout == f"{EXPECTED}\n" * 3


@functools.lru_cache
def cached_here(x):
    return x + 1


def test_a_cached_function_of_a_module_travels_by_its_name(engine_on):
    engine = engine_on("map_executor", "parallel")

    def is_the_one_of_its_module(x, function):
        module = sys.modules[function.__module__]
        return function is module.cached_here

    pipeline = Pipeline([node(is_the_one_of_its_module, output_name="y")], engine=engine)
    with warnings.catch_warnings():
        assert pipeline.map({"x": [1], "function": cached_here}, map_over="x") == {"y": [True]}
