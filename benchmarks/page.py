"""All benchmarks as a page: `make bench`.

    python benchmarks/page.py [--peers] [--only PART ...]

Each part runs in a process of its own, and times each kind of work in turns with its floor. Results go to
`results.json` beside this file, and from there to `docs/performance.md` and its plot. With ``--only`` the
other parts keep the results that they have.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import growth
from clock import Row, Timing, in_turns, measure

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
PAGE = HERE.parent / "docs" / "performance.md"
PLOT = HERE.parent / "docs" / "performance.svg"


# ------------------------------------------------------------------------------------------ the parts


def of_row(row: Row) -> dict[str, Any]:
    """Measure a row, and the peak of this process's memory meanwhile."""
    _forget_peak()
    timing = measure(row)
    return result(row.work, row.against, timing, row.budget, row.calls)


def result(work: str, against: str, timing: Timing, budget: float | None, calls: int = 1) -> dict[str, Any]:
    floor, subject = ([taken / calls for taken in side] for side in timing)
    return {
        "work": work,
        "against": against,
        "floor": floor,
        "subject": subject,
        "ratio": timing.ratio,
        "budget": budget,
        "peak_mb": _peak(),
    }


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    """Return the most memory that this process has had since then, in MB."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) // 1024


def in_process(*, peers: bool) -> Iterator[dict[str, Any]]:
    import overhead

    of_peers = overhead.measure_peers(overhead.environment_of_peers()) if peers else {}
    for name, make in overhead.ROWS.items():
        with make() as row:
            yield of_row(row)
        for (of, peer), timing in of_peers.items():
            if of == name:
                yield result(row.work, f"the same by hand; by {peer}", timing, None, row.calls)


def watched(*, peers: bool) -> Iterator[dict[str, Any]]:
    import observe
    from floors import increment

    from hypernodes import Pipeline, node

    goals = {
        "a hook that does nothing": 2,
        "report": 4,
        "logging to a file": 10,
        "traces and metrics, items drawn": 20,
    }
    items = range(10_000)
    plain = Pipeline([node(increment, output_name="y")], name="increments")
    floor = partial(plain.map, {"x": items}, "x")
    with tempfile.TemporaryDirectory() as directory, Path(os.devnull).open("w") as nowhere:
        sys.stderr = nowhere
        for name, callback in observe.callbacks(Path(directory)).items():
            subject = partial(plain.with_callbacks([callback]).map, {"x": items}, "x")
            subject()
            _forget_peak()
            timing = in_turns(floor, subject, 9)
            found = result(f"an item of a map, {name}", "without", timing, None, len(items))
            more = (min(timing.subject) - min(timing.floor)) / len(items) * 1e6
            yield {**found, "more_us": more, "goal_us": goals.get(name)}


def cached(*, peers: bool) -> Iterator[dict[str, Any]]:
    import cache

    fresh, count = cache.Fresh(), len(cache.ITEMS)
    _forget_peak()
    warm = cache.warm(fresh)
    yield result("warm map, 5,000 items x 3 nodes, an item", "a diskcache get", warm, 2, count)
    for in_one, against in ((False, "3 diskcache sets"), (True, "3 sets, all in one transaction")):
        _forget_peak()
        timing = cache.cold(fresh, in_one_transaction=in_one)
        yield result("cold map of the same", against, timing, None if in_one else 1.2, count)
    for work, against, timing in cache.hashing():
        yield result(work, against, timing, None)


def on_ray(*, peers: bool) -> Iterator[dict[str, Any]]:
    import ray_rows

    with ray_rows.cluster(2):
        for part in (ray_rows.maps, ray_rows.streams, ray_rows.nodes):
            yield from map(of_row, part())


def busy_workers(*, peers: bool) -> Iterator[dict[str, Any]]:
    import ray_rows

    for workers in (2, 8, 24):
        with ray_rows.cluster(workers):
            for work, part, goal in ray_rows.busy(workers):
                yield {"work": f"{work}, {workers} workers", "busy": part, "goal": goal}


def growing(*, peers: bool) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as directory:
        for name, points in growth.of_nodes(directory):
            yield {"work": f"{name}: µs a node", "points": points, "panel": "nodes"}
    yield {"work": "nested pipelines: µs a run", "points": growth.of_nesting(), "panel": "nesting"}
    with ExitStack() as stack:
        yield {"work": "map: µs an item", "points": growth.of_items(), "panel": "items"}
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        report = growth.of_items(most=100_000, callbacks=[growth.Ends()])
        yield {"work": "map with a hook: µs an item", "points": report, "panel": "items"}
        kept = growth.of_items(most=100_000, cache=growth.DiskCache(directory))
        yield {"work": "warm cached map: µs an item", "points": kept, "panel": "items"}


PARTS: dict[str, tuple[str, Callable[..., Iterator[dict[str, Any]]]]] = {
    "process": ("In one process", in_process),
    "watched": ("Watched", watched),
    "cache": ("Cached", cached),
    "ray": ("On Ray, two workers", on_ray),
    "busy": ("How busy workers are that sleep", busy_workers),
    "growth": ("How cost grows", growing),
}


# ------------------------------------------------------------------------------------------- the page


def page(results: dict[str, Any]) -> str:
    machine = results["machine"]
    lines = [
        "# Performance",
        "",
        "This page is written by `make bench`, which measures all of it in one run, each kind of work in",
        "turns with what it is compared with. Times are medians; a ratio is that of the medians. Ratios hold",
        "on other machines; times do not.",
        "",
        f"Measured on {machine['date']}: {machine['cpu']}, {machine['cores']} cores, Python",
        f"{machine['python']}, Ray {machine['ray']}, Daft {machine['daft']}; load before:",
        f"{machine['load']:.1f}.",
        "",
    ]
    for part, (title, _) in PARTS.items():
        rows = results.get(part)
        if not rows:
            continue
        lines += [f"## {title}", ""]
        match part:
            case "busy":
                lines += ["| work | busy | goal |", "| --- | --- | --- |"]
                lines += [f"| {row['work']} | {row['busy']:.0%} | {row['goal']:.0%} |" for row in rows]
            case "watched":
                lines += ["| work | more than without | goal | ratio |", "| --- | --- | --- | --- |"]
                lines += map(_watched_line, rows)
            case "growth":
                lines += ["![cost by number of nodes, nesting and items](performance.svg)", ""]
                lines += ["| | least | | | most |", "| --- | --- | --- | --- | --- |"]
                lines += [_points(row) for row in rows]
            case _:
                lines += ["| work | beside | that takes | it takes | ratio | goal | peak memory |"]
                lines += ["| --- | --- | --- | --- | --- | --- | --- |"]
                lines += [_line(row) for row in rows]
        lines += ["", *NOTES.get(part, "").strip().splitlines(), ""]
    return "\n".join(lines).rstrip() + "\n"


NOTES = {
    "process": """
A pipeline whose nodes need nothing but calls is compiled to one Python function the first time it runs, so
that a chain of nodes costs about what its calls cost.""",
    "watched": """
Hooks are called where the event happens. What remains is the hooks themselves; a trace of each item makes
two spans with OpenTelemetry's SDK, which takes most of that time.""",
    "cache": """
Cold, the library stores provenance beside each result (what it was made of, by which code), which bare
diskcache does not have.""",
    "ray": """
Chunks are sized by what was measured, within a run. Chunks of 20,000 trivial items, a size
chosen by hand, are faster: for each item the worker checks whether the function has changed its context,
and whether its value is an iterator. Inputs of 1 MB are copied for each call, which may change them;
`@node(readonly=True)` promises that it does not. To hand out 10⁶ rows of a stream one by one, as pairs of an
index and a dictionary, takes 0.35 s in a loop that does nothing else. Short nodes go to a worker in groups,
and Ray tasks by hand one by one.""",
    "busy": """
Workers that sleep show what the scheduler loses, on a machine with fewer cores than workers.""",
}


def _watched_line(row: dict[str, Any]) -> str:
    goal = "" if row["goal_us"] is None else f"{row['goal_us']:g} µs"
    return f"| {row['work']} | {row['more_us']:.1f} µs | {goal} | {row['ratio']:.0f} |"


def _line(row: dict[str, Any]) -> str:
    goal = "" if row["budget"] is None else f"{row['budget']:g}"
    against, _, peer = row["against"].partition("; by ")
    who = f", by {peer}" if peer else ""
    return (
        f"| {row['work']}{who} | {against} | {_time(row['floor'])} | {_time(row['subject'])} | "
        f"{row['ratio']:.2f} | {goal} | {row['peak_mb']} MB |"
    )


def _time(seconds: list[float]) -> str:
    middle = median(seconds)
    unit, factor = ("µs", 1e6) if middle < 1e-3 else ("ms", 1e3) if middle < 1 else ("s", 1)
    return f"{middle * factor:.3g} {unit}"


def _points(row: dict[str, Any]) -> str:
    points = row["points"]
    chosen = [points[0], points[len(points) // 3], points[2 * len(points) // 3], points[-1]]
    return f"| {row['work']} | " + " | ".join(f"{n:,}: {value:.2f}" for n, value in chosen) + " |"


def draw(rows: list[dict[str, Any]]) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "hypernodes"  # so that equal plots are equal files
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.8))
    panels = {
        "nodes": "µs a node, by nodes",
        "nesting": "µs a run, by depth of nesting",
        "items": "µs an item, by items",
    }
    for panel, (name, title) in zip(axes, panels.items(), strict=True):
        for row in rows:
            if row["panel"] == name:
                panel.plot(*zip(*row["points"], strict=True), "o-", label=row["work"].split(":")[0])
        if name != "nesting":
            panel.set(xscale="log", yscale="log")
        panel.set_title(title, fontsize=10)
        panel.grid(visible=True, alpha=0.3)
        panel.legend(fontsize=7, ncol=2, loc="upper center", bbox_to_anchor=(0.5, -0.1))
        panel.set_ylim(bottom=0 if name == "nesting" else None)
    figure.tight_layout()
    figure.savefig(PLOT, metadata={"Date": None})


# ------------------------------------------------------------------------------------------------ main


def machine() -> dict[str, Any]:
    models = [
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")
    ]
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": models[0].partition(": ")[2] if models else platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "ray": version("ray"),
        "daft": version("daft"),
        "load": os.getloadavg()[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", action="store_true", help="install other libraries and measure them, too")
    parser.add_argument("--only", nargs="*", choices=PARTS, help="these parts; all by default")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--write", action="store_true", help="only the page, of the results that are there")
    options = parser.parse_args()
    if options.part:
        out = sys.stdout
        sys.stdout = sys.stderr
        for row in PARTS[options.part][1](peers=options.peers):
            print(json.dumps(row), file=out, flush=True)
        return
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if not options.write:
        results["machine"] = machine()
        for part in options.only or PARTS:
            print(f"{part} ...", flush=True)
            command = [sys.executable, __file__, "--part", part, *(["--peers"] if options.peers else [])]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=HERE)
            results[part] = [json.loads(line) for line in done.stdout.splitlines()]
        RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    PAGE.write_text(page(results))
    if "growth" in results:
        draw(results["growth"])
    print(f"written: {PAGE.relative_to(HERE.parent)}, {RESULTS.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
