"""A lane: an executor, and what a run must know of it to send work there."""

from __future__ import annotations

import os
import threading
from concurrent.futures import Executor, ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from hypernodes.executors.aliases import SEQUENTIAL, make
from hypernodes.portable import Inline

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from hypernodes.execution.jobs import BatchOutcome, Job, Outcome
    from hypernodes.portable import Packed, Shared

_FOLLOWERS: Final = ("async", "threaded")
_REMOTE: Final = ("parallel", "ray")

BUSY: ContextVar[frozenset[int]] = ContextVar("hypernodes_busy", default=frozenset())
"""The executors in whose workers this code is running: waiting for one of them could take forever."""

A_PROCESS: Final = 0
"""Stands in `BUSY` for whatever executor this code reached as a pickle."""


class Gatherer(Protocol):
    """Takes the jobs of one run that go along one lane, and does them together."""

    def send(self, job: Job) -> Future[Outcome | BatchOutcome]:
        """Take a job."""

    def advance(self) -> bool:
        """Go on until some job is done; ``False`` if there is nothing to do."""

    def close(self) -> None:
        """Leave the rest undone."""


class Lane:
    """An executor as work sees it.

    An executor given as an alias is made when it is first used, and belongs to the lane; one given as
    an object belongs to the user.

    Args:
        executor: An alias, or an object with the `concurrent.futures.Executor` protocol.
    """

    def __init__(self, executor: str | Executor) -> None:
        self._alias = executor if isinstance(executor, str) else None
        self._executor: Any = None if isinstance(executor, str) else executor
        self._lock = threading.Lock()

    @property
    def executor(self) -> Any:
        """The executor itself."""
        with self._lock:
            if self._executor is None:
                self._executor = make(self._alias or SEQUENTIAL)
            return self._executor

    @property
    def label(self) -> str:
        """How it is named to people: its alias, or the executor's type."""
        return self._alias or type(self._executor).__name__

    @property
    def is_remote(self) -> bool:
        """Whether what is sent there must be pickled: unless it is known to share memory."""
        if self._alias is not None:
            return self._alias in _REMOTE
        return not (isinstance(self._executor, ThreadPoolExecutor) or self.runs_coroutines)

    @property
    def places(self) -> bool:
        """Whether it places calls by what they take, keeps results where they are, and replaces workers."""
        return self._alias == "ray" or hasattr(self._executor, "submit_apart")

    @property
    def gathers(self) -> bool:
        """Whether jobs are not worked off one by one: all that can be sent is, before it begins."""
        return False

    def gatherer(self) -> Gatherer:
        """Return who takes the jobs of one run, if it `gathers`."""
        raise NotImplementedError

    def block(self, total: int | None) -> int:
        """Return how many items of a map make a job, if it `gathers`."""
        raise NotImplementedError

    @property
    def retries(self) -> int:
        """How often something is tried again of which a worker has died."""
        return getattr(self.executor, "max_retries", 0)

    @property
    def is_broken(self) -> bool:
        """Whether an executor that was made from an alias takes no more work."""
        # The name is the standard library's: its executors have no other one, and ours follow them.
        return self._alias is not None and bool(getattr(self._executor, "_broken", False))

    @property
    def runs_coroutines(self) -> bool:
        """Whether it takes coroutine functions."""
        if self._alias is not None:
            return self._alias == "async"
        return bool(getattr(self._executor, "runs_coroutines", False))

    @property
    def can_follow(self) -> bool:
        """Whether another process can have one like it."""
        return self._alias in _FOLLOWERS

    @property
    def is_busy_here(self) -> bool:
        """Whether this code runs in one of its workers, or in one that may be like them."""
        busy = BUSY.get()
        if self.is_remote and A_PROCESS in busy:
            return True  # more processes behind each process would fill a machine, and could starve a cluster
        return self._executor is not None and id(self._executor) in busy

    @property
    def workers(self) -> int:
        """How many submissions run at once, as far as the executor tells."""
        executor = self.executor
        for name in ("max_concurrent", "max_workers", "_max_workers"):
            if isinstance(found := getattr(executor, name, None), int):
                return max(1, found)
        return os.cpu_count() or 4

    def submit(self, function: Callable[..., Any], /, *args: Any) -> Future[Any]:
        """Send work there."""
        future: Future[Any] = self.executor.submit(function, *args)
        return future

    def submit_apart(self, function: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
        """Send work to an executor that `places`."""
        future: Future[Any] = self.executor.submit_apart(function, *args, **options)
        return future

    def share(self, packed: Packed) -> Shared:
        """Place a value where all workers find it, if the executor knows how."""
        share = getattr(self.executor, "share", None)
        return Inline(packed) if share is None else share(packed)

    def give_way(self) -> bool:
        """Wait a moment without holding what a waiting worker can give back; ``False`` if it has nothing."""
        give_way = None if self._executor is None else getattr(self._executor, "give_way", None)
        return give_way is not None and give_way()

    def shutdown(self, *, at_once: bool = False) -> None:
        """Shut down an executor that was made from an alias; ``at_once`` ends running work, too."""
        with self._lock:
            if self._alias is None or self._executor is None:
                return
            executor, self._executor = self._executor, None
        terminate = getattr(executor, "terminate", None)
        if at_once and terminate is not None:
            terminate()
        else:
            executor.shutdown(wait=not at_once, cancel_futures=at_once)

    def __reduce__(self) -> tuple[Any, ...]:
        if not self.can_follow:
            raise TypeError(f"{self!r} stays in the process it was made in")
        return lane_of_worker, (self._alias,)

    def __repr__(self) -> str:
        return repr(self._alias) if self._alias is not None else repr(self._executor)


@dataclass(frozen=True, slots=True)
class Lanes:
    """Where an engine's work goes; ``None`` is right here.

    Attributes:
        node: Single nodes.
        map: The items of maps.
    """

    node: Lane | None = None
    map: Lane | None = None

    @property
    def used(self) -> list[Lane]:
        """The lanes that lead somewhere else."""
        return [lane for lane in (self.node, self.map) if lane is not None]

    def spread(self) -> Lanes:
        """Return lanes on which nodes go where items would, if that is something for single calls."""
        gathers = self.map is not None and self.map.gathers
        return Lanes(self.node, None) if gathers else Lanes(self.map, self.map)


_of_worker: dict[tuple[int, str], Lane] = {}


def lane_of_worker(alias: str) -> Lane:
    """Return this process's own lane for an alias; it lives as long as the process."""
    return _of_worker.setdefault((os.getpid(), alias), Lane(alias))
