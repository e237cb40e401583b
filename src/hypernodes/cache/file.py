"""A file as a value: its content counts, and not its name; a result is kept with the digests of its files."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from contextvars import ContextVar
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, Self

from hypernodes.exceptions import SignatureError

_MAX_DIGESTS: Final = 4096
_TIMESTAMP_RESOLUTION_S: Final = 2.0
"""File systems may give two changes within this time the same timestamp."""


class File(os.PathLike[str]):
    """A path to a file whose content counts in the cache.

    A node with a `File` as an input is computed again when the content has changed, and not when the file
    was moved, touched, or copied to another machine. A file whose size and times are unchanged is not read
    again. A result with a `File` in it is computed again when the file is gone or has other content.

    Args:
        path: The path. Use it as any other: ``open(file)``, ``Path(file)``, ``file.path``.

    Example:
        >>> import tempfile
        >>> from hypernodes.cache.content import digest
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     one, two = Path(directory, "one.txt"), Path(directory, "two.txt")
        ...     _ = one.write_text("same"), two.write_text("same")
        ...     digest(File(one)) == digest(File(two))
        True
    """

    __slots__ = ("path",)

    path: Path

    def __new__(cls, path: str | os.PathLike[str]) -> Self:
        """Create a file, which is immutable."""
        made = super().__new__(cls)
        object.__setattr__(made, "path", Path(path))
        return made

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{self!r} is immutable; create another File.")

    def __fspath__(self) -> str:
        return str(self.path)

    def __cache_key__(self) -> bytes:
        """Return the digest of the content.

        Raises:
            SignatureError: The file cannot be read.
        """
        try:
            return _digest_of_content(self.path)
        except OSError as error:
            raise SignatureError(f"{self!r} cannot be read ({error})") from None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, File) and self.path == other.path

    def __hash__(self) -> int:
        return hash(self.path)

    def __reduce__(self) -> tuple[Any, ...]:
        if IS_RESULT.get():
            return _unchanged, (type(self), str(self.path), self.__cache_key__())
        return type(self), (str(self.path),)

    def __repr__(self) -> str:
        return f"File({str(self.path)!r})"


class ChangedFileError(Exception):
    """A file of a result is gone, or has other content than when the result was put into the cache."""


IS_RESULT: Final[ContextVar[bool]] = ContextVar("hypernodes_is_result", default=False)
"""Whether the value that is being pickled is an entry of a cache: its files are kept with their digests."""


def _unchanged(kind: type[File], path: str, digest: bytes) -> File:
    file = kind(path)
    try:
        is_unchanged = file.__cache_key__() == digest
    except SignatureError as error:
        raise ChangedFileError(str(error)) from None
    if not is_unchanged:
        raise ChangedFileError(f"{file!r} has other content now")
    return file


_digests: OrderedDict[tuple[str, *tuple[int, ...]], bytes] = OrderedDict()
_lock = threading.Lock()


def _digest_of_content(path: Path) -> bytes:
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        times = (status.st_mtime_ns, status.st_ctime_ns)
        key = (str(path.absolute()), status.st_dev, status.st_ino, status.st_size, *times)
        with _lock:
            if key in _digests:
                _digests.move_to_end(key)
                return _digests[key]
        state = blake2b(digest_size=20)
        while chunk := file.read(1 << 20):
            state.update(chunk)
        digest = state.digest()
    if time.time() - max(status.st_mtime, status.st_ctime) > _TIMESTAMP_RESOLUTION_S:
        with _lock:
            _digests[key] = digest
            while len(_digests) > _MAX_DIGESTS:
                _digests.popitem(last=False)
    return digest
