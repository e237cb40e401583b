"""A Ray whose object store and disk are full: only the items fail whose values have no room."""

import numpy as np
import pytest
import ray
from clusters import SMALL_HOST, start_cluster

from hypernodes import HyperNodesEngine, ObjectStoreFullError, Pipeline, node

MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def small_store(unconnected):
    """A cluster with room for 80 MB, which takes the disk for full."""
    full = {"local_fs_capacity_threshold": 0.01}
    made = start_cluster(_system_config=full, object_store_memory=80 * MEGABYTE, **SMALL_HOST)
    yield made
    ray.shutdown()
    made.shutdown()


def large(x):
    return np.full((160 if x == 3 else 12) * MEGABYTE // 8, float(x))


@pytest.fixture(params=["map_executor", "node_executor"])
def pipeline(request, small_store):
    with HyperNodesEngine(**{request.param: "ray"}) as engine:
        yield Pipeline([node(large, output_name="y")], engine=engine, name="full")


@pytest.mark.timeout(120)
def test_only_the_item_fails_whose_value_has_no_room(pipeline):
    rows = pipeline.map({"x": range(10)}, map_over="x", on_error="return")["y"]  # 270 MB together
    error = rows.pop(3)
    assert [row[0] for row in rows] == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert isinstance(error, ObjectStoreFullError)
    assert "a larger object_store_memory" in str(error)
    assert "item 3" in error.__notes__[0]
    assert "node 'large'" in error.__notes__[0]
    with pytest.raises(ObjectStoreFullError):
        pipeline.map({"x": [2, 3]}, map_over="x")


@pytest.mark.timeout(120)
def test_a_stream_of_more_than_the_store_can_hold_has_every_value(pipeline):
    found = [outputs["y"][0] for _, outputs in pipeline.imap({"x": [*range(3), *range(4, 14)]}, map_over="x")]
    assert found == [*range(3), *range(4, 14)]
