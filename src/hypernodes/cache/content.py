"""When are two values the same? They are if their content and types have the same digest, in every process.

Functions and classes are values whose content is their code. A value without stable content raises
`SignatureError`: its digest is never guessed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from hypernodes.cache.changed_places import ChangedPlaces
from hypernodes.cache.code_walk import state_of
from hypernodes.cache.hashing import combine
from hypernodes.cache.reach import NO_REACH
from hypernodes.cache.simple_values import SIMPLE_TYPES, TAGS
from hypernodes.cache.walk import Walk
from hypernodes.exceptions import SignatureError
from hypernodes.text import described

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hypernodes.cache.reach import Reach

Omissions: TypeAlias = "Mapping[type, Mapping[str, str]]"
"""Private attributes without stable content, by class, each with the reason why it has none."""


def digest(value: object, reach: Reach = NO_REACH) -> bytes:
    """Return the digest of a value's content and type, or raise a SignatureError if it has no stable content.

    `reach` is the code that works with the value. Private attributes which that code itself changes, such as
    counters and caches, are effects and are left out.

    >>> digest(1) == digest(1), digest(1) == digest(True), digest([1]) == digest((1,))
    (True, False, False)
    >>> digest({"a": {3, 1, 2}}) == digest({"a": {1, 2, 3}})
    True
    """
    return digest_and_omissions(value, reach)[0]


def digest_and_omissions(value: object, reach: Reach = NO_REACH) -> tuple[bytes, Omissions]:
    """Return the digest of a value, and the private attributes that it omits for lack of stable content."""
    simple = SIMPLE_TYPES.get(type(value))
    if simple is not None:  # Most arguments of most calls are simple: they need no walk.
        return combine(TAGS[type(value)], (simple(value),)), _NO_OMISSIONS
    found = _fingerprint(value, reach, ChangedPlaces(), is_code=False)
    return found.digest, found.omissions


class Fingerprint(NamedTuple):
    """The digest of a value."""

    digest: bytes
    omissions: Omissions
    has_state: bool
    values: Mapping[str, Sequence[bytes]]  # the digests of the values that code reads, by description


def fingerprint(function: object, reach: Reach, changed: ChangedPlaces) -> Fingerprint:
    """Return the digest of a function that is called, with its object.

    Public attributes are effects, too, if the function changes them: nothing else uses them.
    """
    return _fingerprint(function, reach, changed, is_code=True)


def digest_within(value: object, reach: Reach, changed: ChangedPlaces) -> bytes:
    """Return the digest of a value that code depends on which changes some places."""
    return Walk(reach, changed, is_code=True).digest(value)


def attributes_within(value: object, reach: Reach, changed: ChangedPlaces) -> dict[str, bytes]:
    """Return the digests of the attributes of an object that code depends on which changes some places."""
    parts = Walk(reach, changed, is_code=True).attributes(value, state_of(value))
    return {name.decode(): part for name, part in zip(parts[::2], parts[1::2], strict=True)}


def _fingerprint(value: object, reach: Reach, changed: ChangedPlaces, *, is_code: bool) -> Fingerprint:
    # A place that code changes may have been walked before that code. Then the value is walked again.
    mentioned = frozenset[str]()
    for _ in range(_MAX_WALKS):
        known = len(changed)
        walk = Walk(reach, changed, is_code=is_code, mentioned=mentioned)
        try:
            result = walk.digest(value)
        except SignatureError:
            if len(changed) == known:
                raise
            continue
        except Exception as error:  # a method of a value, or a property, may raise anything
            raise SignatureError(
                f"a {type(value).__qualname__} has no stable content ({described(error)})"
            ) from None
        if len(changed) == known and walk.mentioned == mentioned:
            return Fingerprint(result, walk.omissions, walk.has_state, walk.values)
        mentioned = frozenset(walk.mentioned)
    raise SignatureError("its code changes more and more places")


_NO_OMISSIONS: Final[Omissions] = {}


_MAX_WALKS: Final = 8
"""Walks through one value, each of which may come upon further code that changes what an earlier one read."""
