"""The dispatcher makes Ray tasks of submissions when there is room for them, and settles their futures.

    submit ─▶ TaskQueues ─▶ TaskSubmitter ─▶ Ray
                  ▲                           │
                  └───── inbox of answers ◀───┘ ─▶ futures

The queues make `cancel`, `running` and `max_workers` true: a task that is no Ray task yet can be cancelled,
and a Ray task is running. Ray's own threads only put answers into the inbox; the thread of the dispatcher
settles futures, and so runs the callbacks of users.
"""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import Future, wait
from functools import partial
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from hypernodes._compat.ray import discard_error, kill_tasks
from hypernodes.exceptions import InitializerError, UnpackError, WorkerDiedError
from hypernodes.executors.exit_hook import ExitHook
from hypernodes.executors.ray.connection import connection_id, connection_lost, disconnect, translate_error
from hypernodes.executors.ray.future import PendingResult, is_task_thread, lent_cpus, wait_in_ray
from hypernodes.executors.ray.queues import TaskQueue, TaskQueues, host_resources, insufficient, is_dead
from hypernodes.executors.ray.task import Task, TaskSubmitter
from hypernodes.executors.unpicklable import missing_module_advice
from hypernodes.raw_errors import is_a
from hypernodes.serialization.errors import deserialize_error
from hypernodes.text import described

if TYPE_CHECKING:
    from collections.abc import Collection

    from hypernodes.executors.ray.worker import TaskResult
    from hypernodes.resources import Resources

CONNECTION_CHECK_INTERVAL_S: Final = 1.0
"""Seconds between checks, while tasks run, whether the connection to the cluster still exists."""
HOSTS_CHECK_INTERVAL_S: Final = 5.0
"""Seconds between requests for the hosts of the cluster, which may have grown or shrunk."""


class Dispatcher:
    """Has tasks run on the cluster that this process is connected to."""

    def __init__(
        self,
        max_workers: int | None,
        resources: Resources,
        *,
        initializer: bytes | None,
        max_calls: int | None,
        runtime_env: dict[str, Any] | None,
        autoscaling: bool,
        owns_ray: bool,
    ) -> None:
        import ray

        self.is_broken = False
        self._ray = ray
        self._connection_id = connection_id()
        self._owns_ray = owns_ray
        self._host_id = ray.get_runtime_context().get_node_id()
        held = lent_cpus()
        self._queues = TaskQueues(max_workers, lent_cpus=held, autoscaling=autoscaling)
        self._main_queue = self._queues.open(resources)
        self._submitter = TaskSubmitter(initializer, runtime_env, max_calls=max_calls, runs_here=held > 0)
        self._inbox: SimpleQueue[tuple[Task, tuple[Any, ...], Future[Any]] | None] = SimpleQueue()
        self._is_asleep = False
        self._is_closing = False
        self._is_terminated = False
        self._thread = threading.Thread(target=self._run, name="hypernodes-ray", daemon=True)
        self._thread.start()
        exit_hook.register(self)

    @property
    def max_workers(self) -> int:
        """How many tasks with the resources of the executor run at once."""
        return self._main_queue.slots

    @property
    def is_connected(self) -> bool:
        """Whether this process is still connected to the cluster."""
        return connection_id() == self._connection_id

    def submit(self, task: Task) -> Future[Any]:
        """Queue a task, and return its future."""
        missing = tuple(task.missing)
        self._queues.add(task)
        if is_task_thread():
            task.future.wait_by(self.wait_without_cpus)
        for argument in missing:
            argument.add_done_callback(partial(self._supply, task))
        self._start_pending()
        return task.future

    def close(self, *, wait: bool, cancel_pending: bool) -> None:
        """Take no more tasks."""
        self._queues.refuse(lambda: RuntimeError("cannot schedule new futures after shutdown"))
        self._is_closing = True
        if cancel_pending:
            for task in self._queues.take_all():
                task.cancel()
        self._inbox.put(None)
        if wait and threading.current_thread() is not self._thread:
            self._thread.join()

    def kill(self, future: Future[Any]) -> bool:
        """Kill the process of a running task; ``False`` if there is none."""
        ref = next((task.ref for task in self._queues.running if task.future is future), None)
        if ref is None:
            return False
        kill_tasks([ref], seconds=0)  # The caller has waited for the task, and may have many to kill.
        return True

    def terminate(self) -> None:
        """Kill the processes of running tasks, cancel the others, and take no more."""
        self._is_terminated = True
        if self.is_connected:
            kill_tasks([task.ref for task in self._queues.running if task.ref is not None])
        self.close(wait=True, cancel_pending=True)

    def wait_without_cpus(self, timeout: float | None = None) -> None:
        """Wait a while for any task to end, in the thread of a Ray task, which gives its CPUs back."""
        refs = [task.ref for task in self._queues.running if task.ref is not None]
        wait_in_ray(refs, timeout)

    def futures(self) -> list[Future[Any]]:
        """Return the futures of all tasks that are not done."""
        return self._queues.futures()

    # ------------------------------------------------------------------------------ to the cluster

    def _supply(self, task: Task, argument: Future[Any]) -> None:
        # The thread of the dispatcher starts the task: this thread is that of the argument's executor.
        if self._queues.supply(task, argument):
            self._inbox.put(None)

    def _start_pending(self) -> None:
        while (task := self._queues.next()) is not None:
            if self._is_asleep:  # While tasks run, the dispatcher checks the connection.
                self._inbox.put(None)
            if (call := task.call) is None or not self._begins(task):
                self._remove(task)
                continue
            try:
                task.ref, results = self._submitter.submit(task, call)
                task.call = None
                task.ref.future().add_done_callback(partial(self._receive, task, results))
            except BaseException as error:
                self._remove(task)
                # An error of an argument is the user's, and stays as it is.
                is_of_ray = not self.is_connected or is_a(error, self._ray.exceptions.RayError)
                task.fail(self._translate_error(task, error, 0.0) if is_of_ray else error)

    @staticmethod
    def _begins(task: Task) -> bool:
        """Say that a task is running, unless it goes ahead; return whether it was not cancelled."""
        return (task.is_ahead and not task.future.cancelled()) or task.begin()

    def _remove(self, task: Task) -> None:
        while (following := self._queues.remove(task)) is not None and not self._begins(following):
            task = following  # It was cancelled meanwhile; what it returns is dropped.

    # ---------------------------------------------------------------------------- from the cluster

    def _receive(self, task: Task, results: tuple[Any, ...], answer: Future[Any]) -> None:
        self._inbox.put((task, results, answer))

    def _run(self) -> None:
        last_check, is_idle = monotonic(), True
        while True:
            self._start_pending()
            if self._is_closing and self._queues.is_empty:
                break
            # The order matters: a thread that starts a task from now on sees that it must wake this one.
            self._is_asleep = True
            # To be woken takes the thread that starts a task a moment, so tasks may follow on each other.
            self._is_asleep = is_idle and not self._queues.has_running
            received, is_idle = None, False
            try:
                received = self._inbox.get(timeout=None if self._is_asleep else CONNECTION_CHECK_INTERVAL_S)
            except Empty:
                is_idle = True
            self._is_asleep = False
            if received is not None:
                self._settle(*received)
            del received  # Only the future may keep the result.
            if monotonic() - last_check > CONNECTION_CHECK_INTERVAL_S:
                self._check_cluster()
                last_check = monotonic()
        if self._owns_ray:
            disconnect()

    def _settle(self, task: Task, results: tuple[Any, ...], answer: Future[Any]) -> None:
        seconds = monotonic() - task.started
        self._remove(task)
        self._start_pending()
        # `_fail` has settled it, or it was cancelled when it had gone ahead.
        if task.future.done() or not task.begin():
            return
        if (error := answer.exception()) is not None:
            for result in results:
                discard_error(result)
            task.future.attempts = task.retries + 1
            task.future.set_exception(self._translate_error(task, error, seconds))
            return
        outcome: TaskResult = answer.result()
        task.future.attempts = outcome.attempt + 1
        if outcome.initializer_error is not None:
            task.future.set_exception(self._break(deserialize_error(outcome.initializer_error)))
        elif outcome.unpickling_error is not None:
            reason = missing_module_advice(outcome.unpickling_error) or outcome.unpickling_error
            task.future.set_exception(
                UnpackError(f"what was sent to a Ray worker cannot be unpickled there: {reason}")
            )
        elif outcome.error is not None:
            task.future.set_exception(deserialize_error(outcome.error))
        else:
            refs = results[: len(outcome.results)]
            task.future.set_pending(
                PendingResult(outcome.results, refs, are_separate=task.returns is not None)
            )

    def _translate_error(self, task: Task, error: BaseException, seconds: float) -> BaseException:
        if not self.is_connected:
            return connection_lost()
        death = "a Ray worker ended before its work was done"
        if self._is_terminated or isinstance(error, self._ray.exceptions.TaskCancelledError):
            return WorkerDiedError(f"{death}: it was terminated by its executor")
        if task.retries:
            death = f"a Ray worker ended {task.retries + 1} times in a row before its work was done"
        translated = translate_error(error, death)
        if isinstance(translated, WorkerDiedError):
            translated.seconds = seconds
        return translated

    # ------------------------------------------------------------------------------------ failures

    def _check_cluster(self) -> None:
        """Fail tasks if the connection, or the only host that has their resources, is gone."""
        if not self.is_connected:
            self._fail(connection_lost())
        elif self._queues.has_running and monotonic() - self._queues.updated > HOSTS_CHECK_INTERVAL_S:
            hosts = host_resources()
            if is_dead(self._host_id):  # Nothing that this process sends reaches the cluster.
                self._fail(connection_lost())
                return
            for queue in self._queues.update_hosts(hosts):
                self._fail(insufficient(queue.resources.demand, hosts), [queue])

    def _fail(self, error: BaseException, queues: Collection[TaskQueue] | None = None) -> None:
        """Fail the running and pending tasks of some queues, by default of all."""
        running, pending = self._queues.take_queues(queues)
        if self.is_connected:
            with contextlib.suppress(self._ray.exceptions.RayError):
                kill_tasks([task.ref for task in running if task.ref is not None])
        for task in running:
            self._remove(task)
            task.fail(error)
        for task in pending:
            task.fail(error)

    def _break(self, cause: BaseException) -> InitializerError:
        """Take no more tasks since the initializer has raised, and return the error that says so."""

        def error() -> InitializerError:
            message = f"the initializer of the executor failed in a worker: {described(cause)}"
            error = InitializerError(message)
            error.__cause__ = cause
            return error

        self.is_broken = True
        self._queues.refuse(error, is_final=True)
        for task in self._queues.take_all():
            task.fail(error())
        return error()


def _finish(dispatcher: Dispatcher) -> None:
    wait(dispatcher.futures())
    dispatcher.close(wait=True, cancel_pending=False)


exit_hook: Final[ExitHook[Dispatcher]] = ExitHook(_finish)
