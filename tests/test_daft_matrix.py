"""Every pipeline of the executors' matrix gives the same outputs, signatures and events as a Daft query."""

import os

import pytest
from test_executors_matrix import PIPELINES, observe

from hypernodes import DaftEngine, HyperNodesEngine

ON_RAY = os.environ["DAFT_RUNNER"] == "ray"
OPTIONS = {
    "by default": {},
    "in small batches": {"batch_size": 2},
    "to debug": {"debug": True},
    "in processes of its own": {"concurrency": 2},
}
SOME = ("nested map", "batch functions")  # in processes of its own, which take a second to start
CASES = [
    pytest.param(name, options, id=f"{name}, {way}")
    for name in PIPELINES
    for way, options in OPTIONS.items()
    if ("concurrency" not in options or name in SOME) and not (ON_RAY and "debug" in options)
]


@pytest.mark.parametrize(("name", "options"), CASES)
def test_daft_gives_the_same_outputs_signatures_and_events(daft_runner, name, options, tmp_path):
    pipeline, *case = PIPELINES[name]
    wanted = observe(pipeline, HyperNodesEngine(), tmp_path / "plain", *case)
    results, signatures, events = observe(pipeline, DaftEngine(**options), tmp_path / "daft", *case)
    assert results == wanted[0]
    assert signatures == wanted[1]
    assert events == wanted[2]


@pytest.mark.parametrize(
    ("name", "options"), [case for case in CASES if case.values[0] not in ("retries", "failing node")]
)
def test_daft_gives_the_same_where_nobody_watches(daft_runner, name, options):
    pipeline, inputs, over, items = PIPELINES[name]
    engine = DaftEngine(**options)
    outputs = [None] if "concurrency" in options else [*pipeline.output_names, None]
    for output in outputs:
        wanted = pipeline.run(inputs, output), pipeline.map({**inputs, over: items}, over, output_name=output)
        on_daft = pipeline.with_engine(engine)
        assert on_daft.run(inputs, output) == wanted[0]
        assert on_daft.map({**inputs, over: items}, over, output_name=output) == wanted[1]
