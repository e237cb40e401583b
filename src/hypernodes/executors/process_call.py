"""A call that was submitted to `ParallelExecutor`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypernodes.exceptions import UnpackError, WorkerDiedError
from hypernodes.executors.process_messages import Kind, Message, serialize_message
from hypernodes.executors.settled import ExecutorFuture
from hypernodes.serialization.errors import deserialize_error
from hypernodes.text import short


class PoolCall:
    """A call and its future."""

    __slots__ = ("_args", "_fn", "_is_running", "_kwargs", "future", "was_requeued")

    def __init__(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._fn = fn
        self._args = args
        self._kwargs = kwargs
        self._is_running = False
        self.future = ExecutorFuture()
        self.was_requeued = False  # a process died before it had received the call

    def begin(self) -> bool:
        """Mark the future as running; ``False`` if it was cancelled."""
        self._is_running = self._is_running or self.future.set_running_or_notify_cancel()
        return self._is_running

    def serialize(self) -> list[Any]:
        """Return the message that has a worker process make the call."""
        return serialize_message(Kind.CALL, (self._fn, self._args, self._kwargs))

    def settle(self, answer: Message) -> None:
        """Set the result or the error of the future from the message of the worker process."""
        try:
            value = answer.deserialize()
        except BaseException as error:
            unreadable = UnpackError(
                f"a result came back from a worker process but cannot be unpickled here "
                f"({type(error).__name__}: {short(error)})"
            )
            unreadable.__cause__ = error
            self.future.set_exception(unreadable)
            return
        if answer.kind is Kind.RESULT:
            self.future.set_result(value)
        elif answer.kind is Kind.ERROR:
            self.future.set_exception(deserialize_error(value))
        else:
            self.future.set_exception(
                UnpackError(f"what was sent to a worker process cannot be unpickled there: {value}")
            )

    def fail(self, error: BaseException) -> None:
        """Set the error of the future, unless it was cancelled."""
        if self.begin():
            self.future.set_exception(error)

    def cancel(self) -> None:
        """Cancel the call, which no process is making."""
        if self._is_running:  # It was put back into the queue, and a running future cannot be cancelled.
            self.future.set_exception(
                WorkerDiedError("the worker process died, and the executor was shut down")
            )
        elif self.future.cancel():
            self.future.set_running_or_notify_cancel()
