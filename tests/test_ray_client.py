"""Pipelines of a process that is connected to a cluster by Ray Client: ``ray.init("ray://...")``."""

import os
import socket
import subprocess
import sys
import time

import pytest

PROGRAM = """
import sys
import ray
from hypernodes import DiskCache, HyperNodesEngine, Pipeline, PipelineCallback, RayExecutor, node

class Count(PipelineCallback):
    def __init__(self):
        self.computed, self.cached = 0, 0
    def on_node_end(self, *event):
        self.computed += 1
    def on_node_cached(self, *event):
        self.cached += 1

@node(output_name="y")
def double(x):
    return 2 * x

@node(output_name="z")
def add(x, y):
    return x + y

@node(output_name="never")
def fail(x):
    raise ValueError(f"no {x}")

def show(engine, cache):
    pipeline = Pipeline([double, add], engine=engine, name="sums")
    print(pipeline.run({"x": 1}))
    print(pipeline.map({"x": range(100)}, "x", output_name="z")["z"][-2:])
    print(list(pipeline.imap({"x": iter(range(3))}, "x", output_name="z")))
    nested = Pipeline([pipeline.as_node({"xs": "x"}, {"z": "zs", "y": "ys"}, map_over="xs")], name="all")
    for given, over in (({"x": [1, 2, 3]}, "x"), ({"xs": [[4, 5], [6]]}, "xs")):
        for _ in range(2):
            count = Count()
            made = pipeline if over == "x" else nested.with_engine(engine)
            made.with_cache(cache).with_callbacks([count]).map(given, over)
            print(over, count.computed, count.cached)
    print(Pipeline([fail], engine=engine, name="fails").map({"x": [1]}, "x", on_error="return"))

ray.init(sys.argv[1], logging_level="error", log_to_driver=False)
for level in ("map_executor", "node_executor"):
    with HyperNodesEngine(**{level: "ray"}) as engine, DiskCache(f"{sys.argv[2]}/{level}") as cache:
        show(engine, cache)
with RayExecutor() as executor:
    print(executor.submit(pow, executor.submit(abs, -3), 2).result(60))
    try:
        RayExecutor(runtime_env={"working_dir": "."}).submit(abs, -1)
    except ConnectionError as error:
        print(error)
ray.shutdown()
"""

OF_AN_ENGINE = """\
{'y': 2, 'z': 3}
[294, 297]
[(0, {'z': 0}), (1, {'z': 3}), (2, {'z': 6})]
x 6 0
x 0 6
xs 8 0
xs 2 6
{'never': [ValueError('no 1')]}
"""


@pytest.fixture(scope="module")
def client_server(ray_cluster, tmp_path_factory):
    """The address of a server for clients, which is a process of its own on the Ray of the tests."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (tmp_path_factory.mktemp("server") / "log").open("w")
    cluster = ray_cluster.get_runtime_context().gcs_address
    module, where = "ray.util.client.server", ("--host", "127.0.0.1", "--port", str(port))
    server = subprocess.Popen(
        [sys.executable, "-m", module, "--mode", "legacy", "--address", cluster, *where],
        stdout=log,
        stderr=log,
    )
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            break
        except OSError:
            assert server.poll() is None, "the server has ended"
            time.sleep(0.1)
    yield f"ray://127.0.0.1:{port}"
    server.terminate()
    server.wait(30)
    log.close()


def run_client(code, *arguments, start=()):
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return subprocess.run(
        [*start, sys.executable, "-W", "default", "-c", code, *map(str, arguments)],
        capture_output=True,
        env=environment,
        encoding="utf-8",
        check=False,
        timeout=100,
    )


def test_pipelines_and_caches_work_through_a_client(client_server, tmp_path):
    done = run_client(PROGRAM, client_server, tmp_path)
    assert done.returncode == 0, done.stderr
    printed, refused = done.stdout.split("9\n", 1)[0], done.stdout.splitlines()[-1]
    assert printed == OF_AN_ENGINE * 2, done.stderr
    assert "Ray Client, which uploads directories only when it connects" in refused
    assert "CacheWarning" not in done.stderr


OUTSIDE = """
import sys, warnings
import ray
from hypernodes import DiskCache, HyperNodesEngine, Pipeline, node

ray.init(sys.argv[1], logging_level="error", log_to_driver=False)
pipeline = Pipeline([node(abs, output_name="size")], engine=HyperNodesEngine(map_executor="ray"))
for options in ({}, {"remote": f"file://{sys.argv[2]}/tier"}):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with DiskCache(f"{sys.argv[2]}/{len(options)}", **options) as cache:
            print(pipeline.with_cache(cache).map({"x": [-1, 2]}, "x"))
    print(*(str(one.message) for one in caught if one.category.__name__ == "CacheWarning"))
"""


def test_a_cache_on_a_host_outside_the_cluster_says_where_workers_keep_results(client_server, tmp_path):
    start = (
        "unshare",
        "--user",
        "--map-root-user",
        "--uts",
        "sh",
        "-c",
        'hostname elsewhere; exec "$@"',
        "sh",
    )
    if subprocess.run([*start, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system has no namespaces for host names")
    done = run_client(OUTSIDE, client_server, tmp_path, start=start)
    assert done.returncode == 0, done.stderr
    plain, warning, tiered, nothing = done.stdout.split("\n")[:4]
    assert plain == tiered == "{'size': [1, 2]}"
    assert "is on a host outside the Ray cluster" in warning
    assert "Give the cache a remote tier" in warning
    assert nothing == ""
