"""The spellings of the earlier library that this one takes, and what it says of the others."""

import inspect
import re
from pathlib import Path

import pytest

import hypernodes
import hypernodes.telemetry
from hypernodes import (
    AsyncExecutor,
    CycleError,
    DaftEngine,
    HyperNodesEngine,
    HyperNodesError,
    InputError,
    ParallelExecutor,
    Pipeline,
    PipelineCallback,
    ProgressCallback,
    RayExecutor,
    TelemetryCallback,
    exceptions,
    node,
)
from hypernodes.callbacks.base import hooks_of
from hypernodes.earlier_names import ATTRIBUTES, IMPORTS, OPTIONS


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


CALLED = {
    "Pipeline": Pipeline,
    "HyperNodesEngine": HyperNodesEngine,
    "DaftEngine": DaftEngine,
    "AsyncExecutor": AsyncExecutor,
    "ParallelExecutor": ParallelExecutor,
    "RayExecutor": RayExecutor,
    "TelemetryCallback": TelemetryCallback,
    "map": pipeline.map,
    "as_node": pipeline.as_node,
    "visualize": pipeline.visualize,
}
FIRST = {"Pipeline": [[double]], "map": [{"x": [1]}, "x"]}


@pytest.mark.parametrize(
    ("callee", "option"), [(callee, option) for callee, options in OPTIONS.items() for option in options]
)
def test_every_earlier_option_is_an_error_that_says_what_replaces_it(callee, option):
    with pytest.raises(TypeError, match=re.escape(OPTIONS[callee][option])):
        CALLED[callee](*FIRST.get(callee, ()), **{option: 1})


@pytest.mark.parametrize("name", IMPORTS)
def test_the_import_of_an_earlier_name_says_what_replaces_it(name):
    for module in ("hypernodes", "hypernodes.engines", "hypernodes.exceptions", "hypernodes.callbacks"):
        with pytest.raises(ImportError, match=re.escape(IMPORTS[name])):
            exec(f"from {module} import {name}")


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, names in ATTRIBUTES.items() for name in names]
)
def test_an_earlier_attribute_says_what_replaces_it(kind, name):
    found = []

    class Look(PipelineCallback):
        def on_pipeline_start(self, pipeline_id, inputs, ctx):
            found.append(ctx)

    pipeline.with_callbacks([Look()]).run({"x": 1})
    owner = {"Pipeline": pipeline, "Node": double, "CallbackContext": found[0]}[kind]
    with pytest.raises(AttributeError, match=re.escape(ATTRIBUTES[kind][name])):
        getattr(owner, name)
    assert not hasattr(owner, name)
    assert name not in dir(owner)


def test_the_page_for_those_who_migrate_has_every_earlier_name():
    page = Path(__file__).parents[1] / "docs" / "migration" / "README.md"
    table = re.findall(r"^\| `(.*)` \| (.*) \|$", page.read_text(encoding="utf-8"), re.MULTILINE)
    attributes = {
        f"{kind}.{name}": text for kind, names in ATTRIBUTES.items() for name, text in names.items()
    }
    options = {f"{of}({name}=...)": text for of, names in OPTIONS.items() for name, text in names.items()}
    assert dict(table) == {**IMPORTS, **attributes, **options}


def test_an_unknown_name_is_an_error_as_python_says_it():
    with pytest.raises(ImportError, match="cannot import name 'Pipelin' from 'hypernodes' "):
        exec("from hypernodes import Pipelin")
    with pytest.raises(AttributeError, match="'Pipeline' object has no attribute 'rnu'"):
        _ = pipeline.rnu
    with pytest.raises(AttributeError, match="'Node' object has no attribute 'nam'"):
        _ = double.nam


@pytest.mark.parametrize("rows", [[{"x": 1}, {"x": 2}], ({"x": 1},)])
def test_rows_as_inputs_of_a_map_say_how_they_are_given(rows):
    for call in (pipeline.map, pipeline.imap):
        with pytest.raises(InputError, match=r"Map over rows as a table, map\(pandas.DataFrame\(rows\)\)"):
            call(rows, map_over="x")


@pytest.mark.parametrize("mode", ["cartesian", "outer", "Zip", None])
def test_an_unknown_map_mode_says_what_the_modes_mean(mode):
    wanted = r"must be 'zip' \(element by element\) or 'product' \(every combination\), not"
    for call in (pipeline.map, pipeline.imap, lambda inputs, **options: pipeline.as_node(**options)):
        with pytest.raises(InputError, match=wanted):
            call({"x": [1]}, map_over="x", map_mode=mode)


@pytest.mark.parametrize("engine", [None, HyperNodesEngine(map_executor="threaded")])
def test_callbacks_read_the_state_of_items_as_earlier_engines_kept_it(engine):
    found = []

    class Look(PipelineCallback):
        def on_node_start(self, node_id, inputs, ctx):
            found.append((ctx.get("_in_map"), ctx.get("_map_item_index"), ctx.get("_other", 7)))

    single = Pipeline([double], callbacks=[Look()], engine=engine)
    single.run({"x": 1})
    single.map({"x": [1, 2]}, "x")
    assert sorted(found, key=str) == [(False, None, 7), (True, 0, 7), (True, 1, 7)]


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
