"""The real scheduler over a simulated Ray cluster, in virtual time.

    Run.ready() ─▶ driver (one serial process) ─▶ TaskQueue ─▶ tasks in Ray ─▶ workers
    Run.settle() ◀─ driver ◀─────────────────────────────────── outcomes ◀────────┘

Real parts: the state machine of a run with its chunk sizes, the rule that says how many tasks go to Ray
ahead, and what a worker does with a chunk. Simulated parts: time, the workers, the network, deaths. The
functions of the nodes do not wait: they add to the virtual time of their worker. The costs of the driver and
of Ray are constants, so that equal arguments give equal results on any machine.
"""

from __future__ import annotations

import json
import random
from bisect import insort
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from heapq import heappop, heappush
from itertools import count
from pathlib import Path
from typing import Any

from simulated_work import CountedCache, Elapsed

from hypernodes import Pipeline
from hypernodes.exceptions import WorkerDiedError
from hypernodes.execution.calls.call import call_node
from hypernodes.execution.execute import execute
from hypernodes.execution.jobs import Call, Chunk, ChunkOutcome, LookUp, Outcome
from hypernodes.execution.local_jobs import look_up
from hypernodes.execution.plan.build import build_plan
from hypernodes.execution.plan.placement import Capabilities, Placement, TargetRef
from hypernodes.execution.provenance import store
from hypernodes.execution.scheduler.run import Run, no_targets
from hypernodes.execution.signature import NO_FINGERPRINTS, fingerprint_plan
from hypernodes.executors.ray.queues import TaskQueue
from hypernodes.resources import Resources

CONSTANTS_FILE = Path(__file__).with_name("simulate.json")


@dataclass(frozen=True, slots=True)
class Constants:
    """What things cost, in seconds; `simulate.py --measure` measures them.

    Attributes:
        chunk_s: The driver's Python threads, for a chunk, there and back.
        item_s: The driver's Python threads, for an item, there and back.
        byte_s: The driver's Python threads, for a byte, there and back.
        ray_s: CPU time of Ray for a task beside that, in all its processes and in that of the driver.
        task_s: CPU time of a worker for a task, beside the items.
        trip_s: From the end of a task until its worker begins the next one, on an idle machine.
        worker_start_s: From the start of the process of a worker until it begins its first task.
        death_s: From the death of a worker until the driver gets the error.
        look_up_s: The driver, for the signature of an item and its look-up in the local database.
        actor_call_s: The actor that serves the shared cache, for a call.
        actor_entry_s: The actor, for an entry that is read or written.
        actor_byte_s: The actor, for a byte.
    """

    chunk_s: float
    item_s: float
    byte_s: float
    ray_s: float
    task_s: float
    trip_s: float
    worker_start_s: float
    death_s: float
    look_up_s: float
    actor_call_s: float
    actor_entry_s: float
    actor_byte_s: float

    @classmethod
    def load(cls) -> Constants:
        """Return the constants that were measured last."""
        return cls(**json.loads(CONSTANTS_FILE.read_text())["constants"])


@dataclass(frozen=True, slots=True)
class Conditions:
    """The cluster, and what goes wrong there.

    Attributes:
        workers: How many processes execute chunks.
        host_cores: The cores of the one host that the driver, Ray and all workers share, where items only
            sleep; ``None`` for a cluster in which each worker has a core of its own.
        cold_workers: Whether the processes of the workers have to start first.
        deaths_per_hour: How often a worker dies in an hour of work.
        cache_hits: The fraction of items whose results are in the shared cache; ``None`` for no cache.
        item_nbytes: Bytes of an item and its result on the network.
        entry_nbytes: Bytes of an entry of the cache.
        seed: Of deaths and hits.
    """

    workers: int
    host_cores: int | None = None
    cold_workers: bool = False
    deaths_per_hour: float = 0.0
    cache_hits: float | None = None
    item_nbytes: int = 8
    entry_nbytes: int = 1000
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    """What the simulation of one map has found.

    Attributes:
        seconds: From the call of `map` to its return.
        busy: The fraction of that in which the workers ran items whose result arrived.
        driver: The fraction in which the driver was busy.
        chunks: How many chunks and calls were executed.
        deaths: How many workers died.
        lost: How many items failed.
        actor: The fraction in which the cache's actor was busy.
        actor_look_ups: How many signatures workers have asked the actor for.
        actor_nbytes: Bytes of the entries that the actor has sent and received.
    """

    seconds: float
    busy: float
    driver: float
    chunks: int
    deaths: int
    lost: int
    actor: float
    actor_look_ups: int
    actor_nbytes: int

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


# ------------------------------------------------------------------------------------------- the cluster


class Cores:
    """Cores that are shared; each piece of work takes the one that is free first."""

    def __init__(self, number: int | None) -> None:
        self._free_at = None if number is None else [0.0] * number

    def use(self, at: float, seconds: float) -> float:
        """Return when work ends that is ready at a time."""
        if self._free_at is None:
            return at + seconds
        end = max(at, self._free_at.pop(0)) + seconds
        insort(self._free_at, end)
        return end


class Task:
    """A job on its way to a worker and back."""

    may_go_ahead = True

    def __init__(self, job: Call | Chunk) -> None:
        self.job = job
        self.is_ahead = False
        self.started = 0.0


class Simulation:
    """One map of the driver, from the call to its return."""

    def __init__(self, conditions: Conditions, constants: Constants) -> None:
        self._conditions = conditions
        self._constants = constants
        self._random = random.Random(conditions.seed)
        self._cores = Cores(conditions.host_cores)
        self._now = 0.0  # of the driver
        self._driver_s = self._useful_s = self._actor_s = 0.0
        self._actor_free_at = 0.0
        self._chunks = self._deaths = self._look_ups = self._entries = 0
        self._numbers = count()
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._arrived: deque[tuple[Task, Any]] = deque()  # outcomes that the driver has not taken
        self._queue = TaskQueue(Resources(), conditions.workers)
        self._in_ray: deque[Task] = deque()  # tasks that wait for a worker
        self._idle: deque[int] = deque()
        for worker in range(conditions.workers):
            self._at(constants.worker_start_s if conditions.cold_workers else 0.0, self._becomes_idle, worker)
        self._cache: CountedCache | None = None
        self._run: Any = None

    # What the scheduler asks of a target.
    max_retries = 3

    @property
    def workers(self) -> int:
        """How many jobs run at once."""
        return self._conditions.workers

    def clock(self) -> float:
        """Return the virtual time of the driver."""
        return self._now

    def map(self, pipeline: Pipeline, argument: str, items: list[Any]) -> Report:
        """Simulate a map over items."""
        conditions = self._conditions
        if conditions.cache_hits is not None:
            self._cache = CountedCache(conditions.cache_hits, conditions.seed)
            pipeline = pipeline.with_cache(self._cache)
        ref = TargetRef.new("simulated", Capabilities(places_calls=True))
        plan = build_plan(
            pipeline, [argument], None, Placement(None, ref), mapped=True, varying=(argument,)
        ).plan
        self._run = Run.over_items(
            plan,
            [{argument: item} for item in items],
            {},
            fingerprints=NO_FINGERPRINTS if self._cache is None else fingerprint_plan(plan),
            target_info=lambda _: self,
            on_error="return",
            clock=self.clock,
        )
        self._drive(self._run)
        if self._run.error is not None:
            raise self._run.error
        lost = sum(not isinstance(row, dict) for row in self._run.result)
        return Report(
            seconds=self._now,
            busy=self._useful_s / self._now / conditions.workers,
            driver=self._driver_s / self._now,
            chunks=self._chunks,
            deaths=self._deaths,
            lost=lost,
            actor=self._actor_s / self._now,
            actor_look_ups=self._look_ups,
            actor_nbytes=self._entries * conditions.entry_nbytes,
        )

    # -------------------------------------------------------------------------------------- the driver

    def _drive(self, run: Run) -> None:
        """Do what `hypernodes.execution.driver.proceed` does, and the thread of the executor beside it."""
        while not run.is_over:
            job = run.ready()
            run.events.clear()
            if job is not None:
                self._do(run, job)
            elif not run.is_over:
                while not self._arrived:
                    self._now = max(self._now, self._next_event())
            while self._events and self._events[0][0] <= self._now:
                self._next_event()
            while self._arrived and not run.is_over:
                self._receive(run, *self._arrived.popleft())

    def _do(self, run: Run, job: Any) -> None:
        if isinstance(job, LookUp):
            cache: Any = self._cache
            self._spend(self._constants.look_up_s * len(job.wanted))
            found = look_up(job)
            cache.take_counts()  # the driver is on the host of the database
            run.settle(job.key, found)
            return
        if isinstance(job, Call):
            run.begin(job.key)
        if job.target is None:
            run.settle(job.key, call_node(job.step, job.arguments, job.scope))
            return
        self._spend(self._cost(job) / 2)
        self._queue.pending.append(Task(job))  # type: ignore[arg-type]
        self._start_pending()

    def _spend(self, seconds: float) -> None:
        self._driver_s += seconds
        self._now = self._cores.use(self._now, seconds)

    def _cost(self, job: Call | Chunk) -> float:
        """Return how long the driver is busy with a job, there and back."""
        constants, items = self._constants, len(job.items) if isinstance(job, Chunk) else 1
        return constants.chunk_s + items * (
            constants.item_s + self._conditions.item_nbytes * constants.byte_s
        )

    def _start_pending(self) -> None:
        """Do what `TaskQueues.next` does."""
        queue = self._queue
        while queue.pending and queue.has_room():
            task: Any = queue.pending.popleft()
            task.is_ahead = queue.running >= queue.slots
            task.started = self._now
            if task.is_ahead:
                queue.ahead.append(task)
            else:
                queue.running += 1
            self._at(self._now, self._submitted, task)

    def _receive(self, run: Run, task: Task, outcome: Any) -> None:
        """Do what `TaskQueues.remove` does, and settle a job."""
        queue: Any = self._queue
        if task.is_ahead:
            queue.ahead.remove(task)
        else:
            queue.seconds = self._now - task.started
            if queue.ahead and queue.running <= queue.slots:
                following = queue.ahead.popleft()
                following.is_ahead, following.started = False, self._now
            else:
                queue.running -= 1
        self._start_pending()
        self._spend(self._cost(task.job) / 2)
        if isinstance(outcome, WorkerDiedError):
            run.fail(task.job.key, outcome)
        else:
            run.settle(task.job.key, outcome)
        for result in run.take_stores():
            store(result)
        if self._cache is not None:
            self._cache.take_counts()

    # ------------------------------------------------------------------------------------- the workers

    def _at(self, time: float, follow: Callable[..., None], *args: Any) -> None:
        heappush(self._events, (time, next(self._numbers), follow, args))

    def _next_event(self) -> float:
        """Work off what happens next outside of the driver, and return when it happens."""
        time, _, follow, args = heappop(self._events)
        follow(time, *args)
        return time

    def _submitted(self, time: float, task: Task) -> None:
        self._in_ray.append(task)
        self._start_tasks(time)

    def _becomes_idle(self, time: float, worker: int) -> None:
        self._idle.append(worker)
        self._start_tasks(time)

    def _start_tasks(self, time: float) -> None:
        while self._in_ray and self._idle:
            self._at(time + self._constants.trip_s, self._begin, self._in_ray.popleft(), self._idle.popleft())

    def _begin(self, time: float, task: Task, worker: int) -> None:
        constants = self._constants
        begun = self._cores.use(time, constants.ray_s + constants.task_s)
        outcome, seconds = self._compute(task.job)
        rate = self._conditions.deaths_per_hour / 3600
        until_death = self._random.expovariate(rate) if rate else float("inf")
        if until_death < seconds:
            self._deaths += 1
            died = begun + until_death
            self._at(died + constants.worker_start_s, self._becomes_idle, worker)
            if isinstance(task.job, Call):  # Ray itself makes a call again
                self._at(died + constants.death_s, self._submitted, task)
            else:
                error = WorkerDiedError("a simulated worker ended")
                self._at(died + constants.death_s, self._arrives, task, error)
            return
        end = self._ask_actor(begun + seconds)
        self._chunks += 1
        self._useful_s += seconds
        self._at(end, self._becomes_idle, worker)
        self._at(end + constants.trip_s / 2, self._arrives, task, outcome)

    def _arrives(self, time: float, task: Task, outcome: Any) -> None:
        del time
        self._arrived.append((task, outcome))

    def _compute(self, job: Call | Chunk) -> tuple[Outcome | ChunkOutcome, float]:
        """Do what the worker does; return how long its node functions have taken."""
        Elapsed.seconds = 0.0
        outcome = execute(job, no_targets)
        seconds = Elapsed.seconds
        if self._cache is not None:
            self._cache.flush()
        return replace(outcome, seconds=seconds), seconds

    def _ask_actor(self, at: float) -> float:
        """Return when the actor of the cache has answered what a worker has asked it."""
        if self._cache is None:
            return at
        constants, (calls, look_ups, entries) = self._constants, self._cache.take_counts()
        entry_s = constants.actor_entry_s + self._conditions.entry_nbytes * constants.actor_byte_s
        seconds = calls * constants.actor_call_s + entries * entry_s
        self._look_ups += look_ups
        self._entries += entries
        self._actor_s += seconds
        self._actor_free_at = max(at, self._actor_free_at) + seconds
        return self._actor_free_at


def simulate(
    pipeline: Pipeline, argument: str, items: list[Any], conditions: Conditions, constants: Constants
) -> Report:
    """Simulate one map, and return what it found."""
    return Simulation(conditions, constants).map(pipeline, argument, items)
