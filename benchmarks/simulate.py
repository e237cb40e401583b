"""A thousand workers on paper: the real scheduler over a simulated cluster, in virtual time.

    python benchmarks/simulate.py             the standard set, as tables (`make bench-simulate`)
    python benchmarks/simulate.py --plot      the same, and the plots of docs/scaling.md
    python benchmarks/simulate.py --measure   measure the constants on this machine, with a Ray of 2 workers
    python benchmarks/simulate.py --check     compare with real maps of sleeping items on 2, 8 and 24 workers

The standard set needs no Ray and gives the same figures on any machine: the constants are those of
benchmarks/simulate.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
from importlib.metadata import version
from pathlib import Path
from typing import Any

import simulate_measure
from simulated_cluster import CONSTANTS_FILE, Conditions, Constants, Report, simulate
from simulated_work import flat, item_name, nested, total

PLOTS = Path(__file__).parents[1] / "docs"
WORKERS = (1, 10, 100, 1_000, 10_000)
ITEM_SECONDS = (0.001, 0.01, 0.1, 1.0, 10.0)
WORK_S = 20.0  # of each worker
MOST_ITEMS = 200_000  # in a simulation, so that it takes a few seconds


def constant(number: int, mean: float) -> list[float]:
    return [mean] * number


def log_normal(number: int, mean: float, seed: int = 0) -> list[float]:
    """Return durations of which one in six is longer than 1.6 times the mean."""
    draw = random.Random(seed)
    return [mean * draw.lognormvariate(-0.5, 1.0) for _ in range(number)]


def heavy_tail(number: int, mean: float, seed: int = 0) -> list[float]:
    """Return durations of which one in a thousand is longer than 33 times the mean, up to 50 times."""
    draw = random.Random(seed)
    return [mean * min(50.0, draw.paretovariate(1.5) / 3) for _ in range(number)]


def run(items: list[Any], workers: int, constants: Constants, *, depth: int = 0, **conditions: Any) -> Report:
    """Simulate one map of items that are nested so deep."""
    pipeline = nested(depth) if depth else flat()
    return simulate(pipeline, item_name(depth), items, Conditions(workers, **conditions), constants)


def percent(fraction: float) -> str:
    return f"{fraction:.0%}"


class Table:
    """A table, which is printed as Markdown for docs/scaling.md."""

    def __init__(self, *header: str, title: str) -> None:
        self._title = title
        self._rows = [header, ("---",) * len(header)]

    def add_row(self, *cells: str) -> None:
        self._rows.append(cells)

    def print(self) -> None:
        print(f"\n{self._title}:\n")
        for row in self._rows:
            print(f"| {' | '.join(row)} |")


# ------------------------------------------------------------------------------------- the standard set


def by_workers(constants: Constants) -> dict[float, dict[int, Report]]:
    """Simulate maps of 20 s of work for each worker."""
    found: dict[float, dict[int, Report]] = {}
    title = f"busy workers (driver), {WORK_S:.0f} s of work for each worker"
    table = Table("items", *(f"{workers:,} workers".replace(",", " ") for workers in WORKERS), title=title)
    for item_seconds in ITEM_SECONDS:
        found[item_seconds] = {}
        for workers in WORKERS:
            if (number := int(workers * WORK_S / item_seconds)) <= MOST_ITEMS:
                found[item_seconds][workers] = run(constant(number, item_seconds), workers, constants)
        reports = [found[item_seconds].get(workers) for workers in WORKERS]
        cells = [f"{percent(r.busy)} ({percent(r.driver)})" if r else "too many items" for r in reports]
        table.add_row(f"{item_seconds:g} s", *cells)
    table.print()
    return found


def by_work(constants: Constants) -> dict[int, dict[float, Report]]:
    """Simulate maps that are longer and longer, of items of a second or less."""
    found: dict[int, dict[float, Report]] = {}
    works = (0.5, 1, 2, 5, 10, 20, 50, 100)
    title = "busy workers, by the work for each worker"
    table = Table("workers", *(f"{work:g} s" for work in works), title=title)
    for workers in WORKERS[1:]:
        found[workers] = {}
        for work in works:
            item_seconds = max(0.02, workers * work / 100_000, 1e-9)
            number = int(workers * work / item_seconds)
            found[workers][work] = run(constant(number, item_seconds), workers, constants)
        table.add_row(
            f"{workers:,}".replace(",", " "), *(percent(report.busy) for report in found[workers].values())
        )
    table.print()
    return found


def by_durations(constants: Constants) -> None:
    title = "busy workers, by how much items differ"
    table = Table("items of 0.1 s, 100 for each worker", "24 workers", "1 000 workers", title=title)
    for name, draw in (("constant", constant), ("log-normal", log_normal), ("heavy tail", heavy_tail)):
        reports = [run(draw(100 * workers, 0.1), workers, constants) for workers in (24, 1_000)]
        table.add_row(name, *(percent(report.busy) for report in reports))
    table.print()


def shapes(item_seconds: float, workers: int) -> dict[str, tuple[list[Any], int]]:
    """Return each shape of nested maps, with its items and its depth."""
    return {
        "flat": (constant(50 * workers, item_seconds), 0),
        "200 x 2": ([[item_seconds] * 2] * 200, 1),
        "2 x 200": ([[item_seconds] * 200] * 2, 1),
        "2 x 200 x 2": ([[[item_seconds] * 2] * 200] * 2, 2),
        "2 x 2 x 200": ([[[item_seconds] * 200] * 2] * 2, 2),
        "1 x 200 x 2": ([[[item_seconds] * 2] * 200], 2),
    }


def by_shape(constants: Constants) -> None:
    table = Table(
        "shape", "8 workers", "24 workers", "24 workers, 0.2 s", title="busy workers, items of 20 ms"
    )
    for shape in shapes(0.02, 8):
        cells = []
        for item_seconds, workers in ((0.02, 8), (0.02, 24), (0.2, 24)):
            items, depth = shapes(item_seconds, workers)[shape]
            cells.append(percent(run(items, workers, constants, depth=depth).busy))
        table.add_row(shape, *cells)
    table.print()


def by_deaths(constants: Constants) -> None:
    title = "1 000 workers, 50 000 items of 1 s"
    table = Table("deaths of a worker in an hour", "busy", "deaths", "items that failed", title=title)
    for rate in (0.0, 0.1, 1.0, 10.0):
        report = run(constant(50_000, 1.0), 1_000, constants, deaths_per_hour=rate)
        table.add_row(f"{rate:g}", percent(report.busy), str(report.deaths), str(report.lost))
    table.print()


def by_cache(constants: Constants) -> dict[int, dict[float, Report]]:
    """Simulate maps with a shared cache on the host of the driver."""
    found: dict[int, dict[float, Report]] = {}
    title = "a shared cache, 20 items of a second for each worker"
    table = Table(
        "workers", "hits", "busy", "driver", "the cache's actor", "look-ups there", "MB there", title=title
    )
    for workers in (10, 100, 1_000):
        found[workers] = {}
        for hits in (0.0, 0.5):
            items = [1.0 + number / 1e9 for number in range(20 * workers)]  # no two are equal
            report = found[workers][hits] = run(items, workers, constants, cache_hits=hits)
            cells = (percent(report.busy), percent(report.driver), percent(report.actor))
            megabytes = f"{report.actor_nbytes / 1e6:.1f}"
            table.add_row(str(workers), percent(hits), *cells, f"{report.actor_look_ups}", megabytes)
    table.print()
    return found


# ------------------------------------------------------------------------------------------------ plots


def plot(
    workers: dict[float, dict[int, Report]], work: dict[int, dict[float, Report]], folder: Path = PLOTS
) -> None:
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "hypernodes"  # equal figures are equal files
    figure, (busy, driver) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", sharex=True)
    for item_seconds, reports in workers.items():
        label = f"items of {item_seconds:g} s"
        busy.plot(list(reports), [100 * r.busy for r in reports.values()], "o-", label=label, markersize=4)
        driver.plot(list(reports), [100 * r.driver for r in reports.values()], "o-", markersize=4)
    for axes, title in ((busy, "busy workers, %"), (driver, "busy driver, %")):
        axes.set(xscale="log", xlabel="workers", title=title, ylim=(0, 103))
        axes.grid(visible=True, color="#dddddd")
    busy.legend(frameon=False, fontsize=8)
    save(figure, folder / "scaling-workers.svg")

    figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    for number, by_seconds in work.items():
        values = [100 * r.busy for r in by_seconds.values()]
        axes.plot(list(by_seconds), values, "o-", label=f"{number:,} workers", markersize=4)
    axes.set(xscale="log", xlabel="seconds of work for each worker", title="busy workers, %", ylim=(0, 103))
    axes.grid(visible=True, color="#dddddd")
    axes.legend(frameon=False, fontsize=8)
    save(figure, folder / "scaling-work.svg")


def save(figure: Any, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None})
    print(f"drew {path.name}")


# ------------------------------------------------------------------------------------------ real maps


def measure() -> None:
    """Measure the constants here, and write down the least of three: other programs only add to them."""
    found = [simulate_measure.in_process(part) for part in ("ray", "cache") for _ in range(3)]
    names = {name: None for part in found for name in part}
    least = {name: min(part[name] for part in found if name in part) for name in names}
    constants = {name: float(f"{value:.3g}") for name, value in least.items()}
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}, Ray {version('ray')}"
    CONSTANTS_FILE.write_text(json.dumps({"machine": machine, "constants": constants}, indent=2) + "\n")
    print(constants)


def check(constants: Constants, repeats: int) -> None:
    """Compare real maps on this machine with simulated ones, whose processes share its cores."""
    title = f"busy workers on {os.cpu_count()} cores, sleeping items of 20 ms, the best of {repeats}"
    table = Table("workers", "shape", "real", "simulated", "difference", title=title)
    for workers in (2, 8, 24):
        real = simulate_measure.in_process("maps", workers, repeats)
        for shape, (items, depth) in shapes(0.02, workers).items():
            if shape in real:
                simulated = run(items, workers, constants, depth=depth, host_cores=os.cpu_count()).busy
                measured = total(items) / workers / min(real[shape])
                difference = f"{simulated / measured - 1:+.0%}"
                table.add_row(str(workers), shape, percent(measured), percent(simulated), difference)
    table.print()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--measure", action="store_true", help="measure the constants on this machine")
    parser.add_argument("--check", action="store_true", help="compare with real maps on this machine")
    parser.add_argument("--plot", action="store_true", help="draw the plots of docs/scaling.md")
    parser.add_argument("--repeats", type=int, default=5, help="of each real map")
    options = parser.parse_args()
    if options.measure:
        measure()
    constants = Constants.load()
    if options.check:
        check(constants, options.repeats)
    if options.measure or options.check:
        return
    workers, work = by_workers(constants), by_work(constants)
    by_durations(constants)
    by_shape(constants)
    by_deaths(constants)
    by_cache(constants)
    if options.plot:
        plot(workers, work)


if __name__ == "__main__":
    main()
