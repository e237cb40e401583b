"""Short texts that describe values, and that are safe to print in a terminal."""

from __future__ import annotations

from typing import Any, Final

from hypernodes.text import message_of

_MAX_CHARACTERS: Final = 60
_MAX_ERROR_LENGTH: Final = 500
"""Characters of an error. A forged database can have names of any length."""
_SHOWN_BY_REPR: Final = frozenset({int, float, complex, bool, type(None), str, bytes})


def summarize(value: Any) -> str:
    """Return a short description of a value, at a cost that does not depend on the value's size.

    >>> summarize(5), summarize([1, 2]), summarize(range(3))
    ('5', 'list of 2', 'range')
    """
    try:
        return _summary(value)
    except Exception:  # the attributes of an object may be computed by any code
        return type(value).__name__


def _summary(value: Any) -> str:
    kind = type(value)
    if kind in _SHOWN_BY_REPR:
        text = repr(value if kind not in (str, bytes) else value[:_MAX_CHARACTERS])
        return text if len(text) < _MAX_CHARACTERS else text[: _MAX_CHARACTERS - 1] + "…"
    if kind in (list, tuple, set, frozenset, dict):
        return f"{kind.__name__} of {len(value)}"
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if isinstance(shape, tuple):
        return " ".join(filter(None, (kind.__name__, " by ".join(map(str, shape)), str(dtype or ""))))
    return kind.__name__


def printable(text: str) -> str:
    r"""Return a text in which escapes replace characters that are not printable or control a terminal.

    >>> printable("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    if text.isprintable():
        return text
    return "".join([sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text])


def describe(error: BaseException) -> str:
    r"""Return the type and text of an error, safe to print and cut to a length that fits a warning.

    >>> describe(ValueError("no \x1b[2J"))
    'ValueError: no \\x1b[2J'
    """
    text = message_of(error)[:_MAX_ERROR_LENGTH]
    return f"{type(error).__name__}: {printable(text)}" if text else type(error).__name__
