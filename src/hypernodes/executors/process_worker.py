"""What a worker process of `ParallelExecutor` does: it answers one call after the other, through a pipe.

    driver                           worker process
                       ◀── READY ──  or FAILED, if the initializer raised
    CALL  ── fn, args, kwargs ──▶
                       ◀── RESULT ── or ERROR, or UNREADABLE if the call could not be unpickled
    STOP  ──────────────────────▶    ends

A message is a pickle and, beside it, the memory of large arrays, which is not copied into the pickle.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import threading
from enum import IntEnum, auto
from multiprocessing import connection as mp_connection
from multiprocessing import parent_process
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hypernodes.exceptions import RemoteError, TransportError
from hypernodes.serialization.errors import SerializedError, serialize_error
from hypernodes.serialization.pickling import Serialized, dumps, loads, serialize
from hypernodes.text import short

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

PARENT_CHECK_S: Final = 2.0  # A child that the driver has forked keeps the driver's end of the pipe open.


is_replaced = False
"""Whether this process makes one call at a time, and is replaced when it ends."""


class Kind(IntEnum):
    """What a message says."""

    READY = auto()
    FAILED = auto()
    CALL = auto()
    STOP = auto()
    RESULT = auto()
    ERROR = auto()
    UNREADABLE = auto()


class Message(NamedTuple):
    """A message as it arrives: what it carries is not unpickled yet."""

    kind: Kind
    header: bytes
    buffers: list[bytes]
    carried: bytes

    def unpickle(self) -> Any:
        """Return what it carries."""
        return Serialized(
            self.header, self.buffers, loads(self.carried) if self.carried else ()
        ).deserialize()


def pickled(kind: Kind, value: object = None) -> list[Any]:
    """Return a message in the parts that `send` takes.

    Raises:
        PicklingError: The value cannot be pickled.
    """
    try:
        packed = serialize(value)
        # What `serialize` lays aside is for executors that bring it to a worker by other means.
        carried = dumps(list(packed.carried)) if packed.carried else b""
    except pickle.PicklingError:
        raise
    except Exception as error:
        raise TransportError(f"{short(value)} cannot be pickled: {error}") from error
    head = pickle.dumps((int(kind), packed.header, len(packed.buffers), carried), protocol=5)
    return [head, *map(_as_bytes, packed.buffers)]


def send(pipe: Connection, parts: list[Any]) -> None:
    """Send a message.

    Raises:
        OSError: Nobody holds the other end.
    """
    for part in parts:
        pipe.send_bytes(part)


def receive(pipe: Connection) -> Message:
    """Wait for a message.

    Raises:
        EOFError: Nobody holds the other end.
        OSError: The same.
    """
    kind, header, count, carried = pickle.loads(pipe.recv_bytes())
    return Message(Kind(kind), header, [pipe.recv_bytes() for _ in range(count)], carried)


def _as_bytes(buffer: Any) -> Any:
    return buffer.raw() if isinstance(buffer, pickle.PickleBuffer) else memoryview(buffer).cast("B")


def run_worker(pipe: Connection, initializer: bytes | None) -> None:
    """Answer calls until there are no more; the main function of a worker process."""
    # Ctrl-C reaches the whole process group; the process that started this one decides what to end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # A driver that ignores it would have passed that on.
    global is_replaced  # noqa: PLW0603
    is_replaced = True
    _end_with_parent()
    if hasattr(os, "register_at_fork"):
        # The driver sees that this process has died by its end of the pipe, which no child may keep open.
        os.register_at_fork(after_in_child=pipe.close)
    failure = _initialize(initializer)
    try:
        send(pipe, pickled(Kind.READY if failure is None else Kind.FAILED, failure))
        while failure is None and (message := receive(pipe)).kind is Kind.CALL:
            send(pipe, _answer(message))
            del message
    except (EOFError, OSError):
        return


def _initialize(initializer: bytes | None) -> SerializedError | None:
    try:
        if initializer is not None:
            function, args = loads(initializer)
            function(*args)
    except BaseException as error:
        logging.getLogger("concurrent.futures").critical("Exception in initializer:", exc_info=True)
        return _packed_error(error)
    return None


def _answer(message: Message) -> list[Any]:
    try:
        fn, args, kwargs = message.unpickle()
    except BaseException as error:
        return pickled(Kind.UNREADABLE, short(error, 500))
    try:
        return pickled(Kind.RESULT, fn(*args, **kwargs))
    except BaseException as error:
        return pickled(Kind.ERROR, _packed_error(error))


def _packed_error(error: BaseException) -> SerializedError:
    try:
        return serialize_error(error)
    except Exception:  # It does not even say what it is.
        return serialize_error(RemoteError(f"an error of type {type(error).__qualname__}"))


def _end_with_parent() -> None:
    """End this process when the one that started it is gone, whatever it is doing."""
    parent = parent_process()
    if parent is None or parent.pid is None:
        return
    pid, sentinel = parent.pid, parent.sentinel

    def watch() -> None:
        while not mp_connection.wait([sentinel], timeout=PARENT_CHECK_S) and os.getppid() == pid:
            continue
        os._exit(1)

    threading.Thread(target=watch, name="hypernodes-parent", daemon=True).start()


def initializer_as_bytes(function: Callable[..., object] | None, args: tuple[Any, ...]) -> bytes | None:
    """Return an initializer as it travels."""
    return None if function is None else dumps((function, args))
