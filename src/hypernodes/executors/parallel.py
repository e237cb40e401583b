"""ParallelExecutor: worker processes, for everything that cloudpickle can send."""

from __future__ import annotations

import os
import pickle
import tempfile
import weakref
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing.process import current_process
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from hypernodes.exceptions import MainGuardError
from hypernodes.executors.process_pool import Call, ProcessPool
from hypernodes.executors.process_worker import initializer_as_bytes
from hypernodes.serialization.broadcast import InlineValue, PlacedValue
from hypernodes.serialization.pickling import Serialized

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.context import SpawnProcess

P = ParamSpec("P")
T = TypeVar("T")

_SHARE_AS_FILE = 64 * 1024  # bytes; below, a copy in each submission costs less than opening a file


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

    Raises:
        ValueError: ``max_workers`` below 1.
        MainGuardError: A script starts processes at import, without a ``__main__`` guard. Raised by
            `submit`.

    Example:
        >>> with ParallelExecutor(max_workers=1) as executor:
        ...     executor.submit(lambda x: x + 1, 1).result()
        2
    """

    # It is one for those who ask, and `map` is the same; the processes are those of a pool of our own, so
    # that the constructor of the standard library's, which makes queues for its processes, is not called.

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> None:
        if max_workers is not None and max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        self._max_workers = os.cpu_count() or 4 if max_workers is None else max_workers
        self._initializer_as_bytes = initializer_as_bytes(initializer, initargs)
        self._own_pool = self._new_pool()

    @property
    def max_workers(self) -> int:
        """How many calls run at once."""
        return self._max_workers

    @property
    def _broken(self) -> bool:  # type: ignore[override]
        # The name that the standard library's executors have for it.
        return self._own_pool.broken is not None

    @property
    def _processes(self) -> dict[int, SpawnProcess]:  # type: ignore[override]
        # Likewise.
        return self._own_pool.processes

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Schedule ``fn(*args, **kwargs)`` in a worker and return its future.

        Raises:
            BrokenExecutor: The initializer has raised, or worker processes cannot be started.
            RuntimeError: The executor was shut down, or the interpreter is ending.
        """
        if getattr(current_process(), "_inheriting", False):
            raise MainGuardError(
                "this script starts worker processes while one of them imports it, since its top level "
                "does so unconditionally. Put what it does under a guard:\n\n"
                '    if __name__ == "__main__":\n        main()\n'
            )
        call = Call(fn, args, kwargs)
        self._pool.submit(call)
        return call.future

    def share(self, packed: Serialized) -> PlacedValue:
        """Place what many submissions have in common where each worker reads it once."""
        if packed.size < _SHARE_AS_FILE:
            return InlineValue(packed)
        pool = self._pool
        if pool.shared is None:
            pool.shared = tempfile.TemporaryDirectory(prefix="hypernodes-", ignore_cleanup_errors=True)
        path = Path(pool.shared.name, packed.digest.hex())
        if not path.exists():
            with path.open("wb") as file:
                pickle.dump(packed, file, protocol=5)
        return _SharedFile(str(path))

    def terminate(self) -> None:
        """End the workers at once, running work included, and take no more."""
        self._pool.terminate()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002
        """Take no more work; see `concurrent.futures.Executor.shutdown`."""
        self._pool.close(wait=wait, cancel_pending=cancel_futures)

    @property
    def _pool(self) -> ProcessPool:
        if self._own_pool.pid != os.getpid():  # This is a forked child, which has none of the processes.
            self._own_pool = self._new_pool(is_closed=self._own_pool.is_closed)
        return self._own_pool

    def _new_pool(self, *, is_closed: bool = False) -> ProcessPool:
        pool = ProcessPool(self._max_workers, self._initializer_as_bytes, is_closed=is_closed)
        # Dropping the executor loses no work: the pool finishes what it holds.
        weakref.finalize(self, pool.close, wait=False, cancel_pending=False).atexit = False
        return pool

    def __repr__(self) -> str:
        return f"ParallelExecutor(max_workers={self._max_workers})"


@dataclass(frozen=True, slots=True)
class _SharedFile:
    """A shared value in a file of the host on which all the workers are."""

    path: str

    def load(self) -> Serialized:
        with Path(self.path).open("rb") as file:
            packed: Serialized = pickle.load(file)
        return packed
