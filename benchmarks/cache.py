"""What the cache costs beside bare diskcache and blake2b: `make bench`.

    python benchmarks/cache.py [--peers] [--plot FILE]

Everything is timed in turns with its floor, in fresh directories, and checked before.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from statistics import median
from time import perf_counter

import diskcache
import numpy as np
import pandas as pd
from clock import Timing, in_turns
from floors import add, double, increment
from overhead import environment_of_peers, in_words
from rich.console import Console
from rich.table import Table

from hypernodes import DiskCache, Pipeline, PipelineCallback, node
from hypernodes.cache.content import digest

HERE = Path(__file__).parent
ITEMS = list(range(5_000))
SIZES = (100, 300, 1_000, 3_000, 10_000, 33_000)  # items; three entries each
EXPECTED = [add(increment(x), double(increment(x))) for x in ITEMS]


def chain(directory: str) -> Pipeline:
    functions = {"a": increment, "b": double, "c": add}
    nodes = [node(function, output_name=name) for name, function in functions.items()]
    return Pipeline(nodes, cache=DiskCache(directory))


class Fresh:
    """Directories that nobody has used."""

    def __init__(self) -> None:
        self._home = tempfile.TemporaryDirectory()
        self._made = 0

    def __call__(self) -> str:
        self._made += 1
        return f"{self._home.name}/{self._made}"


def key_of(number: int) -> str:
    """Return a key that is as long as a signature."""
    return f"{number:040}"


def results_of(x: int) -> list[tuple[int]]:
    """Return what the three nodes give, as entries hold it."""
    a = increment(x)
    return [(a,), (double(a),), (add(a, double(a)),)]


def bare(directory: str) -> diskcache.Cache:
    return diskcache.Cache(directory, eviction_policy="none", size_limit=1 << 40)


def store_bare(cache: diskcache.Cache) -> None:
    for x in ITEMS:
        for position, result in enumerate(results_of(x)):
            cache.set(key_of(3 * x + position), result)


def warm(fresh: Fresh) -> Timing:
    floor = bare(fresh())
    with floor.transact():
        store_bare(floor)
    pipeline = chain(fresh())
    pipeline.map({"x": ITEMS}, map_over="x", output_name="c")

    def get() -> list[int]:
        return [floor.get(key_of(3 * x + 2))[0] for x in ITEMS]

    def mapped() -> list[int]:
        return pipeline.map({"x": ITEMS}, map_over="x", output_name="c")["c"]

    assert get() == mapped() == EXPECTED
    return in_turns(get, mapped, repeats=15)


def cold(fresh: Fresh, *, in_one_transaction: bool) -> Timing:
    def store() -> None:
        cache = bare(fresh())
        if in_one_transaction:
            with cache.transact():
                store_bare(cache)
        else:
            store_bare(cache)

    def mapped() -> None:
        rows = chain(fresh()).map({"x": ITEMS}, map_over="x", output_name="c")
        assert rows["c"] == EXPECTED

    return in_turns(store, mapped, repeats=7)


def growth(fresh: Fresh) -> list[tuple[int, float]]:
    """Return seconds an item, for maps of more and more items."""
    found = []
    for size in SIZES:
        times = []
        for _ in range(3):
            pipeline = chain(fresh())
            started = perf_counter()
            pipeline.map({"x": range(size)}, map_over="x", output_name="c")
            times.append((perf_counter() - started) / size)
        found.append((size, median(times)))
    return found


def hashing() -> list[tuple[str, str, Timing]]:
    array = np.random.default_rng(0).integers(0, 255, 100_000_000, dtype=np.uint8)
    numbers = list(range(100_000))
    frame = pd.DataFrame(
        {
            "i": np.arange(1_000_000),
            "f": np.linspace(0, 1, 1_000_000),
            "s": [f"row {number}" for number in range(1_000_000)],
        }
    )
    size = 16_000_000 + int(frame["s"].str.len().sum())
    of_frame = bytes(size)
    return [
        (
            "digest of 100 MB of numpy",
            "blake2b of it",
            in_turns(lambda: blake2b(array).digest(), lambda: digest(array), 5),
        ),
        (
            "digest of a list of 100 000 ints",
            "pickle, blake2b",
            in_turns(lambda: blake2b(pickle.dumps(numbers, 5)).digest(), lambda: digest(numbers), 15),
        ),
        (
            "digest of a data frame of 10^6 rows",
            f"blake2b of {size / 1e6:.0f} MB",
            in_turns(lambda: blake2b(of_frame).digest(), lambda: digest(frame), 5),
        ),
    ]


class Counting(PipelineCallback):
    """Counts what is computed."""

    def __init__(self) -> None:
        self.computed = 0
        self.loaded = 0

    def on_node_end(self, node_id: str, outputs: object, duration: float, ctx: object) -> None:
        self.computed += 1

    def on_node_cached(self, node_id: str, signature: str, ctx: object) -> None:
        self.loaded += 1


def last_of_hundred(fresh: Fresh) -> Counting:
    """Change the last of 100 nodes, and count."""

    def step(v: int) -> int:
        return v + 1

    def chain_of(last: Callable[[int], int]) -> list[object]:
        functions = [step] * 99 + [last]
        return [
            node(function, output_name=f"v{number + 1}").rename(inputs={"v": f"v{number}"})
            for number, function in enumerate(functions)
        ]

    cache, counting = DiskCache(fresh()), Counting()
    Pipeline(chain_of(step), cache=cache).run({"v0": 0}, "v100")
    changed = Pipeline(chain_of(lambda v: v - 1), cache=cache, callbacks=[counting])
    assert changed.run({"v0": 0}, "v100") == {"v100": 98}
    return counting


def plot(path: Path, ours: list[tuple[int, float]], peers: list[dict[str, object]]) -> None:
    """Draw what an item costs, by the number of items."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4))
    axes.loglog([3 * n for n, _ in ours], [1e6 * s for _, s in ours], "o-", label="hypernodes (this one)")
    for name in dict.fromkeys(str(row["peer"]) for row in peers):
        of_one = [row for row in peers if row["peer"] == name]
        xs, ys = (
            [3 * int(str(row["items"])) for row in of_one],
            [1e6 * float(str(row["cold"])) for row in of_one],
        )
        axes.loglog(xs, ys, "s--", label=f"{name} (published)" if name.startswith("hypernodes") else name)
    axes.set(xlabel="entries", ylabel="µs an item (three nodes)", title="Cold map: computing and keeping")
    axes.set_ylim(bottom=30)
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path)


def measure_peers(python: Path) -> list[dict[str, object]]:
    done = subprocess.run([python, "-E", HERE / "cache_peers.py"], stdout=subprocess.PIPE, check=False)
    found: list[dict[str, object]] = json.loads(done.stdout) if done.returncode == 0 else []
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", action="store_true", help="install other libraries and measure them, too")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw what an item costs, by their number")
    args = parser.parse_args()
    fresh, count = Fresh(), len(ITEMS)
    table = Table(
        "work", "beside", "that takes", "it takes", "ratio", "budget",
        title="Medians (least to most)",
        caption=f"Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
    )  # fmt: skip
    rows = [
        ("warm map, 5 000 items x 3 nodes, an item", "a diskcache get", warm(fresh), count, "2"),
        ("cold map of the same", "3 sets", cold(fresh, in_one_transaction=False), count, "1.2"),
        ("", "3 sets, all in one transaction", cold(fresh, in_one_transaction=True), count, ""),
        *((work, beside, timing, 1, "") for work, beside, timing in hashing()),
    ]
    for work, beside, timing, calls, budget in rows:
        floor, subject = ([taken / calls for taken in side] for side in timing)
        table.add_row(work, beside, in_words(floor), in_words(subject), f"{timing.ratio:.2f}", budget)
    ours = growth(fresh)
    for size, seconds in ours:
        table.add_row(f"cold map of {size:,} items, an item", "", "", in_words([seconds]), "", "")
    peers: list[dict[str, object]] = []
    if args.peers:
        python = environment_of_peers()
        subprocess.run([python, "-m", "pip", "install", "--quiet", "joblib==1.6.0"], check=False)
        peers = measure_peers(python)
    for row in peers:
        taken = " cold, ".join(f"{1e6 * float(str(row[kind])):.0f} µs" for kind in ("cold", "warm"))
        table.add_row(
            f"the same, {row['items']} items, an item", str(row["peer"]), "", f"{taken} warm", "", ""
        )
    counting = last_of_hundred(fresh)
    table.add_row(
        "the last of 100 nodes changes",
        "",
        "",
        f"{counting.computed} computed, {counting.loaded} loaded",
        "",
        "",
    )
    Console(width=None if sys.stdout.isatty() else 170).print(table)
    if args.plot:
        plot(args.plot, ours, peers)


if __name__ == "__main__":
    main()
