"""Results and errors as values, for errors that futures and coroutines lose or change.

- ``concurrent.futures.Future.result`` tests the truth of an error. An error whose ``__bool__`` or ``__len__``
  makes it false is lost, and ``None`` is returned in its place.
- An asyncio future refuses StopIteration: up to Python 3.11, code that awaits the future waits forever.
- Python turns a StopIteration that leaves a generator or a coroutine into a RuntimeError.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from hypernodes._compat.asyncio import running_loop
from hypernodes.raw_errors import is_a
from hypernodes.text import notes_of, short

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Settled(Generic[T]):
    """The result of a call, or the error that it raised."""

    value: T | None = None
    error: BaseException | None = None

    def get(self) -> T:
        """Return the result, or raise the error."""
        if (error := self.error) is not None:
            try:
                raise error
            finally:
                del self, error  # The traceback of the error keeps this frame, which must not keep the error.
        return cast("T", self.value)

    def take(self, form: Callable[[BaseException], BaseException] | None = None) -> T:
        """Return the result, or raise the error in some form, and refer to neither any longer.

        An error keeps the frames of all callers; since Python 3.12, coroutines end that chain no longer. The
        frames of an executor refer to what a call has returned, which must then not refer to the error.
        """
        value, error = self.value, self.error
        self.clear()
        if error is not None:
            try:
                raise error if form is None else form(error)
            finally:
                del error  # as in `get`
        return cast("T", value)

    def clear(self) -> None:
        """Refer to no result and no error any longer."""
        self.value = self.error = None


def settle(function: Callable[..., T], /, *args: Any) -> Settled[T]:
    """Call a function, and return its result or its error as a value."""
    try:
        return Settled(function(*args))
    except BaseException as error:
        return Settled(error=error)


def raisable(
    error: BaseException, unraisable: type[BaseException] | tuple[type[BaseException], ...] = StopIteration
) -> BaseException:
    """Return an error that a generator or a coroutine can raise in place of one that it cannot raise.

    That is the error itself, or a RuntimeError that has the error as its cause, and its notes. Python would
    raise a RuntimeError as well, but without the notes. An async generator cannot raise StopAsyncIteration,
    either.
    """
    if not is_a(error, unraisable):
        return error
    stopped = RuntimeError(
        f"{short(error)} was raised, which cannot leave a generator or a coroutine as itself"
    )
    for note in notes_of(error):
        stopped.add_note(note)
    stopped.__cause__ = error
    return stopped


def cancelled_inside(error: BaseException) -> BaseException:
    """Return the error of a call in which a future was cancelled that was awaited, or another error as it is.

    In asyncio's form, such an error would look as if the call itself were cancelled, or the whole run. It is
    in this form only if the task of the call is being cancelled.
    """
    if not is_a(error, asyncio.CancelledError) or (
        running_loop() is not None and (task := asyncio.current_task()) is not None and task.cancelling()
    ):
        return error
    cancelled = CancelledError(*error.args)
    cancelled.__cause__ = error
    return cancelled


class ExecutorFuture(Future[Any]):
    """A future that raises every error, also one whose truth value is false."""

    def result(self, timeout: float | None = None) -> Any:
        """Return the result, or raise the error; see `concurrent.futures.Future.result`."""
        try:
            _raise_error_of(self, timeout)
            return super().result(0)
        finally:
            del self  # as in `_raise_error_of`


def result_of(future: Future[T]) -> T:
    """Return the result of a future of any executor, or raise its error, whatever its truth value is."""
    try:
        _raise_error_of(future, None)
        return future.result()
    finally:
        del future  # as in `_raise_error_of`


def _raise_error_of(future: Future[Any], timeout: float | None) -> None:
    if (error := future.exception(timeout)) is not None:
        try:
            raise error
        finally:
            del error, future  # The traceback of the error keeps this frame, which must not keep the error.
