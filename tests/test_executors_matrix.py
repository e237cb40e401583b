"""Every pipeline gives the same outputs, signatures and events on every executor, at both levels."""

import asyncio

import pytest
import sample
from executor_names import ALIASES, INSTANCES
from observers import OBSERVERS, check_all_cases

from hypernodes import HyperNodesEngine

LEVELS = ("node", "map", "both")
OWN = ("AsyncExecutor", "ParallelExecutor", "RayExecutor")
FOREIGN = ("loky", "dask")


@pytest.fixture(scope="module")
def engine_of(executor_named):
    """Return a function that makes engines; an engine is closed when the next one is made."""
    current = {}

    def make(executor, level):
        if (executor, level) not in current:
            for engine in current.values():
                engine.shutdown()
            current.clear()
            made = "parallel" if executor == "parallel" else executor_named(executor)
            options = {}
            if level in ("node", "both"):
                options["node_executor"] = made
            if level in ("map", "both"):
                options["map_executor"] = made
            current[executor, level] = HyperNodesEngine(**options)
        return current[executor, level]

    yield make
    for engine in current.values():
        engine.shutdown()


def watching(executor, level):
    """Return the observers for which something may differ here that does not elsewhere.

    Aliases have all. The executors made by users, and Ray, go the same ways: as one object at both levels
    they have the ways that no alias has. At a single level, an executor of this package is what its alias is.
    Those of other packages are called as `ThreadPoolExecutor` is; only how they pickle may differ.
    """
    if executor in OWN and level != "both":
        return []
    if executor in FOREIGN:
        return {"node": [], "map": ["recorder and cache"], "both": ["counting with context"]}[level]
    if executor in ("ray", *INSTANCES):
        return {
            "node": ["recorder and cache"],
            "map": ["recorder and cache", "counting on both"],
            "both": ["recorder and cache", "nothing", "counting", "counting with context"],
        }[level]
    if level == "both" or (executor, level) == ("parallel", "node"):
        return ["nothing", "recorder and cache", "counting with context"]
    if level == "node":
        return ["nothing", "cache", "recorder and cache", "counting", "counting on both"]
    return list(OBSERVERS)


CELLS = [
    (executor, level, observed)
    for executor in (*ALIASES, *INSTANCES)
    for level in (LEVELS if executor != "sequential" else ("map",))
    for observed in watching(executor, level)
]


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::UserWarning:distributed"
)
@pytest.mark.parametrize(("executor", "level", "observed"), CELLS)
def test_every_executor_shows_every_observer_what_a_plain_loop_shows(
    executor, level, observed, engine_of, tmp_path, expected
):
    check_all_cases(engine_of(executor, level), observed, tmp_path, expected)


@pytest.mark.parametrize("executor", ALIASES)
def test_the_same_pipeline_can_be_awaited_on_every_executor(executor, executor_named):
    async def main(pipeline):
        once = await pipeline.arun({"text": "a bcd ef", "unit": 2}, "longest")
        many = await pipeline.amap({"text": ["a bc", "d"], "unit": 1}, "text", output_name="longest")
        return once, many

    made = executor_named(executor)
    with HyperNodesEngine(made, made) as engine:
        pipeline = sample.nested_map.with_engine(engine)
        assert asyncio.run(main(pipeline)) == ({"longest": 6}, {"longest": [2, 1]})
