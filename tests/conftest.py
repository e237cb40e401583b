"""What the tests have in common: engines and executors to run things on."""

from __future__ import annotations

import compileall
import os
import re
import sys
from pathlib import Path

# Worker processes import the tests' own modules, too; Ray's get nothing of sys.path, only the environment.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
)

# Daft takes one of its runners for as long as a process lives; test_daft_on_ray starts one for the other.
os.environ.setdefault("DAFT_RUNNER", "native")
os.environ["DO_NOT_TRACK"] = "1"  # for each query, Daft would send a request, in a thread of its own

import pytest
from executor_names import ALIASES
from hypothesis import HealthCheck, settings
from recorder import Recorder

import hypernodes

# Examples that are slow on a busy machine are no failures. Each run of the tests draws others.
settings.register_profile(
    "no limits of time", max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("no limits of time")


@pytest.fixture(scope="session", autouse=True)
def own_runner_of_daft():
    """Daft's runner of this process is chosen before any test can choose the other one."""
    if os.environ["DAFT_RUNNER"] == "native":
        import daft

        daft.set_runner_native()


# -------------------------------------------------------------------------------------- one Ray

SHARE_RAY = {"ray_cluster", "executor_named"}
NAMES_RAY = re.compile(r"ray|RayExecutor|ray (map|node)|(items|nodes) on Ray")  # as a parameter of a test

CLUSTERS = []
ENGINES = {}


@pytest.fixture(scope="module")
def ray_cluster():
    """The one Ray of this process, which all tests share that only need a Ray."""
    import ray
    from clusters import start_cluster

    if not ray.is_initialized():
        CLUSTERS.append(start_cluster())
    return ray


@pytest.fixture
def environment_on_ray(ray_cluster):
    """The environment of a program that uses the Ray of this process, as one of its own takes seconds."""
    return {**os.environ, "RAY_ADDRESS": ray_cluster.get_runtime_context().gcs_address}


@pytest.fixture(scope="module")
def unconnected():
    """No Ray in this process, for a module that makes clusters of its own, or connects by itself."""
    _disconnect()
    yield
    _disconnect()


@pytest.fixture(scope="session")
def daft_runner():
    """The Daft runner that this process uses, with a Ray of two hosts if it is that one."""
    if os.environ["DAFT_RUNNER"] != "ray":
        yield "native"
        return
    import ray
    from clusters import SMALL_HOST, start_cluster

    cluster = start_cluster(**SMALL_HOST)
    cluster.add_node(num_cpus=1, resources={"kiln": 1}, **SMALL_HOST)
    yield "ray"
    ray.shutdown()
    cluster.shutdown()


def pytest_sessionfinish():
    _disconnect()


def _disconnect():
    ray = sys.modules.get("ray")
    for key in [key for key in ENGINES if key[1] == "ray"]:
        ENGINES.pop(key).shutdown()
    if ray is not None and ray.is_initialized():
        ray.shutdown()
    while CLUSTERS:
        CLUSTERS.pop().shutdown()


LONGEST = (
    *("test_daft_on_ray", "test_cluster_files", "test_cache_cluster", "test_ray_cluster", "test_daft_engine"),
    *("test_store_attacks", "test_fuzz", "test_daft_matrix", "test_interrupt", "test_store", "test_pages"),
    *("test_pictures", "test_traps", "test_ray_connection", "test_state", "test_odd_values"),
    # Those that share a Ray:
    *("test_executors_matrix", "test_ray_pipelines", "test_daft_examples", "test_ray_executor"),
    *("test_surroundings", "test_imap", "test_worker_code", "test_telemetry", "test_single_computation"),
    *("test_docs", "test_process_executors", "test_timeouts", "test_errors", "test_example"),
    *("test_paths_agree", "test_iterators", "test_cancelling", "test_logs", "test_node"),
)
"""The files that take longest, which begin in this order: otherwise a worker could be left with one."""


def pytest_configure(config):
    """Compile once what all processes import: the modules of the package, and the tests."""
    if hasattr(config, "workerinput"):
        return
    if sys.dont_write_bytecode:
        for folder in (Path(hypernodes.__file__).parent, Path(__file__).parent):
            compileall.compile_dir(folder, quiet=2)
    if config.getoption("assertmode") == "rewrite" and config.getoption("numprocesses", None):
        rewrite_asserts(config)


def rewrite_asserts(config):
    """Rewrite the asserts of all tests once, which takes four seconds: each worker of xdist would do it."""
    from _pytest.assertion import rewrite

    for file in Path(__file__).parent.glob("test_*.py"):
        kept = rewrite.get_cache_dir(file) / f"{file.stem}{rewrite.PYC_TAIL}"
        if rewrite._read_pyc(file, kept) is None and rewrite.try_makedirs(kept.parent):
            stat, code = rewrite._rewrite_test(file, config)
            rewrite._write_pyc(config.stash[rewrite.assertstate_key], code, stat, kept)


def pytest_collection_modifyitems(items):
    """Begin with the files that want no Ray in this process, and end with those that share one.

    So all others run as they do where there is none, on each worker of xdist, too, which takes whole files.
    """
    shares_ray = {}
    for item in items:
        given = getattr(item, "callspec", None)
        uses = SHARE_RAY & set(getattr(item, "fixturenames", ()))
        shares = bool(uses or (given and any(map(NAMES_RAY.fullmatch, map(str, given.params.values())))))
        shares_ray[item.path] = shares or shares_ray.get(item.path, False)

    def turn(item):
        stem = item.path.stem
        return shares_ray[item.path], LONGEST.index(stem) if stem in LONGEST else len(LONGEST)

    items.sort(key=turn)


# ------------------------------------------------------------------------------------- executors


@pytest.fixture(scope="session")
def process_pool():
    """Two worker processes that tests share, as each takes a second to start."""
    from hypernodes import ParallelExecutor

    with ParallelExecutor(2) as pool:
        yield pool


@pytest.fixture(scope="module")
def executor_named(request):
    """Make executors by name; they live as long as the tests of the module.

    The name "parallel" stands for `process_pool`, too: an engine with that alias starts processes of its own.
    """
    made, undo = {}, []

    def make(name):
        if name in ("parallel", "ParallelExecutor"):
            return request.getfixturevalue("process_pool")
        if name in ("ray", "RayExecutor"):
            request.getfixturevalue("ray_cluster")
        if name in ALIASES:
            return name
        if name not in made:
            made[name] = _make(name, undo)
        return made[name]

    yield make
    for close in undo:
        close()


@pytest.fixture(scope="session")
def shared_engines():
    """The engines that all tests share, by level and alias."""
    yield ENGINES
    while ENGINES:
        ENGINES.popitem()[1].shutdown()


@pytest.fixture(scope="module")
def engine_on(request, shared_engines):
    """Make engines by level and alias, each once for all tests: processes take long to start."""
    from hypernodes import HyperNodesEngine

    def make(level, alias):
        if alias == "ray":
            request.getfixturevalue("ray_cluster")
        if (level, alias) not in shared_engines:
            shared_engines[level, alias] = HyperNodesEngine(**{level: alias})
        return shared_engines[level, alias]

    return make


def _make(name, undo):
    from concurrent.futures import ThreadPoolExecutor

    from hypernodes import AsyncExecutor, RayExecutor

    match name:
        case "loky":
            from loky import get_reusable_executor

            executor = get_reusable_executor(max_workers=2)
            undo.append(lambda: executor.shutdown(wait=True, kill_workers=True))
            return executor
        case "dask":
            from distributed import Client

            client = Client(n_workers=1, threads_per_worker=2, processes=True, dashboard_address=":0")
            undo.append(client.close)
            return client.get_executor()
        case "AsyncExecutor":
            executor = AsyncExecutor(3)
        case "ThreadPoolExecutor":
            executor = ThreadPoolExecutor(2)
        case "RayExecutor":
            executor = RayExecutor(2)
    undo.append(executor.shutdown)
    return executor


@pytest.fixture(scope="session")
def expected(tmp_path_factory):
    """What the general path shows of a case of the matrix, which is what all others must show."""
    from observers import look_generally

    known = {}

    def look(name, observed):
        if (name, observed) not in known:
            known[name, observed] = look_generally(name, observed, tmp_path_factory.mktemp("general") / "p")
        return known[name, observed]

    return look


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture(params=["unwatched", "told", "cached"])
def watched(request, tmp_path):
    """Each test with a compiled plan, and with one that goes node by node."""
    from hypernodes import DiskCache

    match request.param:
        case "unwatched":
            return lambda pipeline: pipeline
        case "told":
            return lambda pipeline: pipeline.with_callbacks([Recorder()])
        case "cached":
            return lambda pipeline: pipeline.with_cache(DiskCache(tmp_path / "cache"))
