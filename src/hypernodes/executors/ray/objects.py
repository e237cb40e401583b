"""Values in Ray's object store: results that stay there, and broadcast values."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

from hypernodes.exceptions import UnpackError
from hypernodes.executors.ray.connection import translate_error
from hypernodes.executors.ray.worker import PlainSerialized, StoredResult, to_plain
from hypernodes.executors.settled import Settled
from hypernodes.serialization.broadcast import InlineValue, PlacedValue
from hypernodes.serialization.pickling import Serialized
from hypernodes.serialization.remote import RemoteValue
from hypernodes.text import described

if TYPE_CHECKING:
    from ray import ObjectRef

OBJECT_MIN_BYTES: Final = 90_000
"""Bytes from which on a broadcast value is an object; Ray copies smaller arguments into the task, which is
faster."""


class RayValue(RemoteValue):
    """A result in Ray's object store."""

    def __init__(self, ref: ObjectRef[Any], result: StoredResult) -> None:
        self.ref = ref
        self.kind = result.kind
        self.size = result.size
        self._lock = threading.Lock()
        self._fetched: Settled[Any] | None = None

    def get(self) -> Any:
        """Fetch the value into this process, once."""
        with self._lock:
            if self._fetched is None:
                try:
                    self._fetched = Settled(self._fetch())
                except Exception as error:
                    self._fetched = Settled(error=error)
            return self._fetched.get()

    def _fetch(self) -> Any:
        import ray

        try:
            plain: PlainSerialized = ray.get(self.ref)
        except ray.exceptions.RayError as error:
            raise translate_error(error, f"a {self.kind} that it had made is lost") from error
        return deserialize_result(plain)

    def as_placed(self) -> tuple[bytes, PlacedObject]:
        """Return a name of the value, and how each worker process finds it."""
        return self.ref.binary(), PlacedObject(self.ref)

    def __repr__(self) -> str:
        return f"<{self.kind} of {self.size:,} bytes on Ray>"


class PlacedObject:
    """A broadcast value in Ray's object store, which each worker process fetches once."""

    __slots__ = ("ref",)

    def __init__(self, ref: ObjectRef[Any]) -> None:
        self.ref = ref

    def load(self) -> Serialized:
        """Return the value, in a worker."""
        import ray

        plain: PlainSerialized = ray.get(self.ref)
        return Serialized(*plain)


class DetachedObject(PlacedObject):
    """A broadcast value in Ray's object store whose reference travels in a pickle that is not Ray's.

    The process that makes one must keep it: Ray does not count such references.
    """

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        from ray import cloudpickle

        return _load_detached, (cloudpickle.dumps(self.ref),)


def _load_detached(pickled: bytes) -> DetachedObject:
    from ray import cloudpickle

    return DetachedObject(cloudpickle.loads(pickled))


def place(serialized: Serialized, *, by_ray: bool = True) -> PlacedValue:
    """Place a value that many tasks have in common in the object store, if it is large enough.

    `by_ray` says that Ray itself sends the reference to the tasks.
    """
    if serialized.size < OBJECT_MIN_BYTES:
        return InlineValue(serialized)
    import ray

    try:
        ref = ray.put(to_plain(serialized))
    except ray.exceptions.RayError as error:
        raise translate_error(error, "an input could not be put into the object store") from error
    return PlacedObject(ref) if by_ray else DetachedObject(ref)


def deserialize_result(plain: PlainSerialized) -> Any:
    """Unpickle the result of a task."""
    try:
        return Serialized(*plain).deserialize()
    except (KeyboardInterrupt, MemoryError):
        raise
    except BaseException as error:
        raise UnpackError(
            f"a result came back from a Ray worker but cannot be unpickled here ({described(error)})"
        ) from error
