"""Futures whose results stay in the cluster until they are asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hypernodes.executors.ray import nesting
from hypernodes.executors.ray.objects import RayValue, deserialize_result
from hypernodes.executors.ray.worker import InlineResult, PlainSerialized, StoredResult, serialize_plain
from hypernodes.executors.settled import ExecutorFuture, Settled
from hypernodes.serialization.pickling import OutOfBand

if TYPE_CHECKING:
    from ray import ObjectRef


@dataclass(frozen=True, slots=True)
class PendingResult:
    """The results of a task that have not been unpickled yet."""

    results: tuple[InlineResult | StoredResult, ...]
    refs: tuple[ObjectRef[Any], ...]
    are_separate: bool  # the future has one value for each result, and a large one stays in the store

    @property
    def is_inline(self) -> bool:
        """Whether all results are in this process."""
        return all(isinstance(result, InlineResult) for result in self.results)

    def resolve(self) -> Any:
        """Return the result, or the tuple of separate results."""
        values = [
            deserialize_result(result.value) if isinstance(result, InlineResult) else RayValue(ref, result)
            for result, ref in zip(self.results, self.refs, strict=True)
        ]
        if self.are_separate:
            return tuple(values)
        return values[0].get() if isinstance(values[0], RayValue) else values[0]

    def as_argument(self) -> PlainSerialized | ObjectRef[Any]:
        """Return the result as an argument of a Ray task."""
        (result,), (ref,) = self.results, self.refs
        return result.value if isinstance(result, InlineResult) else ref


class RayFuture(ExecutorFuture, OutOfBand):
    """A future that fetches its result when it is asked for, and not before.

    As an argument of another submission it stands for its value, which goes from worker to worker.
    """

    def __init__(self) -> None:
        super().__init__()
        self.attempts = 0  # how often the call was begun; more than once if a worker has died during it
        self._pending: PendingResult | None = None
        self._resolved: Settled[Any] | None = None
        self._resolving = threading.Lock()
        self._wait_in_ray: Callable[[float | None], None] | None = None

    def wait_by(self, wait: Callable[[float | None], None]) -> None:
        """Have the thread of a Ray task wait for this future by a function that gives its CPUs back."""
        self._wait_in_ray = wait
        nesting.wait_in_ray_for(self, wait)

    def result(self, timeout: float | None = None) -> Any:
        """Return the result, or raise the error; see `concurrent.futures.Future.result`."""
        if self._wait(timeout) is None and (resolved := self._resolve()) is not None:
            return resolved.get()
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the error, if there is one; see `concurrent.futures.Future.exception`."""
        error = self._wait(timeout)
        pending = self._pending
        if error is None and pending is not None and pending.is_inline:
            self._resolve()  # A large result is not fetched only to see whether it can be unpickled.
        return error if self._resolved is None else self._resolved.error

    def set_pending(self, pending: PendingResult) -> None:
        """Settle the future with results that are fetched when they are asked for."""
        self._pending = pending
        self.set_result(None)

    def as_argument(self) -> PlainSerialized | ObjectRef[Any]:
        """Return the result of this future, which is done, as an argument of a Ray task."""
        if (pending := self._pending) is not None and not pending.are_separate:
            return pending.as_argument()
        return serialize_plain(self.result())

    def _wait(self, timeout: float | None) -> BaseException | None:
        if self._wait_in_ray is not None and not self.done() and nesting.is_task_thread():
            nesting.wait_until(self.done, self._wait_in_ray, timeout)
            timeout = 0
        return super().exception(timeout)

    def _resolve(self) -> Settled[Any] | None:
        with self._resolving:
            pending = self._pending
            if self._resolved is None and pending is not None:
                try:
                    self._resolved = Settled(pending.resolve())
                except Exception as error:
                    self._resolved = Settled(error=error)
                if pending.is_inline:  # A stored result may still become an argument of another task.
                    self._pending = None
            return self._resolved
