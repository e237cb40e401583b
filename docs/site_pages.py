"""A hook of MkDocs: it makes pages that are written for GitHub into pages of the site (`make docs`).

- A page links to files outside of docs/, such as examples. Each of these files becomes a page of the site.
- An entry of the navigation in mkdocs.yml may be a pattern, for pages that need not exist.
- The first line of a block of code may have words for the tests (``python script``). They are removed.
"""

from __future__ import annotations

import json
import re
from fnmatch import fnmatch
from pathlib import Path
from posixpath import dirname, join, normpath, relpath
from typing import TYPE_CHECKING, Any

from mkdocs.structure.files import File, InclusionLevel

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
OUTSIDE = "repository/"  # the folder of the site that has the pages of files outside of docs/
LANGUAGES = {".py": "python", ".sh": "bash", ".yaml": "yaml"}
CODE_OR_LINK = re.compile(
    r"^(?P<start> *(?P<fence>`{3,})\w*)[^\n]*(?P<code>\n.*?^ *(?P=fence)) *$"
    r"|\]\((?!\w+:|#)(?P<link>[^)#\s]+)",
    re.MULTILINE | re.DOTALL,
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add pages for the files outside of docs/, and the pages that the navigation names by patterns."""
    pages = sorted(file.src_uri for file in files.documentation_pages())
    config.nav = with_patterns_replaced(config.nav, pages)
    listed = re.findall(f"{OUTSIDE}([^']+)", str(config.nav))
    seen: set[str] = set()
    left = [*listed, *(f"docs/{page}" for page in pages)]
    while left:
        path = left.pop()
        if path in seen or not (ROOT / path).exists():
            continue
        seen.add(path)
        text = text_of(ROOT / path)
        left += [resolved(path, link) for link in links(text)]
        if not path.startswith("docs"):
            inclusion = InclusionLevel.INCLUDED if path in listed else InclusionLevel.NOT_IN_NAV
            files.append(File.generated(config, page_of(path), content=text, inclusion=inclusion))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Return the text of a page, with links to the pages of the site."""
    here = page.file.src_uri
    origin = path_of(here)

    def converted(found: re.Match[str]) -> str:
        if found["link"] is None:
            return f"{found['start']}{found['code']}"
        return f"]({relpath(page_of(resolved(origin, found['link'])), dirname(here) or '.')}"

    return CODE_OR_LINK.sub(converted, markdown)


def with_patterns_replaced(nav: Any, pages: list[str]) -> Any:
    """Return a navigation with the pages that match in the place of patterns, and without empty sections."""
    if isinstance(nav, dict):
        filled = {title: with_patterns_replaced(entry, pages) for title, entry in nav.items()}
        return {title: entry for title, entry in filled.items() if entry != []}
    if isinstance(nav, list):
        matched = [
            [page for page in pages if fnmatch(page, entry)]
            if isinstance(entry, str) and "*" in entry
            else [with_patterns_replaced(entry, pages)]
            for entry in nav
        ]
        return [entry for entries in matched for entry in entries if entry != {}]
    return nav


def links(text: str) -> list[str]:
    """Return the targets of the links of a page to files."""
    return [found["link"] for found in CODE_OR_LINK.finditer(text) if found["link"]]


def resolved(origin: str, link: str) -> str:
    """Return the path in the repository of a file that another file links to."""
    return normpath(join(dirname(origin), link))


def page_of(path: str) -> str:
    """Return the page of the site for a path in the repository."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if (ROOT / path).is_dir():
        return f"{OUTSIDE}{path}/README.md"
    return f"{OUTSIDE}{path}" if path.endswith(".md") else f"{OUTSIDE}{path}.md"


def path_of(page: str) -> str:
    """Return the path in the repository of a page of the site."""
    if not page.startswith(OUTSIDE):
        return f"docs/{page}"
    path = page.removeprefix(OUTSIDE)
    return path if (ROOT / path).exists() else path.removesuffix(".md")


def text_of(path: Path) -> str:
    """Return a file as Markdown: a notebook cell by cell, a folder as a list, other files as code."""
    if path.is_dir():
        if (path / "README.md").exists():
            return (path / "README.md").read_text(encoding="utf-8")
        names = sorted(file.name for file in path.iterdir() if file.suffix in LANGUAGES)
        return "\n".join([f"# {path.relative_to(ROOT)}\n", *(f"- [{name}]({name})" for name in names)])
    if path.suffix in (".svg", ".png", ".css"):
        return ""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return text
    if path.suffix == ".ipynb":
        cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(text)["cells"]]
        return "\n\n".join(
            code if kind == "markdown" else f"````python\n{code}\n````" for kind, code in cells
        )
    return f"# {path.relative_to(ROOT)}\n\n````{LANGUAGES.get(path.suffix, 'text')}\n{text}\n````\n"
