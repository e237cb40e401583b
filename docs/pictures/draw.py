"""Draws the pictures of the documentation: `make docs-pictures`."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
SEARCH = HERE.parents[1] / "examples" / "semantic_search"
sys.path.insert(0, str(SEARCH))

from model import Embedder  # noqa: E402
from pipelines import semantic_search  # noqa: E402

from hypernodes import RunReport  # noqa: E402


def main() -> None:
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
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("page.png is left as it is: there is no Chromium to open the page in")
    photograph(chromium)


def photograph(chromium: str) -> None:
    """Open the page of the pipeline in a browser, and take a picture of one that is opened by hand."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as directory, sync_playwright() as playwright:
        page_file = Path(directory, "page.html")
        semantic_search.visualize(page_file)
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 900, "height": 820})
        page.goto(page_file.as_uri())
        page.locator(".pipeline", has_text="module").first.click()
        page.locator(".node", has_text="read").hover()
        page.screenshot(path=HERE / "page.png")
        browser.close()


if __name__ == "__main__":
    main()
