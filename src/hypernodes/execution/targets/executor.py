"""Targets that are `concurrent.futures` executors, made from an alias or given by the user."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from hypernodes._compat.concurrent_futures import has_workers_in_this_process, is_broken, worker_count
from hypernodes.exceptions import ForkedProcessError
from hypernodes.execution.plan.placement import Capabilities, TargetRef
from hypernodes.execution.target import ExecutionTarget
from hypernodes.executors.aliases import make
from hypernodes.executors.forks import call_after_fork

if TYPE_CHECKING:
    from concurrent.futures import Executor

_refs: WeakKeyDictionary[Executor, TargetRef] = WeakKeyDictionary()


class ExecutorTarget(ExecutionTarget):
    """An executor as a target.

    An executor given as an alias is made when it is first used, and belongs to the target; one given as an
    object belongs to the user. One that is given to several engines is one and the same target.
    """

    def __init__(self, executor: str | Executor, capabilities: Capabilities) -> None:
        self._lock = threading.Lock()
        self._alias = executor if isinstance(executor, str) else None
        self._executor: Any = None if isinstance(executor, str) else executor
        self._has_lost_workers = False
        call_after_fork(self._begin)
        if isinstance(executor, str):
            super().__init__(executor, capabilities)
        else:
            self.ref = _ref_of(executor, capabilities)

    def _begin(self) -> None:
        """Forget an executor that was made from an alias: a forked child has none of its workers."""
        self._lock = threading.Lock()
        if self._alias is not None:
            self._executor = None
        elif has_workers_in_this_process(self._executor):
            self._has_lost_workers = True

    @property
    def executor(self) -> Any:
        """The executor itself.

        Raises:
            ForkedProcessError: The executor is the user's, and its workers are in the process that forked
                this one.
        """
        if self._has_lost_workers:
            raise ForkedProcessError(
                f"the {type(self._executor).__name__} of the engine was used in the process that forked this "
                f"one, where its workers are. Make another one here; or give the engine an alias, such as "
                f"'threaded', whose executor belongs to the process that makes it."
            )
        with self._lock:
            if self._executor is None and self._alias is not None:
                self._executor = make(self._alias)
            return self._executor

    @property
    def workers(self) -> int:
        """How many submissions run at once, as far as the executor tells."""
        count = worker_count(self.executor)
        return max(1, count) if count is not None else os.cpu_count() or 4

    @property
    def max_retries(self) -> int:
        """How often a chunk is run again whose worker died, as far as the executor tells."""
        return getattr(self.executor, "max_retries", 0)

    @property
    def is_broken(self) -> bool:
        """Whether an executor that was made from an alias takes no more work."""
        return self._alias is not None and is_broken(self._executor)

    def shutdown(self, *, wait: bool = True, at_once: bool = False) -> None:
        """Shut down an executor that was made from an alias; the next use makes another one."""
        with self._lock:
            if self._alias is None or self._executor is None:
                return
            executor, self._executor = self._executor, None
        terminate = getattr(executor, "terminate", None)
        if at_once and terminate is not None:
            terminate()
        else:
            executor.shutdown(wait=wait and not at_once, cancel_futures=at_once)

    def __repr__(self) -> str:
        return repr(self._alias) if self._alias is not None else repr(self._executor)


def _ref_of(executor: Executor, capabilities: Capabilities) -> TargetRef:
    try:
        if (ref := _refs.get(executor)) is None:
            ref = _refs[executor] = TargetRef.new(type(executor).__name__, capabilities)
    except TypeError:  # an executor without weak references
        return TargetRef.new(type(executor).__name__, capabilities)
    return ref
