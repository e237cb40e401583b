"""What a map as a Daft query costs beside the same query written by hand: `make bench-daft`.

    python benchmarks/daft_engine.py [--peers] [--rows 100000]

Three trivial nodes over rows that are in this process; every way returns the same list, which is checked. On
Ray: 20 000 rows, on a cluster of two hosts that runs on this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path
from statistics import median

import daft
import pyarrow as pa
import pyarrow.compute as pc
from clock import in_turns
from daft import DataType, Series, col
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
PEER = "0.4.8"
PEERS_DAFT = "daft>=0.6.11,<0.7"  # it does not import with a later one
REPEATS = 9
Way = Callable[[], list[int]]


def increment(x: int) -> int:
    return x + 1


def double(a: int) -> int:
    return a * 2


def add(a: int, b: int) -> int:
    return a + b


def fused(xs: list[int]) -> list[int]:
    """One batch UDF, written by hand for these three functions."""

    @daft.func.batch(return_dtype=DataType.int64())
    def all_three(x: Series) -> list[int]:
        results = []
        for value in x.to_pylist():
            a = increment(value)
            results.append(add(a, double(a)))
        return results

    return daft.from_pydict({"x": xs}).select(all_three(col("x")).alias("c")).to_pydict()["c"]


def row_by_row(xs: list[int]) -> list[int]:
    """A row UDF for each function, as Daft's first page has it."""
    a, b, c = daft.func(increment), daft.func(double), daft.func(add)
    frame = daft.from_pydict({"x": xs}).with_column("a", a(col("x"))).with_column("b", b(col("a")))
    return frame.select(c(col("a"), col("b")).alias("c")).to_pydict()["c"]


def with_arrow(xs: list[int]) -> list[int]:
    """A batch UDF for each function, over Arrow arrays."""
    batch = daft.func.batch(return_dtype=DataType.int64())
    a = batch(lambda x: pc.add(x.to_arrow(), 1))
    b = batch(lambda a: pc.multiply(a.to_arrow(), 2))
    c = batch(lambda a, b: pc.add(a.to_arrow(), b.to_arrow()))
    frame = daft.from_pydict({"x": xs}).with_column("a", a(col("x"))).with_column("b", b(col("a")))
    return frame.select(c(col("a"), col("b")).alias("c")).to_pydict()["c"]


def pipelines() -> tuple:
    """Return the three functions as a pipeline, and with batch functions."""
    from hypernodes import Pipeline, node

    def add_one(x: pa.Array) -> pa.Array:
        return pc.add(x, 1)

    def double_all(a: pa.Array) -> pa.Array:
        return pc.multiply(a, 2)

    def add_all(a: pa.Array, b: pa.Array) -> pa.Array:
        return pc.add(a, b)

    plain = Pipeline(
        [node(increment, output_name="a"), node(double, output_name="b"), node(add, output_name="c")]
    )
    batched = Pipeline(
        [
            node(increment, output_name="a", batch=add_one),
            node(double, output_name="b", batch=double_all),
            node(add, output_name="c", batch=add_all),
        ]
    )
    return plain, batched


def median_seconds(way: Way, expected: list[int], repeats: int) -> float:
    assert way() == expected
    return median(in_turns(lambda: None, way, repeats).subject)


def native(count: int, *, peers: bool) -> None:
    from hypernodes import DaftEngine, HyperNodesEngine

    daft.set_runner_native()
    xs = list(range(count))
    expected = [3 * (x + 1) for x in xs]
    plain, batched = pipelines()

    def ours(pipeline: object, engine: object) -> Way:
        on_it = pipeline.with_engine(engine)
        return lambda: on_it.map({"x": xs}, map_over="x", output_name="c")["c"]

    engine = DaftEngine(runner="native")
    rows: list[tuple[str, str, Way, Way, str]] = [
        ("DaftEngine", "one fused batch UDF", ours(plain, engine), lambda: fused(xs), "1.5"),
        ("DaftEngine", "three row UDFs", ours(plain, engine), lambda: row_by_row(xs), "0.3"),
        ("DaftEngine, batch nodes", "three Arrow UDFs", ours(batched, engine), lambda: with_arrow(xs), "1.1"),
        ("HyperNodesEngine", "one fused batch UDF", ours(plain, HyperNodesEngine()), lambda: fused(xs), ""),
    ]
    table = Table("by", "beside, by hand", "it takes", "by hand", "ratio", "budget", title=f"{count:,} rows")
    for who, what, subject, floor, budget in rows:
        assert subject() == floor() == expected
        timing = in_turns(floor, subject, 3 if "row" in what else REPEATS)
        table.add_row(
            who,
            what,
            f"{median(timing.subject) * 1e3:.0f} ms",
            f"{median(timing.floor) * 1e3:.0f} ms",
            f"{timing.ratio:.2f}",
            budget,
        )
    if peers:
        floor = median_seconds(lambda: fused(xs), expected, REPEATS)
        found = of_the_peer(count)
        took = f"{found * 1e3:.0f} ms" if found else "not measured"
        ratio = f"{found / floor:.2f}" if found else ""
        table.add_row(f"hypernodes {PEER}", "one fused batch UDF", took, f"{floor * 1e3:.0f} ms", ratio, "")
    Console(width=120).print(table)


def of_the_peer(count: int) -> float | None:
    """Time the DaftEngine that is on PyPI under this name, in an environment of its own."""
    home = HERE / ".peers-daft"
    python = home / "bin" / "python"
    if not python.exists():
        venv.create(home, with_pip=True)
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, f"hypernodes=={PEER}", PEERS_DAFT, "rich"], check=False)
    done = subprocess.run(
        [python, __file__, "--part", "peer", "--rows", str(count)],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None


def peer(count: int) -> None:
    from hypernodes.integrations.daft.engine import DaftEngine

    from hypernodes import Pipeline, node

    xs = list(range(count))
    nodes = [node("a")(increment), node("b")(double), node("c")(add)]
    pipeline = Pipeline(nodes, engine=DaftEngine())

    def way() -> list[int]:
        made = pipeline.map({"x": xs}, map_over="x", output_name="c")
        return [row["c"] for row in made] if isinstance(made, list) else list(made["c"])

    print(json.dumps(median_seconds(way, [3 * (x + 1) for x in xs], 3)))


def on_ray(count: int) -> None:
    import ray
    from ray.cluster_utils import Cluster

    from hypernodes import DaftEngine, HyperNodesEngine

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, logging_level="error", log_to_driver=False)
    xs = list(range(count))
    expected = [3 * (x + 1) for x in xs]
    plain, _ = pipelines()

    def ours(engine: object) -> Way:
        on_it = plain.with_engine(engine)
        return lambda: on_it.map({"x": xs}, map_over="x", output_name="c")["c"]

    ways: dict[str, Way] = {
        "by hand, one fused batch UDF": lambda: fused(xs),
        "DaftEngine": ours(DaftEngine(runner="ray")),
        "HyperNodesEngine, map_executor='ray'": ours(HyperNodesEngine(map_executor="ray")),
    }
    table = Table("by", "it takes", "ratio", title=f"{count:,} rows on Ray, two hosts of one CPU")
    seconds = {who: median_seconds(way, expected, REPEATS) for who, way in ways.items()}
    for who, took in seconds.items():
        table.add_row(who, f"{took * 1e3:.0f} ms", f"{took / next(iter(seconds.values())):.2f}")
    Console(width=120).print(table)
    ray.shutdown()
    cluster.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--peers", action="store_true", help=f"hypernodes {PEER} of PyPI, too")
    parser.add_argument("--part", choices=["native", "ray", "peer"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    match options.part:
        case "peer":
            peer(options.rows)
        case "native":
            native(options.rows, peers=options.peers)
        case "ray":
            on_ray(20_000)
        case None:
            # A process has one of Daft's runners, so each has its own.
            more = ["--peers"] if options.peers else []
            for part in ("native", "ray"):
                arguments = ["--part", part, "--rows", str(options.rows), *more]
                subprocess.run([sys.executable, __file__, *arguments], check=True)
            versions = f"Python {platform.python_version()}, Daft {daft.__version__}"
            print(f"medians; {versions}, {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
