"""The tasks of one executor that are not done, and how many of them the hosts have resources for.

add ─▶ missing arguments ─▶ pending, a queue for each kind of resources ─▶ running
       (if it has any)                                            next     remove ─▶

A short task that nobody asks whether it is running goes to Ray before there is room for it, so that a worker
that becomes free has its next task at once.
"""

from __future__ import annotations

import threading
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from hypernodes.exceptions import ResourcesError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from concurrent.futures import Future

    from hypernodes.executors.ray.task import Task
    from hypernodes.resources import Resources

HOST_TIMEOUT_S: Final = 20.0
"""Seconds for the only hosts with the resources of a task to come back, before the task fails."""
MAX_ARGUMENTS_FRACTION: Final = 0.25
"""How much of the object store the arguments of running tasks may fill; results need the rest."""
AHEAD_MAX_S: Final = 0.5
"""Seconds: longer tasks wait here, where they can be cancelled; workers idle between them for a moment."""
AHEAD_S: Final = 0.02
"""Seconds of work that wait for each worker ahead of it, at least one task and at most `MAX_AHEAD`."""
MAX_AHEAD: Final = 8
AUTOSCALING_SLOTS: Final = 4
"""How many tasks wait in Ray beyond the capacity of the cluster: the autoscaler sees only tasks in Ray."""


class TaskQueue:
    """The tasks that take the same resources."""

    def __init__(self, resources: Resources, slots: int) -> None:
        self.resources = resources
        self.slots = slots
        self.pending: deque[Task] = deque()
        self.running = 0  # of the tasks that are in Ray, those that there is room for
        self.ahead: deque[Task] = deque()  # the others
        self.seconds: float | None = None  # that a task takes
        self.missing_since: float | None = None  # the monotonic time since which no host has the resources

    def has_room(self) -> bool:
        """Whether the next task may go to Ray."""
        if self.running < self.slots:
            return True
        if self.seconds is None or self.seconds > AHEAD_MAX_S or not self.pending[0].may_go_ahead:
            return False
        return len(self.ahead) < self.slots * max(1, min(MAX_AHEAD, int(AHEAD_S / max(self.seconds, 1e-4))))


class TaskQueues:
    """The tasks of one executor that are not done. All methods may be called by any thread."""

    def __init__(self, max_workers: int | None, *, lent_cpus: float, autoscaling: bool) -> None:
        self._max_workers = max_workers
        self._lent_cpus = lent_cpus
        self._autoscaling = autoscaling
        self._lock = threading.Lock()
        self._queues: dict[Resources, TaskQueue] = {}
        self._waiting: set[Task] = set()  # for missing arguments
        self._running: set[Task] = set()
        self._running_bytes = 0
        self._refusal: Callable[[], Exception] | None = None
        self._set_hosts(host_resources())
        store = sum(host.get("object_store_memory", 0) for host in self._hosts)
        self._max_running_bytes = MAX_ARGUMENTS_FRACTION * store

    # ---------------------------------------------------------------------------- what there is

    @property
    def is_empty(self) -> bool:
        """Whether all tasks are done."""
        with self._lock:
            return not (self._running or self._waiting or any(q.pending for q in self._queues.values()))

    @property
    def running(self) -> list[Task]:
        """The running tasks."""
        with self._lock:
            return list(self._running)

    @property
    def has_running(self) -> bool:
        """Whether any task is running."""
        return bool(self._running)

    def futures(self) -> list[Future[Any]]:
        """Return the futures of all tasks."""
        with self._lock:
            pending = [task for queue in self._queues.values() for task in queue.pending]
            return [task.future for task in (*pending, *self._waiting, *self._running)]

    # --------------------------------------------------------------------------- the way of a task

    def open(self, resources: Resources) -> TaskQueue:
        """Return the queue of tasks that take these resources."""
        with self._lock:
            return self._open(resources)

    def add(self, task: Task) -> None:
        """Add a task."""
        with self._lock:
            if self._refusal is not None:
                raise self._refusal()
            queue = self._open(task.resources)
            if task.missing:
                self._waiting.add(task)
            else:
                queue.pending.append(task)

    def supply(self, task: Task, argument: Future[Any]) -> bool:
        """Note that an argument of a task is done; return whether the task has become pending."""
        with self._lock:
            task.missing.discard(argument)
            if task.missing or task not in self._waiting:
                return False
            self._waiting.discard(task)
            self._open(task.resources).pending.append(task)
            return True

    def next(self) -> Task | None:
        """Return a pending task that may run, which is running from now on; ``None`` if there is none."""
        with self._lock:
            for queue in self._queues.values():
                if not queue.pending or not queue.has_room():
                    continue
                if self._running and self._running_bytes + queue.pending[0].size > self._max_running_bytes:
                    continue
                task = queue.pending.popleft()
                task.is_ahead = queue.running >= queue.slots
                if task.is_ahead:
                    queue.ahead.append(task)
                else:
                    queue.running += 1
                self._running.add(task)
                self._running_bytes += task.size
                return task
        return None

    def remove(self, task: Task) -> Task | None:
        """Remove a task that has ended; return one that went ahead, and that there is room for now."""
        task.release()
        with self._lock:
            if task not in self._running:
                return None
            self._running.discard(task)
            self._running_bytes -= task.size
            queue = self._queues[task.resources]
            if task.is_ahead:
                queue.ahead.remove(task)
                return None
            queue.seconds = monotonic() - task.started
            if not queue.ahead or queue.running > queue.slots:
                queue.running -= 1
                return None
            following = queue.ahead.popleft()
            following.is_ahead, following.started = False, monotonic()
            return following

    # ------------------------------------------------------------------------------- ends of tasks

    def refuse(self, error: Callable[[], Exception], *, is_final: bool = False) -> None:
        """Take no more tasks."""
        with self._lock:
            if self._refusal is None or is_final:
                self._refusal = error

    def take_all(self) -> list[Task]:
        """Remove and return all tasks that are not running."""
        with self._lock:
            tasks = [*self._waiting, *(task for q in self._queues.values() for task in q.pending)]
            self._waiting.clear()
            for queue in self._queues.values():
                queue.pending.clear()
        return tasks

    def take_queues(self, queues: Collection[TaskQueue] | None = None) -> tuple[list[Task], list[Task]]:
        """Return the running tasks of some queues, by default of all, and take their pending tasks."""
        with self._lock:
            chosen = list(self._queues.values()) if queues is None else queues
            running = [task for task in self._running if self._queues[task.resources] in chosen]
            pending = [task for queue in chosen for task in queue.pending]
            for queue in chosen:
                queue.pending.clear()
        return running, pending

    # ----------------------------------------------------------------------------------- resources

    def update_hosts(self, hosts: list[dict[str, float]]) -> list[TaskQueue]:
        """Adapt to the hosts of the cluster; return the queues whose resources are missing for too long."""
        with self._lock:
            self._set_hosts(hosts)
            return [queue for queue in self._queues.values() if self._is_missing(queue)]

    def _set_hosts(self, hosts: list[dict[str, float]]) -> None:
        self._hosts = hosts
        self.updated = monotonic()
        for queue in self._queues.values():
            queue.slots = self._slots(queue.resources)

    def _open(self, resources: Resources) -> TaskQueue:
        if (queue := self._queues.get(resources)) is None:
            if not self._autoscaling and not count_slots(resources.demand, self._hosts):
                self._set_hosts(host_resources())  # A host may have joined the cluster just now.
                if not count_slots(resources.demand, self._hosts):
                    raise insufficient(resources.demand, self._hosts)
            queue = self._queues[resources] = TaskQueue(resources, self._slots(resources))
        return queue

    def _slots(self, resources: Resources) -> int:
        if self._max_workers is not None:
            return self._max_workers
        if self._lent_cpus and resources.num_cpus:
            return max(1, int(self._lent_cpus // resources.num_cpus))
        slots = max(1, count_slots(resources.demand, self._hosts))
        return slots + AUTOSCALING_SLOTS if self._autoscaling else slots

    def _is_missing(self, queue: TaskQueue) -> bool:
        if self._autoscaling or count_slots(queue.resources.demand, self._hosts):
            queue.missing_since = None
            return False
        if queue.missing_since is None:
            queue.missing_since = monotonic()
        return monotonic() - queue.missing_since > HOST_TIMEOUT_S


ROUNDING_ERROR: Final = 1e-9
"""By how much a sum of fractions of a resource may miss the amount, in units of the resource."""


def host_resources() -> list[dict[str, float]]:
    """Return the total resources of each host that is alive, by Ray's names."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def is_dead(node_id: str) -> bool:
    """Whether Ray has declared a host dead."""
    import ray

    return any(node["NodeID"] == node_id and not node["Alive"] for node in ray.nodes())


def count_slots(demand: Mapping[str, float], hosts: list[dict[str, float]]) -> int:
    """Return how many calls that each take these resources can run at once.

    >>> count_slots({"CPU": 2}, [{"CPU": 5}, {"CPU": 1}])
    2
    """
    if not demand:
        return sum(max(1, int(host.get("CPU", 1))) for host in hosts)
    return sum(
        int(min((host.get(name, 0) + ROUNDING_ERROR) // amount for name, amount in demand.items()))
        for host in hosts
    )


def check_hosts(resources: Resources, where: str) -> None:
    """Raise an error, with a note of where, for resources that no host has: Ray would wait for them."""
    if resources.demand and not count_slots(resources.demand, hosts := host_resources()):
        error = insufficient(resources.demand, hosts)
        error.add_note(where)
        raise error


def insufficient(demand: Mapping[str, float], hosts: list[dict[str, float]]) -> ResourcesError:
    """Return the error that says what a call asks for, and what the hosts have."""
    asked = ", ".join(_amount(name, amount) for name, amount in demand.items())
    names = dict.fromkeys(("CPU", "GPU", *demand))
    largest = ", ".join(_amount(name, max((h.get(name, 0) for h in hosts), default=0)) for name in names)
    return ResourcesError(
        f"a call asks for {asked}, but no host of the cluster has that: of its {len(hosts)} "
        f"host{'s' if len(hosts) != 1 else ''}, the largest amounts on one are {largest}. Ask for less, add "
        f"a host, or, on a cluster that grows when work waits, use RayExecutor(autoscaling=True)."
    )


def _amount(name: str, amount: float) -> str:
    if name == "memory":
        return f"{amount / 2**30:.1f} GiB of memory"
    return f"{amount:g} {name}"
