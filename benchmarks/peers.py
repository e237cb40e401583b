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


FEWER = 500  # runs of a library that takes a millisecond for one; all of them, as far as times go


def of_hamilton() -> Contender:
    from hamilton import ad_hoc_utils, base, driver

    # A node of Hamilton is named by its function.
    def a(x: int) -> int:
        return increment(x)

    def b(a: int) -> int:
        return double(a)

    def c(a: int, b: int) -> int:
        return add(a, b)

    module = ad_hoc_utils.create_temporary_module(a, b, c, module_name="chain")
    names = ["a", "b", "c"]
    made = driver.Driver({}, module, adapter=base.DefaultAdapter())

    def run() -> Result:
        result: Result = {}
        for x in range(RUNS - FEWER, RUNS):
            result = made.execute(names, inputs={"x": x})
        return result

    def map_() -> Result:
        rows = [made.execute(names, inputs={"x": x}) for x in ITEMS]
        return {name: [row[name] for row in rows] for name in names}

    return run, map_


def of_dask() -> Contender:
    from dask import compute, delayed

    def calls(x: int) -> list[Any]:
        a = delayed(increment)(x)
        b = delayed(double)(a)
        return [a, b, delayed(add)(a, b)]

    def run() -> Result:
        values: tuple[Any, ...] = ()
        for x in range(RUNS - FEWER, RUNS):
            values = compute(*calls(x), scheduler="sync")
        return dict(zip("abc", values, strict=True))

    def map_() -> Result:
        rows = compute(*(calls(x) for x in ITEMS), scheduler="sync")
        return {name: [row[at] for row in rows] for at, name in enumerate("abc")}

    return run, map_


def of_joblib() -> Contender:
    from joblib import Parallel, delayed

    def row(x: int) -> tuple[int, int, int]:
        a = increment(x)
        b = double(a)
        return a, b, add(a, b)

    def map_() -> Result:
        rows = Parallel(n_jobs=1)(delayed(row)(x) for x in ITEMS)
        return {name: [row[at] for row in rows] for at, name in enumerate("abc")}

    return map_, map_


def check(expected: Result, got: Result) -> None:
    for name, value in expected.items():
        assert (list(got[name]) if isinstance(value, list) else got[name]) == value, name


def measure(peer: str, make: Callable[[], Contender], only: str = "") -> Iterator[dict[str, Any]]:
    for row, floor, subject in zip(("run", "map"), (chain, chain_over_items), make(), strict=True):
        if only not in {"", row}:
            continue
        check(floor(), subject())
        timing = in_turns(floor, subject, repeats=3 if peer in SLOW else 7)
        if row == "run" and peer in SLOW:
            timing = timing._replace(subject=[seconds * RUNS / FEWER for seconds in timing.subject])
        yield {"row": row, "peer": f"{peer} {version(peer)}", **timing._asdict()}


SLOW = ("sf-hamilton", "dask")
PEERS: dict[str, tuple[Callable[[], Contender], str]] = {
    "pipefunc": (of_pipefunc, ""),
    "hypernodes": (of_hypernodes, ""),
    "sf-hamilton": (of_hamilton, ""),
    "dask": (of_dask, ""),
    "joblib": (of_joblib, "map"),
}


def main() -> None:
    timings: list[dict[str, Any]] = []
    for peer, (make, only) in PEERS.items():
        try:
            timings += measure(peer, make, only)
        except Exception as error:
            print(f"{peer} is not measured: {error}", file=sys.stderr)
    print(json.dumps(timings))


if __name__ == "__main__":
    main()
