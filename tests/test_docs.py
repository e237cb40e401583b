"""Every snippet of the README and of docs/ runs, and prints what the page says it prints.

The blocks of a page run in order, in one process and one namespace, as a reader would try them. What
a block prints is compared with the ``text`` block that directly follows it, if there is one; ``...``
stands there for whatever differs from run to run, and what follows ``text typically`` depends on the
machine and is not compared. Two words after ``python`` change this:

    python script   a whole program, run by itself: worker processes import the file they come from,
                    so it has a ``__main__`` guard and nothing else may stand in that file
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

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PROSE = [*PAGES, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", ROOT / "cluster" / "README.md"]
FENCE = re.compile(r"^```(\w*) ?([^\n]*)\n(.*?)^```\n(\n```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_snippets_of_a_page_print_what_the_page_says(page, tmp_path):
    together = [snippet for snippet in snippets(page) if not snippet.kind]
    code = "".join(f"{snippet.code}\nprint({BETWEEN_BLOCKS!r})\n" for snippet in together)
    printed = run(code, tmp_path).split(f"{BETWEEN_BLOCKS}\n")[:-1]
    for snippet, got in zip(together, printed, strict=True):
        compare(snippet, got)


SCRIPTS = [(page, snippet) for page in PAGES for snippet in snippets(page) if snippet.kind == "script"]
ON_RAY = [case for case in SCRIPTS if case[0].stem in ("ray", "ray-data")]
ALONE = [case for case in SCRIPTS if case not in ON_RAY]


@pytest.mark.parametrize(("page", "snippet"), ALONE, ids=[page.stem for page, _ in ALONE])
def test_the_scripts_of_a_page_run_by_themselves(page, snippet, tmp_path):
    compare(snippet, run(snippet.code, tmp_path))


@pytest.mark.parametrize(("page", "snippet"), ON_RAY, ids=[page.stem for page, _ in ON_RAY])
def test_the_scripts_about_ray_run_on_a_cluster_that_is_there(page, snippet, tmp_path, environment_on_ray):
    compare(snippet, run(snippet.code, tmp_path, environment_on_ray["RAY_ADDRESS"]))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_snippet_is_marked_with_a_word_that_is_known_here(page):
    assert {snippet.kind for snippet in snippets(page)} <= {"", "script", "no-run"}


@pytest.mark.parametrize("page", PROSE, ids=lambda page: f"{page.parent.name}-{page.stem}")
def test_every_link_to_a_file_leads_to_a_file(page):
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"
