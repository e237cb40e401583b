"""What is kept beside a result: which node made it, of what code, from what."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from json.encoder import encode_basestring_ascii as _quoted
from typing import Any, Final, Self


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
        """Return what `to_json` has written."""
        node, code, seconds, takes = json.loads(text)
        return cls(node, code, {name: Taken(*taken) for name, taken in takes.items()}, seconds)


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the code that a node reaches: a function, a class, a global, a package.

    Attributes:
        digest: Its own digest, without that of other parts, in hexadecimal digits.
        shown: A short form, for values and versions.
    """

    digest: str
    shown: str = ""


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
