"""The first two rows for other libraries; prints JSON. Started by `overhead.py --peers`.

One of them is the published `hypernodes`, whose import name is that of this project, so this runs in
an environment of its own, and measures the floors there again.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from clock import in_turns
from floors import ITEMS, RUNS, add, chain, chain_over_items, double, increment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Result = dict[str, Any]
    Contender = tuple[Callable[[], Result], Callable[[], Result]]

NODES: dict[str, Callable[..., int]] = {"a": increment, "b": double, "c": add}


def of_pipefunc() -> Contender:
    from pipefunc import Pipeline, pipefunc

    items = {"a": "x[i] -> a[i]", "b": "a[i] -> b[i]", "c": "a[i], b[i] -> c[i]"}
    once = Pipeline([pipefunc(name)(function) for name, function in NODES.items()])
    many = Pipeline([pipefunc(name, mapspec=items[name])(function) for name, function in NODES.items()])

    def run() -> Result:
        result: Result = {}
        for x in range(RUNS):
            result = once.run("c", full_output=True, kwargs={"x": x})
        return result

    def map_() -> Result:
        results = many.map({"x": ITEMS}, parallel=False, storage="dict", show_progress=False)
        return {name: result.output for name, result in results.items()}

    return run, map_


def of_hypernodes() -> Contender:
    from hypernodes import Pipeline, node

    pipeline = Pipeline([node(name)(function) for name, function in NODES.items()])

    def run() -> Result:
        result: Result = {}
        for x in range(RUNS):
            result = pipeline.run({"x": x})
        return result

    def map_() -> Result:
        rows = pipeline.map({"x": ITEMS}, map_over="x")
        return {name: [row[name] for row in rows] for name in rows[0]}

    return run, map_


def check(expected: Result, got: Result) -> None:
    for name, value in expected.items():
        assert (list(got[name]) if isinstance(value, list) else got[name]) == value, name


def measure(peer: str, make: Callable[[], Contender]) -> Iterator[dict[str, Any]]:
    for row, floor, subject in zip(("run", "map"), (chain, chain_over_items), make(), strict=True):
        check(floor(), subject())
        timing = in_turns(floor, subject, repeats=7)
        yield {"row": row, "peer": f"{peer} {version(peer)}", **timing._asdict()}


def main() -> None:
    timings: list[dict[str, Any]] = []
    for peer, make in {"pipefunc": of_pipefunc, "hypernodes": of_hypernodes}.items():
        try:
            timings += measure(peer, make)
        except Exception as error:
            print(f"{peer} is not measured: {error}", file=sys.stderr)
    print(json.dumps(timings))


if __name__ == "__main__":
    main()
