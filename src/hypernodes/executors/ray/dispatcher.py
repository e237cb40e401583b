"""From submissions to Ray tasks, and from their answers to futures.

    submit ─▶ a queue for each kind of resources ─▶ as many Ray tasks as there is room for
                          ▲                                        │
                          └──────── a queue of answers ◀───────────┘ ─▶ futures

The queues here make `cancel`, `running` and `max_workers` true: what is not yet a Ray task can be
cancelled, what is one is running. Ray's own threads only ever put an answer into a queue; futures,
and with them the callbacks of users, are settled by the dispatcher's thread.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
import weakref
from collections import deque
from concurrent.futures import CancelledError, Future
from functools import partial
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from hypernodes.exceptions import (
    ClusterConnectionError,
    InitializerError,
    UnpackError,
    WorkerDiedError,
)
from hypernodes.executors.culprit import missing_module
from hypernodes.executors.ray import capacity, nesting
from hypernodes.executors.ray.connection import disconnect, session
from hypernodes.executors.ray.errors import explained
from hypernodes.executors.ray.future import KeptOnRay, Landing, RayFuture, packed_as_bare
from hypernodes.executors.ray.worker import Answer, Dependency, Order, work
from hypernodes.serialization.errors import deserialize_error

if TYPE_CHECKING:
    from hypernodes.resources import Resources
    from hypernodes.serialization.pickling import Serialized

_PULSE: Final = 1.0  # seconds after which a silent connection is looked at
_LOOK_AGAIN: Final = 5.0  # seconds after which the cluster may have grown
_PATIENCE: Final = 20.0  # seconds for a host to come back on which alone tasks can run
_SHARE_OF_STORE: Final = 0.25  # of the object store, for arguments that are under way
_GROW: Final = 4  # calls that wait in Ray, so that an autoscaler sees that there is work


class Task:
    """One submission.

    Args:
        packed: What is to be called.
        resources: What it takes.
        returns: How many results stay apart; ``None`` for one that is brought here when it is asked for.
        retries: How often it is begun again when its worker died.
    """

    __slots__ = (
        "future",
        "packed",
        "ref",
        "resources",
        "retries",
        "returns",
        "size",
        "started",
        "waits",
    )

    def __init__(
        self,
        packed: Serialized,
        resources: Resources,
        *,
        returns: int | None = None,
        retries: int = 0,
    ) -> None:
        self.future = RayFuture()
        self.packed: Serialized | None = packed
        self.size = packed.size
        self.resources = resources
        self.returns = returns
        self.retries = retries
        self.ref: Any = None
        self.started = 0.0
        self.waits: set[Future[Any]] = {
            part for part in packed.carried if isinstance(part, Future) and not part.done()
        }


class _Queue:
    """Submissions that take the same resources."""

    def __init__(self, resources: Resources, room: int) -> None:
        self.resources = resources
        self.room = room
        self.pending: deque[Task] = deque()
        self.running = 0
        self.missing_since: float | None = None  # no host has had what they take


class Dispatcher:
    """Has tasks carried out on the cluster that this process is connected to.

    Args:
        max_workers: How many tasks run at once; ``None`` for as many as the cluster has room for.
        resources: What a task takes that says nothing else.
        initializer: What each worker process calls first, pickled.
        runtime_env: Ray's, for the tasks.
        autoscaling: Whether the cluster grows when work waits.
        owns_ray: Whether the Ray was started here, and is to be stopped.
    """

    def __init__(
        self,
        max_workers: int | None,
        resources: Resources,
        *,
        initializer: bytes | None,
        runtime_env: dict[str, Any] | None,
        autoscaling: bool,
        owns_ray: bool,
    ) -> None:
        import ray

        self._ray = ray
        self._session = session()
        self.owns_ray = owns_ray
        self._max_workers = max_workers
        self._name = uuid.uuid4().hex  # each worker process is set up once for each dispatcher
        self._initializer = initializer
        self._autoscaling = autoscaling
        self._options: dict[str, Any] = {} if runtime_env is None else {"runtime_env": runtime_env}
        self._remote = ray.remote(work)
        self._remotes: dict[tuple[Any, ...], Any] = {}  # with options, which take a while to make
        self._lock = threading.Lock()
        self._running: set[Task] = set()
        self._waiting: set[Task] = set()  # for results of other tasks
        self._queues: dict[Resources, _Queue] = {}
        self._looked_at = 0.0
        self._offers: list[dict[str, float]] = []
        self._bytes = 0
        self._lent = nesting.lent_cpus()
        self._home = ray.get_runtime_context().get_node_id()
        self._inbox: SimpleQueue[tuple[Task, tuple[Any, ...], Future[Any]] | None] = SimpleQueue()
        self._is_asleep = False
        self._closing = False
        self._terminated = False
        self.broken: str | None = None
        self._take_note(capacity.hosts())
        self._most_bytes = _SHARE_OF_STORE * sum(o.get("object_store_memory", 0) for o in self._offers)
        self._main = self._queue(resources)
        self._thread = threading.Thread(target=self._dispatch, name="hypernodes-ray", daemon=True)
        self._thread.start()
        alive.add(self)

    @property
    def max_workers(self) -> int:
        """How many tasks that take the executor's own resources run at once."""
        return self._main.room

    @property
    def is_connected(self) -> bool:
        """Whether the connection that tasks go through is still there."""
        return session() == self._session

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing left to do."""
        with self._lock:
            return not (self._running or self._waiting or any(q.pending for q in self._queues.values()))

    # ------------------------------------------------------------------------------- from outside

    def submit(self, task: Task) -> Future[Any]:
        """Take a task.

        Raises:
            RuntimeError: No more tasks are taken.
            InitializerError: The initializer has failed.
            ResourcesError: No host has what it asks for.
        """
        with self._lock:
            if self.broken is not None:
                raise InitializerError(self.broken)
            if self._closing:
                raise RuntimeError("cannot schedule new futures after shutdown")
            queue = self._queue(task.resources)
            if task.waits:
                self._waiting.add(task)
            else:
                queue.pending.append(task)
        if nesting.in_task():
            task.future.give_way_with(self.give_way)
        for future in tuple(task.waits):
            future.add_done_callback(partial(self._one_less, task))
        self._start()
        return task.future

    def close(self, *, wait: bool, cancel_pending: bool) -> None:
        """Take no more tasks."""
        cancelled: list[Task] = []
        with self._lock:
            self._closing = True
            if cancel_pending:
                cancelled += self._waiting
                self._waiting.clear()
                for queue in self._queues.values():
                    cancelled += queue.pending
                    queue.pending.clear()
        for task in cancelled:
            task.future.cancel()
            task.future.set_running_or_notify_cancel()
        self._inbox.put(None)
        if wait and threading.current_thread() is not self._thread:
            self._thread.join()

    def kill(self, future: Future[Any]) -> bool:
        """End a running task by ending its process; tell whether there was one."""
        with self._lock:
            ref = next((task.ref for task in self._running if task.future is future), None)
        if ref is None:
            return False
        self._ray.cancel(ref, force=True)
        return True

    def terminate(self) -> None:
        """End running tasks by force, and take no more."""
        self._terminated = True
        with self._lock:
            running = list(self._running)
        for task in running:
            if task.ref is not None and self.is_connected:
                self._ray.cancel(task.ref, force=True)
        self.close(wait=True, cancel_pending=True)

    def give_way(self, timeout: float | None = None) -> None:
        """Wait, in a Ray task, for any task to end, for a while, without holding CPUs."""
        with self._lock:
            refs = [task.ref for task in self._running if task.ref is not None]
        nesting.wait_in_ray(refs, timeout)

    def outstanding(self) -> list[Future[Any]]:
        """Return the futures of all tasks that are not done."""
        with self._lock:
            queued = [task for queue in self._queues.values() for task in queue.pending]
            return [task.future for task in (*queued, *self._waiting, *self._running)]

    # ------------------------------------------------------------------------------------- queues

    def _queue(self, resources: Resources) -> _Queue:
        queue = self._queues.get(resources)
        if queue is None:
            if not self._autoscaling:
                if not capacity.room(resources.demand, self._offers):
                    self._take_note(capacity.hosts())  # a host may have joined just now
                capacity.check(resources.demand, self._offers)
            queue = self._queues[resources] = _Queue(resources, self._room(resources))
        return queue

    def _room(self, resources: Resources) -> int:
        if self._max_workers is not None:
            return self._max_workers
        if self._lent and resources.num_cpus:
            return max(1, int(self._lent // resources.num_cpus))
        room = max(1, capacity.room(resources.demand, self._offers))
        return room + _GROW if self._autoscaling else room

    def _take_note(self, offers: list[dict[str, float]]) -> None:
        self._offers = offers
        self._looked_at = monotonic()
        for queue in self._queues.values():
            queue.room = self._room(queue.resources)

    def _one_less(self, task: Task, done: Future[Any]) -> None:
        with self._lock:
            task.waits.discard(done)
            if task.waits or task not in self._waiting:
                return
            self._waiting.discard(task)
            self._queue(task.resources).pending.append(task)
        self._inbox.put(None)  # that is started by the dispatcher, not by whoever has settled the other one

    def _next(self) -> Task | None:
        with self._lock:
            for queue in self._queues.values():
                if not queue.pending or queue.running >= queue.room:
                    continue
                if self._running and self._bytes + queue.pending[0].size > self._most_bytes:
                    continue
                task = queue.pending.popleft()
                queue.running += 1
                self._running.add(task)
                if self._is_asleep:  # from now on somebody must look whether the cluster is still there
                    self._is_asleep = False
                    self._inbox.put(None)
                self._bytes += task.size
                return task
        return None

    def _done(self, task: Task) -> None:
        task.ref = task.packed = None
        with self._lock:
            if task in self._running:
                self._running.discard(task)
                self._queues[task.resources].running -= 1
                self._bytes -= task.size

    # ------------------------------------------------------------------------------ to the cluster

    def _start(self) -> None:
        while (task := self._next()) is not None:
            if not task.future.set_running_or_notify_cancel():
                self._done(task)
                continue
            try:
                self._send(task)
            except BaseException as error:
                self._done(task)
                task.future.set_exception(error if self.is_connected else self._lost())

    def _send(self, task: Task) -> None:
        packed = task.packed
        assert packed is not None
        carried: list[Any] = []
        dependencies: list[Any] = []
        for part in packed.carried:
            if isinstance(part, Future | KeptOnRay):
                carried.append(Dependency(len(dependencies)))
                dependencies.append(_as_argument(part))
            else:
                carried.append(part)
        returns = 1 if task.returns is None else task.returns
        task.started = monotonic()
        refs = self._remote_for(task, returns).remote(
            tuple(
                Order(
                    self._name,
                    self._initializer,
                    returns,
                    task.resources.num_cpus or 0.0,
                    (packed.header, packed.buffers, carried),
                )
            ),
            *dependencies,
        )
        answer, *values = refs if returns else [refs]
        task.ref, task.packed = answer, None
        answer.future().add_done_callback(partial(self._arrived, task, tuple(values)))

    def _remote_for(self, task: Task, returns: int) -> Any:
        key = (task.resources, returns, task.retries)
        if key not in self._remotes:
            self._remotes[key] = self._remote.options(**self._options_of(task, returns))
        return self._remotes[key]

    def _options_of(self, task: Task, returns: int) -> dict[str, Any]:
        resources = task.resources
        options: dict[str, Any] = {
            "num_cpus": resources.num_cpus,
            "num_gpus": resources.num_gpus,
            "memory": resources.memory,
            "resources": dict(resources.custom) or None,
            "num_returns": 1 + returns,
            "max_retries": task.retries,
            "retry_exceptions": False,
            "name": "hypernodes",
            **self._options,
        }
        if self._lent:
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

            options["num_cpus"] = 0
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(self._home, soft=True)
        return {name: value for name, value in options.items() if value is not None}

    # ---------------------------------------------------------------------------- from the cluster

    def _arrived(self, task: Task, values: tuple[Any, ...], raw: Future[Any]) -> None:
        self._inbox.put((task, values, raw))

    def _dispatch(self) -> None:
        beaten = monotonic()
        while True:
            self._start()
            if self._closing and self.is_idle:
                break
            with self._lock:
                self._is_asleep = not self._running
            finished = None
            with contextlib.suppress(Empty):
                finished = self._inbox.get(timeout=None if self._is_asleep else _PULSE)
            if finished is not None:
                self._settle(*finished)
            del finished  # a result belongs to whoever holds its future
            if monotonic() - beaten > _PULSE:
                self._beat()
                beaten = monotonic()
        if self.owns_ray:
            disconnect()

    def _beat(self) -> None:
        """Look after a while whether the cluster is still there, and whether it has grown or shrunk."""
        if not self.is_connected:
            self._fail(list(self._queues.values()), self._lost())
        elif self._running and monotonic() - self._looked_at > _LOOK_AGAIN:
            offers = capacity.hosts()
            if capacity.is_dead(self._home):  # then nothing that this process sends goes anywhere
                self._fail(list(self._queues.values()), self._lost())
                return
            with self._lock:
                self._take_note(offers)
                gone = [queue for queue in self._queues.values() if self._is_gone(queue)]
            for queue in gone:
                self._fail([queue], capacity.shortage(queue.resources.demand, offers))

    def _is_gone(self, queue: _Queue) -> bool:
        """Whether what tasks wait for has been missing for a while."""
        if self._autoscaling or capacity.room(queue.resources.demand, self._offers):
            queue.missing_since = None
            return False
        if queue.missing_since is None:
            queue.missing_since = monotonic()
        return monotonic() - queue.missing_since > _PATIENCE

    def _fail(self, queues: list[_Queue], error: BaseException) -> None:
        """Give up what is in queues, and what was started from them."""
        with self._lock:
            running = [task for task in self._running if self._queues[task.resources] in queues]
            queued = [task for queue in queues for task in queue.pending]
            for queue in queues:
                queue.pending.clear()
        for task in running:
            if self.is_connected and task.ref is not None:
                with contextlib.suppress(self._ray.exceptions.RayError):
                    self._ray.cancel(task.ref, force=True)
            self._done(task)
            task.future.set_exception(error)
        for task in queued:
            if task.future.set_running_or_notify_cancel():
                task.future.set_exception(error)

    def _lost(self) -> BaseException:
        return ClusterConnectionError(
            "this process is no longer connected to the Ray cluster that its tasks were on: ray.shutdown() "
            "was called, or the connection or this host's raylet broke. Call ray.init() again, and then "
            "submit again."
        )

    def _settle(self, task: Task, values: tuple[Any, ...], raw: Future[Any]) -> None:
        ran_for = monotonic() - task.started
        if task.future.done():  # it was given up
            return
        self._done(task)
        self._start()
        error = raw.exception()
        if error is not None:
            _forget(values)
            task.future.attempts = task.retries + 1
            task.future.set_exception(self._why(task, error, ran_for))
            return
        answer: Answer = raw.result()
        task.future.attempts = answer.attempt + 1
        if answer.initializer is not None:
            self._break(deserialize_error(answer.initializer))
            task.future.set_exception(self._broken())
        elif answer.broken is not None:
            task.future.set_exception(
                UnpackError(
                    f"what was sent to a Ray worker cannot be unpickled there: "
                    f"{missing_module(answer.broken) or answer.broken}"
                )
            )
        elif answer.error is not None:
            task.future.set_exception(deserialize_error(answer.error))
        else:
            refs = values[: len(answer.results)]
            task.future.land(Landing(answer.results, refs, keeps=task.returns is not None))

    def _why(self, task: Task, error: BaseException, ran_for: float) -> BaseException:
        if not self.is_connected:
            return self._lost()
        from ray.exceptions import TaskCancelledError

        if self._terminated or isinstance(error, TaskCancelledError):
            return WorkerDiedError("a Ray worker ended before its work was done: it was ended from here")
        times = f" {task.retries + 1} times in a row" if task.retries else ""
        why = explained(error, f"a Ray worker ended{times} before its work was done")
        if isinstance(why, WorkerDiedError):
            why.seconds = ran_for
        return why

    def _break(self, error: BaseException) -> None:
        self.broken = f"the initializer of the executor failed in a worker: {type(error).__name__}: {error}"
        self._cause = error
        with self._lock:
            queued = [*self._waiting, *(task for q in self._queues.values() for task in q.pending)]
            self._waiting.clear()
            for queue in self._queues.values():
                queue.pending.clear()
        for task in queued:
            if task.future.set_running_or_notify_cancel():
                task.future.set_exception(self._broken())

    def _broken(self) -> InitializerError:
        error = InitializerError(self.broken)
        error.__cause__ = self._cause
        return error


def _forget(values: tuple[Any, ...]) -> None:
    """Take note of the errors of results that nobody will ask for: Ray reports those that nobody has seen."""
    import ray

    for value in values:
        with contextlib.suppress(Exception):
            ray.get(value, timeout=0)


def _as_argument(part: Future[Any] | KeptOnRay) -> Any:
    """Return what brings the value of a future, or one that is kept, to a worker."""
    if isinstance(part, KeptOnRay):
        return part.ref
    if part.cancelled():
        raise CancelledError("an argument is the result of a call that was cancelled")
    error = part.exception()
    if error is not None:
        raise error
    return part.as_argument() if isinstance(part, RayFuture) else packed_as_bare(part.result())


alive: weakref.WeakSet[Dispatcher] = weakref.WeakSet()
"""All dispatchers that may still have work."""
