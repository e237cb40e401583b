"""Draws the pictures of the documentation: `make docs-pictures`."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "examples" / "semantic_search"))

from pipelines import semantic_search  # noqa: E402


def main() -> None:
    for depth, name in ((1, "depth-1"), (2, "depth-2"), (None, "depth-all")):
        semantic_search.visualize(HERE / f"{name}.svg", depth=depth)
    semantic_search.visualize(HERE / "left-to-right.svg", "LR", None, show_legend=True)


if __name__ == "__main__":
    main()
