"""The request and the answer of a Ray task. Both are plain data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from hypernodes.serialization.pickling import Serialized, serialize

if TYPE_CHECKING:
    from hypernodes.serialization.errors import SerializedError

PlainSerialized: TypeAlias = tuple[bytes, Sequence[Any], Sequence[Any]]
"""The fields of a `Serialized`: Ray pickles a tuple faster than an object of a class."""


def to_plain(serialized: Serialized) -> PlainSerialized:
    """Return the fields of a serialized value."""
    return serialized.header, serialized.buffers, serialized.out_of_band


def serialize_plain(value: object) -> PlainSerialized:
    """Serialize a value, and return the fields."""
    return to_plain(serialize(value))


class Dependency(NamedTuple):
    """Stands for the result of another task in the call of a task.

    Attributes:
        position: The position of the result among the arguments of the task.
    """

    position: int


class TaskPayload(NamedTuple):
    """The request: what a worker calls. It is sent as a plain tuple, which Ray pickles faster.

    Attributes:
        executor_id: Names the executor, whose initializer each worker process calls once.
        initializer: The pickled initializer and its arguments, if there is one.
        returns: How many results there may be.
        cpus: How many CPUs the task holds, including CPUs that an actor has lent to it.
        call: The function and its arguments.
    """

    executor_id: str
    initializer: bytes | None
    returns: int
    cpus: float
    call: PlainSerialized


class InlineResult(NamedTuple):
    """A small result, which is part of the answer."""

    value: PlainSerialized


class StoredResult(NamedTuple):
    """A large result, which stays in the object store.

    Attributes:
        kind: The name of its type.
        size: Bytes.
    """

    kind: str
    size: int


class TaskResult(NamedTuple):
    """The answer.

    Attributes:
        attempt: How often Ray has begun the task before.
        results: The results, or what is known of those in the object store.
        error: The error that the call raised.
        unpickling_error: Why the call could not be unpickled.
        initializer_error: The error that the initializer raised.
    """

    attempt: int = 0
    results: tuple[InlineResult | StoredResult, ...] = ()
    error: SerializedError | None = None
    unpickling_error: str | None = None
    initializer_error: SerializedError | None = None
