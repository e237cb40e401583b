"""The rows of the page that need Ray: each way of working beside the same work as Ray tasks by hand."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import ray
from clock import Row
from floors import increment

from hypernodes import HyperNodesEngine, Pipeline, RayExecutor, node


@contextmanager
def cluster(workers: int) -> Iterator[None]:
    """Have Ray on this machine, with so many CPUs as it believes."""
    ray.init(
        address="local",
        num_cpus=workers,
        include_dashboard=False,
        logging_level="error",
        log_to_driver=False,
    )
    try:
        yield
    finally:
        ray.shutdown()


@ray.remote
def chunk_task(function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    return [function(item) for item in items]


@ray.remote
def call_task(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def by_hand(function: Callable[[Any], Any], items: Sequence[Any], chunk: int) -> list[Any]:
    """Map in chunks of a size that somebody has chosen, who knows what the items cost."""
    references = [chunk_task.remote(function, items[at : at + chunk]) for at in range(0, len(items), chunk)]
    return [row for rows in ray.get(references) for row in rows]


def wait_5_ms(x: int) -> int:
    time.sleep(0.005)
    return x


def wait_20_ms(x: int) -> int:
    time.sleep(0.02)
    return x


def total(x: np.ndarray) -> float:
    return float(x.sum())


def _mapped(
    function: Callable[[Any], Any], items: Sequence[Any], *, readonly: bool = False
) -> Callable[[], object]:
    nodes = [node(function, output_name="y", readonly=readonly)]
    pipeline = Pipeline(nodes, HyperNodesEngine(map_executor="ray"))
    return lambda: pipeline.map({"x": items}, map_over="x")["y"]


def maps() -> Iterator[Row]:
    """Yield the rows of maps, beside tasks over chunks."""
    megabytes = [np.full(131_072, float(number)) for number in range(200)]
    for items, chunk, name in (
        (range(100_000), 2_000, "map of 10⁵ trivial items"),
        (range(1_000_000), 2_000, "map of 10⁶ trivial items"),
        (range(1_000_000), 20_000, "map of 10⁶ trivial items"),
    ):
        floor = partial(by_hand, increment, items, chunk)
        against = f"Ray tasks by hand, chunks of {chunk:,}"
        yield Row(name, floor, _mapped(increment, items), 1.25, 5, against=against)
    by_tens = partial(by_hand, total, megabytes, 10)
    against = "Ray tasks by hand, chunks of 10"
    for readonly, name in ((False, "map of 200 inputs of 1 MB"), (True, "the same, @node(readonly=True)")):
        mapped = _mapped(total, megabytes, readonly=readonly)
        yield Row(name, by_tens, mapped, 1.1, 7, against=against)
    by_twenties = partial(by_hand, wait_5_ms, range(2_000), 20)
    against = "Ray tasks by hand, chunks of 20"
    yield Row("2,000 items of 5 ms", by_twenties, _mapped(wait_5_ms, range(2_000)), 1.03, 3, against=against)


def streams() -> Iterator[Row]:
    """Yield the row of a stream, beside the map of the same items."""
    items = range(1_000_000)
    pipeline = Pipeline([node(increment, output_name="y")], HyperNodesEngine(map_executor="ray"))

    def drawn() -> list[int]:
        return [row["y"] for _, row in pipeline.imap({"x": iter(items)}, map_over="x")]

    mapped = _mapped(increment, items)
    yield Row("imap of 10⁶ trivial items", mapped, drawn, 1.3, 3, against="map of the same")


def nodes() -> Iterator[Row]:
    """Yield the rows of single nodes, beside tasks whose references are passed on."""
    engine = HyperNodesEngine(node_executor="ray")
    wide = [node(increment, output_name=f"y{n}").rename(inputs={"x": f"x{n}"}) for n in range(300)]

    def wide_by_hand() -> int:
        return ray.get(call_task.remote(sum_of, *(call_task.remote(increment, n) for n in range(300))))

    names = [f"y{n}" for n in range(300)]
    source = f"def gather({', '.join(names)}):\n    return sum(({', '.join(names)}))\n"
    made: dict[str, Any] = {}
    exec(source, made)
    fan = Pipeline([*wide, node(made["gather"], output_name="total")], engine)
    inputs = {f"x{n}": n for n in range(300)}
    against = "f.remote by hand, references passed on"
    yield Row(
        "300 independent nodes and their sum",
        wide_by_hand,
        lambda: fan.run(inputs, "total")["total"],
        1.15,
        7,
        against=against,
    )
    steps = [node(increment, output_name=f"v{n + 1}").rename(inputs={"x": f"v{n}"}) for n in range(100)]
    line = Pipeline(steps, engine)

    def line_by_hand() -> int:
        value: Any = 0
        for _ in range(100):
            value = call_task.remote(increment, value)
        return ray.get(value)

    yield Row(
        "chain of 100 nodes",
        line_by_hand,
        lambda: line.run({"v0": 0}, "v100")["v100"],
        1.15,
        7,
        against=against,
    )
    executor = RayExecutor()

    def submitted() -> list[int]:
        return [executor.submit(increment, n).result() for n in range(100)]

    def bare() -> list[int]:
        return [ray.get(call_task.remote(increment, n)) for n in range(100)]

    yield Row("submit to result", bare, submitted, 1.1, 9, calls=100, against="a bare task")


def sum_of(*values: int) -> int:
    return sum(values)


def busy(workers: int) -> Iterator[tuple[str, float, float]]:
    """Yield what part of their time sleeping workers are busy: its name, the part, and the goal."""
    inner = Pipeline([node(wait_20_ms, output_name="y")], name="inner")
    engine = HyperNodesEngine(map_executor="ray")
    nested = Pipeline([inner.as_node({"xs": "x"}, map_over="xs")], engine, name="outer")
    flat = Pipeline([node(wait_20_ms, output_name="y")], engine)
    per_worker = 100
    items = range(per_worker * workers)
    shapes = {
        f"flat map of {len(items):,} items of 20 ms": (partial(flat.map, {"x": items}, "x"), len(items), 0.95)
    }
    for outer, of_each in ((2, 200), (200, 2)):
        values = [list(range(of_each)) for _ in range(outer)]
        shapes[f"nested map, {outer} x {of_each} items of 20 ms"] = (
            partial(nested.map, {"xs": values}, "xs"),
            outer * of_each,
            0.9,
        )
    for name, (run, count, goal) in shapes.items():
        run()  # so that workers are started
        parts = []
        for _ in range(3):
            started = time.perf_counter()
            run()
            parts.append(count * 0.02 / workers / (time.perf_counter() - started))
        yield name, max(parts), goal
