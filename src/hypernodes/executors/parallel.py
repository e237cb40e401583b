"""ParallelExecutor: the standard library's process pool, for everything that cloudpickle can send."""

from __future__ import annotations

import os
import pickle
import signal
import tempfile
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.process import current_process
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from hypernodes.exceptions import MainGuardError
from hypernodes.portable import Carrier, Inline, Packed, Portable, Shared

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")

_SHARE_AS_FILE = 64 * 1024  # bytes; below, a copy in each submission costs less than opening a file


class ParallelExecutor(ProcessPoolExecutor):
    """A `ProcessPoolExecutor` that takes lambdas, local functions and closures.

    Workers are started afresh (``spawn``), never forked from a process that may have threads. They
    leave Ctrl-C to the process that started them.

    Args:
        max_workers: Number of processes; as many as there are cores by default.
        initializer: Called with `initargs` at the start of each worker.
        initargs: Its arguments.

    Raises:
        MainGuardError: A script starts processes at import, without a ``__main__`` guard. Raised by
            `submit`.

    Example:
        >>> with ParallelExecutor(max_workers=1) as executor:
        ...     executor.submit(lambda x: x + 1, 1).result()
        2
    """

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> None:
        super().__init__(
            os.cpu_count() or 4 if max_workers is None else max_workers,
            mp_context=get_context("spawn"),
            initializer=_start_worker,  # type: ignore[arg-type]  # unpickling a Portable gives what it wraps
            initargs=(Portable((initializer, initargs)),),  # type: ignore[arg-type]
        )
        self._shared: tempfile.TemporaryDirectory[str] | None = None

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Schedule ``fn(*args, **kwargs)`` in a worker and return its future."""
        if getattr(current_process(), "_inheriting", False):
            raise MainGuardError(
                "this script starts worker processes while one of them imports it, since its top level "
                "does so unconditionally. Put what it does under a guard:\n\n"
                '    if __name__ == "__main__":\n        main()\n'
            )
        call: Callable[..., Any] = _call
        return super().submit(call, Portable((fn, args, kwargs)))

    def share(self, packed: Packed) -> Shared:
        """Place what many submissions have in common where each worker reads it once."""
        if packed.size < _SHARE_AS_FILE:
            return Inline(packed)
        if self._shared is None:
            self._shared = tempfile.TemporaryDirectory(prefix="hypernodes-", ignore_cleanup_errors=True)
        path = Path(self._shared.name, packed.digest.hex())
        if not path.exists():
            with path.open("wb") as file:
                pickle.dump(packed, file, protocol=5)
        return _SharedFile(str(path))

    def terminate(self) -> None:
        """End the workers at once, running work included, and take no more."""
        for process in list((self._processes or {}).values()):
            process.terminate()
        self.shutdown(wait=True, cancel_futures=True)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002
        """Take no more work; see `concurrent.futures.Executor.shutdown`."""
        if self._pending_work_items and not cancel_futures:
            # Before 3.11.5 the pool's manager sleeps on where only cancelled calls are left (CPython's
            # gh-94440), so that waiting for it never ends: one more result wakes it.
            with suppress(RuntimeError):
                super().submit(int)
        super().shutdown(wait=wait, cancel_futures=cancel_futures)
        if wait and self._shared is not None:
            self._shared.cleanup()
            self._shared = None


@dataclass(frozen=True, slots=True)
class _SharedFile:
    """A shared value in a file of the host on which all the workers are."""

    path: str

    def load(self) -> Packed:
        with Path(self.path).open("rb") as file:
            packed: Packed = pickle.load(file)
        return packed


def _start_worker(initializer: tuple[Callable[..., object] | None, tuple[Any, ...]]) -> None:
    # Ctrl-C reaches the whole process group; the process that started us decides what to end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    function, args = initializer
    if function is not None:
        function(*args)


def _call(packed: tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]) -> Portable:
    fn, args, kwargs = packed
    try:
        return Portable(fn(*args, **kwargs))
    except BaseException as error:
        raise Carrier(error) from error
