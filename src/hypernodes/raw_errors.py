"""Reads and sets what Python itself keeps of an exception, past the methods of the exception's class.

The class of a user's exception may define every attribute of an exception itself, ``__traceback__`` and
``__dict__`` included, and ``__setattr__``, and each of these may raise. What they raise must not reach the
user in the place of the exception.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeGuard, TypeVar, cast

if TYPE_CHECKING:
    from types import TracebackType

E = TypeVar("E", bound=BaseException)

METHOD_ERRORS: Final = (Exception, SystemExit, GeneratorExit)
"""What a method of a user's class may raise while it is pickled or shown; Ctrl-C is not among them."""

_SLOTS: dict[str, Any] = {
    name: BaseException.__dict__[name]
    for name in ("__dict__", "__traceback__", "__cause__", "__context__", "args")
}


def is_a(error: BaseException | None, kind: type[E] | tuple[type[E], ...]) -> TypeGuard[E]:
    """Whether an exception is of a class; `isinstance` asks for its ``__class__``, too."""
    return issubclass(type(error), kind)


def attributes_of(error: BaseException) -> dict[str, Any]:
    """Return the attributes of an exception; what is set there, is set on the exception."""
    return cast("dict[str, Any]", _SLOTS["__dict__"].__get__(error))


def args_of(error: BaseException) -> tuple[Any, ...]:
    """Return the arguments of an exception."""
    return cast("tuple[Any, ...]", _SLOTS["args"].__get__(error))


def set_args(error: BaseException, args: tuple[Any, ...]) -> None:
    """Set the arguments of an exception."""
    _SLOTS["args"].__set__(error, args)


def traceback_of(error: BaseException) -> TracebackType | None:
    """Return the traceback of an exception."""
    return cast("TracebackType | None", _SLOTS["__traceback__"].__get__(error))


def without_frame(error: E) -> E:
    """Return an exception less the frame that caught it.

    A frame whose local variables hold the exception would keep both alive until the garbage collector runs.
    """
    if (traceback := traceback_of(error)) is not None:
        _SLOTS["__traceback__"].__set__(error, traceback.tb_next)
    return error


def cause_of(error: BaseException) -> BaseException | None:
    """Return the exception that an exception was raised from."""
    return cast("BaseException | None", _SLOTS["__cause__"].__get__(error))


def context_of(error: BaseException) -> BaseException | None:
    """Return the exception that was handled when an exception was raised."""
    return cast("BaseException | None", _SLOTS["__context__"].__get__(error))


def set_cause(error: BaseException, cause: BaseException) -> None:
    """Set the exception that an exception was raised from."""
    _SLOTS["__cause__"].__set__(error, cause)


def set_context(error: BaseException, context: BaseException) -> None:
    """Set the exception that was handled when an exception was raised."""
    _SLOTS["__context__"].__set__(error, context)
