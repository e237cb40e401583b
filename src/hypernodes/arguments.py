"""Are arguments what they are to be? Each function returns an argument in one form, or raises an error.

An error names the argument and its value, when the thing is made and not when it is used.
"""

from __future__ import annotations

import math
import os
import re
from datetime import timedelta
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Final, TypedDict, Unpack

from hypernodes.earlier_names import OPTIONS
from hypernodes.exceptions import HyperNodesError, OptionError
from hypernodes.text import short

if TYPE_CHECKING:
    from collections.abc import Mapping

_SIZE: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgtp]?)(i?)b?\s*", re.IGNORECASE)
_POWERS: Final = ("", "k", "m", "g", "t", "p")


class ErrorDetails(TypedDict, total=False):
    """What is the argument of, and of which kind is the error?"""

    where: str
    kind: type[HyperNodesError]


def error_of(
    name: str, wanted: str, value: object, *, where: str = "", kind: type[HyperNodesError] = OptionError
) -> HyperNodesError:
    """Return the error of an argument.

    >>> print(error_of("depth", "a whole number", "x", where="pipeline 'p'"))
    pipeline 'p': depth must be a whole number, not 'x'.
    """
    return kind(f"{where}{': ' if where else ''}{name} must be {wanted}, not {short(value)}.")


def unknown_option(callee: str, unknown: Mapping[str, object]) -> OptionError:
    """Return the error of a keyword that a callable does not take, with what has replaced it, if anything.

    >>> print(unknown_option("RayExecutor", {"max_concurrent": 4}))
    RayExecutor() got an unexpected keyword argument 'max_concurrent'. It is called max_workers.
    """
    name = next(iter(unknown))
    advice = OPTIONS.get(callee, {}).get(name, "")
    return OptionError(f"{callee}() got an unexpected keyword argument {name!r}. {advice}".rstrip())


def flag(name: str, value: Any, **details: Unpack[ErrorDetails]) -> bool:
    """Return a value that is True or False."""
    if isinstance(value, bool) or type(value).__name__ in ("bool", "bool_"):
        return bool(value)
    raise error_of(name, "True or False", value, **details)


def whole_number(name: str, value: Any, least: int | None = None, **details: Unpack[ErrorDetails]) -> int:
    """Return a whole number."""
    if isinstance(value, Integral) and not isinstance(value, bool):
        number = int(value)
        if least is None or number >= least:
            return number
    raise error_of(
        name, "a whole number" + ("" if least is None else f" of {least} or more"), value, **details
    )


def amount(name: str, value: Any, **details: Unpack[ErrorDetails]) -> float:
    """Return a number of 0 or more."""
    if _is_number(value) and value >= 0:
        number: float = value
        return number
    raise error_of(name, "a number of 0 or more", value, **details)


def seconds(name: str, value: Any, **details: Unpack[ErrorDetails]) -> float:
    """Return a duration in seconds, which may be given as a `datetime.timedelta`.

    >>> from datetime import timedelta
    >>> seconds("expire", timedelta(minutes=1)), seconds("expire", 2)
    (60.0, 2)
    """
    number: Any = value.total_seconds() if isinstance(value, timedelta) else value
    if _is_number(number) and number > 0:
        duration: float = number
        return duration
    raise error_of(name, "a number of seconds above 0 or a timedelta", value, **details)


def number_of_bytes(name: str, value: Any, **details: Unpack[ErrorDetails]) -> int:
    """Return a number of bytes, which may be given as a text.

    >>> number_of_bytes("size_limit", "1.5 GB"), number_of_bytes("size_limit", "1KiB")
    (1500000000, 1024)
    """
    number = value
    if isinstance(value, str) and (found := _SIZE.fullmatch(value)) is not None:
        digits, power, is_binary = found.groups()
        number = float(digits) * (1024 if is_binary else 1000) ** _POWERS.index(power.lower())
    if _is_number(number) and number >= 1:
        return int(number)
    raise error_of(name, "a number of bytes, 1 or more, or a text such as '1GB'", value, **details)


def text(name: str, value: Any, **details: Unpack[ErrorDetails]) -> str:
    """Return a text."""
    if isinstance(value, str):
        return value
    raise error_of(name, "a text", value, **details)


def path_text(name: str, value: Any, **details: Unpack[ErrorDetails]) -> str:
    """Return a path as a text."""
    found = os.fspath(value) if isinstance(value, str | os.PathLike) else ""
    if isinstance(found, str) and found:
        return found
    raise error_of(name, "a path", value, **details)


def initializer_arguments(initializer: Any, initargs: Any) -> tuple[Any, ...]:
    """Return the arguments of the initializer of an executor's workers.

    Raises:
        TypeError: The initializer cannot be called, as `concurrent.futures` says it.
        OptionError: There are arguments and no initializer, or they are not a tuple.
    """
    if initializer is not None and not callable(initializer):
        raise TypeError("initializer must be a callable")
    if not isinstance(initargs, tuple | list):
        raise error_of("initargs", "a tuple", initargs)
    if initargs and initializer is None:
        raise OptionError(
            f"initargs={short(initargs)} are the arguments of an initializer. Give initializer=..."
        )
    return tuple(initargs)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
