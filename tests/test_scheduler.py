"""The scheduler by hand: no executor, no cache, no threads. A test answers each job itself."""

import pickle

import pytest
from recorder import Recorder

from hypernodes import Pipeline, node
from hypernodes.exceptions import WorkerDiedError
from hypernodes.execution.jobs import Call, Chunk, ChunkOutcome, Failure, Found, LookUp, Outcome
from hypernodes.execution.plan.build import build_plan
from hypernodes.execution.plan.placement import Capabilities, Placement, TargetRef
from hypernodes.execution.scheduler.chunk_size import Measured, chunk_size
from hypernodes.execution.scheduler.run import Run
from hypernodes.execution.scheduler.worker_death import divided
from hypernodes.execution.signature import fingerprint_plan


class NoCache:
    """A cache that must not be asked: looking up is the driver's business."""

    def get(self, signature):
        raise AssertionError("the scheduler asked the cache")

    put = get


class Workers:
    """What the scheduler may know of a target."""

    workers, max_retries = 2, 1

    def chunk_items(self, total):
        raise AssertionError("this target does not gather")


@node(output_name="b")
def double(a):
    raise AssertionError("the scheduler called a node")


@node(output_name="c")
def add(a, b):
    raise AssertionError("the scheduler called a node")


PIPELINE = Pipeline([double, add], name="sums")
ELSEWHERE = TargetRef.new("elsewhere", Capabilities())


def planned(pipeline, given, *, mapped=False, placement=Placement()):
    return build_plan(pipeline, given, None, placement, mapped=mapped).plan


def test_a_run_hands_out_calls_and_follows_from_their_outcomes():
    run = Run.once(planned(PIPELINE, ["a"]), {"a": 2})
    first = run.ready()
    assert isinstance(first, Call)
    assert (first.step.name, first.arguments) == ("double", {"a": 2})
    assert run.ready() is None
    run.begin(first.key)
    run.settle(first.key, Outcome((4,)))
    second = run.ready()
    assert (second.step.name, second.arguments) == ("add", {"a": 2, "b": 4})
    run.begin(second.key)
    run.settle(second.key, Outcome((6,)))
    assert run.ready() is None
    assert run.is_over
    assert run.result == {"b": 4, "c": 6}


def test_an_error_ends_a_run_and_what_is_under_way_is_wanted_no_longer():
    wide = Pipeline([double, node(lambda a: a, output_name="d")], name="wide")
    run = Run.once(planned(wide, ["a"]), {"a": 2})
    first, second = run.ready(), run.ready()
    run.begin(first.key)
    run.begin(second.key)
    error = ValueError("no")
    run.settle(first.key, Outcome((), error))
    assert run.is_over
    assert run.error is error
    run.settle(second.key, Outcome((1,)))
    assert run.error is error


def test_looking_up_and_storing_are_left_to_the_driver():
    cached = PIPELINE.with_cache(NoCache())
    plan = planned(cached, ["a"])
    run = Run.once(plan, {"a": 2}, fingerprints=fingerprint_plan(plan))
    looked_up = []
    while (job := run.ready()) is not None:
        if isinstance(job, LookUp):
            looked_up.append(job)
            run.settle(job.key, Found([{} for _ in job.wanted]))
        elif job.step.name == "double":
            run.begin(job.key)
            run.settle(job.key, Outcome((4,)))
        else:
            run.begin(job.key)
            run.settle(job.key, Outcome((6,)))
    assert run.result == {"b": 4, "c": 6}
    assert [(store.step.name, store.outputs) for store in run.take_stores()] == [
        ("double", (4,)),
        ("add", (6,)),
    ]
    assert not run.take_stores()

    again = Run.once(plan, {"a": 2}, fingerprints=fingerprint_plan(plan))
    results = [(4,), (6,)]  # Both are asked for, and so looked up together.
    while (job := again.ready()) is not None:
        assert isinstance(job, LookUp)
        found = [{signature: outputs} for (signature,), outputs in zip(job.wanted, results, strict=True)]
        again.settle(job.key, Found(found))
    assert sorted(again.result.values()) == [4, 6]


def test_items_go_in_chunks_that_are_run_again_in_parts_when_their_worker_dies():
    plan = planned(PIPELINE, ["a"], mapped=True, placement=Placement(map=ELSEWHERE))
    items = [{"a": number} for number in range(6)]
    run = Run.over_items(plan, items, {}, target_info=lambda ref: Workers(), on_error="return")

    def rows(chunk):
        return [{"b": 2 * item["a"], "c": 3 * item["a"]} for item in chunk.items]

    deaths = 0
    while (job := run.ready()) is not None:
        assert isinstance(job, Chunk)
        if 3 in job.indices:
            deaths += 1
            run.fail(job.key, WorkerDiedError("a worker ended"))
        else:
            run.settle(job.key, ChunkOutcome(rows(job), seconds=0.1, executed=1))
    assert deaths >= 2  # it is tried once more by itself
    assert [row["c"] for row in run.result if isinstance(row, dict)] == [0, 3, 6, 12, 15]
    failed = run.result[3]
    assert isinstance(failed, Failure)
    assert failed.error.__notes__[0].startswith("in item 3 of pipeline 'sums'")


@pytest.mark.parametrize(("retries", "died"), [(0, "1 worker died"), (1, "2 workers died")])
def test_the_events_of_an_item_that_is_lost_with_its_workers(retries, died):
    class Once(Workers):
        max_retries = retries

    watched = PIPELINE.with_callbacks([Recorder()])
    plan = planned(watched, ["a"], mapped=True, placement=Placement(map=ELSEWHERE))
    run = Run.over_items(plan, [{"a": 1}, {"a": 2}], {}, target_info=lambda ref: Once(), on_error="return")
    error = WorkerDiedError("a worker ended")
    while (job := run.ready()) is not None:
        if list(job.indices) == [1]:
            run.fail(job.key, error)
        else:
            run.settle(job.key, ChunkOutcome([{"b": 2, "c": 3}], seconds=0.1))
    assert run.result[1].error is error
    assert error.__notes__ == [f"in item 1 of pipeline 'sums', of which {died}, given a=2"]
    events = [(event.hook, event.arguments, event.scope.items) for event in run.events]
    assert events[2:-2] == [
        *[("on_node_retry", ("sums", 1, error), (1,))] * retries,
        ("on_map_item_start", (1,), (1,)),
        ("on_error", ("sums", error), (1,)),
        ("on_map_item_end", (1, 0.0), (1,)),
    ]


def test_jobs_are_data_that_pickles():
    import cloudpickle

    plan = planned(PIPELINE, ["a"], mapped=True, placement=Placement(map=ELSEWHERE))
    run = Run.over_items(plan, [{"a": 1}, {"a": 2}], {}, target_info=lambda ref: Workers())
    chunk = run.ready()
    sent = pickle.loads(cloudpickle.dumps(chunk))
    assert (sent.key, list(sent.indices), list(sent.items)) == (chunk.key, [0], [{"a": 1}])
    assert sent.context.plan.needs == chunk.context.plan.needs
    call = pickle.loads(cloudpickle.dumps(Run.once(planned(PIPELINE, ["a"]), {"a": 2}).ready()))
    assert (call.step.name, call.arguments) == ("double", {"a": 2})
    with pytest.raises(AttributeError):
        call.key = 5


def test_chunk_sizes_follow_from_what_was_measured():
    options = {"left": 100_000, "workers": 4, "ideal_seconds": 0.25}
    assert chunk_size(Measured(), **options) == 1
    assert chunk_size(Measured(1e-3, 0, 1), **options) == 64  # it grows step by step
    assert chunk_size(Measured(1e-3, 0, 16), **options) == 250
    assert chunk_size(Measured(1e-3, 1 << 20, 16), **options) == 16  # as many bytes as may travel
    assert chunk_size(Measured(1.0, 0, 16), **options) == 1
    assert (
        chunk_size(Measured(1e-3, 0, 75), **{**options, "left": 120}) == 16
    )  # so that all workers end together
    assert chunk_size(Measured(1e-3, 0, 75), **{**options, "left": None}) == 250
    assert chunk_size(Measured(1e-6, 0, 75), **options, largest=1) == 1
    in_threads = {**options, "ideal_seconds": 0.002}
    assert chunk_size(Measured(1e-4, 0, 20), **in_threads) == 20
    assert chunk_size(Measured(1e-4, 0, 20), **{**in_threads, "left": 8}) == 2


@pytest.mark.parametrize("workers", [1, 24, 1_000, 10_000])
@pytest.mark.parametrize("item_seconds", [1e-3, 0.02, 1.0, 10.0])
@pytest.mark.parametrize("rounds", [1, 10, 100])
def test_one_driver_can_send_the_chunks_of_any_number_of_workers(workers, item_seconds, rounds):
    """The chunks of a whole map, one after the other, as if all were sent and none had to be waited for."""
    total = left = max(1, int(workers * rounds * 0.25 / item_seconds))
    sizes = []
    while left:
        size = chunk_size(Measured(item_seconds, 0, 10**6), left=left, workers=workers, ideal_seconds=0.25)
        sizes.append(size)
        left -= min(size, left)
    sustained = max(0.25, workers / 500)
    assert sizes == sorted(sizes, reverse=True)  # the tail is short
    assert sizes[0] * item_seconds <= sustained + item_seconds
    work = total * item_seconds / workers
    sending = len(sizes) / 2_000  # seconds of a driver that sends two thousand chunks a second
    assert sizes[-1] == 1 or sizes[-1] * item_seconds <= work
    if item_seconds <= sustained:  # longer items cannot be divided
        assert sending <= max(work, (total * item_seconds / 500) ** 0.5) + 2 * sustained


def test_a_chunk_is_divided_until_an_item_is_alone():
    assert divided(range(3)) == [[0], [1], [2]]
    parts = divided(range(100))
    assert sum(parts, []) == list(range(100))
    assert len(parts) <= 16
