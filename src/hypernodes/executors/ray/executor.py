"""RayExecutor: the interface of the standard library's executors, for a Ray cluster."""

from __future__ import annotations

import itertools
import threading
import weakref
from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, Never, ParamSpec, TypeVar

from hypernodes.arguments import error_of, flag, initializer_arguments, text, unknown_option, whole_number
from hypernodes.exceptions import ClusterConnectionError, TransportError
from hypernodes.executors.forks import call_after_fork
from hypernodes.executors.ray.connection import connect, connection_id, upload_runtime_env
from hypernodes.executors.ray.dispatcher import Dispatcher, exit_hook
from hypernodes.executors.ray.future import RayFuture, is_task_thread
from hypernodes.executors.ray.objects import place
from hypernodes.executors.ray.task import Task
from hypernodes.resources import Resources
from hypernodes.serialization.pickling import Serialized, dumps, register_out_of_band, serialize
from hypernodes.text import short

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from hypernodes.serialization.broadcast import PlacedValue

P = ParamSpec("P")
T = TypeVar("T")


class RayExecutor(ProcessPoolExecutor):
    """Run callables on a Ray cluster, with the interface of the standard library's executors.

    Uses the Ray that this process is connected to; else the cluster at `address` or at
    ``RAY_ADDRESS``; else it starts a local Ray, which it stops again when the last executor that
    uses it is shut down.

    It is a `ProcessPoolExecutor` by its class, since other libraries ask for that; nothing is inherited.

    A future given as an argument to `submit` stands for its value, which goes from worker to worker
    and not through this process. A large result stays in the cluster until it is asked for.

    Args:
        max_workers: How many calls run at once; by default as many as the cluster has room for.
        num_cpus: CPUs that each call takes.
        num_gpus: GPUs that each call takes.
        memory: Bytes of memory that each call takes.
        resources: Resources of the cluster's own that each call takes, by name.
        runtime_env: The environment of the workers: see Ray's ``runtime_env``.
        max_retries: How often a call is begun again if its worker dies.
        max_calls: After how many calls a worker process is replaced by a new one, which gives back what they
            have left in its memory. By default Ray keeps a process, unless its calls take GPUs.
        address: The cluster, if this process is not connected to one.
        initializer: Called with `initargs` in each worker process before its first call.
        initargs: Its arguments.
        autoscaling: Whether the cluster grows when calls wait: they then wait for resources that no host has.

    Raises:
        ClusterConnectionError: No cluster answers at the address. Raised by the first `submit`.
        ResourcesError: No host has the resources of a call. Raised by the first `submit`.
        ValueError: ``max_workers`` or ``max_calls`` below 1, or a negative amount.

    Example:
        >>> with RayExecutor(max_workers=2) as executor:           # doctest: +SKIP
        ...     total = executor.submit(sum, [1, 2, 3])
        ...     executor.submit(pow, total, 2).result()
        36
    """

    places_calls: ClassVar[bool] = True

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        num_cpus: float = 1,
        num_gpus: float = 0,
        memory: int | None = None,
        resources: Mapping[str, float] | None = None,
        runtime_env: dict[str, Any] | None = None,
        max_retries: int = 3,
        max_calls: int | None = None,
        address: str | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        autoscaling: bool = False,
        **unknown: Never,
    ) -> None:
        if unknown:
            raise unknown_option("RayExecutor", unknown)
        self._options = {
            name: value for name, value in locals().items() if name not in ("self", "max_workers", "unknown")
        }
        if max_workers is not None and whole_number("max_workers", max_workers) < 1:
            raise ValueError("max_workers must be greater than 0")
        initargs = initializer_arguments(initializer, initargs)
        max_retries = whole_number("max_retries", max_retries, 0)
        if runtime_env is not None and not isinstance(runtime_env, dict):
            raise error_of("runtime_env", "a dictionary, as Ray takes it", runtime_env)
        if address is not None:
            text("address", address)
        flag("autoscaling", autoscaling)
        if max_calls is not None:
            max_calls = whole_number("max_calls", max_calls, 1)
        self._limit = max_workers
        self._max_calls = max_calls
        self._resources = Resources.of(num_cpus, num_gpus, memory, resources)
        self._runtime_env = runtime_env
        self._max_retries = max_retries
        self._address = address
        self._autoscaling = autoscaling
        self._serialized_initializer = None if initializer is None else dumps((initializer, initargs))
        self._closed = False
        self._begin()
        call_after_fork(self._begin)

    def _begin(self) -> None:
        """Begin without a connection: a forked child has none of its threads."""
        self._lock = threading.Lock()
        self._current: Dispatcher | None = None

    @property
    def _max_workers(self) -> int:
        # Libraries ask the executors of the standard library by this attribute how many workers there are.
        return self.max_workers

    @property
    def max_workers(self) -> int:
        """How many calls run at once."""
        if self._limit is not None:
            return self._limit
        return self._dispatcher().max_workers

    @property
    def max_retries(self) -> int:
        """How often a call is begun again if its worker dies."""
        return self._max_retries

    @property
    def _broken(self) -> bool:  # type: ignore[override]
        # This is the attribute of the standard library's executors.
        return self._current is not None and self._current.is_broken

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[Any]:
        """Schedule ``fn(*args, **kwargs)`` on the cluster and return its future.

        Raises:
            RuntimeError: The executor was shut down, or the interpreter is ending.
            ClusterConnectionError: There is no cluster at the address, or Ray was shut down since.
        """
        dispatcher = self._dispatcher()
        try:
            call = self._serialize((fn, args, kwargs))
        except BaseException as error:
            failed = RayFuture()
            failed.set_running_or_notify_cancel()
            failed.set_exception(error)
            return failed
        return dispatcher.submit(
            Task(call, self._resources, retries=self._max_retries, name=getattr(fn, "__qualname__", ""))
        )

    def submit_separate(
        self,
        fn: Callable[..., Any],
        /,
        *args: Any,
        returns: int = 0,
        resources: Resources | None = None,
        retries: int | None = None,
        as_views: bool = False,
        name: str = "",
    ) -> Future[Any]:
        """Schedule a call with separate results, each of which stays in the cluster if it is large.

        Args:
            fn: Returns one value, or a `SeparateResults` of up to 1 + `returns` values.
            args: Its arguments.
            returns: How many results there may be after the first.
            resources: The resources that the call takes; by default those of the executor.
            retries: How often the call is begun again if a worker dies during it; by default as often as the
                executor says.
            as_views: Whether arrays in the arguments may be read-only views of the object store, not copies.
            name: What the call does, for Ray's dashboard and ``ray list tasks``.

        Returns:
            A future of a tuple: each result, or a `RemoteValue` that stands for it.

        Raises:
            TransportError: The function or an argument cannot be pickled.
        """
        dispatcher = self._dispatcher()
        needs = self._resources if resources is None else resources.with_defaults(self._resources)
        return dispatcher.submit(
            Task(
                self._serialize((fn, args, {})),
                needs,
                returns=1 + returns,
                retries=self._max_retries if retries is None else retries,
                as_views=as_views,
                name=name,
            )
        )

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """Call ``fn`` on the items of the iterables; the results come in order.

        Args:
            fn: What is called.
            iterables: As many as it has arguments.
            timeout: Seconds from now in which a result must be there.
            chunksize: How many calls go to a worker together.
            buffersize: How many chunks are submitted before their results are taken; all by default.

        Raises:
            ValueError: ``chunksize`` or ``buffersize`` below 1.
            TimeoutError: A result was not there in time.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None and not isinstance(buffersize, int):
            raise TypeError("buffersize must be an integer or None")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        ends = None if timeout is None else timeout + monotonic()
        rows = zip(*iterables, strict=False)
        chunks = iter(lambda: tuple(itertools.islice(rows, chunksize)), ())
        call = self.place(serialize(fn))

        def submit(chunk: Any) -> Future[Any]:
            return self.submit(_call_each, call, chunk)

        futures = deque(submit(chunk) for chunk in itertools.islice(chunks, buffersize))
        return _in_order(futures, chunks if buffersize is not None else iter(()), submit, ends)

    def place(self, serialized: Serialized) -> PlacedValue:
        """Place a value that many submissions have in common in the object store.

        Raises:
            ClusterConnectionError: As for `submit`.
        """
        self._dispatcher()  # It connects this process to the cluster.
        return place(serialized)

    def wait_without_cpus(self, timeout: float | None = None) -> bool:
        """Wait for a moment without holding the CPUs of this Ray task; ``False`` outside of a task."""
        if self._current is None or not is_task_thread():
            return False
        self._current.wait_without_cpus(timeout)
        return True

    def kill(self, future: Future[Any]) -> bool:
        """Kill the process of a running call, even if the call is stuck; ``False`` if there is none.

        Its future then raises `WorkerDiedError`.
        """
        return self._current is not None and self._current.kill(future)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002
        """Take no more calls; see `concurrent.futures.Executor.shutdown`."""
        if (dispatcher := self._close()) is not None:
            dispatcher.close(wait=wait, cancel_pending=cancel_futures)

    def terminate(self) -> None:
        """Kill the processes of running calls, cancel pending calls, and take no more."""
        if (dispatcher := self._close()) is not None:
            dispatcher.terminate()

    def _close(self) -> Dispatcher | None:
        with self._lock:
            self._closed = True
            return self._current

    def _serialize(self, call: tuple[Any, ...]) -> Serialized:
        try:
            return serialize(call)
        except (KeyboardInterrupt, TransportError):
            raise
        except Exception as error:
            from hypernodes.executors.unpicklable import describe_unpicklable_call

            fn, args, _ = call
            reason = describe_unpicklable_call(call, error)
            raise TransportError(
                f"{short(fn)} with {short(args)} cannot be sent to a Ray worker: {reason}"
            ) from error

    def _dispatcher(self) -> Dispatcher:
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        exit_hook.check()
        with self._lock:
            if self._current is not None and not self._current.is_connected:
                if connection_id() is None:
                    raise ClusterConnectionError(
                        "Ray was shut down, by ray.shutdown(), since this RayExecutor used it first. Call "
                        "ray.init() again, or make another RayExecutor."
                    )
                self._current.close(wait=False, cancel_pending=False)
                self._current = None
            if self._current is None:
                owns_ray = connect(self._address)
                self._current = Dispatcher(
                    self._limit,
                    self._resources,
                    initializer=self._serialized_initializer,
                    max_calls=self._max_calls,
                    runtime_env=upload_runtime_env(self._runtime_env),
                    autoscaling=self._autoscaling,
                    owns_ray=owns_ray,
                )
                # When the executor is garbage-collected, the dispatcher still finishes its tasks.
                weakref.finalize(self, self._current.close, wait=False, cancel_pending=False).atexit = False
            return self._current

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the arguments: unpickling makes another executor."""
        return partial(RayExecutor, self._limit, **self._options), ()

    def __repr__(self) -> str:
        return f"RayExecutor(max_workers={self._limit})"


def _call_each(call: PlacedValue, rows: tuple[tuple[Any, ...], ...]) -> list[Any]:
    fn = call.load().deserialize()
    return [fn(*row) for row in rows]


def _in_order(
    futures: deque[Future[Any]],
    chunks: Iterator[Any],
    submit: Callable[[Any], Future[Any]],
    ends: float | None,
) -> Iterator[Any]:
    """Yield results in order, without keeping any; cancel the remaining calls when this is closed."""
    try:
        while futures:
            results = futures[0].result(None if ends is None else ends - monotonic())
            futures.popleft()
            for chunk in itertools.islice(chunks, 1):
                futures.append(submit(chunk))
            results.reverse()
            while results:
                yield results.pop()
    finally:
        for future in futures:
            future.cancel()


register_out_of_band(Future)
