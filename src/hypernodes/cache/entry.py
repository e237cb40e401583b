"""The format of an entry: a pickled value with its provenance, sealed.

    magic | seal | head: lengths | time of expiry | provenance | digest of the tail | tail

The tail is the sizes of buffers, the pickle, and the buffers, each at a multiple of 64. A short tail without
buffers is a part of the head, in the place of its digest.

The seal is a digest of the signature and of the head; with a key, it is an HMAC. It is checked before
anything is unpickled, so that a torn or forged entry runs no code. The provenance of an entry of any size can
be checked without reading its tail. Large buffers, such as those of arrays, are out of band of the pickle:
they are written without a copy, and mapped from the file.
"""

from __future__ import annotations

import hmac
import io
import math
import pickle
import struct
import sys
import time
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from hypernodes.cache.file import IS_RESULT, ChangedFileError
from hypernodes.cache.summary import describe
from hypernodes.config import MISS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Blob: TypeAlias = Any  # bytes, or anything else that has the buffer protocol
_Head: TypeAlias = tuple[int, int, int, int, bool, float]
"""The checked head of an entry: the ends of provenance and head, the number of buffers, the bytes of the
pickle, whether there is a tail, and the time of expiry."""
FOREIGN_BLOB: Final = b""
"""Stands for the content of an entry that this library has not written."""
FOREIGN_REASON: Final = "is not of the form that this library writes"

_MAGIC: Final = b"hn03"
_SEAL_SIZE: Final = 16
_TAIL_DIGEST_SIZE: Final = 32
"""Bytes. The digest has no key, so that it must resist a search for two values with the same digest."""
_LENGTHS: Final = struct.Struct("<IIQd")  # provenance, number of buffers, pickle; the time of expiry
_START: Final = len(_MAGIC) + _SEAL_SIZE
_BODY: Final = _START + _LENGTHS.size
_ALIGNMENT: Final = 64
_MIN_TAIL_SIZE: Final = 1 << 15
"""Bytes. A shorter pickle without buffers is a part of the head."""
_MIN_OUT_OF_BAND_SIZE: Final = 1 << 15
"""Bytes. Copying a smaller buffer into the pickle costs less than writing it separately."""
_MAX_JOINED_SIZE: Final = 1 << 20
"""Bytes. An entry in one piece can be written later, together with others, but is a copy of the value."""
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


def seal(
    signature: str,
    value: object,
    provenance: bytes = b"",
    key: bytes | None = None,
    *,
    expiry: float = math.inf,
) -> list[Blob]:
    """Return the bytes of an entry, in pieces that may refer to the value's own memory."""
    token = IS_RESULT.set(True)
    try:
        body, buffers = _pickle(value)
    finally:
        IS_RESULT.reset(token)
    body_size = len(body[0]) if len(body) == 1 else sum([memoryview(piece).nbytes for piece in body])
    lengths = _LENGTHS.pack(len(provenance), len(buffers), body_size, expiry)
    if not buffers and body_size < _MIN_TAIL_SIZE:
        head = b"".join((lengths, provenance, *body))
        return [b"".join((_MAGIC, _digest(signature, head, key), head))]
    tail: list[Blob] = [struct.pack(f"<{len(buffers)}Q", *(buffer.nbytes for buffer in buffers)), *body]
    position = _BODY + len(provenance) + _TAIL_DIGEST_SIZE + len(tail[0]) + body_size
    for buffer in buffers:
        tail += (b"\0" * (-position % _ALIGNMENT), buffer)
        position += -position % _ALIGNMENT + buffer.nbytes
    head = b"".join((lengths, provenance, _tail_digest(tail)))
    pieces = [b"".join((_MAGIC, _digest(signature, head, key), head)), *tail]
    return pieces if buffers or position > _MAX_JOINED_SIZE else [b"".join(pieces)]


def check(signature: str, blob: Blob, key: bytes | None = None) -> None:
    """Check the seal of an entry, and all that it covers."""
    _check(signature, blob, key)


def open_entry(signature: str, blob: Blob, key: bytes | None = None) -> Any:
    """Check an entry and return its value, or raise an EntryError that says why it cannot be used.

    Arrays in the value may use the memory of the entry, if it can be written to.
    """
    provenance_end, head_end, count, body_size, has_tail, expiry = _check(signature, blob, key)
    if expiry != math.inf and expiry < time.time():
        return MISS
    start = head_end + 8 * count if has_tail else provenance_end
    end = start + body_size
    try:
        load = pickle.loads if blob.find(_CLASS_BY_VALUE, start, end) < 0 else _load_with_present_classes
        view = memoryview(blob)
        if not count:
            return load(view[start:end])
        if view.readonly:
            view = memoryview(bytearray(view))  # Arrays from the cache can be changed like fresh ones.
        buffers, position = [], end
        for size in struct.unpack_from(f"<{count}Q", blob, head_end):
            position += -position % _ALIGNMENT
            buffers.append(view[position : position + size])
            position += size
        return load(view[start:end], buffers=buffers)
    except ChangedFileError as error:
        raise OutdatedEntryError(str(error)) from None
    except Exception as error:
        raise UnreadableEntryError(f"cannot be unpickled here ({describe(error)})") from error


def read_provenance(signature: str, blob: Blob, key: bytes | None = None) -> bytes:
    """Check the seal of an entry, and return the provenance that was given to `seal`."""
    provenance_end, *_ = _check_head(signature, blob, key)
    return bytes(blob[_BODY:provenance_end])


def expiry_of(blob: Blob) -> float:
    """Return the time after which an entry counts as absent, of an entry whose seal was checked."""
    expiry: float = _LENGTHS.unpack_from(blob, _START)[3]
    return expiry


def _check(signature: str, blob: Blob, key: bytes | None) -> _Head:
    head = _check_head(signature, blob, key)
    _, end, _, _, has_tail, _ = head
    if has_tail:
        with memoryview(blob) as view, view[end:] as tail:
            is_intact = blob[end - _TAIL_DIGEST_SIZE : end] == _tail_digest([tail])
    else:
        is_intact = len(blob) == end
    if not is_intact:
        raise DamagedEntryError("is damaged")
    return head


def _check_head(signature: str, blob: Blob, key: bytes | None) -> _Head:
    if not blob:
        raise ForeignEntryError(FOREIGN_REASON)
    if blob[: len(_MAGIC)] != _MAGIC:
        raise ForeignEntryError("is of another version")
    if len(blob) >= _BODY:
        provenance_size, buffers, body_size, expiry = _LENGTHS.unpack_from(blob, _START)
        has_tail = buffers > 0 or body_size >= _MIN_TAIL_SIZE
        provenance_end = _BODY + provenance_size
        end = provenance_end + (_TAIL_DIGEST_SIZE if has_tail else body_size)
        # A slice of bytes that are cut off is short, so that its digest is another one.
        if hmac.compare_digest(blob[len(_MAGIC) : _START], _digest(signature, blob[_START:end], key)):
            return provenance_end, end, buffers, body_size, has_tail, expiry
    raise DamagedEntryError("is damaged, or was written with another key")


def _digest(signature: str, head: Blob, key: bytes | None) -> bytes:
    # The digest includes the signature, so that an entry is not valid under another signature.
    text = signature.encode()
    state = blake2b(b"%d:%b" % (len(text), text), digest_size=_SEAL_SIZE, key=key or b"")
    state.update(head)
    return state.digest()


def _tail_digest(pieces: Iterable[Blob]) -> bytes:
    state = blake2b(digest_size=_TAIL_DIGEST_SIZE)
    for piece in pieces:
        state.update(piece)
    return state.digest()


def _pickle(value: object) -> tuple[list[Blob], list[memoryview]]:
    """Pickle a value as cloudpickle does, with the faster standard pickle where the result is the same."""
    import cloudpickle

    from hypernodes.serialization.pickler import Pickler

    pieces = _Pieces()
    buffers: list[memoryview] = []

    def keeps_in_band(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < _MIN_OUT_OF_BAND_SIZE:
            return True
        buffers.append(raw)
        return False

    if not cloudpickle.list_registry_pickle_by_value():
        try:
            pickle.dump(value, pieces, 5, buffer_callback=keeps_in_band)
        except Exception:  # cloudpickle may be able to pickle it.
            pieces.clear()
        else:
            if not [piece for piece in pieces if b"__main__" in piece]:
                return pieces, buffers
            pieces.clear()
        buffers.clear()
    pickler = Pickler(pieces, protocol=5, buffer_callback=keeps_in_band)
    pickler.keeps_file_names = False  # An entry is the same, whatever folder the code is in.
    pickler.dump(value)
    return pieces, buffers


class _Pieces(list[Blob]):
    """What is written to a file, in pieces."""

    write = list.append


def _load_with_present_classes(body: memoryview, buffers: Sequence[Any] = ()) -> Any:
    return _PresentClassUnpickler(_Reader(body), buffers=buffers).load()


class _Reader(io.RawIOBase):
    """Reads from memory without copying all of it, as `io.BytesIO` would."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._position = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        found = self._view[self._position : self._position + len(buffer)]
        buffer[: len(found)] = found
        self._position += len(found)
        return len(found)


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
