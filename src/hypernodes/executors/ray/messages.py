"""The request and the answer of a Ray task. Both are plain data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

from hypernodes.serialization.errors import SerializedError
from hypernodes.serialization.pickling import Serialized, serialize

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


class TaskPayload(NamedTuple):
    """The request: what a worker calls. It is sent as a plain tuple, which Ray pickles faster."""

    executor_id: str  # each worker process calls the initializer of an executor once
    initializer: bytes | None
    returns: int  # how many results there may be
    cpus: float  # CPUs that the task holds, with those that an actor has lent to it
    call: PlainSerialized


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
