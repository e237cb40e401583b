"""The pipeline of the benchmark as a Daft query, timed beside a plain loop and a query written by hand.

python examples/daft/first_query.py [--rows 100000] [--runner native|ray]
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

import daft
from daft import DataType, col

from hypernodes import DaftEngine, Pipeline, node

if TYPE_CHECKING:
    from collections.abc import Callable


@node(output_name="a")
def increment(x: int) -> int:
    return x + 1


@node(output_name="b")
def double(a: int) -> int:
    return a * 2


@node(output_name="c")
def add(a: int, b: int) -> int:
    return a + b


pipeline = Pipeline([increment, double, add], name="arithmetic")


def by_hand(xs: list[int]) -> list[int]:
    """Do the same with one batch UDF, which has to know all three functions."""

    @daft.func.batch(return_dtype=DataType.int64())
    def all_three(x: daft.Series) -> list[int]:
        found = []
        for value in x.to_pylist():
            a = increment(value)
            found.append(add(a, double(a)))
        return found

    return daft.from_pydict({"x": xs}).select(all_three(col("x")).alias("c")).to_pydict()["c"]


def timed(what: str, work: Callable[[], list[int]]) -> list[int]:
    work()  # modules are imported, threads are started
    started = time.perf_counter()
    found = work()
    print(f"{what:<40}{(time.perf_counter() - started) * 1000:>6.0f} ms")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--runner", choices=["native", "ray"], default="native")
    options = parser.parse_args()

    xs = list(range(options.rows))
    on_daft = pipeline.with_engine(DaftEngine(runner=options.runner))
    columns = {"x": xs}
    query = timed("as a Daft query", lambda: on_daft.map(columns, "x", output_name="c")["c"])
    loop = timed("in a plain loop", lambda: pipeline.map(columns, "x", output_name="c")["c"])
    hand = timed("as a Daft query that is written by hand", lambda: by_hand(xs))
    assert query == loop == hand
    print(f"all {len(query):,} results are the same, the last is {query[-1]:,}")


if __name__ == "__main__":
    main()
