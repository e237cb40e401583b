"""What hypernodes costs beside the same work written by hand: `make bench`.

    python benchmarks/overhead.py [--peers] [ROW ...]

Both sides make the same calls and return the same result, which is checked before they are timed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import floors
from clock import Row, Timing, measure
from rich.console import Console
from rich.table import Table

from hypernodes import AsyncExecutor, HyperNodesEngine, ParallelExecutor, Pipeline, node

HERE = Path(__file__).parent
PEERS = {
    "pipefunc": "0.93.2",
    "hypernodes": "0.4.8",
    "sf-hamilton": "1.90.0",
    "dask": "2026.8.0",
    "joblib": "1.6.0",
}
WITH_PEERS = ("run", "map")


def chain() -> Pipeline:
    functions = {"a": floors.increment, "b": floors.double, "c": floors.add}
    return Pipeline([node(function, output_name=name) for name, function in functions.items()])


@contextmanager
def run() -> Iterator[Row]:
    pipeline = chain()

    def subject() -> dict[str, int]:
        result: dict[str, int] = {}
        for x in range(floors.RUNS):
            result = pipeline.run({"x": x})
        return result

    yield Row("run, 3 trivial nodes", floors.chain, subject, 4, repeats=41, calls=floors.RUNS)


@contextmanager
def sequential() -> Iterator[Row]:
    count = len(floors.ITEMS)
    yield Row(
        f"map, {count:,} items x 3 trivial nodes, an item",
        floors.chain_over_items,
        partial(chain().map, {"x": floors.ITEMS}, map_over="x"),
        4,
        repeats=31,
        calls=count,
    )


@contextmanager
def coroutines() -> Iterator[Row]:
    items, at_once = range(1_000), 100
    with asyncio.Runner() as runner, AsyncExecutor(at_once) as executor:
        pipeline = Pipeline(
            [node(floors.nap, output_name="rested")], engine=HyperNodesEngine(map_executor=executor)
        )
        yield Row(
            "map async, 1,000 items x 10 ms, 100 at a time",
            lambda: runner.run(floors.naps(items, at_once)),
            partial(pipeline.map, {"x": items}, map_over="x"),
            1.1,
            repeats=15,
        )


@contextmanager
def threaded() -> Iterator[Row]:
    items = range(500)
    with ThreadPoolExecutor(50) as pool:
        pipeline = Pipeline(
            [node(floors.block, output_name="waited")], engine=HyperNodesEngine(map_executor=pool)
        )
        yield Row(
            "map threaded, 500 items x 5 ms, 50 workers",
            partial(floors.blocks, items, pool),
            partial(pipeline.map, {"x": items}, map_over="x"),
            1.1,
            repeats=21,
        )


@contextmanager
def parallel() -> Iterator[Row]:
    workers = os.cpu_count() or 2
    items = range(500_000, 500_000 + 32 * workers)
    with (
        ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool,
        ParallelExecutor(workers) as executor,
    ):
        pipeline = Pipeline(
            [node(floors.burn, output_name="burnt")], engine=HyperNodesEngine(map_executor=executor)
        )
        yield Row(
            f"map parallel, {len(items)} CPU-bound items, {workers} workers",
            partial(floors.burns, items, pool, chunk=8),
            partial(pipeline.map, {"n": items}, map_over="n"),
            1.1,
            repeats=9,
        )


ROWS: dict[str, Callable[[], AbstractContextManager[Row]]] = {
    "run": run,
    "map": sequential,
    "async": coroutines,
    "threaded": threaded,
    "parallel": parallel,
}


def environment_of_peers() -> Path:
    """Make an environment with the peers, as far as they can be installed, and return its Python."""
    home = HERE / ".peers"
    python = home / "bin" / "python"
    if not python.exists():
        venv.create(home, with_pip=True)
    for name, version in PEERS.items():
        # One by one: where one cannot be had, the other still can.
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, f"{name}=={version}"], check=False)
    return python


def measure_peers(python: Path) -> dict[tuple[str, str], Timing]:
    """Return the timings of those peers that are installed, by row and peer."""
    done = subprocess.run([python, "-E", HERE / "peers.py"], stdout=subprocess.PIPE, check=False)
    found = json.loads(done.stdout) if done.returncode == 0 else []
    return {(timing["row"], timing["peer"]): Timing(timing["floor"], timing["subject"]) for timing in found}


def in_words(seconds: list[float]) -> str:
    """Return the median, the least and the most, in a unit that suits them."""
    middle = median(seconds)
    unit, factor = ("µs", 1e6) if middle < 1e-3 else ("ms", 1e3) if middle < 1 else ("s", 1)
    return f"{middle * factor:.3g} {unit} ({min(seconds) * factor:.3g} to {max(seconds) * factor:.3g})"


def line(work: str, who: str, timing: Timing | None, calls: int, budget: str = "") -> tuple[str, ...]:
    if timing is None:
        return work, who, "not measured", "", "", "", ""
    floor, subject = ([taken / calls for taken in side] for side in timing)
    pairs = f"{min(timing.ratios):.2f} to {max(timing.ratios):.2f}"
    return work, who, in_words(floor), in_words(subject), f"{timing.ratio:.2f}", pairs, budget


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"{', '.join(ROWS)}; all by default")
    parser.add_argument("--peers", action="store_true", help="install other libraries and measure them, too")
    parser.add_argument("--peers-python", type=Path, metavar="PATH", help="a Python that has them already")
    args = parser.parse_args()
    if unknown := set(args.rows) - set(ROWS):
        parser.error(f"no such row: {', '.join(sorted(unknown))}")

    peers: dict[tuple[str, str], Timing] | None = None
    if args.peers or args.peers_python:
        peers = measure_peers(args.peers_python or environment_of_peers())
    table = Table(
        "work",
        "by",
        "by hand",
        "it takes",
        "ratio",
        "of pairs",
        "budget",
        title="Medians (least to most); ratios to the same work written by hand",
        caption=f"Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
    )
    for name in args.rows or ROWS:
        with ROWS[name]() as row:
            timing = measure(row)
        table.add_row(*line(row.work, "this one", timing, row.calls, f"{row.budget:g}"))
        if peers is not None and name in WITH_PEERS:
            for peer, version in PEERS.items():
                who = f"{peer} {version}"
                table.add_row(*line("", who, peers.get((name, who)), row.calls))
    # Piped into a file, a table should not be folded to the 80 columns of no terminal.
    Console(width=None if sys.stdout.isatty() else 160).print(table)


if __name__ == "__main__":
    main()
