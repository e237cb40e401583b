"""What the simulation's constants are on this machine, and how long real maps take here.

Each part is a process of its own: ``python benchmarks/simulate_measure.py PART`` prints its result as JSON.
CPU times are read from ``/proc``, so that this needs Linux.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from hypernodes import DiskCache, HyperNodesEngine, Pipeline, RayExecutor, node
from hypernodes.execution.scheduler import pace

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
ITEM_S = 0.02
ITEMS_PER_WORKER = 50
CHUNKS = 300
CALLERS, CALLS = 8, 50


def in_process(part: str, *arguments: object) -> Any:
    """Run a part of this in a process of its own, and return its result."""
    command = [sys.executable, __file__, part, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@contextmanager
def ray_of(workers: int) -> Iterator[None]:
    import ray

    ray.init(
        num_cpus=workers,
        include_dashboard=False,
        logging_level="error",
        log_to_driver=False,
        address="local",
    )
    try:
        yield
    finally:
        ray.shutdown()


# ------------------------------------------------------------------------------------------- CPU times


def cpu_seconds(stat: Path) -> float:
    """Return the CPU time of a process or thread that ``/proc`` says; 0 if it has ended."""
    try:
        fields = stat.read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) * TICK_S


def descendants() -> list[int]:
    """Return the processes that this one has started, directly or not."""
    children = defaultdict(list)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children[parent].append(int(stat.parent.name))
    found = [os.getpid()]
    for process in found:
        found += children[process]
    return found[1:]


def cpu_times() -> tuple[float, float, float]:
    """Return the CPU times of the driver's Python threads, of its other threads, and of all its processes."""
    threads = [thread.native_id for thread in threading.enumerate()]
    python = sum(cpu_seconds(Path(f"/proc/self/task/{thread}/stat")) for thread in threads)
    processes = sum(cpu_seconds(Path(f"/proc/{process}/stat")) for process in descendants())
    return python, cpu_seconds(Path("/proc/self/stat")) - python, processes


def used(work: Callable[[], object]) -> tuple[float, float, float]:
    """Return the CPU times that some work has taken, as `cpu_times` divides them."""
    before = cpu_times()
    work()
    return tuple(after - first for after, first in zip(cpu_times(), before, strict=True))  # type: ignore[return-value]


def seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """Return the median of how long some work takes."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return median(times)


# --------------------------------------------------------------------------------------- node functions


def wait(x: float) -> tuple[float, float, int]:
    begun = time.time()
    time.sleep(x)
    return begun, time.time(), os.getpid()


def increment(x: int) -> int:
    return x + 1


def first(x: np.ndarray) -> float:
    return float(x[0])


def divide(item: Sequence[float]) -> Sequence[float]:
    return item


def flat(engine: HyperNodesEngine | None = None) -> Pipeline:
    return Pipeline([node(wait, output_name="done")], engine=engine, name="flat")


def nested(engine: HyperNodesEngine | None = None) -> Pipeline:
    mapped = flat().as_node(input_mapping={"parts": "x"}, output_mapping={"done": "all"}, map_over="parts")
    return Pipeline([node(divide, output_name="parts"), mapped], engine=engine, name="nested")


# -------------------------------------------------------------------------------------------- the parts


def measure_ray() -> dict[str, float]:
    """Measure what chunks, items and bytes cost, on two workers that are there already."""
    size_of_chunk = pace.chunk_size
    with ray_of(2):
        started = time.perf_counter()
        engine = HyperNodesEngine(map_executor="ray")
        pipeline = flat(engine)
        pipeline.map({"x": [0.0] * 2}, map_over="x")
        first_map = time.perf_counter() - started
        pipeline.map({"x": [0.0] * 100}, map_over="x")
        single = seconds(lambda: pipeline.map({"x": [0.0]}, map_over="x"), 20)

        pace.chunk_size = lambda *_, **__: 1
        rows: list[tuple[float, float, int]] = []
        items = [ITEM_S] * CHUNKS
        python, others, processes = used(
            lambda: rows.extend(pipeline.map({"x": items}, map_over="x")["done"])
        )
        pace.chunk_size = size_of_chunk
        by_worker = defaultdict(list)
        for begun, ended, worker in rows:
            by_worker[worker].append((begun, ended))
        gaps = [
            later[0] - earlier[1]
            for calls in by_worker.values()
            for earlier, later in zip(sorted(calls), sorted(calls)[1:], strict=False)
        ]

        trivial = Pipeline([node(increment, output_name="y")], engine=engine)
        trivial.map({"x": range(100_000)}, map_over="x")
        item_s = used(lambda: trivial.map({"x": range(2_000_000)}, map_over="x"))[0] / 2_000_000
        arrays = [np.full(131_072, float(number)) for number in range(200)]
        large = Pipeline([node(first, output_name="y")], engine=engine)
        large.map({"x": arrays[:10]}, map_over="x")
        byte_s = used(lambda: large.map({"x": arrays}, map_over="x"))[0] / sum(
            array.nbytes for array in arrays
        )

        with RayExecutor(max_retries=0) as executor:
            executor.submit(increment, 1).result()
            died = seconds(lambda: executor.submit(os._exit, 1).exception(), 3)

    chunk_s = python / CHUNKS
    ray_s, task_s = others / CHUNKS, processes / CHUNKS
    gap = median(gaps)
    return {
        "chunk_s": chunk_s,
        "item_s": item_s,
        "byte_s": byte_s,
        "ray_s": ray_s,
        "task_s": task_s,
        "trip_s": max(0.0, gap - task_s),
        "worker_start_s": first_map - single,
        "death_s": died,
    }


def at_once(call: Callable[[], object]) -> None:
    """Make a call many times, from several threads."""

    def caller() -> None:
        for _ in range(CALLS):
            call()

    threads = [threading.Thread(target=caller) for _ in range(CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def measure_cache() -> dict[str, float]:
    """Measure a look-up of the driver, and the calls of the actor that serves a shared cache."""
    import ray

    from hypernodes.cache.cluster import RemoteStore
    from hypernodes.cache.record import Record

    with tempfile.TemporaryDirectory() as folder:
        pipeline = Pipeline([node(increment, output_name="y")], cache=DiskCache(Path(folder) / "driver"))
        pipeline.map({"x": range(5_000)}, map_over="x")
        look_up_s = seconds(lambda: pipeline.map({"x": range(5_000)}, map_over="x"), 3) / 5_000
        with ray_of(2):
            host = ray.get_runtime_context().get_node_id()
            store = RemoteStore(host, Path(folder) / "shared", None, None, lambda *_: None)

            def write(number: int, size: int, prefix: str) -> None:
                keys = [f"{prefix}{position}" for position in range(number)]
                store.write([Record.of(key, "node", [b"x" * size]) for key in keys])

            write(1, 100, "first")
            call_s = seconds(lambda: at_once(lambda: store.contains(["absent"])), 5) / (CALLERS * CALLS)
            names = iter(range(1_000))
            entry_s = seconds(lambda: write(250, 1_000, f"small {next(names)} "), 10) / 250 - call_s / 250
            byte_s = seconds(lambda: write(10, 1 << 20, f"large {next(names)} "), 5) / (10 << 20)
    return {
        "look_up_s": look_up_s,
        "actor_call_s": call_s,
        "actor_entry_s": entry_s,
        "actor_byte_s": byte_s,
    }


def time_maps(workers: int, repeats: int) -> dict[str, list[float]]:
    """Return the seconds of real maps of sleeping items, once all workers are there."""
    flat_items = [ITEM_S] * (workers * ITEMS_PER_WORKER)
    found: dict[str, list[float]] = {}
    with ray_of(workers), HyperNodesEngine(map_executor="ray") as engine:
        pipeline = flat(engine)
        while len({row[2] for row in pipeline.map({"x": flat_items}, map_over="x")["done"]}) < workers:
            pass
        shapes = {
            "flat": (pipeline, "x", flat_items),
            "200 x 2": (nested(engine), "item", [[ITEM_S] * 2] * 200),
            "2 x 200": (nested(engine), "item", [[ITEM_S] * 200] * 2),
        }
        for shape, (mapped, argument, items) in shapes.items():
            mapped.map({argument: items}, map_over=argument)
            found[shape] = []
            for _ in range(repeats):
                started = time.perf_counter()
                mapped.map({argument: items}, map_over=argument)
                found[shape].append(time.perf_counter() - started)
    return found


def main() -> None:
    part, *arguments = sys.argv[1:]
    parts: dict[str, Callable[..., Any]] = {
        "ray": measure_ray,
        "cache": measure_cache,
        "maps": time_maps,
    }
    print(json.dumps(parts[part](*map(int, arguments))))


if __name__ == "__main__":
    main()
