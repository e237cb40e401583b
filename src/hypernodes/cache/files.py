"""Files that hold large values, two levels below the cache's directory.

Who can write to the directory can put a link in the place of a folder, or a pipe in that of a file, at any
time. So a name must have the one form that is made here, each level is opened without following links
(to look first and open then would be a race), and only regular files are read.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import stat
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from hypernodes.cache.entry import Blob

_NAME: Final = re.compile(r"([0-9a-f]{2})/([0-9a-f]{2})/([0-9a-f]{28}\.val)")
_FOLDER_NAME: Final = re.compile(r"[0-9a-f]{2}")
_FILE_NAME: Final = re.compile(r"[0-9a-f]{28}\.val")
_MAPPED: Final = 4 << 20  # bytes; each mapped file takes a descriptor, of which a process has 1024 or so
_HEAD: Final = 1 << 16  # bytes that tell how an entry was made
_TRIES: Final = 10  # names that are tried; folders that have become empty are removed by others meanwhile

_PASS_THROUGH: Final = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
_FOLDER: Final = _PASS_THROUGH | os.O_NOFOLLOW
_LISTED: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Opened without waiting: a pipe that nobody writes to would keep the reader for ever.
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class NotAValueFileError(OSError):
    """A name that this library does not give, or something other than a regular file under such a name."""


def is_name(name: str) -> bool:
    """Whether a name has the form that this library gives to its files."""
    return _NAME.fullmatch(name) is not None


class ValueFiles:
    """The files of large values in a directory.

    Args:
        directory: The cache's directory.
        can_map: Whether the largest may be mapped into memory. What is mapped can still be changed
            by others; what is read cannot.
    """

    def __init__(self, directory: Path, *, can_map: bool) -> None:
        self._directory = directory
        self._can_map = can_map

    def write(self, pieces: Sequence[Blob]) -> str:
        """Write a new file, and return its name; a file that cannot be completed is removed."""
        name, descriptor = self._new()
        try:
            with open(descriptor, "wb", buffering=0) as file:  # noqa: PTH123  it has no path that can be trusted
                for piece in pieces:
                    rest = memoryview(piece)
                    while rest.nbytes:
                        rest = rest[file.write(rest) :]
        except BaseException:  # a full disk, say: half a file is of no use to anybody
            self.remove(name)
            raise
        return name

    def read(self, name: str) -> Blob:
        """Return the bytes of a file, in memory that can be changed without changing the file.

        Raises:
            NotAValueFileError: It is none.
            OSError: It cannot be read, or is gone.
        """
        with open(self._open(name), "rb", buffering=0) as file:  # noqa: PTH123
            size = os.fstat(file.fileno()).st_size
            if self._can_map and size >= _MAPPED:
                with contextlib.suppress(OSError):
                    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            blob = bytearray(size)  # of which arrays can be made that can be changed
            rest = memoryview(blob)
            while rest.nbytes and (number := file.readinto(rest)):
                rest = rest[number:]
            return blob

    def head(self, name: str) -> bytes:
        """Return the first 64 KiB of a file."""
        with open(self._open(name), "rb") as file:  # noqa: PTH123
            return file.read(_HEAD)

    def remove(self, name: str) -> None:
        """Remove a file, and the folders that it leaves empty. One that cannot be removed stays."""
        found = _NAME.fullmatch(name)
        if found is None:
            return
        first, second, file = found.groups()
        with contextlib.suppress(OSError), _opened(self._directory, _PASS_THROUGH) as root:
            with _opened(first, _FOLDER, root) as outer:
                with _opened(second, _FOLDER, outer) as inner:
                    os.unlink(file, dir_fd=inner)
                os.rmdir(second, dir_fd=outer)
            os.rmdir(first, dir_fd=root)

    def older_than(self, seconds: float) -> Iterator[str]:
        """Walk the names of the files that were last written to so long ago."""
        before = time.time() - seconds
        with _opened(self._directory, _LISTED & ~os.O_NOFOLLOW) as root:
            for first in _folders(root):
                with contextlib.suppress(OSError), _opened(first, _LISTED, root) as outer:
                    for second in _folders(outer):
                        with contextlib.suppress(OSError), _opened(second, _LISTED, outer) as inner:
                            for file in _files(inner, before):
                                yield f"{first}/{second}/{file}"

    def _new(self) -> tuple[str, int]:
        for attempt in range(_TRIES):
            digits = os.urandom(16).hex()
            first, second, file = digits[:2], digits[2:4], f"{digits[4:]}.val"
            try:
                with (
                    _opened(self._directory, _PASS_THROUGH) as root,
                    _made(first, root) as outer,
                    _made(second, outer) as inner,
                ):
                    return f"{first}/{second}/{file}", os.open(file, _NEW, 0o666, dir_fd=inner)
            except OSError:
                if attempt == _TRIES - 1:
                    raise
        raise AssertionError

    def _open(self, name: str) -> int:
        found = _NAME.fullmatch(name)
        if found is None:
            raise NotAValueFileError(f"{name[:80]!r} is no name of a value's file")
        first, second, file = found.groups()
        with (
            _opened(self._directory, _PASS_THROUGH) as root,
            _opened(first, _FOLDER, root) as outer,
            _opened(second, _FOLDER, outer) as inner,
        ):
            descriptor = os.open(file, _READ, dir_fd=inner)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise NotAValueFileError(f"{name!r} is no regular file")
        return descriptor


@contextlib.contextmanager
def _opened(path: str | Path, flags: int, within: int | None = None) -> Iterator[int]:
    descriptor = os.open(path, flags, dir_fd=within)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _made(name: str, within: int) -> contextlib.AbstractContextManager[int]:
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, dir_fd=within)
    return _opened(name, _FOLDER, within)


def _folders(within: int) -> list[str]:
    with os.scandir(within) as found:
        return [
            entry.name
            for entry in found
            if _FOLDER_NAME.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
        ]


def _files(within: int, before: float) -> list[str]:
    names = []
    with os.scandir(within) as found:
        for entry in found:
            with contextlib.suppress(FileNotFoundError):
                if (
                    _FILE_NAME.fullmatch(entry.name)
                    and not entry.is_dir(follow_symlinks=False)
                    and entry.stat(follow_symlinks=False).st_mtime < before
                ):
                    names.append(entry.name)
    return names
