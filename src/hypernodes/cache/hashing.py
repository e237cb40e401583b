"""Digests of bytes, and of sequences of bytes: different sequences have different digests."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_PERSON: Final = b"hypernodes-1"
_EMPTY: Final = blake2b(digest_size=20, person=_PERSON)
_SIZES: Final = tuple(bytes((size,)) for size in range(255))
LARGE: Final = 1 << 16
"""Bytes. From this size on, a digest is computed in place, since copying would take noticeable time."""


def combine(tag: bytes, parts: Iterable[bytes]) -> bytes:
    """Return one digest for a tag and a sequence of digests."""
    return digest_of(joined((tag, *parts)))


def digest_of(blob: bytes) -> bytes:
    """Return the digest of bytes."""
    state = _EMPTY.copy()
    state.update(blob)
    return state.digest()


def joined(parts: Iterable[bytes]) -> bytes:
    """Return parts with their lengths in one piece; large parts are replaced by their digests."""
    pieces: list[bytes] = []
    for part in parts:
        size = len(part)
        if size < 255:
            pieces += (_SIZES[size], part)
        elif size < LARGE:
            pieces += (b"\xff", size.to_bytes(8, "little"), part)
        else:
            pieces += (b"\xff", size.to_bytes(8, "little"), digest_of_buffer(part))
    return b"".join(pieces)


def digest_of_buffer(buffer: Any) -> bytes:
    """Return the digest of a large buffer without copying it."""
    return blake2b(buffer, person=_PERSON).digest()
