"""How functions, values and errors travel between processes: cloudpickle, and a form for every error."""

from __future__ import annotations

import pickle
import traceback
from dataclasses import dataclass
from typing import Any, Protocol

from hypernodes.exceptions import RemoteError, TransportError


def dumps(value: object) -> bytes:
    """Pickle a value, functions and classes that cannot be imported elsewhere included."""
    import cloudpickle  # noqa: PLC0415

    blob: bytes = cloudpickle.dumps(value, protocol=5)
    return blob


loads = pickle.loads


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
    text = "".join(traceback.format_exception(error))
    attributes = {}
    for name, value in vars(error).items():
        try:
            attributes[name] = dumps(value)
        except Exception:  # noqa: S112  an attribute that cannot travel stays behind
            continue
    texts = tuple(map(_text_unless_portable, error.args))
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


def _rebuild(blob: bytes) -> BaseException:
    found = loads(blob)
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
    """Bytes that many submissions have in common, placed where every worker finds them."""

    def load(self) -> bytes:
        """Return the bytes, in the worker."""


@dataclass(frozen=True, slots=True)
class Inline:
    """Shared bytes that simply travel with each submission."""

    blob: bytes

    def load(self) -> bytes:
        """Return the bytes."""
        return self.blob


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
