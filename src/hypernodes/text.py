"""Values, errors, durations and names as text, for messages and displays.

Asking a value of a user's class for anything may raise anything: nothing of that reaches the user.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any
from unicodedata import normalize

from hypernodes.raw_errors import METHOD_ERRORS, attributes_of


def short(value: Any, limit: int = 80) -> str:
    """Return the ``repr`` of a value on one line, cut to a length that fits a message.

    >>> short("x" * 1000, limit=12)
    "'xxxxxxxxxx…"
    """
    try:
        text = repr(value[: limit + 1] if type(value) in (str, bytes) else value)
    except METHOD_ERRORS as error:
        text = f"<{type(value).__name__} whose repr raises {type(error).__name__}>"
    text = " ".join(text.split())
    return text if len(text) < limit else text[: limit - 1] + "…"


def message_of(error: BaseException) -> str:
    """Return the text of an error; of one whose ``str`` raises, a description."""
    try:
        return str(error)
    except METHOD_ERRORS as another:
        return f"<{type(error).__name__} whose str raises {type(another).__name__}>"


def described(error: BaseException) -> str:
    """Return the type and the text of an error.

    >>> described(ValueError("no"))
    'ValueError: no'
    """
    return f"{type(error).__qualname__}: {message_of(error)}"


def notes_of(error: BaseException) -> tuple[str, ...]:
    """Return the notes of an error, as far as they are texts and the error lets them be read."""
    try:
        own = attributes_of(error)
        notes = own["__notes__"] if "__notes__" in own else getattr(error, "__notes__", ())
        return tuple(note for note in notes if isinstance(note, str))
    except METHOD_ERRORS:
        return ()


def seconds(duration: float) -> str:
    """Return a duration in seconds with a unit that suits its size.

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


def identifier(name: str) -> str:
    """Return a name as Python reads it in source code, where identifiers are NFKC-normalized.

    >>> identifier("ﬁle")
    'file'
    """
    return name if name.isascii() else normalize("NFKC", name)


def names_in(names: object) -> tuple[str, ...] | None:
    """Return one name or several, in order, as Python reads them; ``None`` if the value is none of both."""
    if isinstance(names, str):
        return (identifier(names),)
    if not isinstance(names, Iterable) or isinstance(names, AbstractSet | Mapping):
        return None
    found = tuple(names)
    return tuple(map(identifier, found)) if all(isinstance(name, str) for name in found) else None


def renaming(mapping: object) -> dict[str, str] | None:
    """Return a mapping from names to names as Python reads them; ``None`` if the value is none."""
    if mapping is None:
        return {}
    if not isinstance(mapping, Mapping):
        return None
    pairs = [*mapping.items()]
    if not all(isinstance(old, str) and isinstance(new, str) for old, new in pairs):
        return None
    return {identifier(old): identifier(new) for old, new in pairs}


def ascii_name(name: str) -> str:
    r"""Return a name for the metrics of Ray, which take ASCII only: escapes stand for other characters.

    >>> print(ascii_name("straße"))
    stra\xdfe
    """
    return name.encode("ascii", "backslashreplace").decode()
