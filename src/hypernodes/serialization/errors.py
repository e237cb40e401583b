"""Serializes exceptions for another process, whatever their constructors take and their attributes hold."""

from __future__ import annotations

import traceback
from contextlib import suppress
from dataclasses import dataclass
from types import MemberDescriptorType
from typing import TYPE_CHECKING, Any, Final, cast

from hypernodes.exceptions import RemoteError
from hypernodes.raw_errors import (
    METHOD_ERRORS,
    args_of,
    attributes_of,
    cause_of,
    context_of,
    is_a,
    set_args,
    set_cause,
    set_context,
    traceback_of,
)
from hypernodes.serialization.pickling import dumps, loads, register_error_reducer
from hypernodes.text import described, notes_of, short

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_CHAIN_LENGTH: Final = 20
"""How many exceptions of one chain are kept, and how many levels of groups in groups.

Pickling goes deeper with each of them; the text of the traceback has all exceptions of a chain.
"""
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
    """A serialized exception.

    Attributes:
        pickled: The exception without those that belong to it.
        traceback: The text of its traceback; empty for one in the chain of another, whose text has it.
        description: Its type and its message.
        notes: Its notes, as far as they are texts.
        members: Those of a group.
        cause: The exception that it was raised from.
        context: The exception that was handled when it was raised.
    """

    pickled: bytes
    traceback: str
    description: str
    notes: tuple[str, ...] = ()
    members: tuple[SerializedError, ...] = ()
    cause: SerializedError | None = None
    context: SerializedError | None = None


def as_remote_error(error: BaseException) -> RemoteError:
    """Return an error with the text and the notes of one that another library would not hand on."""
    remote = RemoteError(described(error))
    for note in notes_of(error):
        remote.add_note(note)
    return remote


def serialize_error(error: BaseException) -> SerializedError:
    """Serialize an exception, and those that belong to it; attributes that are not picklable are left out."""
    return _serialize(error, _traceback_of(error), ())


def _serialize(error: BaseException, text: str, chain: tuple[BaseException, ...]) -> SerializedError:
    chain = (*chain, error)
    members: tuple[SerializedError, ...] = ()
    if is_a(error, BaseExceptionGroup):
        if len(chain) > MAX_CHAIN_LENGTH:
            return SerializedError(dumps(as_remote_error(error)), text, described(error), notes_of(error))
        members = tuple(
            _serialize(member, _traceback_of(member) if traceback_of(member) else "", chain)
            for member in error.exceptions
        )

    def of_chain(other: object) -> SerializedError | None:
        if (
            not isinstance(other, BaseException)
            or isinstance(other, ExceptionWrapper)  # it has carried this error, and so would not end
            or len(chain) > MAX_CHAIN_LENGTH
            or any(other is known for known in chain)
        ):
            return None
        return _serialize(other, "", chain)

    causing, handled = cause_of(error), context_of(error)
    cause, context = of_chain(causing), None if handled is causing else of_chain(handled)
    return SerializedError(_pickled(error), text, described(error), notes_of(error), members, cause, context)


def _pickled(error: BaseException) -> bytes:
    attributes = {}
    slots = _slots_of(error)
    for name, value in {**attributes_of(error), **slots}.items():
        try:
            attributes[name] = dumps(value)
        except METHOD_ERRORS:  # The attribute is not picklable.
            continue
    if is_a(error, BaseExceptionGroup):
        args = tuple(
            None if _are_members(part, error) else _text_unless_portable(part) for part in args_of(error)
        )
        group = _Group(type(error), str(error.message), args, attributes)
        with suppress(*METHOD_ERRORS):
            blob = dumps(group)
            if type(_rebuild(blob, [ValueError()])) is type(error):
                return blob
        return dumps(_Group(_plain_group(error), str(error.message), args, attributes))
    args = args_of(error)
    texts = tuple(map(_text_unless_portable, args))
    if type(error).__reduce__ is not BaseException.__reduce__:  # The class defines __reduce__.
        with suppress(*METHOD_ERRORS):
            blob = dumps(_Reduced(error, attributes))
            if type(_rebuild(blob)) is type(error):
                return blob
    parts = (_Parts(type(error), args, attributes), _Parts(type(error), texts, attributes))
    for form in parts if slots else (error, *parts):  # Pickle leaves out the slots of an error.
        try:
            blob = dumps(form)
            rebuilt = _rebuild(blob)
            if type(rebuilt) is type(error) and _is_complete(args, args_of(rebuilt)):
                return blob
        except METHOD_ERRORS:  # The next form needs less to be picklable.
            continue
    return dumps(RemoteError(described(error)))


def _plain_group(error: BaseExceptionGroup[Any]) -> type[BaseExceptionGroup[Any]]:
    return ExceptionGroup if isinstance(error, ExceptionGroup) else BaseExceptionGroup


def _are_members(value: object, group: BaseExceptionGroup[Any]) -> bool:
    return isinstance(value, list | tuple) and [*map(id, value)] == [*map(id, group.exceptions)]


def _traceback_of(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except METHOD_ERRORS:  # The text or the truth value of the error raises an error itself.
        return "".join((*traceback.format_tb(traceback_of(error)), type(error).__qualname__))


def deserialize_error(serialized: SerializedError) -> BaseException:
    """Return the exception, with the worker's traceback as the last cause in its chain."""
    members = [deserialize_error(member) for member in serialized.members]
    try:
        error = _rebuild(serialized.pickled, members)
    except METHOD_ERRORS as failure:
        text = f"{serialized.description} (the error itself cannot be unpickled here: {described(failure)})"
        error = RemoteError(text) if not members else BaseExceptionGroup(text, members)
    with suppress(*METHOD_ERRORS):
        if serialized.notes and not notes_of(error):
            attributes_of(error)["__notes__"] = [*serialized.notes]
    if serialized.context is not None:
        set_context(error, deserialize_error(serialized.context))
    if serialized.cause is not None:
        set_cause(error, deserialize_error(serialized.cause))
    if serialized.traceback:
        last = error
        while (cause := cause_of(last)) is not None:
            last = cause
        set_cause(last, RemoteTraceback(serialized.traceback))
    return error


def _reduced(error: BaseException) -> tuple[Any, ...] | None:
    """Say how an exception among values is pickled: one that was raised, or that pickle does not rebuild."""
    if traceback_of(error) is None:
        with suppress(*METHOD_ERRORS):
            if type(loads(dumps(error))) is type(error):
                return None
    return deserialize_error, (serialize_error(error),)


register_error_reducer(_reduced)


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
    """Return the error that a wrapper carries; the wrapper drops its references to frames."""
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
class _Group:
    type: type[BaseExceptionGroup[Any]]
    message: str
    args: tuple[Any, ...]  # ``None`` stands for the members
    attributes: dict[str, bytes]


@dataclass(frozen=True, slots=True)
class _Reduced:
    error: BaseException
    attributes: dict[str, bytes]


def _rebuild(blob: bytes, members: Sequence[BaseException] = ()) -> BaseException:
    found = loads(blob)
    if isinstance(found, _Reduced):
        known = attributes_of(found.error)
        _set_all(found.error, {name: value for name, value in found.attributes.items() if name not in known})
        return found.error
    if isinstance(found, _Group):
        error: BaseException = BaseExceptionGroup.__new__(found.type, found.message, members)
        set_args(error, tuple([*members] if part is None else part for part in found.args))
    elif isinstance(found, _Parts):
        error = found.type.__new__(found.type)
        set_args(error, found.args)
    else:
        return cast("BaseException", found)
    _set_all(error, found.attributes)
    return error


def _slots_of(error: BaseException) -> dict[str, Any]:
    """Return the attributes of an error that are slots of its class."""
    slots = {
        name: value
        for kind in type(error).__mro__
        for name, value in vars(kind).items()
        if isinstance(value, MemberDescriptorType) and "__slots__" in vars(kind)
    }
    found = {}
    for name, slot in slots.items():
        with suppress(AttributeError):  # The slot is empty.
            found[name] = slot.__get__(error)
    return found


def _set_all(error: BaseException, attributes: Mapping[str, bytes]) -> None:
    for name, value in attributes.items():
        BaseException.__setattr__(error, name, loads(value))  # The class may be frozen.


def _text_unless_portable(value: object) -> object:
    try:
        loads(dumps(value))
    except METHOD_ERRORS:
        return short(value, MAX_TEXT_LENGTH)
    return value


def _is_complete(original: tuple[Any, ...], rebuilt: tuple[Any, ...]) -> bool:
    """Whether the arguments of an error have arrived, as themselves or as texts in their place."""
    return len(original) == len(rebuilt) and all(
        type(new) in (type(old), str) for old, new in zip(original, rebuilt, strict=True)
    )
