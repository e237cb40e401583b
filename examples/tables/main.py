"""Tables in, tables out: the outputs of a pipeline as further columns.

python examples/tables/main.py
"""

from __future__ import annotations

import pandas as pd
import polars as pl
import pyarrow as pa

from hypernodes import Pipeline, node


@node(output_name="words")
def split(text: str) -> list[str]:
    """Return the words of a text."""
    return text.split()


@node(output_name="longest")
def find_longest(words: list[str]) -> str:
    """Return the longest word."""
    return max(words, key=len)


pipeline = Pipeline([split, find_longest], name="texts")
COLUMNS = {"text": ["a longer text", "short", ""], "page": [7, 8, 9]}


def main() -> None:
    """Add the longest word of each text to three kinds of tables."""
    frame = pd.DataFrame(COLUMNS, index=["one", "two", "three"])
    longest = pipeline.map_table(frame, output_name="longest", on_error="return")
    print(longest.to_string(), end="\n\n")
    print(pipeline.map_table(pl.DataFrame(COLUMNS).head(2)), end="\n\n")
    print(pipeline.map_table(pa.table(COLUMNS).slice(0, 2)).to_pylist())


if __name__ == "__main__":
    main()
