"""RayExecutor: a `concurrent.futures.Executor` whose workers are the CPUs of a Ray cluster.

    submit ─▶ pending (deque) ─▶ dispatcher thread ─▶ at most max_workers Ray tasks
                                     ▲                            │
                                     └── a queue of what finished ┘ ─▶ futures

The local queue makes `cancel`, `running` and `max_workers` true: what is not yet a Ray task can be
cancelled, what is one is running. Ray's own threads only ever put a name into the queue; futures,
and with them the callbacks of users, are settled by the dispatcher.
"""

from __future__ import annotations

import os
import socket
import threading
import weakref
from collections import deque
from concurrent.futures import Executor, Future
from concurrent.futures import wait as wait_for
from functools import partial
from itertools import islice
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from hypernodes.exceptions import ClusterConnectionError, TransportError, WorkerDiedError
from hypernodes.portable import Inline, PackedError, Shared, pack_error, short, unpack_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

P = ParamSpec("P")
T = TypeVar("T")

_SHARE_AS_OBJECT = 90_000  # bytes; Ray copies smaller arguments into the task itself, which costs less
_PROBE_TIMEOUT = 5.0  # seconds; ray.init waits for minutes where nobody listens


class RayExecutor(Executor):
    """Run callables as Ray tasks.

    Uses the Ray that this process is connected to; else the cluster at `address` or at
    ``RAY_ADDRESS``; else it starts a local Ray, which it stops again when the last executor that
    uses it is shut down.

    Args:
        max_workers: How many tasks run at once; by default as many as the cluster has CPUs for.
        num_cpus: CPUs that one task takes.
        max_retries: How often Ray runs a task again whose worker died.
        address: The cluster, if this process is not connected to one.

    Raises:
        ClusterConnectionError: Nothing answers at the address. Raised by the first `submit`.
        ValueError: ``max_workers`` below 1.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        num_cpus: float = 1,
        max_retries: int = 3,
        address: str | None = None,
    ) -> None:
        if max_workers is not None and max_workers < 1:
            raise ValueError("max_workers must be greater than 0")
        self._max_workers = max_workers
        self._num_cpus = num_cpus
        self._max_retries = max_retries
        self._address = address
        self._lock = threading.Lock()
        self._state: _Dispatcher | None = None
        self._closed = False

    @property
    def max_workers(self) -> int:
        """How many tasks run at once."""
        if self._max_workers is not None:
            return self._max_workers
        return self._dispatcher().max_workers

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[Any]:
        """Schedule ``fn(*args, **kwargs)`` on the cluster and return its future.

        Raises:
            RuntimeError: The executor was shut down, or the interpreter is ending.
            ClusterConnectionError: There is no cluster at the address.
        """
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if _exiting:
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")
        return self._dispatcher().submit(_Task(Future(), fn, args, kwargs))

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
    ) -> Iterator[T]:
        """Call ``fn`` on the items of the iterables, `chunksize` calls to a Ray task; results come in order.

        Raises:
            ValueError: ``chunksize`` below 1.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        rows = zip(*iterables, strict=False)
        chunks = iter(lambda: tuple(islice(rows, chunksize)), ())
        results = super().map(partial(_call_each, fn), chunks, timeout=timeout)
        return (value for chunk in results for value in chunk)

    def share(self, blob: bytes) -> Shared:
        """Place bytes that many submissions have in common in the object store."""
        if len(blob) < _SHARE_AS_OBJECT:
            return Inline(blob)
        self._dispatcher()
        import ray  # noqa: PLC0415

        return _SharedObject(ray.put(blob))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002
        """Take no more work; see `concurrent.futures.Executor.shutdown`."""
        with self._lock:
            self._closed = True
            dispatcher = self._state
        if dispatcher is not None:
            dispatcher.close(wait=wait, cancel_pending=cancel_futures)

    def terminate(self) -> None:
        """End running tasks by force, and take no more."""
        with self._lock:
            self._closed = True
            dispatcher = self._state
        if dispatcher is not None:
            dispatcher.terminate()

    def _dispatcher(self) -> _Dispatcher:
        with self._lock:
            if self._state is None:
                started_ray = _connect(self._address)
                self._state = _Dispatcher(
                    self._max_workers, self._num_cpus, self._max_retries, owns_ray=started_ray
                )
                # Dropping the executor loses no work: the dispatcher finishes what it holds.
                weakref.finalize(self, self._state.close, wait=False, cancel_pending=False).atexit = False
            return self._state


class _Task:
    __slots__ = ("args", "fn", "future", "kwargs", "ref")

    def __init__(
        self,
        future: Future[Any],
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self.future = future
        self.fn = fn
        self.args = args
        self.kwargs = kwargs
        self.ref: Any = None


class _Dispatcher:
    """The thread that turns pending submissions into Ray tasks and their results into futures."""

    def __init__(self, max_workers: int | None, num_cpus: float, max_retries: int, *, owns_ray: bool) -> None:
        import ray  # noqa: PLC0415

        self._ray = ray
        self.owns_ray = owns_ray
        self.max_workers = max_workers or max(
            1, int(ray.cluster_resources().get("CPU", 1) // max(num_cpus, 1e-3))
        )
        self._remote = ray.remote(_run).options(
            num_cpus=num_cpus, max_retries=max_retries, retry_exceptions=False, name="hypernodes"
        )
        self._lock = threading.Lock()
        self._pending: deque[_Task] = deque()
        self._running: set[_Task] = set()
        self._inbox: SimpleQueue[tuple[_Task, Future[Any]] | None] = SimpleQueue()
        self._closing = False
        self._terminated = False
        self._thread = threading.Thread(target=self._dispatch, name="hypernodes-ray", daemon=True)
        self._thread.start()
        _alive.add(self)

    def submit(self, task: _Task) -> Future[Any]:
        with self._lock:
            if self._closing:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._pending.append(task)
        self._inbox.put(None)
        return task.future

    def close(self, *, wait: bool, cancel_pending: bool) -> None:
        with self._lock:
            self._closing = True
            cancelled = list(self._pending) if cancel_pending else []
            if cancel_pending:
                self._pending.clear()
        for task in cancelled:
            task.future.cancel()
            task.future.set_running_or_notify_cancel()
        self._inbox.put(None)
        if wait and threading.current_thread() is not self._thread:
            self._thread.join()

    def terminate(self) -> None:
        self._terminated = True
        with self._lock:
            running = list(self._running)
        for task in running:
            if task.ref is not None:
                self._ray.cancel(task.ref, force=True)
        self.close(wait=True, cancel_pending=True)

    def outstanding(self) -> list[Future[Any]]:
        with self._lock:
            return [task.future for task in (*self._pending, *self._running)]

    def _dispatch(self) -> None:
        while True:
            self._start_pending()
            with self._lock:
                if self._closing and not self._pending and not self._running:
                    break
            finished = self._inbox.get()
            if finished is not None:
                self._settle(*finished)
            del finished  # a result belongs to whoever holds its future
        if self.owns_ray:
            _disconnect()

    def _start_pending(self) -> None:
        while True:
            with self._lock:
                if not self._pending or len(self._running) >= self.max_workers:
                    return
                task = self._pending.popleft()
                self._running.add(task)
            if not task.future.set_running_or_notify_cancel():
                self._done(task)
                continue
            try:
                task.ref = self._remote.remote(task.fn, task.args, task.kwargs)
                task.fn, task.args, task.kwargs = _run, (), {}  # nothing is kept while it runs
                task.ref.future().add_done_callback(lambda raw, task=task: self._inbox.put((task, raw)))
            except BaseException as error:
                self._done(task)
                unsent = f"{short((task.fn, *task.args))} cannot be sent to a Ray worker: {error}"
                task.future.set_exception(TransportError(unsent) if isinstance(error, TypeError) else error)

    def _settle(self, task: _Task, raw: Future[Any]) -> None:
        self._done(task)
        self._start_pending()
        error = raw.exception()
        value = None if error is not None else raw.result()
        if isinstance(value, PackedError):
            error = unpack_error(value)
        elif error is not None:
            error = self._explain(error)
        if error is not None:
            task.future.set_exception(error)
        else:
            task.future.set_result(value)

    def _done(self, task: _Task) -> None:
        task.ref = None
        with self._lock:
            self._running.discard(task)

    def _explain(self, error: BaseException) -> BaseException:
        from ray import exceptions  # noqa: PLC0415

        died = (
            exceptions.WorkerCrashedError,
            exceptions.NodeDiedError,
            exceptions.OutOfMemoryError,
            exceptions.ObjectLostError,
            exceptions.TaskCancelledError,
        )
        if isinstance(error, exceptions.RayTaskError):
            # What was submitted never raises through Ray; this is its result, or the function's import.
            return TransportError(f"a Ray task could not hand over its work: {error.cause or error}")
        if not isinstance(error, died):
            return error
        why = "it was ended" if self._terminated else str(error).strip() or type(error).__name__
        explained = WorkerDiedError(f"a Ray worker ended before its work was done: {why}")
        explained.__cause__ = error
        return explained


class _SharedObject:
    """Shared bytes in Ray's object store."""

    __slots__ = ("ref",)

    def __init__(self, ref: Any) -> None:
        self.ref = ref

    def load(self) -> bytes:
        import ray  # noqa: PLC0415

        blob: bytes = ray.get(self.ref)
        return blob


def _run(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call what was submitted, in the worker; an error comes back as a value."""
    try:
        return fn(*args, **kwargs)
    except BaseException as error:
        return pack_error(error)


def _call_each(fn: Callable[..., T], rows: tuple[tuple[Any, ...], ...]) -> list[T]:
    return [fn(*row) for row in rows]


_connection_lock = threading.Lock()
_local_users = 0
_started_here = False


def _connect(address: str | None) -> bool:
    """Make sure that this process is connected; tell whether a Ray started here is used."""
    global _local_users, _started_here  # noqa: PLW0603
    import ray  # noqa: PLC0415

    with _connection_lock:
        if ray.is_initialized():
            if _started_here:
                _local_users += 1
            return _started_here
        address = address or os.environ.get("RAY_ADDRESS")
        if address and address not in ("auto", "local"):
            _probe(address)
        try:
            ray.init(
                address=address or "local",
                logging_level="error",
                **({} if address else {"include_dashboard": False}),
            )
        except ConnectionError as error:
            raise ClusterConnectionError(
                f"no Ray cluster answers at {address!r}: {error}. If it runs with token authentication, set "
                f"RAY_AUTH_MODE=token in this process, too."
            ) from error
        _started_here = address in (None, "", "local")
        _local_users = 1 if _started_here else 0
        return _started_here


def _disconnect() -> None:
    global _local_users, _started_here  # noqa: PLW0603
    import ray  # noqa: PLC0415

    with _connection_lock:
        _local_users -= 1
        if _local_users == 0 and _started_here:
            _started_here = False
            ray.shutdown()


def _probe(address: str) -> None:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=_PROBE_TIMEOUT).close()
    except OSError as error:
        raise ClusterConnectionError(
            f"nothing answers at {address!r} ({error}). Start a cluster with `ray start --head`, correct "
            f"RAY_ADDRESS, or unset it to use a local Ray."
        ) from error


_alive: weakref.WeakSet[_Dispatcher] = weakref.WeakSet()
_exiting = False


def _finish_at_exit() -> None:
    global _exiting  # noqa: PLW0603
    _exiting = True
    for dispatcher in list(_alive):
        wait_for(dispatcher.outstanding())
        dispatcher.close(wait=True, cancel_pending=False)


# Runs before Ray's own exit hook disconnects, so that submitted work is done.
threading._register_atexit(_finish_at_exit)  # type: ignore[attr-defined]
