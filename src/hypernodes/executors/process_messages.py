"""The messages between `ParallelExecutor` and its worker processes, and how a pipe transports them.

A message is a pickle and, beside it, the memory of large arrays, which is not copied into the pickle.
"""

from __future__ import annotations

import pickle
from enum import IntEnum, auto
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from hypernodes.exceptions import TransportError
from hypernodes.serialization.pickling import Serialized, dumps, loads, serialize
from hypernodes.text import short


class Kind(IntEnum):
    """The kind of a message."""

    READY = auto()
    FAILED = auto()
    CALL = auto()
    STOP = auto()
    RESULT = auto()
    ERROR = auto()
    UNREADABLE = auto()


class Message(NamedTuple):
    """A message that was received; its value is not unpickled yet."""

    kind: Kind
    header: bytes
    buffers: list[bytes]
    out_of_band: bytes

    def deserialize(self) -> Any:
        """Return the value of the message."""
        out_of_band = loads(self.out_of_band) if self.out_of_band else ()
        return Serialized(self.header, self.buffers, out_of_band).deserialize()


def serialize_message(kind: Kind, value: object = None) -> list[Any]:
    """Return a message in the parts that `send` takes."""
    try:
        serialized = serialize(value)
        # A pipe has no other way for these objects, so they are pickled as well.
        out_of_band = dumps(list(serialized.out_of_band)) if serialized.out_of_band else b""
    except pickle.PicklingError:
        raise
    except Exception as error:
        raise TransportError(f"{short(value)} cannot be pickled: {error}") from error
    buffers = serialized.buffers
    head = pickle.dumps((int(kind), serialized.header, len(buffers), out_of_band), protocol=5)
    return [head, *map(_as_bytes, buffers)]


def send(pipe: Connection, parts: list[Any]) -> None:
    """Send a message; an OSError means that the other end of the pipe is closed."""
    for part in parts:
        pipe.send_bytes(part)


def receive(pipe: Connection) -> Message:
    """Wait for a message; an EOFError or OSError means that the other end of the pipe is closed."""
    kind, header, count, out_of_band = pickle.loads(pipe.recv_bytes())
    return Message(Kind(kind), header, [pipe.recv_bytes() for _ in range(count)], out_of_band)


def _as_bytes(buffer: Any) -> Any:
    return buffer.raw() if isinstance(buffer, pickle.PickleBuffer) else memoryview(buffer).cast("B")
