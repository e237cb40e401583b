"""Serializes exceptions for another process, whatever their constructors take and their attributes hold."""

from __future__ import annotations

import traceback
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, cast

from hypernodes.exceptions import RemoteError
from hypernodes.serialization.pickling import dumps, loads
from hypernodes.text import described, short

MAX_TEXT_LENGTH: Final = 10_000
"""The characters of the text that stands for an argument of an error which is not picklable."""


class RemoteTraceback(Exception):  # noqa: N818  the standard library's name
    """The traceback of a worker, as text: the cause of the error that came back."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


@dataclass(frozen=True, slots=True)
class SerializedError:
    """A serialized exception and the text of its traceback."""

    pickled: bytes
    traceback: str


def serialize_error(error: BaseException) -> SerializedError:
    """Serialize an exception; attributes that are not picklable are left out."""
    text = _traceback_of(error)
    attributes = {}
    for name, value in vars(error).items():
        try:
            attributes[name] = dumps(value)
        except Exception:  # The attribute is not picklable.
            continue
    texts = tuple(map(_text_unless_portable, error.args))
    if type(error).__reduce__ is not BaseException.__reduce__:  # The class defines __reduce__.
        with suppress(Exception):
            blob = dumps(_Reduced(error, attributes))
            if type(_rebuild(blob)) is type(error):
                return SerializedError(blob, text)
    forms = (error, _Parts(type(error), error.args, attributes), _Parts(type(error), texts, attributes))
    for form in forms:
        try:
            blob = dumps(form)
            rebuilt = _rebuild(blob)
            if type(rebuilt) is type(error) and _is_complete(error.args, rebuilt.args):
                return SerializedError(blob, text)
        except Exception:  # The next form needs less to be picklable.
            continue
    return SerializedError(dumps(RemoteError(described(error))), text)


def _traceback_of(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except Exception:  # The text or the truth value of the error raises an error itself.
        return "".join((*traceback.format_tb(error.__traceback__), type(error).__qualname__))


def deserialize_error(serialized: SerializedError) -> BaseException:
    """Return the exception, with the worker's traceback as its cause."""
    try:
        error = _rebuild(serialized.pickled)
    except Exception as failure:
        error = RemoteError(f"an error that cannot be unpickled here ({described(failure)})")
    error.__cause__ = RemoteTraceback(serialized.traceback)
    return error


class ExceptionWrapper(Exception):  # noqa: N818  it carries an error, and is none of its own
    """Carries an error across a boundary that the error cannot cross itself.

    A generator cannot raise a StopIteration, an asyncio task cannot raise a KeyboardInterrupt without ending
    its loop, and pickle cannot rebuild every error. Pickling turns the wrapper into the error that it wraps:
    the other process gets the error, with the traceback as its cause.
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def __reduce__(self) -> tuple[Any, ...]:
        return deserialize_error, (serialize_error(self.error),)


def unwrapped(error: BaseException) -> BaseException:
    """Return the error that a wrapper carries; the wrapper lets go of the frames that it refers to."""
    if not isinstance(error, ExceptionWrapper):
        return error
    error.__traceback__ = error.__context__ = error.__cause__ = None
    return error.error


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
        return cast("BaseException", found)
    error = found.type.__new__(found.type)
    error.args = found.args
    for name, value in found.attributes.items():
        setattr(error, name, loads(value))
    return error


def _text_unless_portable(value: object) -> object:
    try:
        loads(dumps(value))
    except Exception:
        return short(value, MAX_TEXT_LENGTH)
    return value


def _is_complete(original: tuple[Any, ...], rebuilt: tuple[Any, ...]) -> bool:
    """Whether the arguments of an error have arrived, as themselves or as texts in their place."""
    return len(original) == len(rebuilt) and all(
        type(new) in (type(old), str) for old, new in zip(original, rebuilt, strict=True)
    )
