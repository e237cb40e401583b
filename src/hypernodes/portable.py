"""How functions, values and errors travel between processes: cloudpickle, and a form for every error."""

from __future__ import annotations

import functools
import hashlib
import io
import pickle
import traceback
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

from hypernodes.exceptions import RemoteError, TransportError

_ASIDE: Final = 64 * 1024  # bytes; smaller buffers cost less within the pickle


def dumps(value: object) -> bytes:
    """Pickle a value, functions and classes that cannot be imported elsewhere included."""
    import cloudpickle  # noqa: PLC0415

    blob: bytes = cloudpickle.dumps(value, protocol=5)
    return blob


def dumps_each(values: Iterable[object]) -> Iterator[bytes]:
    """Pickle values as `dumps` does, each by itself; many small ones faster than one by one."""
    import cloudpickle  # noqa: PLC0415

    stream = io.BytesIO()
    pickler = cloudpickle.Pickler(stream, protocol=5)
    for value in values:
        stream.seek(0)
        stream.truncate()
        pickler.clear_memo()
        pickler.dump(value)
        yield stream.getvalue()


loads = pickle.loads


class Carried:
    """Stands for a value that only an executor can bring to a worker: it is there already, or will be."""


_carried: tuple[type, ...] = (Carried,)
_arrived: ContextVar[Sequence[Any]] = ContextVar("hypernodes_arrived")


def carry(kind: type) -> None:
    """Have `pack` lay objects of a type aside, for an executor that knows how to bring them."""
    global _carried  # noqa: PLW0603
    _carried = (*dict.fromkeys((*_carried, kind)),)


class Gathered(list[Any]):
    """A list of results, some of which may be `Carried`; it travels as a plain list."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A pickled value.

    Attributes:
        header: The pickle.
        buffers: The memory of large arrays, beside it: it travels without being copied where it can.
        carried: What stands for values that only the executor can bring; on arrival those values.
    """

    header: bytes
    buffers: Sequence[Any] = ()
    carried: Sequence[Any] = ()

    @property
    def size(self) -> int:
        """Bytes, less those of what is carried."""
        return len(self.header) + sum(memoryview(buffer).nbytes for buffer in self.buffers)

    @property
    def digest(self) -> bytes:
        """A name for the content."""
        digest = hashlib.sha256(self.header, usedforsecurity=False)
        for buffer in self.buffers:
            digest.update(buffer)
        return digest.digest()[:16]

    def unpack(self, *, as_views: bool = False) -> Any:
        """Return the value; its arrays own their memory, unless they may be read-only views."""
        own = self.buffers if as_views else map(_owned, self.buffers)
        token = _arrived.set(self.carried)
        try:
            return pickle.loads(self.header, buffers=own)
        finally:
            _arrived.reset(token)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        wrap: Callable[[Any], Any] = pickle.PickleBuffer if protocol >= 5 else bytes
        return Packed, (self.header, [wrap(buffer) for buffer in self.buffers], list(self.carried))


def _owned(buffer: Any) -> bytearray:
    return buffer if type(buffer) is bytearray else bytearray(buffer)  # the first has come for us alone


def pack(value: object) -> Packed:
    """Pickle a value for a way on which large buffers need not be copied."""
    stream = io.BytesIO()
    packer = _packer()(stream)
    packer.dump(value)
    return Packed(stream.getvalue(), packer.buffers, packer.carried)


@functools.cache
def _packer() -> Any:
    import cloudpickle  # noqa: PLC0415

    class Packer(cloudpickle.Pickler):  # type: ignore[misc]
        def __init__(self, stream: io.BytesIO) -> None:
            self.buffers: list[pickle.PickleBuffer] = []
            self.carried: list[Any] = []
            # Not a method: a pickler that refers to itself would keep what it has pickled for a while.
            super().__init__(stream, protocol=5, buffer_callback=functools.partial(_lay_aside, self.buffers))

        def reducer_override(self, obj: Any) -> Any:
            if isinstance(obj, _carried):
                self.carried.append(obj)
                return _take, (len(self.carried) - 1,)
            if obj.__class__ is Gathered:
                return list, ([*obj],)
            return super().reducer_override(obj)

    return Packer


def _lay_aside(buffers: list[pickle.PickleBuffer], buffer: pickle.PickleBuffer) -> bool:
    """Take a large buffer out of a pickle; ``True`` leaves it in."""
    if buffer.raw().nbytes < _ASIDE:
        return True
    buffers.append(buffer)
    return False


def _take(index: int) -> Any:
    return _arrived.get()[index]


class Portable:
    """Wraps a value so that plain pickle sends it by cloudpickle; unpickling gives the value itself."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value

    def __reduce__(self) -> tuple[Any, ...]:
        try:
            return loads, (dumps(self.value),)
        except pickle.PicklingError:
            raise
        except Exception as error:
            raise TransportError(f"{short(self.value)} cannot be pickled: {error}") from error


class RemoteTraceback(Exception):  # noqa: N818  the standard library's word for it
    """The traceback of a worker, as text: the cause of the error that came back."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


@dataclass(frozen=True, slots=True)
class PackedError:
    """An exception on its way to another process."""

    pickled: bytes
    traceback: str


def pack_error(error: BaseException) -> PackedError:
    """Make an exception travel, whatever its constructor takes and whatever it holds."""
    text = _traceback_of(error)
    attributes = {}
    for name, value in vars(error).items():
        try:
            attributes[name] = dumps(value)
        except Exception:  # noqa: S112  an attribute that cannot travel stays behind
            continue
    texts = tuple(map(_text_unless_portable, error.args))
    if type(error).__reduce__ is not BaseException.__reduce__:  # its class says how it is to be rebuilt
        with suppress(Exception):
            blob = dumps(_Reduced(error, attributes))
            if type(_rebuild(blob)) is type(error):
                return PackedError(blob, text)
    forms = (error, _Parts(type(error), error.args, attributes), _Parts(type(error), texts, attributes))
    for form in forms:
        try:
            blob = dumps(form)
            rebuilt = _rebuild(blob)
        except Exception:  # noqa: S112  the next form is plainer
            continue
        if type(rebuilt) is type(error) and rebuilt.args == _comparable(error.args, rebuilt.args):
            return PackedError(blob, text)
    return PackedError(dumps(RemoteError(f"{type(error).__qualname__}: {error}")), text)


def _traceback_of(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except Exception:  # The standard library asks an error for its text, and whether it is true.
        return "".join((*traceback.format_tb(error.__traceback__), type(error).__qualname__))


def unpack_error(packed: PackedError) -> BaseException:
    """Return the exception, with the worker's traceback as its cause."""
    try:
        error = _rebuild(packed.pickled)
    except Exception as failure:
        error = RemoteError(f"an error that cannot be unpickled here ({failure!r})")
    error.__cause__ = RemoteTraceback(packed.traceback)
    return error


class Carrier(Exception):  # noqa: N818  never caught: it turns into what it carries
    """Raised in a worker in place of an error; pickling turns it into that error on the other side."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.packed = pack_error(error)

    def __reduce__(self) -> tuple[Any, ...]:
        return unpack_error, (self.packed,)


@dataclass(frozen=True, slots=True)
class _Parts:
    type: type[BaseException]
    args: tuple[Any, ...]
    attributes: dict[str, bytes]


@dataclass(frozen=True, slots=True)
class _Reduced:
    error: BaseException
    attributes: dict[str, bytes]


def _rebuild(blob: bytes) -> BaseException:
    found = loads(blob)
    if isinstance(found, _Reduced):
        for name, value in found.attributes.items():
            if name not in vars(found.error):
                setattr(found.error, name, loads(value))
        return found.error
    if not isinstance(found, _Parts):
        assert isinstance(found, BaseException)  # noqa: S101
        return found
    error = found.type.__new__(found.type)
    error.args = found.args
    for name, value in found.attributes.items():
        setattr(error, name, loads(value))
    return error


def _text_unless_portable(value: object) -> object:
    try:
        loads(dumps(value))
    except Exception:
        return repr(value)
    return value


def _comparable(original: tuple[Any, ...], rebuilt: tuple[Any, ...]) -> tuple[Any, ...]:
    """Arguments that compare by identity are equal enough when their types are."""
    if len(original) != len(rebuilt):
        return original
    return tuple(
        new if type(new) is type(old) or isinstance(new, str) else old
        for old, new in zip(original, rebuilt, strict=True)
    )


class Shared(Protocol):
    """A packed value that many submissions have in common, placed where every worker finds it."""

    def load(self) -> Packed:
        """Return it, in the worker."""


@dataclass(frozen=True, slots=True)
class Inline:
    """A shared value that simply travels with each submission."""

    packed: Packed

    def load(self) -> Packed:
        """Return it."""
        return self.packed


KEEP_FROM: Final = 64 * 1024  # bytes; what is smaller comes back with the answer that it is there


@dataclass(frozen=True, slots=True)
class Several:
    """Returned by a function whose results shall stay apart, each where it is.

    Attributes:
        values: The results; they may be packed already.
        kinds: The names of their types.
    """

    values: tuple[Any, ...]
    kinds: tuple[str, ...]


class Kept(Carried):
    """A result that has stayed in the cluster.

    Attributes:
        kind: The name of its type.
        size: Bytes.
    """

    kind: str = ""

    size: int = 0

    def get(self) -> Any:
        """Bring it here."""
        raise NotImplementedError

    def as_shared(self) -> tuple[bytes, Shared]:
        """Return a name for it, and what each worker process finds it by."""
        raise NotImplementedError


def fetched(value: Any) -> Any:
    """Return a value itself, if it is one that has stayed elsewhere, or a list of such."""
    if isinstance(value, Kept):
        return value.get()
    if value.__class__ is Gathered:
        return [fetched(element) for element in value]
    return value


def short(value: object, limit: int = 80) -> str:
    """Return a value's ``repr``, cut to a length that fits a message.

    >>> short("x" * 1000, limit=12)
    "'xxxxxxxxxx…"
    """
    try:
        text = repr(value) if not isinstance(value, str | bytes) else repr(value[: limit + 1])
    except Exception as error:
        text = f"<{type(value).__name__} whose repr raises {type(error).__name__}>"
    text = " ".join(text.split())
    return text if len(text) < limit else text[: limit - 1] + "…"


def seconds(duration: float) -> str:
    """Return a duration as people read it.

    >>> seconds(0.000042), seconds(0.42), seconds(42), seconds(4242)
    ('42 µs', '420 ms', '42.0 s', '1 h 10 min')
    """
    if duration < 1e-3:
        return f"{duration * 1e6:.0f} µs"
    if duration < 1:
        return f"{duration * 1e3:.0f} ms"
    if duration < 120:
        return f"{duration:.1f} s"
    minutes = int(duration // 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
