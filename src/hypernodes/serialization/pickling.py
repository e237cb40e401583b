"""Values as bytes: cloudpickle, with large buffers beside the pickle."""

from __future__ import annotations

import functools
import hashlib
import io
import pickle
import sys
import types
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from hypernodes.serialization.salvage import load_what_is_left

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

_BUFFER_MIN_BYTES: Final = 64 * 1024  # smaller buffers cost less within the pickle


def dumps(value: object) -> bytes:
    """Pickle a value, functions and classes that cannot be imported elsewhere included."""
    return next(dumps_each((value,)))


def dumps_each(values: Iterable[object]) -> Iterator[bytes]:
    """Pickle values as `dumps` does, each by itself; many small ones faster than one by one."""
    from hypernodes.serialization.pickler import Pickler

    stream = io.BytesIO()
    pickler = Pickler(stream, protocol=5)
    for value in values:
        stream.seek(0)
        stream.truncate()
        pickler.clear_memo()
        pickler.dump(value)
        yield stream.getvalue()


loads = pickle.loads


class OutOfBand:
    """Base of objects that stand for values which the executor transfers outside of the pickle."""


_out_of_band: tuple[type, ...] = (OutOfBand,)
_arrived: ContextVar[Sequence[Any]] = ContextVar("hypernodes_arrived")


def register_out_of_band(kind: type) -> None:
    """Have `serialize` leave objects of a type out of the pickle; the executor brings them to the worker."""
    global _out_of_band  # noqa: PLW0603
    _out_of_band = (*dict.fromkeys((*_out_of_band, kind)),)


_reduce_error: Callable[[BaseException], tuple[Any, ...] | None] | None = None


def register_error_reducer(reduce: Callable[[BaseException], tuple[Any, ...] | None]) -> None:
    """Have `serialize` pickle exceptions by a function, which returns ``None`` for those pickled as usual."""
    global _reduce_error  # noqa: PLW0603
    _reduce_error = reduce


@dataclass(frozen=True, slots=True)
class Serialized:
    """A pickled value."""

    header: bytes  # the pickle
    buffers: Sequence[Any] = ()  # the memory of large arrays, beside the pickle
    out_of_band: Sequence[Any] = ()  # the objects left out of the pickle; in a worker, their values

    @property
    def size(self) -> int:
        """The number of bytes, without the objects that were left out."""
        return len(self.header) + sum(memoryview(buffer).nbytes for buffer in self.buffers)

    @property
    def digest(self) -> bytes:
        """A hash of the content."""
        digest = hashlib.sha256(self.header, usedforsecurity=False)
        for buffer in self.buffers:
            digest.update(buffer)
        return digest.digest()[:16]

    def deserialize(self, *, as_views: bool = False) -> Any:
        """Return the value; its arrays own their memory, unless they may be read-only views."""
        own = self.buffers if as_views else map(_owned, self.buffers)
        token = _arrived.set(self.out_of_band)
        try:
            return pickle.loads(self.header, buffers=own)
        finally:
            _arrived.reset(token)

    def salvage(self) -> Any:
        """Return what can be unpickled after `deserialize` has failed, with a `Lost` for each other part."""
        token = _arrived.set(self.out_of_band)
        try:
            return load_what_is_left(self.header, map(_owned, self.buffers))
        finally:
            _arrived.reset(token)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        wrap: Callable[[Any], Any] = pickle.PickleBuffer if protocol >= 5 else bytes
        return Serialized, (self.header, [wrap(buffer) for buffer in self.buffers], list(self.out_of_band))


def _owned(buffer: Any) -> bytearray:
    # A bytearray was received for this value, and nothing else refers to it.
    return buffer if type(buffer) is bytearray else bytearray(buffer)


def serialize(value: object) -> Serialized:
    """Pickle a value, with large buffers beside the pickle, so that a transport need not copy them."""
    stream = io.BytesIO()
    pickler = _pickler()(stream)
    pickler.dump(value)
    return Serialized(stream.getvalue(), pickler.buffers, pickler.out_of_band)


def is_serializable(value: object) -> bool:
    """Whether a value can be pickled."""
    try:
        serialize(value)
    except Exception:
        return False
    return True


@functools.cache
def _pickler() -> Any:
    from hypernodes.serialization.pickler import Pickler

    class BufferPickler(Pickler):
        def __init__(self, stream: io.BytesIO) -> None:
            self.buffers: list[pickle.PickleBuffer] = []
            self.out_of_band: list[Any] = []
            # Not a method: a pickler that refers to itself would keep what it has pickled for a while.
            super().__init__(stream, protocol=5, buffer_callback=functools.partial(_put_beside, self.buffers))

        def reducer_override(self, obj: Any) -> Any:
            kind = type(obj)  # not what the ``__class__`` of a proxy says, or raises
            if issubclass(kind, _out_of_band):
                self.out_of_band.append(obj)
                return _take, (len(self.out_of_band) - 1,)
            if issubclass(kind, BaseException) and _reduce_error is not None:
                reduced = _reduce_error(obj)
                return super().reducer_override(obj) if reduced is None else reduced
            if issubclass(kind, _METHODS) and (module := _module_of_generator(obj)) is not None:
                return getattr, (module, obj.__name__)
            return super().reducer_override(obj)

    return BufferPickler


_METHODS: Final = (types.MethodType, types.BuiltinMethodType)
_GENERATORS: Final = ("random", "numpy.random.mtrand")
"""Modules whose functions are methods of one generator of random numbers, such as `random.uniform`."""


def _module_of_generator(method: Any) -> Any:
    """Return the module of a function that draws random numbers.

    Pickled as a method, it would take a copy of the generator to each worker, and all would draw the same.
    """
    modules = map(sys.modules.get, _GENERATORS)
    return next((found for found in modules if getattr(found, method.__name__, None) == method), None)


def _put_beside(buffers: list[pickle.PickleBuffer], buffer: pickle.PickleBuffer) -> bool:
    """Take a large buffer out of a pickle; ``True`` leaves it in."""
    if buffer.raw().nbytes < _BUFFER_MIN_BYTES:
        return True
    buffers.append(buffer)
    return False


def _take(index: int) -> Any:
    return _arrived.get()[index]
