"""Pictures of pipelines: their content, their formats, and their errors."""

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest
import sample

from hypernodes import HyperNodesEngine, Pipeline, RunReport, node
from hypernodes.exceptions import ExtraMissingError, InputError
from hypernodes.visualization.diagram import build_diagram
from hypernodes.visualization.run_overlay import LIGHT_FILLS, add_run

ROOT = Path(__file__).parents[1]


@node(output_name=("low", "high"), retries=2, cache=False, num_gpus=1)
def bounds(x: int, table: dict[str, int] | None = None, *, sure: bool = True) -> tuple[int, float]:
    """Say where <it> lies & why.

    Not shown.
    """
    return x, x + 1.0


@node(output_name="width")
def width(low, high):
    return high - low


inner = Pipeline([bounds, width], name='in "quotes" <b>', engine=HyperNodesEngine(), cache=None)
outer = Pipeline(
    [
        inner.as_node({"xs": "x"}, {"width": "widths"}, map_over="xs"),
        node(lambda widths: max(widths), output_name="widest"),
    ],
    name="outer",
)


def test_depth_selects_the_levels_that_are_expanded():
    collapsed, expanded = build_diagram(outer), build_diagram(outer, depth=2)
    assert [box.kind for box in collapsed.boxes] == ["input", "pipeline", "node"]
    assert [box.kind for box in expanded.boxes] == ["input", "group", "node"]
    assert [box.name for box in expanded.boxes[1].boxes] == ["bounds", "width"]
    assert build_diagram(outer, depth=9) == build_diagram(outer, depth=None) == expanded
    flat = build_diagram(outer, depth=None, flatten=True)
    assert [box.name for box in flat.boxes] == ["", "bounds", "width", "<lambda>"]


def test_boxes_show_types_defaults_and_settings():
    (inputs, pipeline, _), (_, group, _) = build_diagram(outer).boxes, build_diagram(outer, depth=None).boxes
    assert [(value.name, value.type, value.default) for value in inputs.values] == [
        ("xs", "list[int]", ""),
        ("table", "dict[str, int] | None", "None"),
        ("sure", "bool", "True"),
    ]
    assert pipeline.remarks == group.remarks == ("for each of xs", "engine: HyperNodesEngine()", "cache: off")
    assert [(value.name, value.type) for value in pipeline.values] == [
        ("low", "list[int]"),
        ("high", "list[float]"),
        ("widths", ""),
    ]
    bounds_box = group.boxes[0]
    assert bounds_box.remarks == ("not cached", "up to 2 retries", "1 GPU")
    assert bounds_box.doc == "Say where <it> lies & why."


def test_inputs_that_nodes_share_or_that_are_few_have_boxes_of_their_own():
    both = Pipeline([node(lambda a, b, c: a, output_name="x"), node(lambda c, d: c, output_name="y")])
    assert [
        [value.name for value in box.values] for box in build_diagram(both).boxes if box.kind == "input"
    ] == [
        ["a", "b"],
        ["c"],
        ["d"],
    ]
    apart = build_diagram(both, min_arg_group_size=3)
    assert [len(box.values) for box in apart.boxes if box.kind == "input"] == [1, 1, 1, 1]


def test_arrows_go_to_the_boxes_that_take_a_value_and_name_it_if_there_are_several():
    expanded = build_diagram(outer, depth=None)
    assert {(arrow.source, arrow.target, arrow.names) for arrow in expanded.arrows} == {
        ("i0", "0.0", ()),
        ("0.0", "0.1", ()),
        ("0.1", "1", ()),
    }
    assert ("0", "1", ("widths",)) in {(a.source, a.target, a.names) for a in build_diagram(outer).arrows}


@pytest.mark.parametrize("theme", ["auto", "light", "dark"])
@pytest.mark.parametrize("orient", ["TB", "LR", "BT", "RL"])
def test_an_svg_is_well_formed_and_has_every_name(theme, orient):
    drawn = outer.visualize(
        return_type="svg", depth=None, theme=theme, orient=orient, show_legend=True, show_types=False
    )
    root = ElementTree.fromstring(drawn)
    texts = ["".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")]
    for name in ('in "quotes" <b>', "bounds", "<lambda>", "widest", "for each of xs", "pipeline"):
        assert any(name in text for text in texts), name
    assert not any("dict[" in text for text in texts)
    assert ("prefers-color-scheme" in drawn) == (theme == "auto")


def test_the_suffix_of_a_file_selects_the_format(tmp_path):
    for suffix, begins in ((".svg", "<svg"), (".mmd", "flowchart TB"), (".dot", 'digraph "outer"')):
        drawn = outer.visualize(tmp_path / f"picture{suffix}")
        assert (tmp_path / f"picture{suffix}").read_text(encoding="utf-8") == drawn
        assert drawn.startswith(begins)
    with pytest.raises(InputError, match=r"the suffix '.gif' of the file is not that of a picture"):
        outer.visualize(tmp_path / "picture.gif")


def test_values_that_an_option_does_not_take_are_errors_that_name_it():
    for options in (
        {"orient": "UP"},
        {"theme": "blue"},
        {"return_type": "sgv"},
        {"depth": 0},
        {"depth": True},
    ):
        (name,) = options
        with pytest.raises(InputError, match=f"pipeline 'outer': {name} is"):
            outer.visualize(**options)


def test_without_graphviz_svg_names_the_extra_and_auto_is_mermaid(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda program: None)
    monkeypatch.setitem(sys.modules, "pygraphviz", None)
    with pytest.raises(ExtraMissingError, match=r"pip install 'hypernodes-ray\[viz\]'"):
        outer.visualize(return_type="svg")
    assert outer.visualize().startswith("flowchart TB")
    assert "<table>" in outer._repr_html_()


def test_a_notebook_shows_the_picture():
    assert outer._repr_html_().startswith("<svg")
    assert outer.visualize(return_type="svg")._repr_svg_().startswith("<svg")
    assert outer.visualize(return_type="mermaid")._repr_markdown_().startswith("```mermaid\nflowchart")


@pytest.mark.timeout(60)
def test_many_nodes_are_still_drawn():
    chain = [
        node(eval(f"lambda v{number}: v{number}"), output_name=f"v{number + 1}") for number in range(500)
    ]
    big = Pipeline(chain, name="big")
    assert "v500" in big.visualize(return_type="svg")
    assert len(repr(big)) < 200


def test_every_kind_of_node_can_be_drawn():
    for pipeline in (sample.nested_map, sample.mixed, sample.several, sample.batched):
        assert pipeline.visualize(return_type="svg", depth=None).startswith("<svg")


def test_the_pictures_of_the_documentation_can_be_drawn(tmp_path):
    there = ROOT / "docs" / "pictures"
    home = tmp_path / "docs" / "pictures"
    home.mkdir(parents=True)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for script in there.glob("*.py"):
        shutil.copy(script, home)
    ended = subprocess.run(
        [sys.executable, home / "draw.py"], capture_output=True, text=True, check=False, timeout=110
    )
    pictures = {path.name for path in there.iterdir() if path.suffix in (".svg", ".png")}
    drawn = {path.name for path in home.iterdir() if path.suffix in (".svg", ".png")}
    left = set(re.findall(r"([\w-]+\.\w+) \(no ", ended.stderr))
    assert drawn | left == pictures, ended.stderr
    assert not drawn & left
    assert (ended.returncode == 0) == (not left), ended.stderr
    assert {"depth-1.svg", "depth-all.svg", "run.svg"} <= drawn


def test_a_run_colours_the_picture(recwarn):
    def dawdle(x):
        time.sleep(0.02)
        return x

    def fail(x):
        if x == 2:
            raise ValueError(x)
        return x

    nodes = [node(dawdle, output_name="slow"), node(fail, output_name="good")]
    spare = node(lambda x: x, output_name="spare")
    report = RunReport()
    pipeline = Pipeline([*nodes, spare], name="run", callbacks=[report])
    pipeline.map({"x": [1, 2]}, "x", output_name=["slow", "good"], on_error="return")
    shown = build_diagram(pipeline)
    add_run(shown, report.nodes)
    by_name = {box.name: box for box in shown.boxes}
    assert by_name["dawdle"].heat == 4
    assert by_name["fail"].failed
    assert by_name["fail"].remarks[-1] == "✗ 1 failed"
    assert by_name["<lambda>"].remarks == ("did not run",)
    for form in ("svg", "html", "mermaid", "graphviz"):
        assert "✗ 1 failed" in pipeline.visualize(return_type=form, run=pipeline.last_run)
    hot = LIGHT_FILLS[4]
    assert hot in pipeline.visualize(return_type="svg", theme="light", run=report)
    assert hot not in pipeline.visualize(return_type="svg", theme="light")
