"""Draws the pictures of the documentation: `make docs-pictures`."""

from __future__ import annotations

import sys
import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from browser import CHROMIUM, opened

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples"
SEARCH = EXAMPLES / "semantic_search"
WATCHING = EXAMPLES / "watching"
sys.path[:0] = [str(SEARCH), str(WATCHING)]

import executors  # noqa: E402
import imports  # noqa: E402
import nightly  # noqa: E402
from model import Embedder  # noqa: E402
from pipelines import semantic_search  # noqa: E402

from hypernodes import RunReport  # noqa: E402


def main() -> None:
    draw_pipelines()
    imports.draw(HERE / "imports.svg")
    executors.draw(HERE / "executors.svg")
    left = []
    for draw, name, needs in (
        (draw_page, "page.png", ("playwright", "Chromium")),
        (draw_waterfall, "waterfall-node.png", ("plotly", "playwright", "Chromium")),
        (draw_waterfall, "waterfall-worker.png", ("plotly", "playwright", "Chromium")),
        (draw_terminal, "terminal.svg", ("pyte",)),
        (draw_notebook, "notebook.png", ("jupyterlab", "playwright", "Chromium")),
    ):
        lacking = [need for need in needs if not is_here(need)]
        if lacking:
            left.append(f"{name} (no {' and no '.join(lacking)})")
        else:
            draw(HERE / name)
    if left:
        sys.exit(f"left as they are: {', '.join(left)}")


def is_here(need: str) -> bool:
    return CHROMIUM is not None if need == "Chromium" else find_spec(need) is not None


def draw_pipelines() -> None:
    for depth, name in ((1, "depth-1"), (2, "depth-2"), (None, "depth-all")):
        semantic_search.visualize(HERE / f"{name}.svg", depth=depth)
    semantic_search.visualize(HERE / "left-to-right.svg", "LR", None, show_legend=True)
    searched = semantic_search.with_callbacks([RunReport()])
    searched.run(
        {
            "modules": ["json", "textwrap", "shutil"],
            "questions": ["wrap a text", "copy a file"],
            "model": Embedder(SEARCH / "tokenizer.json"),
            "python": "any",
        }
    )
    searched.visualize(HERE / "run.svg", depth=None, run=searched.last_run)


def draw_page(picture: Path) -> None:
    """Open the page of the pipeline in a browser, and take a picture of one that is opened by hand."""
    with tempfile.TemporaryDirectory() as directory, opened(900, 820) as page:
        file = Path(directory, "page.html")
        semantic_search.visualize(file)
        page.goto(file.as_uri())
        page.locator(".pipeline", has_text="module").first.click()
        page.locator(".node", has_text="read").hover()
        page.screenshot(path=picture)


@cache
def reported() -> RunReport:
    """Run the pipeline of the terminal's picture over a few feeds."""
    report = nightly.run(nightly.FEEDS[6:10], nightly.FEEDS[6:7], [RunReport()]).last_run
    assert report is not None
    return report


def draw_waterfall(picture: Path) -> None:
    by: Any = picture.stem.removeprefix("waterfall-")
    with tempfile.TemporaryDirectory() as directory, opened(1000, 400, 1.5) as page:
        page.goto(reported().waterfall(by).save(Path(directory, "run.html")).as_uri())
        page.locator(".js-plotly-plot").screenshot(path=picture)


def draw_terminal(picture: Path) -> None:
    import terminal

    terminal.photograph(WATCHING / "nightly.py", picture)


def draw_notebook(picture: Path) -> None:
    import lab

    notebook = EXAMPLES / "notebooks" / "first_steps.ipynb"
    lab.photograph(notebook, picture, first="A pipeline", beyond="The cache")


if __name__ == "__main__":
    main()
