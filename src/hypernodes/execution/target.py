"""The interface of an execution target.

    driver ── open() ─▶ session ── submit(job) ─▶ Future
                           │                        │ done
                           └── receive(job, future) ◀ ─▶ outcome

Most backends need no execution target of their own: any `concurrent.futures.Executor` is taken as one. A
target is for a backend that has to know the jobs, for example to collect them. It implements `submit`;
``tests/test_execution_target.py`` has one in 40 lines. An engine takes it in the place of an executor::

    HyperNodesEngine(map_executor=OneThread())

- A worker in this process calls `hypernodes.execution.execute.execute_in_worker(job, target.ref)`.
- For workers in other processes, `hypernodes.execution.targets.serialize_jobs` and `serialize_outcomes` bring
  jobs there and outcomes back.
- A run that ends cancels what is not done: a worker asks ``future.set_running_or_notify_cancel()`` first.
- What a target makes itself, its user shuts down; an engine shuts down what it has made for an alias.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hypernodes.execution.current import OCCUPIED, OTHER_PROCESS
from hypernodes.execution.durations import CallDurations
from hypernodes.execution.plan.placement import Capabilities, TargetRef
from hypernodes.executors.settled import result_of

if TYPE_CHECKING:
    from concurrent.futures import Future

    from hypernodes.execution.jobs import (
        Call,
        CallGroup,
        Chunk,
        ChunkOutcome,
        GroupOutcome,
        Outcome,
        RemoteJob,
    )


class Session(ABC):
    """An execution target, as one run uses it."""

    @abstractmethod
    def submit(self, job: Call | Chunk) -> Future[Any]:
        """Have a job executed.

        Args:
            job: The job.

        Returns:
            A future; what it gives is for `receive` of the same session.

        Raises:
            TransportError: A part of the job cannot be pickled.
        """

    def submit_group(self, group: CallGroup) -> Future[Any]:
        """Have a group of calls executed, by a target whose capabilities say that it takes groups.

        Args:
            group: The calls.
        """
        raise NotImplementedError(f"{self!r} takes no groups of calls ({len(group.steps)} calls)")

    def receive(self, job: RemoteJob, future: Future[Any]) -> Outcome | GroupOutcome | ChunkOutcome:
        """Return the outcome of a job.

        Args:
            job: The job.
            future: The future that `submit` has returned; it is done.

        Raises:
            Exception: The job could not be executed at all. The error of a node is a part of the outcome.
        """
        del job
        try:
            outcome: Outcome | GroupOutcome | ChunkOutcome = result_of(future)
        finally:
            del future  # the traceback of its error refers to this frame
        return outcome

    def discard(self, future: Future[Any]) -> None:
        """Drop the outcome that a future has, since the run of its job is over and does not receive it."""
        del future

    def send_code_with(self, job: RemoteJob) -> bool:
        """Send the user's modules along from now on, since the worker of a job has imported other code.

        Returns:
            Whether the job is to be submitted again.
        """
        del job
        return False

    def assist(self) -> bool:
        """Do work in the thread of the driver while it waits; ``False`` if there is nothing to do."""
        return False

    def kill(self, future: Future[Any]) -> None:
        """End a job that goes on long after its run was cancelled, if that is possible."""
        del future

    def close(self) -> None:
        """Forget jobs that have not begun: the run is over."""
        return


class ExecutionTarget(Session):
    """Where jobs are executed.

    Args:
        label: Its name for people.
        capabilities: What a plan must know of it.

    Attributes:
        ref: Names it in plans.
    """

    def __init__(self, label: str, capabilities: Capabilities) -> None:
        self.ref: TargetRef = TargetRef.new(label, capabilities)

    @property
    def capabilities(self) -> Capabilities:
        """What a plan must know of it."""
        return self.ref.capabilities

    @property
    def workers(self) -> int:
        """How many jobs run at once."""
        return os.cpu_count() or 4

    @property
    def max_retries(self) -> int:
        """How often a chunk is run again whose worker died."""
        return 0

    @cached_property
    def durations(self) -> CallDurations:
        """How long the functions take that were called here."""
        return CallDurations()

    @property
    def is_broken(self) -> bool:
        """Whether it takes no more work until it is shut down."""
        return False

    def chunk_items(self, total: int | None) -> int:
        """Return how many items make a chunk, for a target that gathers.

        Args:
            total: How many items there are, if that is known.
        """
        raise NotImplementedError(f"{self!r} does not gather jobs (total={total})")

    @property
    def is_occupied(self) -> bool:
        """Whether this code runs in one of its workers, or in a worker that may be like them."""
        occupied = OCCUPIED.get()
        if self.capabilities.serializes and OTHER_PROCESS in occupied:
            return True  # processes behind each process would fill a machine, and could starve a cluster
        return self.ref.id in occupied

    def open(self) -> Session:
        """Return the target for one run; by default it needs to remember nothing of a run."""
        return self

    def shutdown(self, *, wait: bool = True, at_once: bool = False) -> None:
        """Release what the target itself has made; by default there is nothing.

        Args:
            wait: Whether to wait until running work has ended.
            at_once: Whether to end running work.
        """
        del wait, at_once

    def __repr__(self) -> str:
        return repr(self.ref.label)
