"""What is the code of a step made of? It is kept beside results, so that a later miss can be explained."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeAlias

from hypernodes.cache.content import digest
from hypernodes.cache.provenance import CodePart
from hypernodes.exceptions import SignatureError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hypernodes.execution.plan.model import CallStep

    Values: TypeAlias = Mapping[str, Sequence[bytes]]

_MAX_REMEMBERED: Final = 1000
_remembered: dict[str, dict[str, CodePart]] = {}
_MAX_NOTED: Final = 10_000
_values: dict[bytes, Values | None] = {}


def remember_parts(code: bytes, step: CallStep) -> None:
    """Keep the parts of a node's code as they are before it is called: a call may change them."""
    if code.hex() not in _remembered:
        _remembered[code.hex()] = code_parts(step)
        while len(_remembered) > _MAX_REMEMBERED:
            _remembered.pop(next(iter(_remembered)), None)


def note_values(code: bytes, values: Values) -> None:
    """Keep the digests of the values that code reads, until a run has called it."""
    if code not in _values:
        _values[code] = values
        while len(_values) > _MAX_NOTED:
            _values.pop(next(iter(_values)), None)


def noted_values(code: bytes) -> Values | None:
    """Return the digests of the values that code reads; ``None`` if it is known to change none of them."""
    return _values.get(code)


def note_unchanged(code: bytes) -> None:
    """Take note that code changes none of the values that it reads."""
    _values[code] = None


def remembered_parts(code: str, step: CallStep) -> dict[str, CodePart]:
    """Return the parts of a node's code as they were when it was fingerprinted."""
    return _remembered.get(code) or code_parts(step)


def code_parts(step: CallStep) -> dict[str, CodePart]:
    """Return what the code of a node is made of, its version included."""
    from hypernodes.cache.code_parts import code_parts_of

    options = step.options
    found: dict[str, CodePart] = {}
    for prefix, function in (("", step.function), ("batch ", options.batch)):
        if function is not None:
            with suppress(SignatureError):  # only its version counts
                found |= {f"{prefix}{name}": part for name, part in code_parts_of(function).items()}
    if options.cache_version is not None:
        found["cache_version"] = CodePart(digest(options.cache_version).hex(), repr(options.cache_version))
    return found
