"""Every pipeline of the executors' matrix gives the same outputs, signatures and events as a Daft query."""

import os

import pytest
import sample
from observers import OBSERVERS, check_all_cases, check_case

from hypernodes import DaftEngine

ON_RAY = os.environ["DAFT_RUNNER"] == "ray"
OPTIONS = {
    "by default": {},
    "in small batches": {"batch_size": 2},
    "to debug": {"debug": True},
    "in a process of its own": {"concurrency": 1},
}
# Processes take a second to start, so only this runs in them, and what is in `APART`; on Ray only that.
SOME = () if ON_RAY else ("batch functions",)
# The driver makes the plan of a query, and of what observers see, whatever the runner. On Ray, there remains
# what a worker reports: events, counts and contexts, each with all that another observer gets of it.
WATCHED = {
    "by default": ("recorder and cache", "counting on both", "counting with context")
    if ON_RAY
    else OBSERVERS,
    "in small batches": () if ON_RAY else ("recorder and cache",),
    "to debug": () if ON_RAY else ("recorder and cache",),
}
CELLS = [
    pytest.param(way, observed, id=f"{way}, {observed}")
    for way, observers in WATCHED.items()
    for observed in observers
]
# On a cluster, each cache has an actor, which starts in a second: these cases have all that the others have.
CACHED_ON_RAY = ("nested map", "async and sync", "batch functions", "failing inside")
APART = [("batch functions", "counting"), *([] if ON_RAY else [("nested map", "recorder and cache")])]
QUIET = [
    pytest.param(name, options, id=f"{name}, {way}")
    for name, case in sample.CASES.items()
    for way, options in OPTIONS.items()
    if ("concurrency" not in options or name in SOME) and not (ON_RAY and "debug" in options)
    if not (ON_RAY and "batch_size" in options and not case.batched)
    if not case.leaves_marks and not name.startswith("failing")
]


@pytest.mark.parametrize(("way", "observed"), CELLS)
def test_callbacks_and_caches_get_from_daft_what_they_get_from_a_plain_loop(
    daft_runner, way, observed, tmp_path, expected
):
    names = CACHED_ON_RAY if ON_RAY and OBSERVERS[observed].cached else sample.CASES
    check_all_cases(DaftEngine(**OPTIONS[way]), observed, tmp_path, expected, names)


@pytest.mark.parametrize(("name", "observed"), APART)
def test_callbacks_and_caches_get_the_same_from_processes_of_daft(
    daft_runner, name, observed, tmp_path, expected
):
    engine = DaftEngine(**OPTIONS["in a process of its own"])
    check_case(name, observed, engine, tmp_path / "daft", expected(name, observed))


@pytest.mark.parametrize(("name", "options"), QUIET)
def test_daft_gives_the_outputs_of_a_plain_loop_without_callbacks_and_cache(daft_runner, name, options):
    case = sample.CASES[name]
    pipeline, inputs, over, items = case.build(), case.inputs, case.map_over, case.items
    engine = DaftEngine(**options)
    outputs = [None] if ON_RAY or "concurrency" in options else [*pipeline.output_names, None]
    for output in outputs:
        wanted = pipeline.run(inputs, output), pipeline.map({**inputs, over: items}, over, output_name=output)
        on_daft = pipeline.with_engine(engine)
        assert on_daft.run(inputs, output) == wanted[0]
        assert on_daft.map({**inputs, over: items}, over, output_name=output) == wanted[1]
