"""Options are checked when a thing is made: each error names the option and its value."""

import logging
import math
import tempfile
from datetime import timedelta
from functools import partial

import numpy as np
import pytest

from hypernodes import (
    AsyncExecutor,
    DaftEngine,
    DiskCache,
    HyperNodesEngine,
    LoggingCallback,
    ParallelExecutor,
    Pipeline,
    PipelineCallback,
    ProgressCallback,
    RayExecutor,
    RunReport,
    TelemetryCallback,
    node,
)
from hypernodes.exceptions import CacheWarning, HyperNodesError
from hypernodes.testing import check_batch

NUMBERS = (-1, 0, 1, 1.5, math.nan, math.inf)
OTHERS = (None, True, *NUMBERS, "1", b"1", ["a"], {"a": 1}, object(), int, OSError())
"""Values of all kinds; what an option takes of them is named beside it."""

POWER = Pipeline([node(abs, output_name="size")], name="power")


def a_node(**options):
    return node(lambda x: x, output_name="y", **options)


def a_map(**options):
    return POWER.map({"x": [1]}, **{"map_over": "x", **options})


def a_stream(**options):
    return list(POWER.imap({"x": [1]}, **{"map_over": "x", **options}))


def a_cache(**options):
    return DiskCache(**{"path": tempfile.mkdtemp(), **options})


def a_picture(**options):
    return POWER.visualize(**{"return_type": "mermaid", **options})


FLAG = (True,)
COUNT = (1,)
TEXT = ("1",)
OR_NONE = (None,)

TABLE = [
    (a_node, "cache", FLAG),
    (a_node, "cache_version", (None, -1, 0, 1, "1")),
    (a_node, "retries", (0, 1)),
    (a_node, "retry_on", ()),
    (a_node, "timeout", (None, 1, 1.5)),
    (a_node, "num_cpus", (None, 0, 1, 1.5)),
    (a_node, "num_gpus", (None, 0, 1, 1.5)),
    (a_node, "memory", (None, 0, 1, 1.5)),
    (a_node, "resources", (None, {"a": 1})),
    (a_node, "batch", OR_NONE),
    (partial(Pipeline, POWER.nodes), "engine", OR_NONE),
    (partial(Pipeline, POWER.nodes), "cache", OR_NONE),
    (partial(Pipeline, POWER.nodes), "callbacks", OR_NONE),
    (partial(Pipeline, POWER.nodes), "name", (None, "1")),
    (partial(Pipeline, POWER.nodes), "strict", FLAG),
    (POWER.with_engine, "engine", OR_NONE),
    (POWER.with_cache, "cache", OR_NONE),
    (POWER.with_callbacks, "callbacks", OR_NONE),
    (POWER.with_name, "name", TEXT),
    (POWER.as_node, "input_mapping", OR_NONE),
    (POWER.as_node, "output_mapping", OR_NONE),
    (POWER.as_node, "map_over", OR_NONE),
    (POWER.as_node, "map_mode", ()),
    (POWER.as_node, "name", (None, "1")),
    (a_map, "map_over", ()),
    (a_map, "map_mode", ()),
    (a_map, "output_name", OR_NONE),
    (a_map, "on_error", ()),
    (a_stream, "map_over", ()),
    (a_stream, "ordered", FLAG),
    (a_picture, "orient", ()),
    (a_picture, "depth", (None, 1)),
    (partial(a_picture, depth=None), "flatten", FLAG),
    (a_picture, "min_arg_group_size", COUNT),
    (a_picture, "show_legend", FLAG),
    (a_picture, "show_types", FLAG),
    (a_picture, "theme", ()),
    (a_picture, "return_type", ()),
    (a_picture, "run", OR_NONE),
    (POWER.visualize, "filename", OR_NONE),
    (HyperNodesEngine, "node_executor", OR_NONE),
    (HyperNodesEngine, "map_executor", OR_NONE),
    (DaftEngine, "collect", FLAG),
    (DaftEngine, "show_plan", FLAG),
    (DaftEngine, "debug", FLAG),
    (partial(DaftEngine, runner=None), "runner", OR_NONE),
    (DaftEngine, "batch_size", (None, 1)),
    (DaftEngine, "concurrency", (None, 1)),
    (AsyncExecutor, "max_concurrent", COUNT),
    (AsyncExecutor, "initializer", (None, int)),
    (partial(AsyncExecutor, initializer=len), "initargs", (["a"],)),
    (ParallelExecutor, "max_workers", (None, 1)),
    (ParallelExecutor, "initializer", (None, int)),
    (partial(ParallelExecutor, initializer=len), "initargs", (["a"],)),
    (RayExecutor, "max_workers", (None, 1)),
    (RayExecutor, "num_cpus", (None, 0, 1, 1.5)),
    (RayExecutor, "num_gpus", (None, 0, 1, 1.5)),
    (RayExecutor, "memory", (None, 0, 1, 1.5)),
    (RayExecutor, "resources", (None, {"a": 1})),
    (RayExecutor, "runtime_env", (None, {"a": 1})),
    (RayExecutor, "max_retries", (0, 1)),
    (RayExecutor, "address", OR_NONE + TEXT),
    (RayExecutor, "initializer", (None, int)),
    (partial(RayExecutor, initializer=len), "initargs", (["a"],)),
    (RayExecutor, "autoscaling", FLAG),
    (DiskCache, "path", ("1",)),
    (a_cache, "size_limit", (None, 1, 1.5, "1")),
    (a_cache, "key", (None, "1", b"1")),
    (a_cache, "expire", (None, 1, 1.5)),
    (LoggingCallback, "logger", OR_NONE),
    (LoggingCallback, "level", (-1, 0, 1)),
    (LoggingCallback, "to", OR_NONE + TEXT),
    (LoggingCallback, "json", FLAG),
    (LoggingCallback, "items", FLAG),
    (LoggingCallback, "label", FLAG),
    (ProgressCallback, "display", ()),
    (TelemetryCallback, "tracer_provider", OR_NONE),
    (TelemetryCallback, "meter_provider", OR_NONE),
    (TelemetryCallback, "endpoint", OR_NONE),
    (TelemetryCallback, "sample_items", (None, 0, 1)),
    (partial(check_batch, a_node(batch=lambda x: x), {"x": [1]}), "tolerance", (0, 1, 1.5)),
]


def is_among(value, known):
    return any(type(value) is type(other) and value == other for other in known)


def short_name(value):
    """Return the same id in every process: the repr of a function has its address."""
    made = getattr(value, "func", value)
    return getattr(made, "__name__", None) or str(value)[:40]


@pytest.mark.parametrize(("make", "option", "taken"), TABLE, ids=short_name)
def test_an_option_refuses_what_it_does_not_take(make, option, taken, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # some options are paths
    positional = {"engine", "cache", "callbacks", "name"} if make in WITH_METHODS else set()
    for value in OTHERS:
        arguments = ((value,), {}) if option in positional else ((), {option: value})
        if is_among(value, taken):
            made = make(*arguments[0], **arguments[1])
            if hasattr(made, "shutdown"):
                made.shutdown()
            continue
        with pytest.raises((ValueError, TypeError)) as raised:
            make(*arguments[0], **arguments[1])
        words = (option, option.removesuffix("_name").removesuffix("name"), "endpoint=")
        assert any(word in str(raised.value) for word in words), value


WITH_METHODS = (POWER.with_engine, POWER.with_cache, POWER.with_callbacks, POWER.with_name)


@pytest.mark.parametrize(
    ("make", "option"),
    [
        (a_node, "retries"),
        (partial(Pipeline, POWER.nodes), "strict"),
        (a_picture, "min_arg_group_size"),
        (a_cache, "size_limit"),
        (RayExecutor, "max_retries"),
    ],
)
def test_the_error_of_an_option_is_one_of_the_library(make, option):
    with pytest.raises(HyperNodesError, match=option):
        make(**{option: "many"})


@pytest.mark.parametrize("address", [5, True, ["host:1"], b"host:1", object()])
def test_an_address_of_a_cluster_is_a_text(address):
    """An address that is one chooses the runner of Daft, for as long as this process lives."""
    with pytest.raises(HyperNodesError, match="address must be a text"):
        DaftEngine(address=address)


# ------------------------------------------------------------------------------ what they take in many forms


class Early(Exception):
    pass


@pytest.mark.parametrize(
    "kinds", [OSError, (OSError,), [OSError, Early], {OSError}, frozenset((OSError,)), iter([OSError])]
)
def test_retry_on_takes_any_sequence_of_types(kinds):
    calls = []

    def flaky(x):
        calls.append(x)
        if len(calls) == 1:
            raise OSError(x)
        return x

    assert Pipeline([node(flaky, output_name="y", retries=1, retry_on=kinds)]).run({"x": 1}) == {"y": 1}


def test_the_users_error_is_raised_whatever_form_retry_on_has():
    def wrong(x):
        raise KeyError(x)

    made = node(wrong, output_name="y", retries=1, retry_on=[OSError])
    with pytest.raises(KeyError):
        Pipeline([made]).run({"x": 1})


def test_durations_are_numbers_or_timedeltas():
    assert a_node(timeout=timedelta(minutes=1)).timeout == 60
    assert a_node(timeout=np.float32(1.5)).timeout == 1.5
    assert a_cache(expire=timedelta(days=1)).expire == 86_400
    for wrong in (timedelta(0), timedelta(days=-1)):
        with pytest.raises(ValueError, match="expire must be"):
            a_cache(expire=wrong)


def test_an_entry_expires_after_a_timedelta(tmp_path):
    with DiskCache(tmp_path, expire=timedelta(hours=1)) as cache:
        cache.put("a", 1)
        assert cache.get("a") == 1


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1GB", 10**9),
        ("1 gb", 10**9),
        ("1.5G", 15 * 10**8),
        ("2GiB", 2 * 2**30),
        ("500 MB", 5 * 10**8),
        ("10KiB", 10_240),
        ("3 tb", 3 * 10**12),
        ("100", 100),
        ("100B", 100),
        (1e9, 10**9),
        (np.int64(5), 5),
    ],
)
def test_a_size_limit_is_a_number_or_a_text(text, size):
    assert a_cache(size_limit=text).size_limit == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "1XB", "1 G B", "0GB", "1e9", "one"])
def test_a_size_limit_that_cannot_be_read_is_an_error(text):
    with pytest.raises(ValueError, match="size_limit must be a number of bytes"):
        a_cache(size_limit=text)


def test_numbers_of_numpy_are_numbers():
    assert a_node(retries=np.int64(2), num_cpus=np.float64(1.5)).retries == 2
    AsyncExecutor(np.int32(2)).shutdown()
    assert "flowchart" in a_picture(depth=None, flatten=np.True_)


@pytest.mark.parametrize("callbacks", [RunReport(), [RunReport], RunReport, ["report"], "report", [None], {}])
def test_callbacks_are_a_list_of_objects(callbacks):
    with pytest.raises(ValueError, match="callback"):
        Pipeline(POWER.nodes, callbacks=callbacks)


def test_callbacks_in_any_sequence_are_taken():
    class Seen(PipelineCallback):
        def __init__(self):
            self.nodes = []

        def on_node_end(self, node_id, outputs, duration, ctx):
            self.nodes.append(node_id)

    seen = Seen()
    for callbacks in ([seen], (seen,), iter([seen])):
        Pipeline(POWER.nodes, callbacks=callbacks).run({"x": -1})
    assert seen.nodes == ["abs"] * 3


def test_a_logger_may_have_a_level_by_name():
    LoggingCallback(logging.getLogger("a"), "DEBUG")
    with pytest.raises(ValueError, match="unknown level"):
        LoggingCallback(level="LOUD")


# ------------------------------------------------------------------------------------ a cache of one's own


def cache_that_returns_none():
    class Forgetful:
        def __init__(self):
            self.entries = {}

        def get(self, signature):
            return self.entries.get(signature)

        def put(self, signature, value):
            self.entries[signature] = value

    return Forgetful()


def test_a_cache_that_returns_none_for_a_miss_warns_once_and_serves():
    cache = cache_that_returns_none()
    pipeline = Pipeline([node(abs, output_name="y"), node(lambda y: None, output_name="z")], cache=cache)
    with pytest.warns(CacheWarning, match=r"returns None, .* hypernodes.config.MISS") as caught:
        assert pipeline.run({"x": -1}) == {"y": 1, "z": None}
        assert pipeline.map({"x": [-1, -2]}, map_over="x") == {"y": [1, 2], "z": [None, None]}
        assert pipeline.explain({"x": -3})["abs"].status == "miss"
        assert Pipeline([node(abs, output_name="other")], cache=cache).run({"x": -5}) == {"other": 5}
    assert len(caught) == 1
    assert [verdict.status for verdict in pipeline.explain({"x": -1})] == ["hit", "hit"]


ONE_NODE = partial(node, abs, output_name="size")
SIZES = Pipeline([ONE_NODE()], name="sizes")


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (ONE_NODE, {"retry_delay": 1.0}, "node 'abs': retry_delay has no effect without retries"),
        (ONE_NODE, {"retry_delay": [1, 2]}, "node 'abs': retry_delay has no effect without retries"),
        (ONE_NODE, {"retry_on": OSError}, "node 'abs': retry_on has no effect without retries"),
        (AsyncExecutor, {"initargs": (1,)}, "initargs=.* are the arguments of an initializer"),
        (ParallelExecutor, {"initargs": (1,)}, "initargs=.* are the arguments of an initializer"),
        (RayExecutor, {"initargs": (1,)}, "initargs=.* are the arguments of an initializer"),
        (SIZES.as_node, {"map_mode": "product"}, "map_mode='product' is an option of a map"),
        (SIZES.as_node, {"on_error": "return"}, "on_error='return' is an option of a map"),
        (
            SIZES.explain,
            {"inputs": {"x": 1}, "map_mode": "product"},
            "map_mode='product' is an option of a map",
        ),
        (SIZES.validate, {"inputs": {"x": 1}, "map_mode": "product"}, "map_mode='product' is an option of"),
        (SIZES.visualize, {"flatten": True}, "depth=1 expands none"),
    ],
    ids=short_name,
)
def test_an_option_without_the_one_that_it_belongs_to_is_an_error_where_it_is_given(make, options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"retries": 0, "retry_delay": 1, "retry_on": OSError},
        {"retry_delay": None},
        {"retries": 2, "retry_delay": 1},
    ],
)
def test_an_option_may_be_given_when_the_one_that_it_belongs_to_is_switched_off(options):
    assert Pipeline([ONE_NODE(**options)]).run({"x": -1}) == {"size": 1}
