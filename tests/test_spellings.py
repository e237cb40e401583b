"""The spellings of the earlier library that this one takes, and what it says of the others."""

import inspect

import pytest

import hypernodes
import hypernodes.telemetry
from hypernodes import (
    CycleError,
    HyperNodesEngine,
    HyperNodesError,
    Pipeline,
    PipelineCallback,
    ProgressCallback,
    exceptions,
    node,
)
from hypernodes.callbacks.base import hooks_of


@node(output_name="y")
def double(x):
    return 2 * x


@node(output_name="z")
def add(x, y):
    return x + y


pipeline = Pipeline([double, add], name="sums")


def test_progress_and_telemetry_are_in_one_package():
    assert hypernodes.telemetry.ProgressCallback is ProgressCallback
    assert hypernodes.telemetry.TelemetryCallback is hypernodes.TelemetryCallback
    with pytest.raises(AttributeError, match="has no attribute 'Progress'"):
        _ = hypernodes.telemetry.Progress


def test_progress_that_is_not_enabled_shows_nothing(capsys):
    progress = ProgressCallback(enable=False)
    assert hooks_of(progress) == frozenset()
    assert pipeline.with_callbacks([progress]).map({"x": [1, 2]}, "x", output_name="z") == {"z": [3, 6]}
    assert capsys.readouterr().err == ""
    pipeline.with_callbacks([ProgressCallback(enable=True)]).run({"x": 1})
    assert "sums" in capsys.readouterr().err
    with pytest.raises(HyperNodesError, match="enable must be True or False, not 'no'"):
        ProgressCallback(enable="no")


def test_metadata_of_pipelines_have_both_spellings():
    found = {}

    class Look(PipelineCallback):
        def on_pipeline_start(self, pipeline_id, inputs, ctx):
            found.update(ctx.get_pipeline_metadata(pipeline_id))

    pipeline.with_callbacks([Look()]).run({"x": 1})
    assert (found["total_nodes"], found["pipeline_name"]) == (2, "sums") == (found["total"], found["name"])


def test_a_pipeline_has_its_id():
    assert (pipeline.id, pipeline.with_name("other").id) == ("sums", "other")
    assert Pipeline([double]).id == Pipeline([double]).pipeline_id == "pipeline-y"


def test_all_exceptions_are_at_the_top_level():
    kinds = {
        name
        for name, value in vars(exceptions).items()
        if inspect.isclass(value) and value.__module__ == exceptions.__name__
    }
    assert kinds <= set(hypernodes.__all__)
    assert {getattr(hypernodes, name) for name in kinds} == {getattr(exceptions, name) for name in kinds}
    assert CycleError is exceptions.CycleError


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Pipeline([double], backend=1), "keyword argument 'backend'. Give engine=HyperNodesEngine"),
        (lambda: Pipeline([double], max_workers=4), "Executors have it: engine=HyperNodesEngine"),
        (lambda: HyperNodesEngine(max_workers=4), "map_executor=ThreadPoolExecutor\\(max_workers=4\\)"),
        (lambda: HyperNodesEngine(backend=1), "Pipeline\\(nodes, engine=HyperNodesEngine"),
        (lambda: HyperNodesEngine(cache=None), "Pipeline\\(nodes, cache=...\\)"),
        (lambda: pipeline.visualize(style="dark"), "Give theme='light', 'dark' or 'auto'"),
        (
            lambda: pipeline.visualize(colour=1),
            "^visualize\\(\\) got an unexpected keyword argument 'colour'.$",
        ),
    ],
)
def test_options_that_were_replaced_say_by_what(call, message):
    with pytest.raises(TypeError, match=message):
        call()


@pytest.mark.parametrize(
    ("suffix", "begins"), [(".png", b"\x89PNG"), (".pdf", b"%PDF"), (".PNG", b"\x89PNG")]
)
@pytest.mark.parametrize("orient", ["TB", "BT", "RL"])
def test_pictures_are_written_as_images(tmp_path, suffix, begins, orient):
    file = tmp_path / f"picture{suffix}"
    drawn = pipeline.visualize(file, orient=orient, show_legend=True)
    assert file.read_bytes().startswith(begins)
    assert len(file.read_bytes()) > 2000
    assert "<svg " in drawn


def test_an_image_is_no_text(tmp_path):
    with pytest.raises(HyperNodesError, match="suffix '.png' has no return_type 'mermaid'"):
        pipeline.visualize(tmp_path / "picture.png", return_type="mermaid")


@pytest.mark.parametrize("orient", ["BT", "RL"])
def test_all_text_forms_are_oriented(orient):
    assert pipeline.visualize(return_type="mermaid", orient=orient).startswith(f"flowchart {orient}")
    assert f"rankdir={orient}" in pipeline.visualize(return_type="graphviz", orient=orient)
    assert f'"orient": "{orient}"' in pipeline.visualize(return_type="html", orient=orient)
