"""RayMetrics: items and calls, as the Prometheus endpoint of a host shows them."""

import re
import time
from urllib.request import urlopen

import pytest
import ray
from clusters import start_cluster

from hypernodes import HyperNodesEngine, Pipeline, RayMetrics, node
from hypernodes.exceptions import TelemetryWarning


@pytest.fixture(scope="module")
def cluster(unconnected):
    made = start_cluster(has_metrics=True, _system_config={"metrics_report_interval_ms": 500})
    yield made
    ray.shutdown()
    made.shutdown()


@node(output_name="y")
def reciprocal(x):
    return 1 / x


@node(output_name="z")
def double(y):
    return 2 * y


def counted():
    """Return the counters of the library at the endpoint of the driver's host, by name and tags."""
    host = ray.nodes()[0]
    address = f"http://{host['NodeManagerAddress']}:{host['MetricsExportPort']}/metrics"
    with urlopen(address, timeout=10) as answer:
        lines = answer.read().decode().replace(r"\\", "\\").splitlines()
    found = {}
    for line in lines:
        if line.startswith("ray_hypernodes_"):
            tags = dict(re.findall(r'(pipeline|node|state)="([^"]*)"', line))
            name = line.split("_total{")[0].removeprefix("ray_hypernodes_")
            key = (name, tags["pipeline"], tags.get("node", ""), tags["state"])
            found[key] = found.get(key, 0) + float(line.rsplit(" ", 1)[1])
    return found


@pytest.mark.parametrize("executor", ["ray", "threaded"])
def test_items_and_calls_are_counted_by_pipeline_and_node(cluster, executor):
    inner = Pipeline([double], name="größer")  # Ray takes ASCII only.
    pipeline = Pipeline([reciprocal, inner], name=f"numbers on {executor}", callbacks=[RayMetrics()])
    with HyperNodesEngine(map_executor=executor) as engine:
        pipeline.with_engine(engine).map({"x": range(100)}, map_over="x", on_error="return")
    name = pipeline.name
    expected = {
        ("items", name, "", "done"): 99,
        ("items", name, "", "failed"): 1,
        ("calls", name, "reciprocal", "done"): 99,
        ("calls", name, "reciprocal", "failed"): 1,
        ("calls", name, r"gr\xf6\xdfer", "done"): 99,
        ("calls", rf"{name}/gr\xf6\xdfer", "double", "done"): 99,
    }
    end = time.monotonic() + 60
    found = {}
    while found != expected and time.monotonic() < end:
        time.sleep(0.2)
        found = {key: number for key, number in counted().items() if key[1].startswith(name)}
    assert found == expected


def test_without_a_connection_to_ray_a_warning_says_that_nothing_is_counted(unconnected):
    if ray.is_initialized():
        ray.shutdown()
    watched = Pipeline([double], name="p", callbacks=[RayMetrics()])
    with pytest.warns(
        TelemetryWarning, match="RayMetrics counts nothing, since this process is not connected"
    ):
        assert watched.run({"y": 1}) == {"z": 2}
