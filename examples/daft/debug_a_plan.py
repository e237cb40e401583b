"""Look at the plan of a Daft query, and find out why it fails.

python examples/daft/debug_a_plan.py
"""

from __future__ import annotations

import traceback

import pyarrow as pa
import pyarrow.compute as pc

from hypernodes import DaftEngine, Pipeline, node


@node(output_name="words")
def split(text: str) -> list[str]:
    return text.split()


@node(output_name="count")
def count(words: list[str]) -> int:
    return len(words)


def share_all(count: pa.Array, total: int) -> pa.Array:
    return pc.divide(pc.cast(count, pa.float64()), total)


@node(output_name="share", batch=share_all)
def share(count: int, total: int) -> float:
    return count / total


@node(output_name="first")
def take_first(words: list[str]) -> str:
    return words[0]


pipeline = Pipeline([split, count, share, take_first], name="texts")
TEXTS = ["one", "two words", "now three words", ""]


def main() -> None:
    print("1. What would be computed. `first` was not asked for, so it is not in the plan:\n")
    lazy = pipeline.with_engine(DaftEngine(runner="native", collect=False))
    frame = lazy.map({"text": TEXTS, "total": 6}, map_over="text", output_name="share")
    frame.explain(show_all=True)

    print("2. The same data frame, computed:\n")
    print(frame.to_pydict())

    print("\n3. Everything, which fails. The error is the function's own, with its place as a note:\n")
    on_daft = pipeline.with_engine(DaftEngine(runner="native"))
    try:
        on_daft.map({"text": TEXTS, "total": 6}, map_over="text")
    except IndexError as error:
        print(f"{type(error).__name__}: {error}\n{error.__notes__[0]}")

    print("\n4. Right here, item by item: a debugger stops in the function, and the traceback is short:\n")
    right_here = pipeline.with_engine(DaftEngine(runner="native", debug=True))
    try:
        right_here.map({"text": TEXTS, "total": 6}, map_over="text")
    except IndexError as error:
        frames = traceback.extract_tb(error.__traceback__)
        print(" -> ".join(frame.name for frame in frames), f"at {frames[-1].line!r}")

    print("\n5. With the others' results, and the error in its place:\n")
    made = on_daft.map({"text": TEXTS, "total": 6}, map_over="text", output_name="first", on_error="return")
    print(made["first"])


if __name__ == "__main__":
    main()
