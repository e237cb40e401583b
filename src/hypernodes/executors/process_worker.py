"""The main function of a worker process of `ParallelExecutor`: it makes one call after the other.

driver                           worker process
                   ◀── READY ──  or FAILED, if the initializer raised
CALL  ── fn, args, kwargs ──▶
                   ◀── RESULT ── or ERROR, or UNREADABLE if the call could not be unpickled
STOP  ──────────────────────▶    ends
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing import connection as mp_connection
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from typing import Any, Final

from hypernodes.exceptions import RemoteError
from hypernodes.executors.process_messages import Kind, Message, receive, send, serialize_message
from hypernodes.serialization.errors import SerializedError, serialize_error
from hypernodes.serialization.pickling import dumps, loads
from hypernodes.text import short

PARENT_CHECK_INTERVAL_S: Final = 2.0
"""Seconds between checks whether the driver is alive: forked children keep its sentinel open."""
IS_POOL_WORKER: Final = threading.Event()
"""Set in a worker process: it makes one call at a time, and the pool replaces it when it ends."""


def run_worker(pipe: Connection, initializer: bytes | None) -> None:
    """Make calls until the driver sends STOP or ends."""
    # Ctrl-C reaches the whole process group. The driver decides what ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A child inherits that its parent ignores SIGTERM, but the driver ends workers by it.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    IS_POOL_WORKER.set()
    _end_with_parent()
    if hasattr(os, "register_at_fork"):
        # The end of the pipe tells the driver that this process has died, so no child may keep it open.
        os.register_at_fork(after_in_child=pipe.close)
    failure = _initialize(initializer)
    try:
        send(pipe, serialize_message(Kind.READY if failure is None else Kind.FAILED, failure))
        while failure is None and (message := receive(pipe)).kind is Kind.CALL:
            send(pipe, _make_call(message))
            del message
    except (EOFError, OSError):
        return


def serialize_initializer(function: Callable[..., object] | None, args: tuple[Any, ...]) -> bytes | None:
    """Pickle an initializer and its arguments; ``None`` if there is none."""
    return None if function is None else dumps((function, args))


def _initialize(initializer: bytes | None) -> SerializedError | None:
    try:
        if initializer is not None:
            function, args = loads(initializer)
            function(*args)
    except BaseException as error:
        logging.getLogger("concurrent.futures").critical("Exception in initializer:", exc_info=True)
        return _serialize_error(error)
    return None


def _make_call(message: Message) -> list[Any]:
    try:
        fn, args, kwargs = message.deserialize()
    except BaseException as error:
        return serialize_message(Kind.UNREADABLE, short(error, 500))
    try:
        return serialize_message(Kind.RESULT, fn(*args, **kwargs))
    except BaseException as error:
        return serialize_message(Kind.ERROR, _serialize_error(error))


def _serialize_error(error: BaseException) -> SerializedError:
    try:
        return serialize_error(error)
    except Exception:  # The text of the error cannot be computed either.
        return serialize_error(RemoteError(f"an error of type {type(error).__qualname__}"))


def _end_with_parent() -> None:
    """End this process as soon as the driver has ended, even during a call."""
    if (parent := parent_process()) is None or parent.pid is None:
        return
    pid, sentinel = parent.pid, parent.sentinel

    def watch() -> None:
        while not mp_connection.wait([sentinel], PARENT_CHECK_INTERVAL_S) and os.getppid() == pid:
            continue
        os._exit(1)

    threading.Thread(target=watch, name="hypernodes-parent", daemon=True).start()
