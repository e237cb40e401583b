"""Waterfalls in a notebook: one copy of plotly, however many there are."""

import json
import shutil

import nbformat
import pytest
from nbclient import NotebookClient
from plotly.offline import get_plotlyjs

from hypernodes import Pipeline, RunReport, node
from hypernodes.callbacks.notebook_chart import _Library

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SETUP = """
from hypernodes import Pipeline, RunReport, node
pipeline = Pipeline([node(abs, output_name="size")], callbacks=[RunReport()], name="</script>")
_ = pipeline.map({"x": [1, -2]}, map_over="x")
"""

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::RuntimeWarning"
)


@pytest.fixture(scope="module")
def charts(tmp_path_factory):
    """The notebook as it is saved, and the charts of its cells."""
    cells = [SETUP, *["pipeline.last_run.waterfall()"] * 3, "pipeline.last_run.waterfall('worker')"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell.strip()) for cell in cells])
    folder = tmp_path_factory.mktemp("notebook")
    NotebookClient(
        notebook, timeout=60, kernel_name="python3", resources={"metadata": {"path": folder}}
    ).execute()
    shown = [cell.outputs[0].data["text/html"] for cell in notebook.cells[1:]]
    return json.dumps(notebook), shown


def test_a_notebook_has_one_copy_of_plotly(charts):
    saved, shown = charts
    library = len(get_plotlyjs())
    assert library > 3_000_000
    assert [len(chart) > library for chart in shown] == [True, False, False, False]
    assert max(map(len, shown[1:])) < 50_000
    assert len(saved) < 1.2 * library


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium; on Debian: apt install chromium")
def test_every_chart_is_drawn_also_before_the_library_is_there(charts, tmp_path):
    from playwright.sync_api import sync_playwright

    _, shown = charts
    # A notebook shows outputs as they are scrolled to, so that a later one may be there first.
    file = tmp_path / "charts.html"
    file.write_text("<meta charset='utf-8'>" + "\n".join(reversed(shown)), encoding="utf-8")
    errors = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(file.as_uri())
        page.wait_for_function("document.querySelectorAll('.gtitle').length == 4", timeout=30_000)
        assert "</script>" in page.locator(".gtitle").first.text_content()
        browser.close()
    assert errors == []


def test_the_cell_with_the_library_keeps_it_when_it_runs_again():
    library = _Library()
    assert library.is_needed("a", "1")
    assert not library.is_needed("a", "1")  # a second chart of the same execution
    assert not library.is_needed("b", "2")
    assert library.is_needed("a", "3")
    assert not library.is_needed("a", "3")
    assert not library.is_needed("b", "4")
    unnamed = _Library()  # a notebook that does not name its cells
    assert unnamed.is_needed(None, "1")
    assert not unnamed.is_needed(None, "2")


def test_outside_of_a_notebook_a_chart_stands_by_itself():
    pipeline = Pipeline([node(abs, output_name="size")], callbacks=[RunReport()])
    pipeline.run({"x": 1})
    for _ in range(2):
        assert len(pipeline.last_run.waterfall()._repr_html_()) > len(get_plotlyjs())
