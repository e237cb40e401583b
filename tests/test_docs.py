"""Every snippet of the README and of docs/ runs, and prints what the page says it prints.

The blocks of a page run in order, in one process and one namespace, as a reader would try them. What
a block prints is compared with the ``text`` block that directly follows it, if there is one; ``...``
stands there for whatever differs from run to run, and what follows ``text typically`` depends on the
machine and is not compared. Words after ``python`` change this:

    python script   a whole program, run by itself: worker processes import the file they come from,
                    so it has a ``__main__`` guard and nothing else may stand in that file
    python script on-ray
                    the same, on a Ray that the tests share
    python no-run   shown only: it needs something that a test does not have
"""

import doctest
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import hypernodes

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
PAGES_WITH_CODE = [page for page in PAGES if "```python" in page.read_text(encoding="utf-8")]
PROSE = [
    *PAGES,
    *(ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "cluster/README.md")),
    *sorted((ROOT / "examples").glob("*/README.md")),
]
FENCE = re.compile(r"^```(\w*) ?([^\n]*)\n(.*?)^```\n(\n```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
BETWEEN_BLOCKS = "=== end of a block ==="


@dataclass(frozen=True)
class Snippet:
    """One block of code, and what it should print; ``None`` where the page does not say."""

    code: str
    kind: str
    printed: str | None


def snippets(page):
    for language, kind, code, shown, printed in FENCE.findall(page.read_text(encoding="utf-8")):
        if language == "python":
            yield Snippet(code, kind, printed if shown else None)


def run(code, directory, address=None):
    script = directory / "page.py"
    script.write_text(code, encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment |= {"PYTHONIOENCODING": "utf-8", "COLUMNS": "120"}
    environment |= {"RAY_ADDRESS": address} if address else {}
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=directory,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def compare(snippet, got):
    if snippet.printed is None:
        return
    checker, example = doctest.OutputChecker(), doctest.Example(snippet.code, snippet.printed)
    if not checker.check_output(snippet.printed, got, doctest.ELLIPSIS):
        difference = checker.output_difference(example, got, doctest.ELLIPSIS | doctest.REPORT_NDIFF)
        pytest.fail(f"{snippet.code}\n{difference}", pytrace=False)


def name_of(page):
    return page.relative_to(ROOT).with_suffix("").as_posix()


@pytest.mark.parametrize("page", PAGES_WITH_CODE, ids=name_of)
def test_the_snippets_of_a_page_print_what_the_page_says(page, tmp_path):
    together = [snippet for snippet in snippets(page) if not snippet.kind]
    code = "".join(f"{snippet.code}\nprint({BETWEEN_BLOCKS!r})\n" for snippet in together)
    printed = run(code, tmp_path).split(f"{BETWEEN_BLOCKS}\n")[:-1]
    for snippet, got in zip(together, printed, strict=True):
        compare(snippet, got)


def scripts(kind):
    return [
        pytest.param(snippet, id=name_of(page))
        for page in PAGES
        for snippet in snippets(page)
        if snippet.kind == kind
    ]


@pytest.mark.parametrize("snippet", scripts("script"))
def test_the_scripts_of_a_page_run_by_themselves(snippet, tmp_path):
    compare(snippet, run(snippet.code, tmp_path))


@pytest.mark.parametrize("snippet", scripts("script on-ray"))
def test_the_scripts_for_ray_run_on_a_cluster_that_is_there(snippet, tmp_path, environment_on_ray):
    compare(snippet, run(snippet.code, tmp_path, environment_on_ray["RAY_ADDRESS"]))


@pytest.mark.parametrize("page", PAGES_WITH_CODE, ids=name_of)
def test_every_snippet_is_marked_with_a_word_that_is_known_here(page):
    assert {snippet.kind for snippet in snippets(page)} <= {"", "script", "script on-ray", "no-run"}


def anchors(page):
    """Return the anchors that GitHub and the site make of the headings of a page."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    words = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in HEADING.findall(text))
    return {heading.strip().replace(" ", "-") for heading in words}


@pytest.mark.parametrize("page", PROSE, ids=name_of)
def test_every_link_leads_to_a_file_and_to_a_heading_of_it(page):
    for target, anchor in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        file = (page.parent / target) if target else page
        assert file.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(file), f"{page.name} links to #{anchor} of {file.name}"


def test_the_reference_has_every_public_name():
    pages = "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.md"))
    referred = {path.rpartition(".")[2] for path in re.findall(r"^::: ([\w.]+)$", pages, re.MULTILINE)}
    assert set(hypernodes.__all__) - set(dir(hypernodes.exceptions)) - referred == set()
