"""An entry: a value as bytes, with how it was made, sealed.

    magic | seal | lengths | about (JSON) | pickle | buffers, each at a multiple of 64

The seal is a digest of all that follows it and of the signature; with a key, an HMAC. It is checked
before anything is unpickled, so a torn or foreign entry never runs code. Large buffers (of arrays,
say) stand beside the pickle, so that they can be written from where they are, and mapped from the file.
"""

from __future__ import annotations

import hmac
import pickle
import struct
import sys
from hashlib import blake2b
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

Blob: TypeAlias = Any  # bytes, or anything else that has the buffer protocol

NOT_OWN: Final = b""
"""What stands for the bytes of an entry that this library has not written, whatever is in its place."""
WHY_NOT_OWN: Final = "is not of the form that this library writes"

_MAGIC: Final = b"hn02"
_SEAL_SIZE: Final = 16
_LENGTHS: Final = struct.Struct("<III")  # about, pickle, number of buffers
_START: Final = len(_MAGIC) + _SEAL_SIZE
_BODY: Final = _START + _LENGTHS.size
_ALIGNMENT: Final = 64
_BESIDE: Final = 1 << 15  # bytes; a smaller buffer stays within the pickle
_BY_VALUE: Final = b"_make_skeleton_class"  # what cloudpickle writes for a class that it sends by value


class EntryError(Exception):
    """An entry that cannot be used."""


class ForeignEntryError(EntryError):
    """An entry of another version of this library, or of another program."""


class DamagedEntryError(EntryError):
    """An entry whose seal is broken, or was made with another key."""


class UnreadableEntryError(EntryError):
    """An entry whose value cannot be unpickled here."""


def seal(signature: str, value: object, about: bytes = b"", key: bytes | None = None) -> list[Blob]:
    """Return the bytes of an entry, in pieces that may refer to the value's own memory."""
    buffers: list[memoryview] = []

    def beside(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < _BESIDE:
            return True
        buffers.append(raw)
        return False

    body = _pickle(value, beside, buffers)
    lengths = _LENGTHS.pack(len(about), len(body), len(buffers))
    if not buffers:
        rest = b"".join((lengths, about, body))
        return [b"".join((_MAGIC, _digest(signature, [rest], key), rest))]
    sizes = struct.pack(f"<{len(buffers)}Q", *(buffer.nbytes for buffer in buffers))
    pieces: list[Blob] = [b"".join((lengths, sizes, about, body))]
    position = _START + len(pieces[0])
    for buffer in buffers:
        pieces += (b"\0" * (-position % _ALIGNMENT), buffer)
        position += -position % _ALIGNMENT + buffer.nbytes
    return [_MAGIC + _digest(signature, pieces, key), *pieces]


def check(signature: str, blob: Blob, key: bytes | None = None) -> None:
    """See whether an entry is whole.

    Raises:
        ForeignEntryError: It is of another version.
        DamagedEntryError: It is damaged, or was sealed with another key.
    """
    if not blob:
        raise ForeignEntryError(WHY_NOT_OWN)
    if blob[: len(_MAGIC)] != _MAGIC:
        raise ForeignEntryError("is of another version")
    with memoryview(blob) as view, view[_START:] as rest:
        is_whole = hmac.compare_digest(blob[len(_MAGIC) : _START], _digest(signature, [rest], key))
    if not is_whole or len(blob) < _BODY:
        raise DamagedEntryError("is damaged, or was written with another key")


def open_entry(signature: str, blob: Blob, key: bytes | None = None) -> Any:
    """Return the value of an entry.

    Args:
        signature: The signature under which it was found.
        blob: Its bytes. Arrays in the value use this memory, if it can be written to.
        key: The secret with which entries are sealed.

    Raises:
        EntryError: It cannot be used; why is the error's text.
    """
    check(signature, blob, key)
    about, body, count = _LENGTHS.unpack_from(blob, _START)
    start = _BODY + 8 * count + about
    try:
        load = pickle.loads if blob.find(_BY_VALUE, start, start + body) < 0 else _load_by_value
        view = memoryview(blob)
        if not count:
            return load(view[start : start + body])
        if view.readonly:
            view = memoryview(bytearray(view))  # a value from the cache can be changed like a fresh one
        buffers, position = [], start + body
        for size in struct.unpack_from(f"<{count}Q", blob, _BODY):
            position += -position % _ALIGNMENT
            buffers.append(view[position : position + size])
            position += size
        return load(view[start : start + body], buffers=buffers)
    except Exception as error:
        raise UnreadableEntryError(f"cannot be unpickled here ({error!r})") from error


def read_about(blob: Blob) -> bytes:
    """Return how an entry was made, as it was given to `seal`; the first 64 KiB of the entry suffice.

    Raises:
        ForeignEntryError: It is of another version, or cut off.
    """
    try:
        about, _, count = _LENGTHS.unpack_from(blob, _START)
    except struct.error:
        raise ForeignEntryError("is cut off") from None
    start = _BODY + 8 * count
    if blob[: len(_MAGIC)] != _MAGIC or len(blob) < start + about:
        raise ForeignEntryError("is of another version")
    return bytes(blob[start : start + about])


def _digest(signature: str, pieces: Sequence[Blob], key: bytes | None) -> bytes:
    # The signature is sealed in, so that an entry cannot be passed off as another's.
    state = blake2b(signature.encode(), digest_size=_SEAL_SIZE, key=key or b"")
    for piece in pieces:
        state.update(piece)
    return state.digest()


def _pickle(value: object, beside: Any, buffers: list[memoryview]) -> bytes:
    """Pickle as cloudpickle does; where the result is the same, by the faster standard pickle."""
    import cloudpickle

    if not cloudpickle.list_registry_pickle_by_value():
        try:
            body = pickle.dumps(value, 5, buffer_callback=beside)
        except Exception:
            buffers.clear()  # something that only cloudpickle can send
        else:
            if b"__main__" not in body:
                return body
            buffers.clear()
    by_value: bytes = cloudpickle.dumps(value, protocol=5, buffer_callback=beside)
    return by_value


def _load_by_value(body: Blob, buffers: Sequence[Any] = ()) -> Any:
    return _OfThisProgram(BytesIO(body), buffers=buffers).load()


class _OfThisProgram(pickle.Unpickler):
    """Gives objects of a script's own classes the classes that the script has now.

    cloudpickle sends these classes by value and makes new ones of them, which ``isinstance`` would not
    know. What their code was when the entry was made is a part of its signature.
    """

    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name)
        if module.startswith("cloudpickle"):
            if name == _BY_VALUE.decode():
                return _present_or(found)
            if name == "_class_setstate":
                return lambda made, state: made if _is_present(made) else found(made, state)
        return found


def _present_or(make: Any) -> Any:
    def make_class(kind: Any, name: str, bases: Any, type_kwargs: dict[str, Any], *more: Any) -> Any:
        if type_kwargs.get("__module__") == "__main__":
            present = getattr(sys.modules["__main__"], name, None)
            if isinstance(present, type):
                return present
        return make(kind, name, bases, type_kwargs, *more)

    return make_class


def _is_present(made: type) -> bool:
    return made.__module__ == "__main__" and getattr(sys.modules["__main__"], made.__name__, None) is made
