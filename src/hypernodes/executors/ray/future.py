"""Futures whose results stay in the cluster until somebody asks for them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

from hypernodes.exceptions import UnpackError
from hypernodes.executors.ray import nesting
from hypernodes.executors.ray.errors import explained
from hypernodes.executors.ray.worker import Bare, Here, There
from hypernodes.executors.settled import ExecutorFuture
from hypernodes.serialization.broadcast import InlineValue
from hypernodes.serialization.pickling import OutOfBand, Serialized, serialize
from hypernodes.serialization.remote import RemoteValue

if TYPE_CHECKING:
    from collections.abc import Callable

    from ray import ObjectRef

    from hypernodes.serialization.broadcast import PlacedValue

_SHARE_AS_OBJECT: Final = 90_000  # bytes; Ray copies smaller arguments into the task itself, which costs less


class KeptOnRay(RemoteValue):
    """A result in Ray's object store.

    Args:
        ref: Where it is.
        there: What is known of it.
    """

    def __init__(self, ref: ObjectRef, there: There) -> None:
        self.ref = ref
        self.kind = there.kind
        self.size = there.size
        self._lock = threading.Lock()
        self._value: tuple[Any, ...] = ()

    def get(self) -> Any:
        """Bring it here, once.

        Raises:
            WorkerDiedError: The host that had it is gone, and it could not be computed again.
            UnpackError: It cannot be unpickled here.
        """
        with self._lock:
            if not self._value:
                import ray

                try:
                    bare: Bare = ray.get(self.ref)
                except ray.exceptions.RayError as error:
                    raise explained(error, f"a {self.kind} that it had made is lost") from error
                self._value = (unpacked(bare),)
            return self._value[0]

    def as_placed(self) -> tuple[bytes, SharedObject]:
        """Return a name for it, and what a worker finds it by."""
        return self.ref.binary(), SharedObject(self.ref)

    def __repr__(self) -> str:
        return f"<{self.kind} of {self.size:,} bytes on Ray>"


class SharedObject:
    """A packed value in Ray's object store, which each worker process brings to itself once."""

    __slots__ = ("ref",)

    def __init__(self, ref: ObjectRef) -> None:
        self.ref = ref

    def load(self) -> Serialized:
        """Return it, in the worker."""
        import ray

        bare: Bare = ray.get(self.ref)
        return Serialized(*bare)


def shared(packed: Serialized, *, by_ray: bool = True) -> PlacedValue:
    """Place what many tasks have in common in the object store, if it is large enough for that to pay.

    Args:
        packed: What they have in common.
        by_ray: Whether Ray will send its place to them.
    """
    if packed.size < _SHARE_AS_OBJECT:
        return InlineValue(packed)
    import ray

    ref = ray.put((packed.header, packed.buffers, packed.carried))
    return SharedObject(ref) if by_ray else SharedWithAnybody(ref)


class SharedWithAnybody(SharedObject):
    """A packed value in Ray's object store that is found there even if it was not Ray that sent its place.

    Whoever makes one must keep it: Ray does not know who else has it.
    """

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        from ray import cloudpickle

        return _found, (cloudpickle.dumps(self.ref),)


def _found(pickled: bytes) -> SharedWithAnybody:
    from ray import cloudpickle

    return SharedWithAnybody(cloudpickle.loads(pickled))


def unpacked(bare: Bare) -> Any:
    """Unpickle a result.

    Raises:
        UnpackError: It cannot be unpickled here.
    """
    try:
        return Serialized(*bare).deserialize()
    except (KeyboardInterrupt, MemoryError):
        raise
    except BaseException as error:
        raise UnpackError(
            f"a result came back from a Ray worker but cannot be unpickled here "
            f"({type(error).__name__}: {error})"
        ) from error


class Landing:
    """The results of a task, before anybody has asked for them.

    Args:
        results: Where they are.
        refs: The references of those that are on the cluster.
        keeps: Whether large ones are to stay there: what a future then gives is a handle for each.
    """

    __slots__ = ("keeps", "refs", "results")

    def __init__(
        self, results: tuple[Here | There, ...], refs: tuple[ObjectRef, ...], *, keeps: bool
    ) -> None:
        self.results = results
        self.refs = refs
        self.keeps = keeps

    @property
    def is_here(self) -> bool:
        """Whether everything came with the answer."""
        return all(isinstance(result, Here) for result in self.results)

    def take(self) -> Any:
        """Return the result, or the results that were asked to stay apart."""
        values = [
            unpacked(result.bare) if isinstance(result, Here) else KeptOnRay(ref, result)
            for result, ref in zip(self.results, self.refs, strict=True)
        ]
        if self.keeps:
            return tuple(values)
        return values[0].get() if isinstance(values[0], KeptOnRay) else values[0]

    def as_argument(self) -> Bare | ObjectRef:
        """Return what brings the result to a worker."""
        (result,), (ref,) = self.results, self.refs
        return result.bare if isinstance(result, Here) else ref


class RayFuture(ExecutorFuture, OutOfBand):
    """A future that brings its result here when that is asked for, and not before.

    As an argument of another submission it stands for its value, which then goes from worker to worker.

    Attributes:
        attempts: How often the call was begun; more than once if a worker has died of it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.attempts = 0
        self._landing: Landing | None = None
        self._give_way: Callable[[float | None], None] | None = None
        self._taking = threading.Lock()

    def give_way_with(self, give_way: Callable[[float | None], None]) -> None:
        """Have whoever waits for this future in a Ray task give its CPUs back meanwhile."""
        self._give_way = give_way
        self._waiters = nesting.Waiters(give_way)

    def result(self, timeout: float | None = None) -> Any:
        """Return the result, or raise the error; see `concurrent.futures.Future.result`."""
        self._wait(timeout)
        self._take()
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the error, if there is one; see `concurrent.futures.Future.exception`."""
        # A large result is not brought here only to see whether it can be unpickled.
        if self._wait(timeout) is None and self._landing is not None and self._landing.is_here:
            self._take()
        return super().exception(0)

    def land(self, landing: Landing) -> None:
        """Take note of where the results are; they are brought here when somebody asks."""
        self._landing = landing
        self.set_result(None)

    def as_argument(self) -> Bare | ObjectRef:
        """Return what brings the result of this future, which is done, to a worker."""
        if self._landing is not None and not self._landing.keeps:
            return self._landing.as_argument()
        return packed_as_bare(self.result())

    def _wait(self, timeout: float | None) -> BaseException | None:
        if self._give_way is not None and not self.done() and nesting.in_task():
            nesting.until(self.done, self._give_way, timeout)
            timeout = 0
        return super().exception(timeout)

    def _take(self) -> None:
        with self._taking:
            landing = self._landing
            if landing is None or self._result is not None or self._exception is not None:
                return
            try:
                self._result = landing.take()
            except Exception as error:
                self._exception = error
            if landing.is_here:
                self._landing = (
                    None  # what is on the cluster stays there: somebody may take it as an argument
                )


def packed_as_bare(value: object) -> Bare:
    """Pack a value as plain data."""
    packed = serialize(value)
    return packed.header, packed.buffers, packed.carried
