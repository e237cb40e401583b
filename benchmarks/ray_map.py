"""What a map on Ray costs beside Ray itself, and beside others: `make bench-ray`.

    python benchmarks/ray_map.py [--peers] [--workers 2]

Every way does the same work on the same number of workers, and its results are checked. Ratios are to Ray
tasks over chunks that somebody has chosen by hand, knowing what the items cost.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import ray
from ray.util.multiprocessing import Pool
from rich.console import Console
from rich.table import Table

from hypernodes import HyperNodesEngine, Pipeline, RayExecutor, node

REPEATS = 5
Map = Callable[[Callable[[Any], Any], Sequence[Any], int], list[Any]]


def increment(x: int) -> int:
    return x + 1


def wait(x: int) -> int:
    time.sleep(0.005)
    return x


def total(x: np.ndarray) -> float:
    return float(x.sum())


def work() -> dict[str, tuple[Callable[[Any], Any], Sequence[Any], int]]:
    """Return each kind of work: its function, its items, and the chunk that suits it."""
    megabytes = [np.full(131_072, float(n)) for n in range(200)]
    return {
        "100 000 trivial items": (increment, range(100_000), 5_000),
        "2 000 items of 5 ms": (wait, range(2_000), 20),
        "200 items of 1 MB": (total, megabytes, 10),
    }


@ray.remote
def task(function: Callable[[Any], Any], item: Any) -> Any:
    return function(item)


@ray.remote
def chunk_task(function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    return [function(item) for item in items]


def by_hand(function: Callable[[Any], Any], items: Sequence[Any], chunk: int) -> list[Any]:
    refs = [chunk_task.remote(function, items[at : at + chunk]) for at in range(0, len(items), chunk)]
    return [row for rows in ray.get(refs) for row in rows]


def one_by_one(function: Callable[[Any], Any], items: Sequence[Any], _: int) -> list[Any]:
    return ray.get([task.remote(function, item) for item in items])


def median_seconds(run: Callable[[], object], repeats: int) -> float:
    run()  # workers are started, modules imported
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return median(times)


def latency(call: Callable[[], object]) -> float:
    for _ in range(50):
        call()
    times = []
    for _ in range(500):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return median(times)


def with_dask(workers: int) -> dict[str, float]:
    """Time the same work with dask, in this process."""
    from distributed import Client

    with Client(n_workers=workers, threads_per_worker=1, dashboard_address=None) as client:

        def run(function: Callable[[Any], Any], items: Sequence[Any], _: int) -> list[Any]:
            return client.gather(client.map(function, items, pure=False))

        few = {name: each for name, each in work().items() if len(each[1]) <= 2_000}
        return {name: median_seconds(partial(run, *each), 1) for name, each in few.items()}


def streamed(count: int) -> dict[str, float]:
    """Draw so many items through `imap`, in this process, and return seconds and peak memory."""
    ray.init(num_cpus=2, include_dashboard=False, logging_level="error", log_to_driver=False, address="local")
    with HyperNodesEngine(map_executor="ray") as engine:
        pipeline = Pipeline([node(increment, output_name="y")], engine=engine)
        started = time.perf_counter()
        seen = sum(row["y"] for _, row in pipeline.imap({"x": iter(range(count))}, "x"))
        seconds = time.perf_counter() - started
    assert seen == count * (count + 1) // 2
    ray.shutdown()
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {"seconds": seconds, "peak": int(status["VmHWM"].split()[0]) / 1024}


def apart(*arguments: str) -> Any:
    """Run a part of this in a process of its own."""
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", action="store_true", help="dask, too")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 2)
    parser.add_argument("--part", choices=["dask", "10000", "1000000"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part is not None:
        found = with_dask(options.workers) if options.part == "dask" else streamed(int(options.part))
        print(json.dumps(found))
        return

    ray.init(
        num_cpus=options.workers,
        include_dashboard=False,
        logging_level="error",
        log_to_driver=False,
        address="local",
    )
    pool = Pool(options.workers)
    table = Table("seconds (ratio)", *(name for name in work()), title=f"{options.workers} workers")
    floors = {name: median_seconds(lambda w=w: by_hand(*w), REPEATS) for name, w in work().items()}
    table.add_row("Ray tasks, chunked by hand", *(f"{seconds:.3f}" for seconds in floors.values()))
    with HyperNodesEngine(map_executor="ray") as engine:
        ours = {}
        for name, (function, items, _) in work().items():
            pipeline = Pipeline([node(function, output_name="y")], engine=engine)
            assert pipeline.map({"x": items}, "x")["y"] == [function(x) for x in items[:3]] + [
                *pipeline.map({"x": items[3:]}, "x")["y"]
            ]
            ours[name] = median_seconds(lambda p=pipeline, i=items: p.map({"x": i}, "x"), REPEATS)
    rows: dict[str, dict[str, float]] = {
        "hypernodes, pipeline.map": ours,
        "ray.util.multiprocessing.Pool.map": {
            name: median_seconds(lambda f=function, i=items: pool.map(f, i), REPEATS)
            for name, (function, items, _) in work().items()
        },
        "one Ray task per item": {
            name: median_seconds(lambda w=w: one_by_one(*w), 1) if len(w[1]) <= 2_000 else one_in_ten(w)
            for name, w in work().items()
        },
    }
    pool.terminate()
    if options.peers:
        rows["dask, Client.map"] = apart("--part", "dask", "--workers", str(options.workers))
    for name, seconds in rows.items():
        cells = [
            f"{seconds[kind]:.3f} ({seconds[kind] / floor:.2f})" if kind in seconds else ""
            for kind, floor in floors.items()
        ]
        table.add_row(name, *cells)
    console = Console(width=140)
    console.print(table)

    bare = latency(lambda: ray.get(task.remote(increment, 1)))
    with RayExecutor() as executor:
        submitted = latency(lambda: executor.submit(increment, 1).result())
    console.print(
        f"submit to result {submitted * 1e3:.2f} ms, a bare task {bare * 1e3:.2f} ms ({submitted / bare:.2f})"
    )
    ray.shutdown()
    few, many = apart("--part", "10000"), apart("--part", "1000000")
    console.print(
        f"imap of 10^6 items: {many['seconds']:.1f} s, the driver's peak {many['peak']:.0f} MB; of 10^4: "
        f"{few['peak']:.0f} MB ({many['peak'] / few['peak']:.2f})"
    )


def one_in_ten(kind: tuple[Callable[[Any], Any], Sequence[Any], int]) -> float:
    """Time a tenth, and say what the whole would take."""
    function, items, chunk = kind
    part = items[: len(items) // 10]
    return 10 * median_seconds(lambda: one_by_one(function, part, chunk), 1)


if __name__ == "__main__":
    main()
