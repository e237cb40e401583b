"""The format of an entry: a pickled value with its provenance, sealed.

    magic | seal | lengths | provenance (JSON) | pickle | buffers, each at a multiple of 64

The seal is a digest of the signature and of all that follows the seal; with a key, it is an HMAC. It is
checked before anything is unpickled, so that a torn or forged entry runs no code. Large buffers, such as
those of arrays, are out of band of the pickle: they are written without a copy, and mapped from the file.
"""

from __future__ import annotations

import hmac
import pickle
import struct
import sys
from hashlib import blake2b
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from hypernodes.cache.file import ChangedFileError, kept_with_digests
from hypernodes.text import described

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Blob: TypeAlias = Any  # bytes, or anything else that has the buffer protocol

FOREIGN_BLOB: Final = b""
"""Stands for the content of an entry that this library has not written."""
FOREIGN_REASON: Final = "is not of the form that this library writes"

_MAGIC: Final = b"hn02"
_SEAL_SIZE: Final = 16
_LENGTHS: Final = struct.Struct("<III")  # provenance, pickle, number of buffers
_START: Final = len(_MAGIC) + _SEAL_SIZE
_BODY: Final = _START + _LENGTHS.size
_ALIGNMENT: Final = 64
_MIN_OUT_OF_BAND_SIZE: Final = 1 << 15
"""Bytes. Copying a smaller buffer into the pickle costs less than writing it separately."""
_CLASS_BY_VALUE: Final = b"_make_skeleton_class"
"""The function that cloudpickle names in a pickle that contains a class by value."""


class EntryError(Exception):
    """An entry that cannot be used."""


class ForeignEntryError(EntryError):
    """An entry of another version of this library, or of another program."""


class DamagedEntryError(EntryError):
    """An entry whose seal is broken, or was made with another key."""


class UnreadableEntryError(EntryError):
    """An entry whose value cannot be unpickled here."""


class OutdatedEntryError(EntryError):
    """An entry whose value names a file that is gone, or has other content now."""


def seal(signature: str, value: object, provenance: bytes = b"", key: bytes | None = None) -> list[Blob]:
    """Return the bytes of an entry, in pieces that may refer to the value's own memory.

    Raises:
        Exception: The value cannot be pickled.
    """
    buffers: list[memoryview] = []

    def keeps_in_band(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < _MIN_OUT_OF_BAND_SIZE:
            return True
        buffers.append(raw)
        return False

    with kept_with_digests():
        body = _pickle(value, keeps_in_band, buffers)
    lengths = _LENGTHS.pack(len(provenance), len(body), len(buffers))
    if not buffers:
        rest = b"".join((lengths, provenance, body))
        return [b"".join((_MAGIC, _digest(signature, [rest], key), rest))]
    sizes = struct.pack(f"<{len(buffers)}Q", *(buffer.nbytes for buffer in buffers))
    pieces: list[Blob] = [b"".join((lengths, sizes, provenance, body))]
    position = _START + len(pieces[0])
    for buffer in buffers:
        pieces += (b"\0" * (-position % _ALIGNMENT), buffer)
        position += -position % _ALIGNMENT + buffer.nbytes
    return [_MAGIC + _digest(signature, pieces, key), *pieces]


def check(signature: str, blob: Blob, key: bytes | None = None) -> None:
    """Check the seal of an entry.

    Raises:
        ForeignEntryError: The entry is of another version.
        DamagedEntryError: The entry is damaged, or was sealed with another key.
    """
    if not blob:
        raise ForeignEntryError(FOREIGN_REASON)
    if blob[: len(_MAGIC)] != _MAGIC:
        raise ForeignEntryError("is of another version")
    with memoryview(blob) as view, view[_START:] as rest:
        is_intact = hmac.compare_digest(blob[len(_MAGIC) : _START], _digest(signature, [rest], key))
    if not is_intact or len(blob) < _BODY:
        raise DamagedEntryError("is damaged, or was written with another key")


def open_entry(signature: str, blob: Blob, key: bytes | None = None) -> Any:
    """Check an entry and return its value.

    Args:
        signature: The signature under which it is stored.
        blob: Its bytes. Arrays in the value may use this memory, if it can be written to.
        key: The secret with which entries are sealed.

    Raises:
        EntryError: The entry cannot be used; the text of the error says why.
    """
    check(signature, blob, key)
    provenance_size, body_size, count = _LENGTHS.unpack_from(blob, _START)
    start = _BODY + 8 * count + provenance_size
    end = start + body_size
    try:
        load = pickle.loads if blob.find(_CLASS_BY_VALUE, start, end) < 0 else _load_with_present_classes
        view = memoryview(blob)
        if not count:
            return load(view[start:end])
        if view.readonly:
            view = memoryview(bytearray(view))  # Arrays from the cache can be changed like fresh ones.
        buffers, position = [], end
        for size in struct.unpack_from(f"<{count}Q", blob, _BODY):
            position += -position % _ALIGNMENT
            buffers.append(view[position : position + size])
            position += size
        return load(view[start:end], buffers=buffers)
    except ChangedFileError as error:
        raise OutdatedEntryError(str(error)) from None
    except Exception as error:
        raise UnreadableEntryError(f"cannot be unpickled here ({described(error)})") from error


def read_provenance(blob: Blob) -> bytes:
    """Return the provenance that was given to `seal`. The first 64 KiB of the entry suffice.

    Raises:
        ForeignEntryError: The entry is of another version, or is cut off.
    """
    try:
        size, _, count = _LENGTHS.unpack_from(blob, _START)
    except struct.error:
        raise ForeignEntryError("is cut off") from None
    start = _BODY + 8 * count
    if blob[: len(_MAGIC)] != _MAGIC or len(blob) < start + size:
        raise ForeignEntryError("is of another version")
    return bytes(blob[start : start + size])


def _digest(signature: str, pieces: Sequence[Blob], key: bytes | None) -> bytes:
    # The digest includes the signature, so that an entry is not valid under another signature.
    state = blake2b(signature.encode(), digest_size=_SEAL_SIZE, key=key or b"")
    for piece in pieces:
        state.update(piece)
    return state.digest()


def _pickle(
    value: object, keeps_in_band: Callable[[pickle.PickleBuffer], bool], buffers: list[memoryview]
) -> bytes:
    """Pickle a value as cloudpickle does, with the faster standard pickle where the result is the same."""
    import cloudpickle

    from hypernodes.serialization.pickler import Pickler

    if not cloudpickle.list_registry_pickle_by_value():
        try:
            body = pickle.dumps(value, 5, buffer_callback=keeps_in_band)
        except Exception:  # cloudpickle may be able to pickle it.
            buffers.clear()
        else:
            if b"__main__" not in body:
                return body
            buffers.clear()
    stream = BytesIO()
    pickler = Pickler(stream, protocol=5, buffer_callback=keeps_in_band)
    pickler.keeps_file_names = False  # An entry is the same, whatever folder the code is in.
    pickler.dump(value)
    return stream.getvalue()


def _load_with_present_classes(body: Blob, buffers: Sequence[Any] = ()) -> Any:
    return _PresentClassUnpickler(BytesIO(body), buffers=buffers).load()


class _PresentClassUnpickler(pickle.Unpickler):
    """Gives objects of a script's own classes the classes that the script has now.

    cloudpickle pickles these classes by value and would create new ones, which ``isinstance`` does not
    recognize. The code of a class is a part of the signature, so that the present class is the right one.
    """

    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name)
        if module.startswith("cloudpickle"):
            if name == _CLASS_BY_VALUE.decode():
                return _present_class_or(found)
            if name == "_class_setstate":
                return lambda made, state: made if _is_present(made) else found(made, state)
        return found


def _present_class_or(make: Any) -> Any:
    def make_class(kind: Any, name: str, bases: Any, type_kwargs: dict[str, Any], *more: Any) -> Any:
        if type_kwargs.get("__module__") == "__main__":
            present = getattr(sys.modules["__main__"], name, None)
            if isinstance(present, type):
                return present
        return make(kind, name, bases, type_kwargs, *more)

    return make_class


def _is_present(made: type) -> bool:
    return made.__module__ == "__main__" and getattr(sys.modules["__main__"], made.__name__, None) is made
