"""What can be seen of a run, and who looks: the third axis of the matrix, and the eyes of the fuzz test.

The *general path* is the plain loop, `HyperNodesEngine()`, under a `Recorder` and a callback that overrides
every hook and does nothing: there nothing is compiled, sent in chunks or counted in numbers. What all others
must do is what it does.
"""

from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass

import sample
from recorder import Recorder

from hypernodes import DiskCache, HyperNodesEngine, PipelineCallback
from hypernodes.exceptions import NodeAbandonedError

HOOKS = tuple(name for name in vars(PipelineCallback) if name.startswith("on_"))


class Idle(PipelineCallback):
    """Overrides every hook, and does nothing."""


for _hook in HOOKS:
    setattr(Idle, _hook, lambda self, *arguments: None)


class Counting(PipelineCallback):
    """Counts items, nodes and errors, whether it hears of each or of their number.

    Args:
        deaf: The names of nested pipelines that do not have it, since they have callbacks of their own, or
            none. It would not hear of their nodes one by one either.
    """

    counts_items = True

    def __init__(self, *, deaf=()):
        self.deaf = deaf
        self.numbers = Counter()
        self.notes = Counter()

    def on_map_items_end(self, items, ctx):
        path = ctx.hierarchy_path
        self.numbers["items", path] += items
        self._count_nodes(path, items, ctx)

    def _count_nodes(self, path, items, ctx):
        known = ctx.get_pipeline_metadata(path)
        for node_id in known["node_ids"]:
            self.numbers["node", path, node_id] += items
            if node_id in known["nested"] and node_id not in self.deaf:
                self._count_nodes((*path, node_id), items, ctx)

    def on_map_item_end(self, item_index, duration, ctx):
        self.numbers["items", ctx.hierarchy_path] += 1

    def on_node_end(self, node_id, outputs, duration, ctx):
        self.numbers["node", ctx.hierarchy_path, node_id] += 1

    def on_error(self, node_id, error, ctx):
        # What is under way when something else fails depends on the order, and that on the executor.
        if not isinstance(error, NodeAbandonedError):
            self.numbers["error", ctx.hierarchy_path, node_id] += 1


class Around(Counting):
    """Counts, and puts something around each call, which is counted, too."""

    counts_items = True

    def node_context(self, ctx):
        return around

    def on_node_notes(self, node_id, notes, ctx):
        self.notes[ctx.hierarchy_path, node_id, notes] += 1


@contextmanager
def around(call):
    yield ["/".join((*call.pipeline_path, call.node_id))]


def numbers_of(recorder):
    """Return what a `Counting` counts, of what a `Recorder` has heard in its place."""
    numbers = Counter()
    for hook, what, path, _ in recorder.events:
        match hook:
            case "item_end":
                numbers["items", path] += 1
            case "node_end":
                numbers["node", path, what[0]] += 1
            case "error" if not what[1].startswith("NodeAbandonedError"):
                numbers["error", path, what[0]] += 1
    return numbers


@dataclass(frozen=True)
class Observer:
    """Who looks.

    Attributes:
        outside: The callback of the outermost pipeline, if any: `Recorder`, `Counting` or `Around`.
        inside: The callback of the nested pipelines, if they have one of their own.
        cached: Whether there is a cache.
    """

    outside: type | None = None
    inside: type | None = None
    cached: bool = False

    @property
    def counts(self):
        """Whether it hears of numbers only, of which longer maps have more."""
        return Recorder not in (self.outside, self.inside) and (self.outside or self.inside) is not None

    @property
    def times(self):
        """How often what it looks at is run: a second time shows what the cache has kept."""
        return 2 if self.cached else 1


OBSERVERS = {
    "nothing": Observer(),
    "cache": Observer(cached=True),
    "recorder": Observer(Recorder),
    "recorder and cache": Observer(Recorder, cached=True),
    "counting": Observer(Counting),
    "counting inside": Observer(None, Counting),
    "counting on both": Observer(Counting, Counting),
    "counting with context": Observer(Around),
}


def exactly(value):
    """Return a value together with its types, and an error with its note, to be compared."""
    import numpy as np  # Workers import this module, and none of them needs it.

    match value:
        case BaseException():
            notes = getattr(value, "__notes__", [""])
            return type(value).__qualname__, exactly(value.args), notes[0].partition("\n")[0]
        case list() | tuple():
            return type(value).__qualname__, [exactly(each) for each in value]
        case dict():
            return type(value).__qualname__, [(name, exactly(each)) for name, each in value.items()]
        case np.ndarray():
            return "ndarray", str(value.dtype), value.shape, value.tolist()
        case _:
            return type(value).__qualname__, repr(value)


@dataclass
class Seen:
    """What was seen of some work.

    Attributes:
        results: What it returned, with types.
        signatures: What is in the cache.
        events: What recorders heard, by where they listened.
        numbers: What was counted, likewise.
        notes: How often something was put around a node, likewise.
    """

    results: tuple
    signatures: set
    events: dict
    numbers: dict
    notes: dict


def listening(kind, *, deaf=(), general=False):
    """Return a callback of a kind, or for the general path those that hear everything it would count."""
    if kind is None:
        return []
    if general:
        return [Recorder(), Idle(), *([Around()] if kind is Around else [])]
    return [kind() if kind is Recorder else kind(deaf=deaf)]


def seen_by(outside, inside, results, cache):
    """Collect what callbacks have seen, in the same words whether they count or record."""
    seen = Seen(results, set(cache or ()), {}, {}, {})
    for where, callbacks in (("outside", outside), ("inside", inside)):
        for callback in callbacks:
            if isinstance(callback, Recorder):
                seen.events[where] = callback.counted
                seen.numbers[where] = numbers_of(callback)
            elif isinstance(callback, Counting):
                seen.numbers.setdefault(where, callback.numbers)  # beside a recorder, that is believed
                seen.notes |= {where: callback.notes} if callback.notes else {}
    return seen


def observe(case, engine, observer, directory, *, general=False):
    """Run a case once and over its items, and say all that can be seen of it.

    Args:
        case: A `sample.Case`.
        engine: Runs it.
        observer: Who looks.
        directory: Where there is room for a cache, and for what the nodes leave.
        general: Whether it is to take the general path.
    """
    directory.mkdir()
    inside = listening(observer.inside, general=general)
    deaf = (case.pipeline.name,) if inside else ()
    outside = listening(observer.outside, general=general, deaf=deaf)
    inputs, cache = case.inputs, None
    if case.leaves_marks:
        # The path is an input: its content must be equal wherever the pipeline runs.
        inputs = {**inputs, "directory": str(directory)}
    elif observer.cached:
        cache = DiskCache(directory / "cache")
    pipeline = case.build(inside) if inside else case.build()
    callbacks = outside or ([Recorder(), Idle()] if general else [])
    pipeline = pipeline.with_engine(engine).with_cache(cache).with_callbacks(callbacks)
    items = case.many if observer.counts else case.items
    results = []
    for _ in range(observer.times):
        results.append(pipeline.run(inputs))
        results.append(pipeline.map({**inputs, case.map_over: items}, case.map_over, on_error="return"))
    return seen_by(outside, inside, exactly(results), cache)


def look_generally(name, observed, directory):
    """Observe a case on the general path."""
    return observe(sample.CASES[name], HyperNodesEngine(), OBSERVERS[observed], directory, general=True)


def check_case(name, observed, engine, directory, wanted):
    """Compare what an observer sees of a case with what was wanted."""
    case, observer = sample.CASES[name], OBSERVERS[observed]
    seen = observe(case, engine, observer, directory)
    assert seen.results == wanted.results, name
    assert seen.signatures == wanted.signatures, name
    if Recorder in (observer.outside, observer.inside):
        assert seen.events == wanted.events, name
    for aspect in ("numbers", "notes"):
        one, other = getattr(seen, aspect), getattr(wanted, aspect)
        if aspect == "notes":  # a batch function is called once for many items
            one, other = (
                {
                    where: {key: n for key, n in notes.items() if key[1] not in case.batched}
                    for where, notes in every.items()
                }
                for every in (one, other)
            )
        assert one == other, (name, aspect)


def check_all_cases(engine, observed, directory, expected, names=tuple(sample.CASES)):
    """Check every case in which an observer may see something."""
    for number, name in enumerate(names):
        case = sample.CASES[name]
        if OBSERVERS[observed].inside is None or case.has_nested:
            check_case(name, observed, engine, directory / str(number), expected(name, observed))
