"""The function that Ray calls for a task: it unpickles a call, makes it, and pickles the results.

Ray itself transports only bytes and buffers. So an error that the user's objects raise while they are
unpickled, called or pickled is part of the answer, and does not look like the death of the worker. Only
SIGTERM is a death (of a drained host, or a stopped pod): Ray's handler raises a SystemExit in whatever code
runs, and that is no error of the user's code.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from hypernodes._compat.ray import attempt_number
from hypernodes.exceptions import TransportError
from hypernodes.serialization.errors import SerializedError, serialize_error
from hypernodes.serialization.pickling import Serialized, loads, serialize
from hypernodes.serialization.remote import REMOTE_MIN_BYTES, SeparateResults
from hypernodes.text import described, message_of

if TYPE_CHECKING:
    from types import FrameType

PlainSerialized: TypeAlias = tuple[bytes, Sequence[Any], Sequence[Any]]
"""The fields of a `Serialized`: Ray pickles a tuple faster than an object of a class."""


def to_plain(serialized: Serialized) -> PlainSerialized:
    """Return the fields of a serialized value."""
    return serialized.header, serialized.buffers, serialized.out_of_band


def serialize_plain(value: object) -> PlainSerialized:
    """Serialize a value, and return the fields."""
    return to_plain(serialize(value))


class Dependency(NamedTuple):
    """Stands for the result of another task in the call of a task."""

    position: int  # the position of the result among the arguments


class InlineResult(NamedTuple):
    """A small result, which is part of the answer."""

    value: PlainSerialized


class StoredResult(NamedTuple):
    """A large result, which stays in the object store."""

    kind: str  # the name of its type
    size: int


class TaskResult(NamedTuple):
    """The answer."""

    attempt: int = 0  # how often Ray has begun the task before
    results: tuple[InlineResult | StoredResult, ...] = ()
    error: SerializedError | None = None
    unpickling_error: str | None = None  # why the call could not be unpickled
    initializer_error: SerializedError | None = None


@dataclass(slots=True)
class WorkerState:
    """The state of this process as a Ray worker."""

    held_cpus: float | None = None  # by the running task, including lent ones; ``None`` if none is running
    watches_sigterm: bool = False
    got_sigterm: bool = False
    initialized: dict[str, SerializedError | None] = field(default_factory=dict)  # by executor


state = WorkerState()


def run_task(payload: tuple[Any, ...], *dependencies: PlainSerialized) -> tuple[Any, ...]:
    """Make the call of a task, in a worker.

    Return a `TaskResult`, and one object for each result: the result itself if it stays in the object store,
    else ``None``. A SystemExit, after SIGTERM, has Ray begin the task again in another worker.
    """
    _watch_sigterm()
    answer = _answer(payload, dependencies)
    if state.got_sigterm:
        raise SystemExit(1)
    return answer


def _watch_sigterm() -> None:
    """Record SIGTERM: the user's code may catch the SystemExit that Ray's handler raises."""
    if state.watches_sigterm or threading.current_thread() is not threading.main_thread():
        return
    state.watches_sigterm = True
    handler = signal.getsignal(signal.SIGTERM)
    if not callable(handler):  # The signal ends the process at once.
        return

    def record(number: int, frame: FrameType | None) -> None:
        state.got_sigterm = True
        handler(number, frame)

    signal.signal(signal.SIGTERM, record)


def _answer(payload: tuple[Any, ...], dependencies: tuple[PlainSerialized, ...]) -> tuple[Any, ...]:
    # The initializer is called once for each executor. The held CPUs include those that an actor has lent.
    executor_id, initializer, returns, state.held_cpus, as_views, call = payload
    attempt = attempt_number()
    no_results = (None,) * returns
    if (failure := _initialize(executor_id, initializer)) is not None:
        return TaskResult(attempt, initializer_error=failure), *no_results
    try:
        header, buffers, out_of_band = call
        values = [
            Serialized(*dependencies[part.position]).deserialize(as_views=as_views)
            if isinstance(part, Dependency)
            else part
            for part in out_of_band
        ]
        fn, args, kwargs = Serialized(header, buffers, values).deserialize(as_views=as_views)
        del values, out_of_band, buffers, call, dependencies
    except BaseException as error:
        return TaskResult(attempt, unpickling_error=described(error)), *no_results
    try:
        return _serialize_results(attempt, returns, fn(*args, **kwargs))
    except BaseException as error:
        return TaskResult(attempt, error=serialize_error(error)), *no_results
    finally:
        state.held_cpus = None


def _serialize_results(attempt: int, returns: int, value: Any) -> tuple[Any, ...]:
    values, kinds = (value.values, value.kinds) if isinstance(value, SeparateResults) else ((value,), None)
    results: list[InlineResult | StoredResult] = []
    stored: list[PlainSerialized | None] = []
    for position, part in enumerate(values):
        serialized = part if isinstance(part, Serialized) else _serialize_result(part)
        plain = to_plain(serialized)
        if serialized.size < REMOTE_MIN_BYTES:
            results.append(InlineResult(plain))
            stored.append(None)
        else:
            kind = kinds[position] if kinds else type(part).__qualname__
            results.append(StoredResult(kind, serialized.size))
            stored.append(plain)
    stored += [None] * (returns - len(stored))
    return TaskResult(attempt, tuple(results)), *stored


def _serialize_result(result: Any) -> Serialized:
    try:
        return serialize(result)
    except (TypeError, AttributeError, RecursionError) as error:  # pickle itself raises these.
        raise TransportError(
            f"the result, a {type(result).__qualname__}, cannot be pickled on its way back from a Ray "
            f"worker: {message_of(error)}. Return something that pickles."
        ) from error


def _initialize(executor_id: str, initializer: bytes | None) -> SerializedError | None:
    if initializer is None:
        return None
    if executor_id not in state.initialized:
        failure = None
        try:
            function, args = loads(initializer)
            function(*args)
        except BaseException as error:
            failure = serialize_error(error)
        state.initialized[executor_id] = failure
    return state.initialized[executor_id]
