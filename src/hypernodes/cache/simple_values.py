"""The bytes of values of Python's simple types: those that contain no other value."""

from __future__ import annotations

import datetime as dt
import decimal
import fractions
import pathlib
import struct
import uuid
from array import array
from typing import TYPE_CHECKING, Any, Final

from hypernodes.cache.code import Release
from hypernodes.cache.hashing import joined

if TYPE_CHECKING:
    from collections.abc import Callable

MIN_PACKED_LENGTH: Final = 64
"""Shorter sequences are hashed value by value: packing them would not pay."""


def pack(values: list[Any] | tuple[Any, ...]) -> bytes | None:
    """Return the bytes of numbers of one type, or of strings; ``None`` for any other sequence."""
    kinds = set(map(type, values))
    if kinds == {float}:
        return b"float" + array("d", values).tobytes()  # The bits, as for a single float.
    if kinds == {int}:
        try:
            return b"int" + array("q", values).tobytes()
        except OverflowError:
            return None
    if kinds == {str}:
        return b"str" + joined([value.encode("utf-8", "surrogatepass") for value in values])
    return None


SIMPLE_TYPES: Final[dict[type, Callable[[Any], bytes]]] = {
    type(None): lambda _: b"",
    type(...): lambda _: b"",
    type(NotImplemented): lambda _: b"",
    bool: lambda value: b"1" if value else b"0",
    int: lambda value: b"%d" % value if abs(value) < 1 << 64 else hex(value).encode(),
    # The bits: -0.0 differs from 0.0, and NaN is equal to itself.
    float: lambda value: struct.pack("<d", value),
    complex: lambda value: struct.pack("<dd", value.real, value.imag),
    str: lambda value: value.encode("utf-8", "surrogatepass"),
    Release: lambda value: value.encode(),
    bytes: bytes,
    bytearray: bytes,
    uuid.UUID: lambda value: value.bytes,
    decimal.Decimal: lambda value: str(value).encode(),
    fractions.Fraction: lambda value: str(value).encode(),
    dt.date: lambda value: value.isoformat().encode(),
    dt.timedelta: lambda value: repr(value).encode(),
    # Equal ranges have the same numbers: ``range(0, 5, 2)`` and ``range(0, 6, 2)``.
    range: lambda value: repr(
        (value[0], value[-1], value.step * (len(value[:2]) > 1)) if value else ()
    ).encode(),
    pathlib.PosixPath: lambda value: str(value).encode("utf-8", "surrogatepass"),
    pathlib.PurePosixPath: lambda value: str(value).encode("utf-8", "surrogatepass"),
}

TAGS: Final = {kind: kind.__name__.encode() for kind in SIMPLE_TYPES}
