"""The notebook of examples/notebooks, as a newcomer runs it: from top to bottom, on a real kernel."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FIRST_STEPS = Path(__file__).parents[1] / "examples" / "notebooks" / "first_steps.ipynb"
WIDGET = "application/vnd.jupyter.widget-view+json"

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::RuntimeWarning"
)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """Run the notebook once; give the outputs of each cell, by the cell's id."""
    notebook = nbformat.read(FIRST_STEPS, as_version=4)
    folder = tmp_path_factory.mktemp("notebook")
    NotebookClient(
        notebook, timeout=60, kernel_name="python3", resources={"metadata": {"path": folder}}
    ).execute()
    assert list(folder.iterdir()) == []
    return {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}


def printed(outputs):
    return "".join(output.text for output in outputs if output.get("name") == "stdout")


def shown(outputs, kind):
    return [output.data[kind] for output in outputs if kind in output.get("data", {})]


def test_it_is_kept_without_outputs():
    notebook = nbformat.read(FIRST_STEPS, as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.outputs for cell in notebook.cells if cell.cell_type == "code")
    assert all(cell.get("execution_count") is None for cell in notebook.cells)


def test_its_links_lead_to_files():
    notebook = nbformat.read(FIRST_STEPS, as_version=4)
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert links
    assert [link for link in links if not (FIRST_STEPS.parent / link).exists()] == []


def test_nothing_is_complained_of(outputs):
    assert [output for cell in outputs.values() for output in cell if output.get("name") == "stderr"] == []


def test_nodes_and_the_pipeline_give_their_values(outputs):
    assert shown(outputs["nodes"], "text/plain") == ["50"]
    assert printed(outputs["run"]) == "{'subtotal': 50, 'tax': 10, 'total': 60}\n{'total': 55}\n"
    assert printed(outputs["map"]) == "[12, 13, 14, 16, 17] … 83\n"
    assert shown(outputs["async"], "text/plain") == ["{'receipt': '60 EUR paid'}"]


def test_a_pipeline_shows_itself_as_a_picture(outputs):
    [picture] = shown(outputs["pipeline"], "text/html")
    assert "<svg " in picture
    assert "compute_tax" in picture


def test_a_pipeline_shows_itself_as_a_page(outputs):
    [page] = shown(outputs["page"], "text/html")
    assert page.startswith("<iframe ")
    assert "payment" in page


def test_a_map_shows_its_progress(outputs):
    assert shown(outputs["map"], WIDGET)
    assert shown(outputs["cache"], WIDGET)


def test_the_last_run_is_reported(outputs):
    [report] = shown(outputs["report"], "text/html")
    assert "60 items" in report
    assert all(name in report for name in ("add_up", "compute_tax", "charge"))


def test_the_second_time_nothing_is_computed(outputs):
    told = printed(outputs["cache"]).splitlines()
    assert told == ["the first time: 180 calls, True", "the second time: 0 calls, True"]


def test_a_changed_node_is_told_from_the_others(outputs):
    explained = shown(outputs["change"], "text/html")[-1]
    rows = re.findall(r"<tr.*?</tr>", explained, re.DOTALL)[-3:]
    assert [next(word for word in ("hit", "miss") if f">{word}<" in row) for row in rows] == [
        "hit",
        "miss",
        "miss",
    ]


def test_every_engine_gives_the_same(outputs):
    found = [(line.split()[0], line.split()[-1]) for line in printed(outputs["engines"]).splitlines()]
    assert found == [("sequential", "True"), ("threaded", "True"), ("parallel", "True")]
