"""Random pipelines: functions that nodes are made of, specifications of pipelines, and what they may do.

A module of its own, so that worker processes can import the functions. A specification is a value that prints
as what it is, so that an example that fails can be copied from a report; `build` makes a pipeline of it.

`possible` walks through a specification with plain calls and collects every error that could be met, and
every call that could be made. Where independent nodes fail, which one is met first is open; everything else
is not.
"""

import asyncio
import inspect
import os
import zlib
from collections import Counter
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from hypothesis import strategies as st

from hypernodes import HyperNodesEngine, Pipeline, node, stateful

# ----------------------------------------------------------------------------------- the functions


def weigh(value):
    """Return a small number that depends on a value and on nothing else, in every process."""
    return zlib.crc32(repr(value).encode()) % 24


def write_down(log, name, *arguments):
    """Append a call to a file, if there is one; processes may share it."""
    if log is not None:
        file = os.open(log, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)
        try:
            os.write(file, f"{name}{arguments!r}\n".encode())
        finally:
            os.close(file)


class Refused(Exception):
    """An error whose constructor takes two arguments, which plain pickle cannot rebuild."""

    def __init__(self, name, weight):
        super().__init__(f"{name}: {weight}")
        self.name = name


def count(a, log=None) -> int:
    write_down(log, "count", a)
    return weigh(a)


def half(a, b=2, log=None) -> float:
    write_down(log, "half", a, b)
    return weigh((a, b)) / 2


def text(a, log=None) -> str:
    write_down(log, "text", a)
    return f"{weigh(a)}"


def pair(a, b, log=None):
    write_down(log, "pair", a, b)
    return a, weigh(b)


def same(a, log=None):
    write_down(log, "same", a)
    return a


def nothing(a, log=None):
    write_down(log, "nothing", a)


def array(a, log=None):
    write_down(log, "array", a)
    return np.arange(weigh(a) % 4, dtype="int16")


def wide(a, log=None):
    write_down(log, "wide", a)
    return np.full(30_000, weigh(a))


def total(a, log=None) -> int:
    write_down(log, "total", a)
    return int(np.size(a)) + weigh(a)


@stateful
class Table:
    """A table that each process makes once."""

    def __init__(self, size):
        self.rows = [weigh(number) for number in range(size)]

    def row(self, number):
        return self.rows[number % len(self.rows)]


TABLE = Table(7)


def looked_up(a, log=None) -> int:
    write_down(log, "looked_up", a)
    return TABLE.row(weigh(a))


def rows(a, log=None) -> list[int]:
    write_down(log, "rows", a)
    return [weigh(a) + number for number in range(weigh(a) % 5)]


def bounds(a, log=None):
    write_down(log, "bounds", a)
    return weigh(a), [weigh(a), 1]


def walk(a, log=None):
    write_down(log, "walk", a)
    for number in range(weigh(a) % 4):
        yield number * weigh(a)


async def later(a, log=None):
    write_down(log, "later", a)
    await asyncio.sleep(0)
    return weigh(a)


async def stream(a, log=None):
    write_down(log, "stream", a)
    for number in range(weigh(a) % 3):
        await asyncio.sleep(0)
        yield number


def picky(a, log=None):
    write_down(log, "picky", a)
    if weigh(a) % 3 == 0:
        raise Refused("picky", weigh(a))
    return weigh(a) + 1


async def picky_later(a, log=None):
    write_down(log, "picky_later", a)
    await asyncio.sleep(0)
    if weigh(a) % 3 == 0:
        raise ValueError(weigh(a))
    return weigh(a) + 1


def stubborn(a, log=None):
    write_down(log, "stubborn", a)
    if weigh(a) % 4 == 0:
        raise OSError(weigh(a))
    return weigh(a)


def flaky(a, log=None):
    """Fail the first time, as far as the file says: it needs one retry, and calls that are not alike."""
    is_first = log is None or f"flaky{(a,)!r}" not in Path(log).read_text().splitlines()
    write_down(log, "flaky", a)
    if log is not None and is_first:
        raise ConnectionError(weigh(a))
    return weigh(a)


def scale(a: int, b: int = 3) -> int:
    return a * b


def scale_all(a, b=3):
    return pc.multiply(a, b)


def choose(a: int):
    if a % 5 == 0:
        raise ValueError(a)
    return a, a % 2 == 0


def choose_all(a):
    values = a.to_pylist()
    if any(value % 5 == 0 for value in values):
        raise ValueError("one of them")
    return values, [value % 2 == 0 for value in values]


@dataclass(frozen=True)
class Function:
    """What is known of a function.

    Attributes:
        makes: The kinds of what it returns: several for several outputs.
        needs: The kind that its first argument must have, if not any.
        batch: Its batch function.
        fails: Whether it raises for some values.
    """

    function: object
    makes: tuple = ("any",)
    needs: str | None = None
    batch: object = None
    fails: bool = False

    @property
    def parameters(self):
        names = self.function.__code__.co_varnames[: self.function.__code__.co_argcount]
        return tuple(name for name in names if name != "log")

    @property
    def is_async(self):
        return inspect.iscoroutinefunction(self.function) or inspect.isasyncgenfunction(self.function)

    @property
    def optional(self):
        return () if self.function in (pair,) else tuple(name for name in self.parameters if name == "b")


FUNCTIONS = {
    known.function.__name__: known
    for known in (
        Function(count, ("int",)),
        Function(half),
        Function(text),
        Function(pair),
        Function(same),
        Function(nothing),
        Function(array),
        Function(wide),
        Function(total, ("int",)),
        Function(looked_up, ("int",)),
        Function(rows, ("list",)),
        Function(bounds, ("int", "list")),
        Function(walk, ("list",)),
        Function(later, ("int",)),
        Function(stream, ("list",)),
        Function(scale, ("int",), needs="int", batch=scale_all),
        Function(choose, ("int", "any"), needs="int", batch=choose_all, fails=True),
        Function(picky, ("int",), fails=True),
        Function(picky_later, ("int",), fails=True),
        Function(stubborn, ("int",), fails=True),
        Function(flaky, ("int",)),
    )
}
BATCHED = {name for name, known in FUNCTIONS.items() if known.batch is not None}

# ----------------------------------------------------------------------------------- specifications


@dataclass(frozen=True)
class Call:
    """A node: parameters with the names that fill them, and options."""

    function: str
    arguments: tuple[tuple[str, str], ...]
    outputs: tuple[str, ...]
    options: tuple[tuple[str, object], ...] = ()


@dataclass(frozen=True)
class Nested:
    """A pipeline as a node: pairs of outer names and inner inputs, and of inner outputs and outer names."""

    pipeline: "Spec"
    inputs: tuple[tuple[str, str], ...]
    outputs: tuple[tuple[str, str], ...]
    map_over: tuple[str, ...] = ()
    map_mode: str = "zip"


@dataclass(frozen=True)
class Spec:
    """A pipeline.

    Attributes:
        name: Its name; no two in a specification have the same.
        members: Its nodes.
        listens: ``"inherit"``, ``"own"`` (to the observer inside, if there is one) or ``"quiet"``.
        cached: Whether it has the cache of the pipeline around.
        strict: Whether nodes may not change their inputs.
        engine: The map executor of an engine of its own, if it has one.
    """

    name: str
    members: tuple
    listens: str = "inherit"
    cached: bool = True
    strict: bool = False
    engine: str | None = None

    def tree(self):
        """Walk through this one and all that are nested in it."""
        yield self
        for member in self.members:
            if isinstance(member, Nested):
                yield from member.pipeline.tree()

    def calls(self):
        """Walk through all nodes."""
        for spec in self.tree():
            yield from (member for member in spec.members if isinstance(member, Call))

    def has_nested_map(self):
        """Whether a pipeline in it is mapped over."""
        members = (member for spec in self.tree() for member in spec.members)
        return any(isinstance(member, Nested) and member.map_over for member in members)


@dataclass(frozen=True)
class Example:
    """A pipeline, and what is done with it.

    Attributes:
        spec: The pipeline.
        inputs: What it is given, less a log.
        way: ``"run"``, ``"map"``, ``"amap"`` or ``"imap"``.
        map_over: What varies.
        map_mode: How.
        on_error: What is done with items that fail.
        outputs: What is asked for, or all.
        logged: Whether calls are written down.
        looks: Pairs of where it is run and who looks.
    """

    spec: Spec
    inputs: dict
    way: str
    map_over: tuple[str, ...]
    map_mode: str
    on_error: str
    outputs: tuple[str, ...] | None
    logged: bool
    looks: tuple[tuple[str, str], ...]

    @property
    def is_map(self):
        return self.way != "run"

    def items(self):
        """Return the inputs of each item."""
        if not self.is_map:
            return [self.inputs]
        fixed = {name: value for name, value in self.inputs.items() if name not in self.map_over}
        return [{**fixed, **item} for item in combined(self.inputs, self.map_over, self.map_mode)]


def combined(values, names, mode):
    """Return the items of a map."""
    columns = [values[name] for name in names]
    if any(isinstance(column, str | bytes | dict) for column in columns):
        raise TypeError("no collection of items")
    each = product(*columns) if mode == "product" else zip(*columns, strict=True)
    return [dict(zip(names, row, strict=True)) for row in each]


class _Never(Exception):
    """Is never raised."""


# A node that may be called again goes the general way, and this one never is.
_GENERAL = {"retries": 1, "retry_on": _Never}


def build(spec, inside=None, *, plain=False):
    """Make a pipeline of a specification.

    Args:
        spec: The specification.
        inside: The callbacks of those pipelines that have callbacks of their own.
        plain: Whether it is for the general path, where no pipeline has an engine of its own.
    """
    members = []
    for member in spec.members:
        if isinstance(member, Call):
            known = FUNCTIONS[member.function]
            options = dict(member.options)
            if plain and "retries" not in options:
                options |= _GENERAL
            made = node(known.function, output_name=member.outputs, batch=known.batch, **options)
            members.append(made.rename(inputs=dict(member.arguments)))
        else:
            members.append(
                build(member.pipeline, inside, plain=plain).as_node(
                    input_mapping=dict(member.inputs),
                    output_mapping=dict(member.outputs),
                    map_over=member.map_over or None,
                    map_mode=member.map_mode,
                )
            )
    engine = None if plain or spec.engine is None else HyperNodesEngine(map_executor=spec.engine)
    pipeline = Pipeline(members, engine, name=spec.name, strict=spec.strict)
    if spec.listens == "quiet":
        pipeline = pipeline.with_callbacks([])
    elif spec.listens == "own" and inside:
        pipeline = pipeline.with_callbacks(inside)
    return pipeline if spec.cached else pipeline.with_cache(None)


# -------------------------------------------------------------------------------- what may happen


@dataclass
class Possible:
    """What could happen: calls as they are written down, and errors by the index of the outermost item."""

    calls: Counter = field(default_factory=Counter)
    errors: dict = field(default_factory=dict)

    def note(self, kind, arguments, path, name, items):
        top = items[0] if items else None
        self.errors.setdefault(top, []).append((kind, arguments, "/".join(path), name, items))


_MISSING = object()


def possible(example):
    """Return what could happen in an example, whatever is asked for."""
    found = Possible()
    for index, values in enumerate(example.items()):
        _walk_through(example.spec, values, (example.spec.name,), (index,) if example.is_map else (), found)
    return found


def _walk_through(spec, values, path, items, found):
    values = dict(values)
    for member in spec.members:
        outputs = _called(member, values, path, items, found)
        names = member.outputs if isinstance(member, Call) else [outer for _, outer in member.outputs]
        for name, value in zip(names, outputs, strict=True):
            values.setdefault(name, value)  # what is given is not computed
    return values


def _called(member, values, path, items, found):
    missing = [_MISSING] * len(member.outputs)
    if isinstance(member, Call):
        arguments = {parameter: values.get(name, _MISSING) for parameter, name in member.arguments}
        if any(value is _MISSING for value in arguments.values()):
            return missing
        known = FUNCTIONS[member.function]
        try:
            result = _result(known.function(**arguments))
        except Exception as error:
            found.note(type(error).__name__, error.args, path, member.function, items)
            return missing
        finally:
            if member.function not in BATCHED:
                defaults = {"b": 2} if member.function == "half" else {}
                given = {**defaults, **arguments}
                found.calls[f"{member.function}{tuple(given[name] for name in known.parameters)!r}"] += 1
        return result if len(member.outputs) > 1 else [result]
    inner = member.pipeline
    given = {name: values.get(outer, _MISSING) for outer, name in member.inputs}
    if any(value is _MISSING for value in given.values()):
        return missing
    inner_path = (*path, inner.name)
    supplied = {name: values[outer] for name, outer in member.outputs if outer in values}
    if not member.map_over:
        made = _walk_through(inner, {**given, **supplied}, inner_path, items, found)
        return [made[name] for name, _ in member.outputs]
    names = [name for outer, name in member.inputs if outer in member.map_over]
    fixed = {name: value for name, value in given.items() if name not in names}
    try:
        each = combined(given, names, member.map_mode)
    except (TypeError, ValueError):
        found.note("MapError", None, path, inner.name, items)
        return missing
    # Each item of the map has its value of an output that is given. They may be all that is needed.
    if any(not isinstance(column, list) or len(column) != len(each) for column in supplied.values()):
        found.note("MapError", None, path, inner.name, items)
        columns = {name: column for name, column in supplied.items() if isinstance(column, list)}
        each = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=False)]
    else:
        for name, column in supplied.items():
            each = [{**item, name: value} for item, value in zip(each, column, strict=True)]
    made = [
        _walk_through(inner, {**fixed, **item}, inner_path, (*items, number), found)
        for number, item in enumerate(each)
    ]
    columns = [[row[name] for row in made] for name, _ in member.outputs]
    return [_MISSING if any(value is _MISSING for value in column) else column for column in columns]


def _result(returned):
    if hasattr(returned, "__aiter__"):

        async def collect():
            return [value async for value in returned]

        return asyncio.run(collect())
    if inspect.iscoroutine(returned):
        return asyncio.run(returned)
    return list(returned) if inspect.isgenerator(returned) else returned


# --------------------------------------------------------------------------------- how they are drawn

MOSTLY = 6  # how many times as often what usually is so is drawn


def mostly(usual, *others):
    """Draw what usually is so, and sometimes something else."""
    return st.sampled_from([usual] * MOSTLY + list(others))


SMALL = st.integers(0, 40)
VALUES = {
    "int": SMALL,
    "list": st.lists(SMALL, max_size=4),
    "any": st.one_of(
        SMALL,
        st.sampled_from(["", "a b", None, 1.5, True, (1, "x"), frozenset([3]), b"z", 2**70]),
        st.lists(SMALL, max_size=3),
    ),
}


class Drawing:
    """Draws one specification, with names that are used once."""

    def __init__(self, draw, *, fails, logged):
        self.draw = draw
        self.numbers = iter(range(1000))
        # Faster paths are for plain functions, or for coroutines, without options: most are of one kind.
        self.style = draw(st.sampled_from(["plain", "any", "async", "plain", "any", "plain"]))
        self.functions = [
            name
            for name, known in FUNCTIONS.items()
            for _ in range(1 if known.batch is None else 2)
            if (fails or not known.fails)
            and (logged or name != "flaky")
            and not (self.style == "plain" and (known.is_async or name == "flaky"))
            and not (self.style == "async" and not known.is_async)
        ]

    def name(self, prefix):
        return f"{prefix}{next(self.numbers)}"

    def spec(self, kinds, depth, name, **settings):
        """Draw a pipeline that takes values of these kinds, by name."""
        kinds, members, used = dict(kinds), [], set()
        for _ in range(self.draw(st.integers(1, 4 if depth == 0 else 3))):
            is_nested = depth < 3 and self.draw(st.integers(0, 9)) < (5 if depth == 0 else 2)
            member, made, taken = self.nested(kinds, depth) if is_nested else self.call(kinds)
            members.append(member)
            kinds |= made
            used |= taken
        return Spec(name, tuple(members), **settings), kinds, used

    def call(self, kinds):
        function = self.draw(st.sampled_from(self.functions))
        known = FUNCTIONS[function]
        fitting = [name for name, kind in kinds.items() if known.needs in (None, kind)]
        if not fitting:
            function = "later" if self.style == "async" else "count"
            known, fitting = FUNCTIONS[function], list(kinds)
        arguments = [("a", self.draw(st.sampled_from(fitting)))]
        if "b" in known.parameters and ("b" not in known.optional or self.draw(st.booleans())):
            others = [name for name in fitting if name != arguments[0][1]]
            if others:
                arguments.append(("b", self.draw(st.sampled_from(others))))
            elif "b" not in known.optional:
                function, known = "same", FUNCTIONS["same"]
        outputs = tuple(self.name("v") for _ in known.makes)
        options = {}
        if self.draw(mostly(False, True)):
            options["cache"] = False
        if self.style == "any" and self.draw(mostly(False, True)):
            options["timeout"] = 60
        if self.draw(mostly(False, True)):
            options["readonly"] = True
        if self.style == "any" and self.draw(mostly(False, True)):
            options["num_cpus"] = 1
        if function == "flaky":
            options["retries"] = 1
        elif self.style == "any" and self.draw(mostly(False, True, *([True] * 3 * (function == "stubborn")))):
            options["retries"] = self.draw(st.integers(1, 2))
            options["retry_on"] = self.draw(st.sampled_from([Exception, OSError]))
        call = Call(function, tuple(arguments), outputs, tuple(options.items()))
        return call, dict(zip(outputs, known.makes, strict=True)), {name for _, name in arguments}

    def nested(self, kinds, depth):
        outer = self.draw(
            st.lists(st.sampled_from(sorted(kinds)), min_size=1, max_size=3, unique=True), label="outer"
        )
        every = [name for name, kind in kinds.items() if kind == "list"]
        if every and self.draw(st.booleans()):
            outer = list(dict.fromkeys((*outer, *every[-2:])))
        lists = [name for name in outer if kinds[name] == "list"]
        over = ()
        if self.draw(st.integers(0, 19)) == 19:  # which may be no collections, or of different lengths
            lists = outer
        if lists and self.draw(st.integers(0, 3)):
            over = tuple(self.draw(st.lists(st.sampled_from(lists), min_size=1, max_size=2, unique=True)))
        is_same = self.draw(st.booleans())
        renamed = {name: name if is_same else self.name("i") for name in outer}
        of_items = {"list": "int", "lists": "list"}
        inner_kinds = {
            renamed[name]: of_items.get(kinds[name], "any") if name in over else kinds[name] for name in outer
        }
        settings = {
            "listens": self.draw(mostly("own", *["inherit"] * 6, "quiet")),
            "cached": self.draw(mostly(True, False)),
            "strict": self.style == "any" and self.draw(mostly(False, True)),
            "engine": self.draw(st.sampled_from([None] * 20 + ["sequential", "threaded", "async"])),
        }
        spec, inner, used = self.spec(inner_kinds, depth + 1, self.name("p"), **settings)
        pairs = tuple((name, renamed[name]) for name in outer if renamed[name] in used)
        over = tuple(name for name, _ in pairs if name in over)
        made = [name for name in inner if name not in inner_kinds]
        is_same = self.draw(st.booleans())
        results = tuple((name, name if is_same else self.name("w")) for name in made)
        mode = self.draw(st.sampled_from(["zip", "product"])) if len(over) > 1 else "zip"
        outer_kinds = {
            result: {"int": "list", "list": "lists"}.get(inner[name], "any") if over else inner[name]
            for name, result in results
        }
        return Nested(spec, pairs, results, over, mode), outer_kinds, {name for name, _ in pairs}


@st.composite
def examples(draw, executors, observers):
    """Draw a pipeline and what is done with it."""
    fails, logged = draw(st.integers(0, 9)) < 4, draw(mostly(True, False, False))
    kinds = {"x": "int", "y": "any", "z": "list"}
    drawing = Drawing(draw, fails=fails, logged=logged)
    strict = drawing.style == "any" and draw(mostly(False, True))
    spec, known, used = drawing.spec(kinds, 0, "top", strict=strict)
    made = [name for name in known if name not in kinds]
    inputs = {name: draw(VALUES[kind]) for name, kind in kinds.items() if name in used}
    way = draw(st.sampled_from(["map", "map", "run", "map", "map", "imap", "amap"]))
    over, mode = (), "zip"
    if way != "run":
        over = tuple(draw(st.lists(st.sampled_from(sorted(inputs)), min_size=1, max_size=2, unique=True)))
        mode = draw(st.sampled_from(["zip", "product"])) if len(over) > 1 else "zip"
        size = draw(st.sampled_from([12, 40, 3, 0, 60, 25, 1, 5, 40, 12, 250]))
        for name in over:
            if mode == "product":
                size = min(size, 5)
            if kinds[name] == "int" and draw(mostly(True, False)):  # no two alike
                start = draw(SMALL)
                inputs[name] = list(range(start, start + size))
            else:
                few = draw(st.lists(VALUES[kinds[name]], min_size=min(size, 3), max_size=min(size, 3)))
                inputs[name] = [few[number % len(few)] for number in range(size)]
    outputs = None
    if draw(st.integers(0, 4)) == 4:
        outputs = tuple(draw(st.lists(st.sampled_from(made), min_size=1, max_size=2, unique=True)))
    if draw(st.integers(0, 9)) == 9:
        given_name = draw(st.sampled_from(made))
        value = VALUES.get(known[given_name])
        if value is not None and over and mode == "zip" and draw(st.booleans()):
            few = draw(st.lists(value, min_size=1, max_size=3))
            inputs[given_name] = [few[number % len(few)] for number in range(len(inputs[over[0]]))]
            over = (*over, given_name)
        elif value is not None:
            inputs[given_name] = draw(value)
    return Example(
        spec,
        inputs,
        way,
        over,
        mode,
        draw(st.sampled_from(["raise", "return"])),
        outputs,
        logged,
        tuple(draw(st.lists(st.tuples(executors, observers), min_size=3, max_size=4))),
    )
