"""Count the words of pages: a pipeline for the command line.

    hypernodes run pipelines:count --inputs pages.csv --keep id

`README.md` beside it shows more, and what is printed.
"""

from __future__ import annotations

from pathlib import Path

from hypernodes import File, Pipeline, node


@node(output_name="words")
def read(page: File) -> list[str]:
    """Return the words of a page. By the hint `File`, paths become files, whose content counts in a cache."""
    return Path(page).read_text(encoding="utf-8").split()


@node(output_name="count")
def measure(words: list[str], shortest: int = 1) -> int:
    """Count the words that are not too short."""
    return sum(len(word) >= shortest for word in words)


count = Pipeline([read, measure], name="count")
