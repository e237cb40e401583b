"""The provenance of cache entries: which node computed a result, with which code, from which arguments."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from json.encoder import encode_basestring_ascii as _quoted
from typing import TYPE_CHECKING, Final, Self

from hypernodes.cache.summary import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

_MAX_SECONDS: Final = 1e10
"""300 years. A longer duration must be forged, and formatting it could fail."""


@dataclass(frozen=True, slots=True)
class ArgumentProvenance:
    """The provenance of one argument of a computation."""

    identity: str  # of its value, in hexadecimal digits
    producer: str = ""  # the node that computed it; empty for an input of the pipeline
    summary: str = ""  # a short description of an input's value, if there is one


@dataclass(frozen=True, slots=True)
class Provenance:
    """The provenance of a cache entry."""

    node: str
    code: str = ""  # the fingerprint, under which the cache stores the parts of the node's code
    arguments: dict[str, ArgumentProvenance] = field(default_factory=dict)
    seconds: float = 0.0  # the duration of the computation

    def to_json(self) -> bytes:
        """Return the provenance as JSON.

        The text is formatted by hand: a `json` encoder would take longer than the rest of writing an entry.
        """
        arguments = ",".join(
            f"{_quoted(name)}:"
            f"[{_quoted(argument.identity)},{_quoted(argument.producer)},{_quoted(argument.summary)}]"
            for name, argument in self.arguments.items()
        )
        return f"[{_quoted(self.node)},{_quoted(self.code)},{self.seconds:.6f},{{{arguments}}}]".encode()

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        """Parse the output of `to_json`, and escape characters that could control a terminal."""
        match _parse(text):
            case [str(node), str(code), float(seconds), dict(arguments)] if 0 <= seconds < _MAX_SECONDS:
                parsed = {
                    printable(name): ArgumentProvenance(*_strings(fields, 3))
                    for name, fields in arguments.items()
                }
                return cls(printable(node), printable(code), parsed, seconds)
        raise ValueError("this is not the provenance of an entry")


@dataclass(frozen=True, slots=True)
class CodePart:
    """One part of the code that a node depends on: a function, a class, a global or a package."""

    digest: str  # of this part alone, in hexadecimal digits
    summary: str = ""  # a short description, for values and versions


def code_parts_to_json(parts: Mapping[str, CodePart]) -> bytes:
    """Return the parts of a node's code as JSON."""
    return json.dumps({name: (part.digest, part.summary) for name, part in parts.items()}).encode()


def code_parts_from_json(text: bytes) -> dict[str, CodePart]:
    """Parse the output of `code_parts_to_json`, and escape characters that could control a terminal."""
    match _parse(text):
        case dict(parts):
            return {printable(name): CodePart(*_strings(fields, 2)) for name, fields in parts.items()}
    raise ValueError("these are not the parts of some code")


def _parse(text: bytes) -> object:
    try:
        return json.loads(text)
    except RecursionError:  # A forged text may nest lists to any depth.
        raise ValueError("the JSON is nested too deeply") from None


def _strings(fields: object, count: int) -> list[str]:
    if isinstance(fields, list) and len(fields) == count and all(isinstance(text, str) for text in fields):
        return [printable(text) for text in fields]
    raise ValueError(f"expected {count} strings")
