"""The cached map for other libraries; prints JSON. Started by `cache.py --peers`, in their environment."""

from __future__ import annotations

import json
import sys
import tempfile
from importlib.metadata import version
from time import perf_counter
from typing import TYPE_CHECKING, Any

from floors import add, double, increment

if TYPE_CHECKING:
    from collections.abc import Callable

    Map = Callable[[list[int]], list[int]]

FUNCTIONS = {"a": increment, "b": double, "c": add}


def of_joblib(directory: str) -> Map:
    from joblib import Memory

    memory = Memory(directory, verbose=0)
    one, two, three = (memory.cache(function) for function in FUNCTIONS.values())

    def work(xs: list[int]) -> list[int]:
        results = []
        for x in xs:
            a = one(x)
            results.append(three(a, two(a)))
        return results

    return work


def of_pipefunc(directory: str) -> Map:
    from pipefunc import Pipeline, pipefunc

    functions = [pipefunc(name, cache=True)(function) for name, function in FUNCTIONS.items()]
    pipeline = Pipeline(functions, cache_type="disk", cache_kwargs={"cache_dir": directory})
    return lambda xs: [pipeline.run("c", kwargs={"x": x}) for x in xs]


def of_hypernodes(directory: str) -> Map:
    from hypernodes import DiskCache, Pipeline, SeqEngine, node

    functions = [node(name)(function) for name, function in FUNCTIONS.items()]
    pipeline = Pipeline(functions, engine=SeqEngine(cache=DiskCache(directory)))

    def work(xs: list[int]) -> list[int]:
        rows: Any = pipeline.map({"x": xs}, map_over="x")
        return [row["c"] for row in rows]

    return work


# The published hypernodes writes its index at each put, so that more items would take minutes.
PEERS = {
    "joblib": (of_joblib, (1000,)),
    "pipefunc": (of_pipefunc, (1000,)),
    "hypernodes": (of_hypernodes, (100, 250, 500, 1000)),
}


def timed(work: Map, xs: list[int]) -> float:
    started = perf_counter()
    results = work(xs)
    seconds = perf_counter() - started
    if results != [add(increment(x), double(increment(x))) for x in xs]:
        raise AssertionError("wrong results")
    return seconds


def main() -> None:
    found: list[dict[str, Any]] = []
    for peer, (make, sizes) in PEERS.items():
        for size in sizes:
            xs = list(range(size))
            try:
                with tempfile.TemporaryDirectory() as directory:
                    work = make(directory)
                    cold, warm = timed(work, xs), timed(work, xs)
            except Exception as error:
                print(f"{peer} is not measured: {error!r}", file=sys.stderr)
                break
            found.append(
                {"peer": f"{peer} {version(peer)}", "items": size, "cold": cold / size, "warm": warm / size}
            )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
