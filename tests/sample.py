"""Pipelines that every executor must run alike. A module of its own, so that workers can import it."""

import asyncio
import decimal
import os
import signal
import threading
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypernodes import Pipeline, node


def increment(x):
    return x + 1


async def increment_soon(x):
    return x + 1


@node(output_name="left")
def half(x):
    return x / 2


@node(output_name="right")
def square(x):
    return x * x


@node(output_name="total")
def add(left, right, offset=1):
    return left + right + offset


diamond = Pipeline([half, square, add], name="diamond")

subtract = node(lambda middle, start: middle - start, output_name="end")


def nested_of(inner):
    return Pipeline([inner.as_node({"start": "x"}, {"total": "middle"}), subtract], name="nested")


nested = nested_of(diamond)


@node(output_name="words")
def split(text):
    return text.split()


@node(output_name="length")
def measure(word, unit):
    return len(word) * unit


@node(output_name="longest")
def longest(lengths):
    return max(lengths)


words = Pipeline([measure], name="word")


def nested_map_of(inner):
    return Pipeline(
        [split, inner.as_node({"words": "word"}, {"length": "lengths"}, map_over="words"), longest],
        name="text",
    )


nested_map = nested_map_of(words)


@node(output_name="fetched")
async def fetch(x):
    await asyncio.sleep(0.001)
    return x + 10


@node(output_name="counted")
async def count(x):
    for number in range(x):
        await asyncio.sleep(0)
        yield number


mixed = Pipeline(
    [fetch, count, node(lambda fetched, counted: (fetched, counted), output_name="both")], name="mixed"
)


@node(output_name=("low", "high"))
def bounds(x):
    return x - 1, x + 1


@node(output_name="steps")
def walk(low, high):
    yield from range(low, high)


several = Pipeline([bounds, walk], name="several")


def add_all(x, by):
    import pyarrow.compute as pc  # Workers import this module, and few of them need it.

    return pc.add(x, by)


@node(output_name="added", batch=add_all)
def add_to(x: int, by: int = 3) -> int:
    return x + by


def halve_all(added):
    array = added.to_numpy()
    return array // 2, (array % 2).tolist()


@node(output_name=("whole", "rest"), batch=halve_all)
def halve(added: int):
    return added // 2, added % 2


batched = Pipeline(
    [add_to, halve, node(lambda whole, rest: (whole, rest), output_name="pair")], name="batched"
)


class Refused(Exception):
    """An error whose constructor takes two arguments, which plain pickle cannot rebuild."""

    def __init__(self, number, reason):
        super().__init__(f"{number}: {reason}")
        self.number = number


@node(output_name="checked")
def check(x):
    if x == 2:
        raise Refused(x, "two is not allowed")
    return x


failing = Pipeline([check, node(lambda checked: checked * 2, output_name="doubled")], name="failing")


@node(output_name="y")
def shift(x):
    return x - 1


def failing_inside_of(inner):
    return Pipeline([shift, inner.as_node({"y": "x"})], name="around")


@node(output_name="tried", retries=2, retry_on=OSError)
def try_hard(x, directory):
    marks = Path(directory, str(x))
    with marks.open("a") as file:
        file.write("x")
    if len(marks.read_text()) < 3:
        raise OSError("not yet")
    return x * 3


retrying = Pipeline([try_hard], name="retrying")


@dataclass(frozen=True)
class Case:
    """A pipeline, and what it is run with.

    Attributes:
        pipeline: The pipeline itself, or the one that is nested in it.
        inputs: What a single run takes.
        map_over: The input that varies in a map.
        items: Its values.
        many: Its values where a longer map shows more.
        around: Makes the pipeline of the one nested in it.
        leaves_marks: Whether its nodes need a directory of their own.
    """

    pipeline: Pipeline
    inputs: dict[str, Any]
    map_over: str
    items: list[Any]
    many: list[Any]
    around: Callable[[Pipeline], Pipeline] | None = None
    leaves_marks: bool = False

    @property
    def batched(self):
        """The names of its nodes that have a batch function."""
        return [each.name for each in self.pipeline.execution_order if each.batch is not None]

    @property
    def has_nested(self):
        """Whether a pipeline is nested in it."""
        return self.around is not None

    def build(self, callbacks_inside=None):
        """Return the pipeline; the nested one has callbacks of its own if any are given."""
        if self.around is None:
            return self.pipeline
        inner = self.pipeline
        return self.around(inner if callbacks_inside is None else inner.with_callbacks(callbacks_inside))


NUMBERS = list(range(3, 27))
CASES = {
    "diamond": Case(diamond, {"x": 4}, "x", [1, 2, 3], NUMBERS),
    "nested": Case(diamond, {"start": 4}, "start", [1, 2, 3], NUMBERS, nested_of),
    "nested map": Case(
        words,
        {"text": "a bcd ef", "unit": 2},
        "text",
        ["a bc", "d", "efg h i"],
        ["a bc", "d", "efg h i"] * 4,
        nested_map_of,
    ),
    "async and sync": Case(mixed, {"x": 3}, "x", [1, 2, 3], [1, 2, 3] * 4),
    "several outputs": Case(several, {"x": 3}, "x", [1, 2, 3], NUMBERS),
    "retries": Case(retrying, {"x": 3}, "x", [1, 2, 3], [1, 2, 4, 5], leaves_marks=True),
    "batch functions": Case(batched, {"x": 3, "by": 2}, "x", list(range(40)), list(range(40))),
    "failing node": Case(failing, {"x": 1}, "x", [1, 2, 3], [2, *NUMBERS, 2, 1]),
    "failing inside": Case(failing, {"x": 1}, "x", [1, 3, 5], [3, *NUMBERS, 3, 1], failing_inside_of),
}


REQUEST = ContextVar("request", default="none")


def change_precision(x):
    """Change what is found in the context, and return what was found."""
    found = decimal.getcontext().prec, REQUEST.get()
    decimal.getcontext().prec = 30 + x
    REQUEST.set(f"that of {x}")
    return found


class Counted:
    """A small object that notes in a directory each time that it is unpickled, and by which process."""

    def __init__(self, directory):
        self.directory = directory

    def __reduce__(self):
        return _counted, (self.directory,)


def _counted(directory):
    with (Path(directory) / str(os.getpid())).open("a") as file:
        file.write("x")
    return Counted(directory)


def with_model(model, x):
    return x


def with_model_too(model, with_model):
    return with_model


def lock_for_two(x):
    return threading.Lock() if x == 2 else x


def hinted_lock(x) -> int:
    return threading.Lock() if x == 2 else x


def dies(x, marks, always):
    """End the process with item 2: always, or only the first time."""
    mark = Path(marks) / "died"
    if x == 2 and (always or not mark.exists()):
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * x
