"""How many functions are called for the core's work: `make bench-calls`.

    python benchmarks/calls.py [--json] [--against FILE] [--by-module] [CASE ...]

Times differ from machine to machine and from minute to minute; how many functions are called does not. So a
change of the core shows here by a few calls, on a busy machine too: calls of Python functions (a generator
that is resumed counts as called), by where they are defined, and of functions written in C. Only with a cold
cache do they differ from time to time, by some thousandths: what is written at once follows the clock.

    python benchmarks/calls.py --json > before.json
    python benchmarks/calls.py --against before.json
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType

from floors import add, double, increment
from rich.console import Console
from rich.table import Table

import hypernodes
from hypernodes import DiskCache, Pipeline, PipelineCallback, node

HOME = Path(hypernodes.__file__).parent
REPEATS = 5
ITEMS = 10_000
FEWER = 1_000  # items of the maps that have a cache or a callback


class Listener(PipelineCallback):
    """Hears of each node, so that nothing is told in numbers."""

    def on_node_start(self, node_id: str, inputs: object, ctx: object) -> None:
        pass

    def on_node_end(self, node_id: str, outputs: object, duration: float, ctx: object) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Case:
    """Some work whose calls are counted.

    Attributes:
        work: What is done, in words.
        subject: Does it.
        items: How many runs or items it covers.
        before: What is done each time before, and not counted.
    """

    work: str
    subject: Callable[[], object]
    items: int = 1
    before: Callable[[], object] = gc.collect


@dataclass(frozen=True, slots=True)
class Count:
    """Calls by where a function is defined: a module of hypernodes, ``"elsewhere"`` or ``"C"``."""

    calls: Counter[str]

    @property
    def of_hypernodes(self) -> int:
        """Calls of functions of hypernodes."""
        return self.calls.total() - self.elsewhere - self.in_c

    @property
    def elsewhere(self) -> int:
        """Calls of other Python functions: those of nodes, of the standard library, of other packages."""
        return self.calls["elsewhere"]

    @property
    def in_c(self) -> int:
        """Calls of functions written in C."""
        return self.calls["C"]


def chain(**options: object) -> Pipeline:
    functions = {"a": increment, "b": double, "c": add}
    return Pipeline([node(function, output_name=name) for name, function in functions.items()], **options)


@contextmanager
def run() -> Iterator[Case]:
    yield Case("run, 3 nodes", partial(chain().run, {"x": 1}))


@contextmanager
def run_heard() -> Iterator[Case]:
    yield Case("run, 3 nodes, with a callback", partial(chain(callbacks=[Listener()]).run, {"x": 1}))


@contextmanager
def over_items() -> Iterator[Case]:
    subject = partial(chain().map, {"x": range(ITEMS)}, map_over="x")
    yield Case(f"map, {ITEMS:,} items x 3 nodes", subject, ITEMS)


@contextmanager
def over_items_heard() -> Iterator[Case]:
    subject = partial(chain(callbacks=[Listener()]).map, {"x": range(FEWER)}, map_over="x")
    yield Case(f"map, {FEWER:,} items x 3 nodes, with a callback", subject, FEWER)


@contextmanager
def cold() -> Iterator[Case]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        pipelines: list[Pipeline] = []

        def before() -> None:
            pipelines.append(chain(cache=DiskCache(f"{home}/{len(pipelines)}")))
            pipelines[-1].explain({"x": -1})  # its functions are read, which is done once a process
            gc.collect()

        def subject() -> object:
            return pipelines[-1].map({"x": range(FEWER)}, map_over="x")

        yield Case(f"map, {FEWER:,} items x 3 nodes, cold cache", subject, FEWER, before)


@contextmanager
def warm() -> Iterator[Case]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        pipeline = chain(cache=DiskCache(home))
        subject = partial(pipeline.map, {"x": range(FEWER)}, map_over="x")
        yield Case(f"map, {FEWER:,} items x 3 nodes, warm cache", subject, FEWER)


CASES: dict[str, Callable[[], AbstractContextManager[Case]]] = {
    "run": run,
    "run-heard": run_heard,
    "map": over_items,
    "map-heard": over_items_heard,
    "cold": cold,
    "warm": warm,
}


def count(work: Callable[[], object]) -> Count:
    """Do some work, and count what is called for it, in threads that it starts, too."""
    by_file: Counter[str] = Counter()

    def profile(frame: FrameType, event: str, arg: object) -> None:
        if event == "call":
            by_file[frame.f_code.co_filename] += 1
        elif event == "c_call":
            by_file["C"] += 1

    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
    by_file["C"] -= 1  # the call that ends the counting
    calls: Counter[str] = Counter()
    for name, number in by_file.items():
        calls[module_of(name)] += number
    return Count(calls)


def module_of(file: str) -> str:
    """Return where a function is defined, by the file that its code names."""
    if file == "C":
        return file
    if file.startswith("<"):
        return "generated"  # compiled plans, and the methods of dataclasses
    path = Path(file)
    return (
        ".".join(path.relative_to(HOME).with_suffix("").parts) if path.is_relative_to(HOME) else "elsewhere"
    )


def measure(case: Case) -> Count:
    """Count several times, and return the count in the middle."""
    case.before()
    case.subject()  # plans are made, functions are read
    counts = []
    for _ in range(REPEATS):
        case.before()
        counts.append(count(case.subject))
    return sorted(counts, key=lambda counted: counted.calls.total())[REPEATS // 2]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"{', '.join(CASES)}; all by default")
    parser.add_argument("--json", action="store_true", help="print calls by case and module as JSON")
    parser.add_argument(
        "--against", type=Path, metavar="FILE", help="what --json has printed before a change"
    )
    parser.add_argument("--by-module", action="store_true", help="show the modules that are called most")
    args = parser.parse_args()
    if unknown := set(args.cases) - set(CASES):
        parser.error(f"no such case: {', '.join(sorted(unknown))}")

    found: dict[str, tuple[Case, Count]] = {}
    for name in args.cases or CASES:
        with CASES[name]() as case:
            found[name] = case, measure(case)
    if args.json:
        print(
            json.dumps({name: dict(sorted(one.calls.items())) for name, (_, one) in found.items()}, indent=2)
        )
        return
    before = {} if args.against is None else json.loads(args.against.read_text())
    table = Table(
        "work",
        "calls in hypernodes",
        "other Python",
        "C",
        "in hypernodes, an item",
        title="Functions called",
        caption=f"Python {platform.python_version()}",
    )
    for name, (case, counted) in found.items():
        old = Count(Counter(before[name])) if name in before else None
        table.add_row(
            case.work,
            in_words(counted.of_hypernodes, old and old.of_hypernodes),
            in_words(counted.elsewhere, old and old.elsewhere),
            in_words(counted.in_c, old and old.in_c),
            f"{counted.of_hypernodes / case.items:.2f}",
        )
        if args.by_module:
            modules = Counter({m: n for m, n in counted.calls.items() if m not in ("elsewhere", "C")})
            for module, number in modules.most_common(8):
                table.add_row(f"    {module}", f"{number:,}", "", "", f"{number / case.items:.2f}")
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def in_words(number: int, before: int | None) -> str:
    """Return a number, and by how much it has changed."""
    return f"{number:,}" if before is None else f"{number:,} ({number - before:+,})"


if __name__ == "__main__":
    main()
