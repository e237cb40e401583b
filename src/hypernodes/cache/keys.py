"""The key of the seals of a cache."""

from __future__ import annotations

import hashlib

from hypernodes.exceptions import OptionError


def key_bytes(key: str | bytes | None, source: str = "key") -> bytes | None:
    """Return a key in the form that blake2b takes."""
    if key is None:
        return None
    if not isinstance(key, str | bytes):
        raise OptionError(f"DiskCache: {source} must be bytes or text, not {type(key).__name__}.")
    if not key.strip():
        raise ValueError(
            f"DiskCache: {source} is empty, so that entries would not be protected. Set it to a secret, or "
            "leave it out if there shall be no key."
        )
    raw = key.encode(errors="surrogateescape") if isinstance(key, str) else key
    # blake2b takes keys of up to 64 bytes. A longer one is replaced by its digest, as HMAC does.
    return hashlib.blake2b(raw).digest() if len(raw) > hashlib.blake2b.MAX_KEY_SIZE else raw
