"""The rules of the scheduler in virtual time, which no busy machine changes: see benchmarks/simulate.py."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

from simulated_cluster import Conditions, Constants, simulate
from simulated_work import flat, item_name, nested

CONSTANTS = Constants(
    chunk_s=0.0009,
    item_s=3e-7,
    byte_s=1e-9,
    ray_s=0.0006,
    task_s=0.0016,
    trip_s=0.0005,
    worker_start_s=2.0,
    death_s=0.05,
    look_up_s=3e-5,
    actor_call_s=0.0016,
    actor_entry_s=1e-4,
    actor_byte_s=7e-9,
)


def simulated(items, workers, depth=0, **conditions):
    pipeline = nested(depth) if depth else flat()
    return simulate(pipeline, item_name(depth), items, Conditions(workers, **conditions), CONSTANTS)


@pytest.mark.parametrize(
    "conditions", [{"deaths_per_hour": 100.0}, {"cache_hits": 0.5}, {"cold_workers": True}]
)
def test_the_same_seed_gives_the_same_figures(conditions):
    items = [1.0 + number / 1e6 for number in range(400)]
    assert simulated(items, 8, **conditions) == simulated(items, 8, **conditions)
    if "cold_workers" not in conditions:
        assert simulated(items, 8, **conditions) != simulated(items, 8, **conditions, seed=1)


@pytest.mark.parametrize(("workers", "busy"), [(1, 0.96), (2, 0.96), (8, 0.95), (24, 0.95), (100, 0.87)])
def test_a_flat_map_keeps_workers_busy_with_a_second_of_short_items_each(workers, busy):
    assert simulated([0.02] * (50 * workers), workers).busy >= busy


@pytest.mark.parametrize(
    ("items", "depth", "workers", "busy"),
    [
        ([[0.02] * 2] * 200, 1, 8, 0.95),
        ([[0.02] * 200] * 2, 1, 8, 0.94),
        ([[0.02] * 2] * 200, 1, 24, 0.86),  # 9 items of 40 ms for some workers, 8 for others: 93 % at best
        ([[0.02] * 200] * 2, 1, 24, 0.88),
        ([[0.2] * 2] * 200, 1, 24, 0.9),
        ([[0.2] * 200] * 2, 1, 24, 0.95),
        ([[[0.02] * 2] * 200] * 2, 2, 24, 0.9),
        ([[[0.02] * 200] * 2] * 2, 2, 24, 0.9),
        ([[0.02] * 200, *[[0.02]] * 6], 1, 8, 0.85),  # one outer item has nearly all inner items
    ],
)
def test_nested_maps_keep_workers_busy(items, depth, workers, busy):
    assert simulated(items, workers, depth).busy >= busy


def test_a_thousand_workers_are_busy_and_leave_the_driver_half_of_its_time():
    report = simulated([1.0] * 20_000, 1_000)
    assert report.busy >= 0.95
    assert report.driver <= 0.6
    report = simulated([0.1] * 100_000, 1_000)
    assert report.busy >= 0.88
    assert report.driver <= 0.6
    nested_report = simulated([[1.0] * 5_000] * 2, 1_000, 1)
    assert nested_report.busy >= 0.9


def test_ten_thousand_workers_get_chunks_that_one_driver_can_send():
    report = simulated([2.0] * 60_000, 10_000)
    assert report.busy >= 0.58  # the driver needs 5 of the 12 s to send each worker its first chunk
    assert report.chunks <= 20_000


@pytest.mark.parametrize("workers", [24, 1_000])
def test_items_whose_first_results_are_the_short_ones_are_not_taken_for_short_items(workers):
    """The first outcomes to arrive are those of short items; chunks that trust them would be far too long."""
    items = [0.01, 0.19] * (50 * workers)
    assert simulated(items, workers).busy >= (0.95 if workers == 24 else 0.85)


def test_a_map_of_several_nested_maps_sends_no_more_chunks_than_one_of_all_their_items():
    one = simulated([0.02] * 1_600, 8)
    several = simulated([[0.02] * 400] * 4, 8, 1)
    assert several.chunks <= one.chunks * 1.4 + 8


def test_a_nested_map_that_fails_leaves_the_others_their_share():
    """The items that a failed map has left count no longer, and its chunks hold up nothing."""
    fails = -1.0
    items = [[0.1] * 50 + [fails] + [0.1] * 2_000, [0.1] * 400, [0.1] * 400]
    report = simulated(items, 8, 1)
    assert report.lost == 1
    assert report.seconds <= 1.35 * 0.1 * (2 * 400 + 150) / 8


def test_workers_that_die_cost_time_and_no_items():
    report = simulated([1.0] * 2_000, 100, deaths_per_hour=20.0)
    assert report.deaths > 3
    assert report.lost == 0
    assert report.busy >= 0.8


def test_what_a_cache_has_is_not_computed_and_the_actor_gets_a_few_calls_for_each_chunk():
    items = [1.0 + number / 1e6 for number in range(500)]
    none, half = simulated(items, 10, cache_hits=0.0), simulated(items, 10, cache_hits=0.5)
    assert 0.4 * none.seconds <= half.seconds <= 0.65 * none.seconds
    assert half.actor <= none.actor * 1.2 <= 0.1


def test_one_host_with_few_cores_is_the_limit_of_many_sleeping_workers():
    items = [[0.02] * 200] * 2
    assert simulated(items, 24, 1, host_cores=2).busy < simulated(items, 24, 1).busy
