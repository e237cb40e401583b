"""What is kept beside a result: which node made it, of what code, from what."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from json.encoder import encode_basestring_ascii as _quoted
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Taken:
    """An argument of a computation.

    Attributes:
        identity: What identifies its value, in hexadecimal digits.
        made_by: The node that made it; empty for an input.
        shown: A short form of an input's value, where it has one.
    """

    identity: str
    made_by: str = ""
    shown: str = ""


@dataclass(frozen=True, slots=True)
class About:
    """How an entry was made.

    Attributes:
        node: The name of the node.
        code: The digest of its code, in hexadecimal digits; the parts of it are kept under this name.
        takes: What it was given, by parameter.
        seconds: How long it took.
    """

    node: str
    code: str = ""
    takes: dict[str, Taken] = field(default_factory=dict)
    seconds: float = 0.0

    def to_json(self) -> bytes:
        """Return it as JSON; written out, since an encoder would cost more than all else of an entry."""
        takes = ",".join(
            f"{_quoted(name)}:[{_quoted(taken.identity)},{_quoted(taken.made_by)},{_quoted(taken.shown)}]"
            for name, taken in self.takes.items()
        )
        return f"[{_quoted(self.node)},{_quoted(self.code)},{self.seconds:.6f},{{{takes}}}]".encode()

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        """Return what `to_json` has written, with nothing in it that could control a terminal.

        Raises:
            ValueError: It is something else.
        """
        match _parsed(text):
            case [str(node), str(code), float(seconds), dict(takes)] if 0 <= seconds < _LONGEST_CALL:
                taken = {printable(name): Taken(*_texts(of_name, 3)) for name, of_name in takes.items()}
                return cls(printable(node), printable(code), taken, seconds)
        raise ValueError("no account of how an entry was made")


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the code that a node reaches: a function, a class, a global, a package.

    Attributes:
        digest: Its own digest, without that of other parts, in hexadecimal digits.
        shown: A short form, for values and versions.
    """

    digest: str
    shown: str = ""


def parts_to_json(parts: Mapping[str, Part]) -> bytes:
    """Return what code is made of as JSON."""
    return json.dumps({name: (part.digest, part.shown) for name, part in parts.items()}).encode()


def parts_from_json(text: bytes) -> dict[str, Part]:
    """Return what `parts_to_json` has written, with nothing in it that could control a terminal.

    Raises:
        ValueError: It is something else.
    """
    match _parsed(text):
        case dict(parts):
            return {printable(name): Part(*_texts(part, 2)) for name, part in parts.items()}
    raise ValueError("no account of what code is made of")


def printable(text: str) -> str:
    r"""Return a text with escapes in place of what would control a terminal, or could not be printed.

    >>> printable("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    if text.isprintable():
        return text
    return "".join([sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text])


def _parsed(text: bytes) -> object:
    try:
        return json.loads(text)
    except RecursionError:  # lists in lists in lists
        raise ValueError("nested too deeply") from None


def _texts(value: object, number: int) -> list[str]:
    if isinstance(value, list) and len(value) == number and all(isinstance(text, str) for text in value):
        return [printable(text) for text in value]
    raise ValueError(f"no {number} texts")


_LONGEST_CALL: Final = 1e10  # seconds
_AS_THEY_ARE: Final = frozenset({int, float, complex, bool, type(None), str, bytes})
_LONGEST: Final = 60  # characters


def shown(value: Any) -> str:
    """Return a short form of a value that costs little, however large the value is.

    >>> shown(5), shown([1, 2]), shown(range(3))
    ('5', 'list of 2', 'range')
    """
    kind = type(value)
    if kind in _AS_THEY_ARE:
        text = repr(value if kind not in (str, bytes) else value[:_LONGEST])
        return text if len(text) < _LONGEST else text[: _LONGEST - 1] + "…"
    if kind in (list, tuple, set, frozenset, dict):
        return f"{kind.__name__} of {len(value)}"
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if isinstance(shape, tuple):
        return " ".join(filter(None, (kind.__name__, " by ".join(map(str, shape)), str(dtype or ""))))
    return kind.__name__
