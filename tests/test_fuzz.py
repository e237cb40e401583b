"""Random pipelines give the same on every executor, whoever looks, as on the general path.

The general path is the same pipeline in the plain loop of `HyperNodesEngine()`, under a `Recorder` and a
callback that overrides every hook: nothing is compiled, sent in chunks, or counted there. Compared are
outputs with their types, errors with arguments and note, cache entries, events, counts, and the calls that
were made, which the nodes themselves write down.

    make fuzz [SEED=...] [N=...]      thousands of examples, on Ray, too; says how to repeat what fails

Where independent nodes of an item can fail, it is open which of them is met first, and which of the others
are called: then it must be one that can be met, and what is told must be whole. All else is compared exactly.
"""

import asyncio
import os
import re
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, assume, event, given, seed, settings
from hypothesis import strategies as st
from observers import OBSERVERS, Idle, exactly, listening, seen_by
from random_pipelines import BATCHED, build, examples, possible
from recorder import Recorder

from hypernodes import (
    AsyncExecutor,
    DaftEngine,
    DiskCache,
    HyperNodesEngine,
    HyperNodesError,
    ParallelExecutor,
    RayExecutor,
)
from hypernodes.engine import output_names
from hypernodes.execution.plan.build import build_plan
from hypernodes.execution.plan.placement import Placement

SEED = os.environ.get("FUZZ_SEED")
COUNT = int(os.environ.get("FUZZ_EXAMPLES", "150"))

ENGINES = {
    "sequential": lambda: HyperNodesEngine(),
    "async node": lambda: HyperNodesEngine("async"),
    "async map": lambda: HyperNodesEngine(map_executor=AsyncExecutor(3)),
    "async both": lambda: HyperNodesEngine("async", "async"),
    "threaded node": lambda: HyperNodesEngine(ThreadPoolExecutor(3)),
    "threaded map": lambda: HyperNodesEngine(map_executor=ThreadPoolExecutor(3)),
    "threaded both": lambda: HyperNodesEngine("threaded", "threaded"),
    "one pool": lambda: (lambda pool: HyperNodesEngine(pool, pool))(ThreadPoolExecutor(2)),
    "one loop": lambda: (lambda pool: HyperNodesEngine(pool, pool))(AsyncExecutor(2)),
    "threads and async": lambda: HyperNodesEngine("threaded", "async"),
    "parallel map": lambda: HyperNodesEngine(map_executor=ParallelExecutor(2)),
    "parallel node": lambda: HyperNodesEngine(ParallelExecutor(2)),
    "parallel and async": lambda: HyperNodesEngine("async", ParallelExecutor(2)),
    "daft": lambda: DaftEngine(),
    "daft in small batches": lambda: DaftEngine(batch_size=2),
    "ray map": lambda: HyperNodesEngine(map_executor=RayExecutor(2)),
    "ray node": lambda: HyperNodesEngine(RayExecutor(2)),
}
IN_PROCESS = [name for name in ENGINES if not name.startswith(("parallel", "daft", "ray"))]
SELDOM = ["parallel map", "daft", "daft in small batches"]
FUZZED = ["parallel node", "parallel and async", "ray map", "ray node"] if SEED else []
ONE_BY_ONE = ("sequential",)  # where the order of items is that of the plain loop
# Where a worker makes a call itself that may be queued elsewhere: waiting for it could take forever. So it is
# for chunks of nested maps in threads, too.
BOTH_LEVELS = ("async both", "threaded both", "one pool", "one loop", "threads and async")


@pytest.fixture(scope="module")
def engines(request):
    """Engines by name, made when they are first asked for."""
    made, executors = {}, []

    def engine(name):
        if name not in made:
            if name.startswith("ray"):
                request.getfixturevalue("ray_cluster")
            made[name] = ENGINES[name]()
        return made[name]

    yield engine
    for each in made.values():
        if isinstance(each, HyperNodesEngine):
            executors += [each.node_executor, each.map_executor]
            each.shutdown()
    for executor in executors:
        if hasattr(executor, "shutdown"):
            executor.shutdown()


# --------------------------------------------------------------------------------- running examples


class Outcome:
    """What came of running an example: rows by index, or the error that ended it."""

    def __init__(self):
        self.rows, self.error = {}, None


def carry_out(example, pipeline, inputs, on_error):
    """Run an example in its way."""
    outcome = Outcome()
    try:
        match example.way:
            case "run":
                outcome.rows[None] = pipeline.run(inputs, example.outputs)
            case "imap":
                for index, row in pipeline.imap(
                    inputs, list(example.map_over), example.map_mode, example.outputs, on_error
                ):
                    outcome.rows[index] = row
            case _:
                arguments = (inputs, list(example.map_over), example.map_mode, example.outputs, on_error)
                columns = (
                    pipeline.map(*arguments)
                    if example.way == "map"
                    else asyncio.run(pipeline.amap(*arguments))
                )
                for index in range(len(example.items())):
                    row = {name: column[index] for name, column in columns.items()}
                    first = next(iter(row.values()))
                    outcome.rows[index] = first if is_failure(first) else row
    except Exception as error:
        outcome.error = error
    return outcome


def is_failure(value):
    return isinstance(value, BaseException)


class Round:
    """One run of an example, and what was seen of it."""

    def __init__(self, outcome, seen, calls):
        self.outcome, self.seen, self.calls = outcome, seen, calls
        self.rows = {index: exactly(row) for index, row in outcome.rows.items()}


def rounds(example, observer, engine, directory, *, general):
    """Run an example once, or with a cache twice, and return what was seen each time."""
    log, found = directory / "log", []  # its name is an input, and so must be the same wherever it runs
    # What is under way when something fails may still write when it is over.
    with tempfile.TemporaryDirectory(dir=directory, ignore_cleanup_errors=True) as place:
        cache = DiskCache(place) if observer.cached else None
        on_error = "return" if general else example.on_error
        for _ in range(2 if observer.cached else 1):
            log.write_text("")
            inside = listening(observer.inside, general=general)
            deaf = {
                spec.name
                for spec in example.spec.tree()
                if spec.listens == "quiet" or (spec.listens == "own" and inside)
            }
            outside = listening(observer.outside, general=general, deaf=deaf)
            for callback in inside if not general and observer.inside is not Recorder else []:
                callback.deaf = {spec.name for spec in example.spec.tree() if spec.listens == "quiet"}
            pipeline = build(example.spec, inside, plain=general).with_engine(engine).with_cache(cache)
            pipeline = pipeline.with_callbacks(outside or ([Recorder(), Idle()] if general else []))
            inputs = example.inputs
            if example.logged and "log" in pipeline.input_names:
                inputs = {**inputs, "log": str(log)}
            outcome = carry_out(example, pipeline, inputs, on_error)
            seen = seen_by(outside, inside, None, cache)
            recorder = next((each for each in outside if isinstance(each, Recorder)), None)
            seen.recorder = recorder
            calls = Counter(log.read_text().splitlines())
            found.append(Round(outcome, seen, calls))
    return found


# ------------------------------------------------------------------------------- comparing outcomes

_NOTE = re.compile(r"in node '(?P<node>.*?)' of pipeline '(?P<path>.*?)'(?:, item (?P<item>[\d.]+))?, called")


def key_of(error):
    """Return of an error what `possible` says of those that can be met."""
    found = _NOTE.match(getattr(error, "__notes__", [""])[0])
    assert found, (error, getattr(error, "__notes__", None))
    items = tuple(map(int, found["item"].split("."))) if found["item"] else ()
    arguments = None if type(error).__name__ == "MapError" else error.args
    return type(error).__name__, arguments, found["path"], found["node"], items


def places(items):
    """Yield where a call can be: what all items of one of the maps share is not in an item of that map."""
    yield items
    for position in range(len(items)):
        yield from places((*items[:position], *items[position + 1 :]))


def shares_values(example):
    """Whether items of a map have calls in common, which are made once, and are in no item."""
    given = (*example.inputs, *(("log",) if example.logged else ()))
    pipeline = build(example.spec, [], plain=False)
    known = {*pipeline.input_names, *pipeline.output_names}
    outputs = None if example.outputs is None else output_names(example.outputs)
    try:
        plan = build_plan(
            pipeline,
            [name for name in given if name in known],
            outputs,
            Placement(),
            mapped=example.is_map,
            varying=example.map_over if example.is_map else (),
        ).plan
    except HyperNodesError:  # wrong inputs
        return False
    return any(inner.shared for inner in plan.tree())


class Comparison:
    """One round of an example beside the same one on the general path."""

    def __init__(self, example, executor, observer, wanted, seen, can):
        self.example, self.wanted, self.seen, self.can = example, wanted, seen, can
        self.observer = observer
        self.shares = shares_values(example)
        self.failed = {index for index, row in wanted.outcome.rows.items() if is_failure(row)}
        self.fails = bool(self.failed) or wanted.outcome.error is not None
        self.is_sequential = executor in ONE_BY_ONE and all(
            spec.engine in (None, "sequential") for spec in example.spec.tree()
        )
        self.has_twins = any(count > 1 for count in can.calls.values())
        # Whether equal calls that are under way at the same time may both be made.
        self.may_repeat = (
            executor.startswith(("parallel", "ray", "daft"))
            or executor in BOTH_LEVELS
            or (executor == "threaded map" and example.spec.has_nested_map())
            or any(spec.engine not in (None, "sequential") for spec in example.spec.tree())
        )

    def places(self, items):
        """Return where a call of an item can be."""
        return set(places(items)) if self.shares else {items}

    def is_one_of(self, error, possible):
        """Whether an error is one of those that are possible."""
        key = key_of(error)
        return any(key[:4] == other[:4] and key[4] in self.places(other[4]) for other in possible)

    def check(self):
        self.check_outcome()
        if not self.fails:
            self.check_calls()
            self.check_events()
            self.check_numbers()
            return
        allowed = set(self.can.calls)
        assert set(self.seen.calls) <= allowed, set(self.seen.calls) - allowed
        self.check_told()
        if self.example.on_error == "return" and self.example.is_map:
            self.check_good_items()
            self.check_bounds()

    def check_outcome(self):
        wanted, outcome, example = self.wanted, self.seen.outcome, self.example
        if self.fails and (not example.is_map or example.on_error == "raise"):
            assert outcome.error is not None, "it did not fail"
            every = [error for errors in self.can.errors.values() for error in errors]
            assert self.is_one_of(outcome.error, every)
            if len(every) == 1:
                (general,) = [
                    wanted.outcome.error,
                    *(row for row in wanted.outcome.rows.values() if is_failure(row)),
                ][-1:]
                assert exactly(outcome.error) == exactly(general)
            if self.is_sequential and example.is_map and key_of(outcome.error) in every:
                assert key_of(outcome.error)[4][0] == min(self.failed)
            for index, row in outcome.rows.items():
                assert self.seen.rows[index] == wanted.rows[index]
                assert not is_failure(row)
            return
        if wanted.outcome.error is not None:  # wrong inputs
            assert exactly(outcome.error) == exactly(wanted.outcome.error)
            return
        if outcome.error is not None:
            raise AssertionError("it failed, and the general path does not") from outcome.error
        assert list(self.seen.rows) == list(wanted.rows)
        for index, row in wanted.rows.items():
            if index in self.failed:
                error = outcome.rows[index]
                assert is_failure(error), (index, error)
                assert self.is_one_of(error, self.can.errors[index]), (index, error)
                if len(self.can.errors[index]) == 1:
                    assert self.seen.rows[index] == row
            else:
                assert self.seen.rows[index] == row, index

    @property
    def is_shared(self):
        """Whether equal calls can find each other's results in the cache, so that it is open who computes."""
        is_open = self.shares or not self.is_sequential
        return self.observer.cached and self.has_twins and is_open

    def check_calls(self):
        if self.is_shared and self.may_repeat:
            assert set(self.seen.calls) == set(self.wanted.calls)
        else:
            assert self.seen.calls == self.wanted.calls

    def check_events(self):
        assert self.seen.seen.signatures == self.wanted.seen.signatures
        if Recorder not in (self.observer.outside, self.observer.inside):
            return
        one, other = self.seen.seen.events, self.wanted.seen.events
        if self.is_shared:
            if self.may_repeat:
                one, other = without_nodes(one), without_nodes(other)
            else:
                hooks = ("item_cached", "node_cached") if self.shares else ("item_cached",)
                one, other = without_items(one, hooks), without_items(other, hooks)
        assert one == other, (minus(one, other), minus(other, one))

    def check_numbers(self):
        if not self.observer.counts:
            return
        one, other = self.seen.seen.numbers, self.wanted.seen.numbers
        assert one == other, (minus(one, other), minus(other, one))
        one, other = (
            {where: split_notes(notes) for where, notes in each.seen.notes.items()}
            for each in (self.seen, self.wanted)
        )
        assert one.keys() == other.keys()
        for where, (single, batched) in one.items():
            assert single == other[where][0]
            # A batch function is one call for several items, with one context.
            assert batched.keys() == other[where][1].keys()
            assert batched <= other[where][1]

    # ---------------------------------------------------------------- where something has failed

    def check_told(self):
        """What is told must be whole: each start has its end or error, and errors are those that can be."""
        recorder = self.seen.seen.recorder
        if recorder is None:
            return
        starts = Counter()
        can = {
            (node, path, place)
            for errors in self.can.errors.values()
            for *_, path, node, items in errors
            for place in self.places(items)
        }
        for hook, what, path, items in recorder.events:
            if hook == "node_start":
                starts[what[0], path, items] += 1
            elif hook in ("node_end", "error"):
                starts[what[0], path, items] -= 1
                if hook == "error" and what[1].startswith("NodeAbandonedError"):
                    continue  # it was under way when something else failed
                if hook == "error" and what[0] in {call.function for call in self.example.spec.calls()}:
                    assert (what[0], "/".join(path), items) in can, (hook, what, path, items)
        assert not +starts, +starts

    def check_good_items(self):
        """Of items that have not failed, everything is told as on the general path."""
        recorder = self.seen.seen.recorder
        if recorder is None or self.is_shared:
            return
        ways = []
        for each in (self.seen, self.wanted):
            good = {"outside": Counter(e for e in each.seen.recorder.events if not self.is_of_failed(e))}
            ways.append(good)
        one, other = ways
        assert one == other, (minus(one, other), minus(other, one))

    def is_of_failed(self, told):
        return bool(told[3]) and told[3][0] in self.failed

    def check_bounds(self):
        """All items are counted, and so are the nodes of those that have not failed."""
        if not self.observer.counts or self.observer.outside is None:
            return
        one, other = self.seen.seen.numbers["outside"], self.wanted.seen.numbers["outside"]
        path = (self.example.spec.name,)
        assert one["items", path] == other["items", path]
        good = Counter(
            ("node", event[2], event[1][0])
            for event in self.wanted.seen.recorder.events
            if event[0] == "node_end" and not self.is_of_failed(event)
        )
        assert not good - one, good - one
        if all(len(self.can.errors[index]) == 1 for index in self.failed):
            errors, others = (
                Counter({key: n for key, n in each.items() if key[0] == "error"}) for each in (one, other)
            )
            assert errors == others


def split_notes(notes):
    """Return the notes of nodes that are called for each item, and those of nodes with a batch function."""
    batched = Counter({key: n for key, n in notes.items() if key[1] in BATCHED})
    return notes - batched, batched


def minus(one, other):
    return {where: counted - other.get(where, Counter()) for where, counted in one.items()}


def without_items(events, hooks):
    """Leave out which of equal items it was that computed, and so whether all of an item was found."""
    return {
        where: Counter((hook, what, path) for hook, what, path, _ in counted.elements() if hook not in hooks)
        for where, counted in events.items()
    }


def without_nodes(events):
    """Leave out what was computed, and what was found."""
    hooks = ("map_start", "map_end", "item_start", "item_end")
    return {
        where: Counter({key: n for key, n in counted.items() if key[0] in hooks and len(key[2]) == 1})
        for where, counted in events.items()
    }


def check(example, engines, directory):
    """Compare an example with itself on the general path."""
    can = possible(example)
    # A node that fails the first time does so for each of two equal calls, or for one: that is open.
    assume(all(count == 1 for call, count in can.calls.items() if call.startswith("flaky")))
    event("fails" if can.errors else "does not fail")
    general = {}
    for executor, observed in example.looks:
        event(f"executor {executor}")
        event(f"observer {observed}")
        observer = OBSERVERS[observed]
        if observed not in general:
            general[observed] = rounds(example, observer, HyperNodesEngine(), directory, general=True)
        every = rounds(example, observer, engines(executor), directory, general=False)
        for wanted, seen in zip(general[observed], every, strict=True):
            try:
                Comparison(example, executor, observer, wanted, seen, can).check()
            except AssertionError as error:
                error.add_note(f"on {executor!r}, observed by {observed!r}")
                raise


def repeatable(test):
    """Draw the same examples each time; by `make fuzz`, those of a seed."""
    chosen = settings(
        max_examples=COUNT,
        derandomize=SEED is None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
        print_blob=False,
    )
    return chosen(test if SEED is None else seed(int(SEED))(test))


OFTEN = ["sequential", "threaded map", "async map", "one pool", "one loop"]  # which have faster paths
EXECUTORS = st.sampled_from([*OFTEN * 3, *IN_PROCESS * 3, *SELDOM, *FUZZED])
# What is drawn first is drawn more often.
WATCHING = st.sampled_from(["counting on both", "counting with context", "recorder and cache", *OBSERVERS])


@pytest.mark.timeout(0 if SEED else 300)
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*")
@repeatable
@given(data=examples(EXECUTORS, WATCHING))
def test_random_pipelines_give_what_the_general_path_gives(data, engines):
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        try:
            check(data, engines, Path(directory))
        except Exception as error:
            if SEED is not None:
                error.add_note(f"repeat with: make fuzz SEED={SEED} N={COUNT}")
            raise
