"""ParallelExecutor: worker processes, for every call that cloudpickle can pickle."""

from __future__ import annotations

import os
import pickle
import weakref
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing.process import current_process
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Never, ParamSpec, TypeVar

from hypernodes._compat.multiprocessing import is_importing_main
from hypernodes.arguments import initializer_arguments, unknown_option, whole_number
from hypernodes.exceptions import DaemonProcessError, MainGuardError
from hypernodes.executors.process_pool import NO_GUARD_MESSAGE, PoolCall, ProcessPool
from hypernodes.executors.process_worker import end_if_importing_main, serialize_initializer
from hypernodes.serialization.broadcast import InlineValue, PlacedValue

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.context import SpawnProcess

    from hypernodes.serialization.pickling import Serialized

P = ParamSpec("P")
T = TypeVar("T")

FILE_MIN_BYTES: Final = 64 * 1024
"""Bytes from which on a broadcast value is a file; a copy of a smaller one in each call costs less."""


class ParallelExecutor(ProcessPoolExecutor):
    """A `ProcessPoolExecutor` that takes lambdas, local functions and closures, and survives its workers.

    Workers are started afresh (``spawn``), never forked from a process that may have threads. They
    leave Ctrl-C to the process that started them, and end with it.

    A worker that dies fails the call that it was making, with a `WorkerDiedError`, and is replaced.

    Args:
        max_workers: Number of processes; as many as there are cores by default.
        initializer: Called with `initargs` at the start of each worker. If it raises, the executor takes
            no more calls.
        initargs: Its arguments.
        max_tasks_per_child: After how many calls a process is replaced by a new one, which gives back what
            they have left in its memory. By default a process is kept.

    Raises:
        ValueError: ``max_workers`` or ``max_tasks_per_child`` below 1.
        MainGuardError: A script starts processes at import, without a ``__main__`` guard. The error of calls.

    Example:
        >>> with ParallelExecutor(max_workers=1) as executor:
        ...     executor.submit(lambda x: x + 1, 1).result()
        2
    """

    # The base class is for code that checks for it, and for its `map`. The processes belong to `ProcessPool`,
    # so the constructor of the base class, which makes queues for its own processes, is not called.

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        max_tasks_per_child: int | None = None,
        **unknown: Never,
    ) -> None:
        if unknown:
            raise unknown_option("ParallelExecutor", unknown)
        if max_workers is not None and whole_number("max_workers", max_workers) <= 0:
            raise ValueError("max_workers must be greater than 0")
        if max_tasks_per_child is not None:
            max_tasks_per_child = whole_number("max_tasks_per_child", max_tasks_per_child, 1)
        initargs = initializer_arguments(initializer, initargs)
        self._max_workers = os.cpu_count() or 4 if max_workers is None else max_workers
        self._max_calls = max_tasks_per_child
        self._serialized_initializer = serialize_initializer(initializer, initargs)
        self._own_pool = self._new_pool()

    @property
    def max_workers(self) -> int:
        """How many calls run at once."""
        return self._max_workers

    @property
    def _broken(self) -> bool:  # type: ignore[override]
        # This is the attribute of the standard library's executors.
        return self._own_pool.is_broken

    @property
    def _processes(self) -> dict[int, SpawnProcess]:  # type: ignore[override]
        # This is the attribute of the standard library's executors.
        return self._own_pool.processes

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Schedule ``fn(*args, **kwargs)`` in a worker and return its future.

        Raises:
            BrokenExecutor: The initializer has raised, or worker processes cannot be started.
            DaemonProcessError: This process is daemonic, and may start no others.
            RuntimeError: The executor was shut down, or the interpreter is ending.
        """
        end_if_importing_main()
        if is_importing_main():
            raise MainGuardError(NO_GUARD_MESSAGE)
        if current_process().daemon:
            raise DaemonProcessError(
                f"this process, {current_process().name!r}, is daemonic (a worker of multiprocessing.Pool, "
                "for example), and Python lets a daemonic process start no others. Take 'threaded' or "
                "'sequential' in it; or make the outer processes with ParallelExecutor or "
                "concurrent.futures.ProcessPoolExecutor, whose workers are not daemonic."
            )
        call = PoolCall(fn, args, kwargs)
        self._pool.submit(call)
        return call.future

    def place(self, serialized: Serialized) -> PlacedValue:
        """Place a value that many submissions have in common where each worker reads it once."""
        if serialized.size < FILE_MIN_BYTES:
            return InlineValue(serialized)
        directory = self._pool.directory
        directory.mkdir(mode=0o700, exist_ok=True)
        path = directory / serialized.digest.hex()
        if not path.exists():
            with path.open("wb") as file:
                pickle.dump(serialized, file, protocol=5)
        return _PlacedFile(str(path))

    def kill(self, future: Future[Any]) -> bool:
        """Kill the process of a running call, even if the call is stuck; ``False`` if there is none.

        Its future then raises `WorkerDiedError`.
        """
        return self._pool.kill(future)

    def terminate(self) -> None:
        """End the workers at once, cancel pending calls, and take no more."""
        self._pool.terminate()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002
        """Take no more calls; see `concurrent.futures.Executor.shutdown`."""
        self._pool.close(wait=wait, cancel_pending=cancel_futures)

    @property
    def _pool(self) -> ProcessPool:
        if self._own_pool.pid != os.getpid():  # A forked child has none of the processes.
            self._own_pool = self._new_pool(is_closed=self._own_pool.is_closed)
        return self._own_pool

    def _new_pool(self, *, is_closed: bool = False) -> ProcessPool:
        pool = ProcessPool(
            self._max_workers, self._serialized_initializer, max_calls=self._max_calls, is_closed=is_closed
        )
        # When the executor is garbage-collected, the pool still makes the calls that it has.
        weakref.finalize(self, pool.close, wait=False, cancel_pending=False).atexit = False
        return pool

    def __repr__(self) -> str:
        return f"ParallelExecutor(max_workers={self._max_workers})"


@dataclass(frozen=True, slots=True)
class _PlacedFile:
    """A broadcast value in a file; all workers are on the same host."""

    path: str

    def load(self) -> Serialized:
        with Path(self.path).open("rb") as file:
            serialized: Serialized = pickle.load(file)
        return serialized
