"""Pipelines that every executor must run alike. A module of its own, so that workers can import it."""

import asyncio
from pathlib import Path

import pyarrow.compute as pc

from hypernodes import Pipeline, node


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

nested = Pipeline(
    [
        diamond.as_node({"start": "x"}, {"total": "middle"}),
        node(lambda middle, start: middle - start, output_name="end"),
    ],
    name="nested",
)


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
nested_map = Pipeline(
    [
        split,
        words.as_node({"words": "word"}, {"length": "lengths"}, map_over="words"),
        longest,
    ],
    name="text",
)


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


@node(output_name="tried", retries=2, retry_on=OSError)
def try_hard(x, directory):
    marks = Path(directory, str(x))
    with marks.open("a") as file:
        file.write("x")
    if len(marks.read_text()) < 3:
        raise OSError("not yet")
    return x * 3


retrying = Pipeline([try_hard], name="retrying")
