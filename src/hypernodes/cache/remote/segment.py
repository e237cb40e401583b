"""The format of segments: small entries, one after the other, and an index of them.

    data: sealed entries | digest of the index | index: compressed JSON

The name of a segment says when it was written and where its index begins, so that one request reads the
index. Nothing in an index is trusted: an entry whose place, key or size is forged has a broken seal.
"""

from __future__ import annotations

import json
import math
import os
import re
import socket
import zlib
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hypernodes.cache.entry import Blob

SEGMENTS: Final = "v1/segments"
"""The folder of segments."""
VALUES: Final = "v1/values"
"""The folder of large values."""
_NAME: Final = re.compile(r"([0-9a-f]{16})-[0-9a-f]{24}-([0-9a-f]{1,12})-([ms])")
_VALUE_NAME: Final = re.compile(r"[0-9a-f]{32}-[0-9a-f]{16}")
_DIGEST_SIZE: Final = 16
_MAX_NUMBER: Final = 1 << 60
"""A size or a time that is greater is forged, and does not fit into a database."""
_MAX_INDEX_SIZE: Final = 1 << 30
"""Bytes of an index that is not compressed. A larger one is forged."""


class SegmentError(Exception):
    """A segment whose index cannot be used."""


@dataclass(frozen=True, slots=True)
class Item:
    """Where an entry is, and what its index says of it.

    An item without a size says that the entry was deleted.
    """

    key: str
    tag: str | None = None
    start: int = 0  # in the data of the segment
    size: int | None = None
    expiry: float = math.inf  # in seconds since the epoch
    time: int = 0  # when it was written: µs since the epoch, later than everything that its writer knew
    value: str | None = None  # the name of the object that has the entry, if it is one of its own


@dataclass(frozen=True, slots=True)
class Index:
    """What a segment contains, and the names of the segments whose content it has, too."""

    items: Sequence[Item]
    supersedes: Sequence[str] = field(default=())


@dataclass(frozen=True, slots=True)
class SegmentName:
    """The name of a segment, and what it says."""

    text: str
    time: int
    data_size: int
    is_merged: bool

    @classmethod
    def parse(cls, text: str) -> SegmentName | None:
        """Return a name, or ``None`` if it is not the name of a segment."""
        if (found := _NAME.fullmatch(text)) is None:
            return None
        return cls(text, int(found[1], 16), int(found[2], 16), found[3] == "m")

    @classmethod
    def new(cls, time: int, data_size: int, *, is_merged: bool = False) -> SegmentName:
        """Return a name that no other segment has."""
        writer = f"{_writer(os.getpid())}{os.urandom(8).hex()}"
        text = f"{time:016x}-{writer}-{data_size:x}-{'m' if is_merged else 's'}"
        return cls(text, time, data_size, is_merged)


@lru_cache(maxsize=1)
def _writer(process: int) -> str:
    return blake2b(f"{socket.gethostname()} {process}".encode(), digest_size=4).hexdigest()


def new_value_name(key: str) -> str:
    """Return a new name for the object of a large value."""
    return f"{blake2b(key.encode(), digest_size=16).hexdigest()}-{os.urandom(8).hex()}"


def encode(index: Index) -> bytes:
    """Return the bytes of an index."""
    items = index.items
    tags = list(dict.fromkeys(item.tag for item in items))
    number_of = {tag: number for number, tag in enumerate(tags)}
    content = {
        "keys": [item.key for item in items],
        "tags": tags,
        "tag": [number_of[item.tag] for item in items],
        "size": [item.size for item in items],
        "expiry": [None if item.expiry == math.inf else item.expiry for item in items],
        "time": [item.time for item in items],
        "value": [item.value for item in items],
        "supersedes": list(index.supersedes),
    }
    packed = zlib.compress(json.dumps(content, separators=(",", ":")).encode(), 1)
    return blake2b(packed, digest_size=_DIGEST_SIZE).digest() + packed


def decode(raw: Blob, name: SegmentName) -> Index:
    """Return an index from its bytes, or raise a SegmentError that says what is wrong with them."""
    digest, packed = bytes(raw[:_DIGEST_SIZE]), bytes(raw[_DIGEST_SIZE:])
    if blake2b(packed, digest_size=_DIGEST_SIZE).digest() != digest:
        raise SegmentError("is damaged")
    try:
        return _decoded(packed, name)
    except (zlib.error, ValueError, TypeError, LookupError, MemoryError) as error:
        raise SegmentError("has an index of another form") from error


def _decoded(packed: bytes, name: SegmentName) -> Index:
    unpacker = zlib.decompressobj()
    content = json.loads(unpacker.decompress(packed, _MAX_INDEX_SIZE))
    tags, supersedes = content["tags"], content["supersedes"]
    "".join(filter(None, tags)).encode()
    items, start = [], 0
    for key, tag, size, expiry, time, value in zip(
        *(content[column] for column in ("keys", "tag", "size", "expiry", "time", "value")), strict=True
    ):
        is_valid = (
            type(key) is str
            and type(tag) is int
            and tag >= 0
            and type(time) is int
            and 0 <= time < _MAX_NUMBER
        )
        is_valid = is_valid and (size is None or (type(size) is int and 0 <= size < _MAX_NUMBER))
        is_valid = is_valid and (tags[tag] is None or type(tags[tag]) is str)
        is_valid = is_valid and (expiry is None or type(expiry) is float)
        if not (is_valid and (value is None or _VALUE_NAME.fullmatch(value))):
            raise ValueError(key)
        key.encode()  # A database takes no text that is not UTF-8.
        at = start if value is None else 0
        items.append(Item(key, tags[tag], at, size, math.inf if expiry is None else expiry, time, value))
        if value is None:
            start += size or 0
    if start != name.data_size or not all(map(SegmentName.parse, supersedes)):
        raise ValueError(name)
    return Index(items, supersedes)
