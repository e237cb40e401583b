"""The files of large values, two levels below the cache's directory.

Whoever can write to the directory can replace a folder by a link, or a file by a pipe, at any time. So a
name must have exactly the form that this module gives to files, each level is opened without following
links (a check before opening would be a race), and only regular files are read.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import re
import stat
import sys
import time
import weakref
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from hypernodes.cache.entry import Blob

_NAME: Final = re.compile(r"([0-9a-f]{2})/([0-9a-f]{2})/([0-9a-f]{28}\.val)")
_FOLDER_NAME: Final = re.compile(r"[0-9a-f]{2}")
_FILE_NAME: Final = re.compile(r"[0-9a-f]{28}\.val")
_MIN_MAPPED_SIZE: Final = 4 << 20
"""Bytes. Mapping a smaller file saves no time."""
_MAX_MAPPED: Final = 256 if sys.version_info < (3, 13) else 10_000
"""Files that are mapped at the same time. Before Python 3.13 each of them holds a file descriptor, of which a
process may have only 1024, and the system limits the number of mappings (to 65530 on Linux)."""
_HEAD_SIZE: Final = 1 << 16
"""Bytes at the start of a file, which contain the provenance of the entry."""
_MAX_TRIES: Final = 10
"""New names to try: another process may remove a folder that is empty at that moment."""

_PASS_THROUGH: Final = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
_FOLDER: Final = _PASS_THROUGH | os.O_NOFOLLOW
_LISTED_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening a pipe that has no writer would block for ever.
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class NotAValueFileError(OSError):
    """A name that is not the name of a value file, or a value file that is not a regular file."""


def is_value_file_name(name: str) -> bool:
    """Return whether a name has the form of the names of value files."""
    return _NAME.fullmatch(name) is not None


class ValueFiles:
    """The files of large values; other processes can still change the content of a mapped file."""

    def __init__(self, directory: Path, *, can_map: bool) -> None:
        self._directory = directory
        self._can_map = can_map

    def write(self, pieces: Sequence[Blob]) -> str:
        """Write a new file, and return its name. A file that cannot be completed is removed."""
        name, descriptor = self._new()
        try:
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                for piece in pieces:
                    rest = memoryview(piece)
                    while rest.nbytes:
                        rest = rest[file.write(rest) :]
        except BaseException:  # The disk may be full: a part of a value is of no use.
            self.remove(name)
            raise
        return name

    def read(self, name: str, size: int) -> Blob:
        """Return the content of a file, in memory that can be changed without changing the file.

        A mapping lasts as long as a reference to the returned object, or to a view of it.
        """
        with os.fdopen(self._open(name), "rb", buffering=0) as file:
            if os.fstat(file.fileno()).st_size != size:
                raise NotAValueFileError(f"{name!r} has not {size} bytes")
            if self._can_map and size >= _MIN_MAPPED_SIZE and len(_mapped) < _MAX_MAPPED:
                with contextlib.suppress(OSError, ValueError):  # The file was cut off just now.
                    return _map(file.fileno(), size)
            blob = bytearray(size)  # Arrays on top of it can be changed, unlike on top of bytes.
            rest = memoryview(blob)
            while rest.nbytes and (number := file.readinto(rest)):
                rest = rest[number:]
            return blob

    def head(self, name: str) -> bytes:
        """Return the first 64 KiB of a file."""
        with os.fdopen(self._open(name), "rb") as file:
            return file.read(_HEAD_SIZE)

    def remove(self, name: str) -> None:
        """Remove a file, and the folders that it leaves empty. A file that cannot be removed stays."""
        if (found := _NAME.fullmatch(name)) is None:
            return
        first, second, file = found.groups()
        with contextlib.suppress(OSError), _opened(self._directory, _PASS_THROUGH) as root:
            with _opened(first, _FOLDER, root) as outer:
                with _opened(second, _FOLDER, outer) as inner:
                    os.unlink(file, dir_fd=inner)
                os.rmdir(second, dir_fd=outer)
            os.rmdir(first, dir_fd=root)

    def older_than(self, seconds: float) -> Iterator[str]:
        """Iterate over the names of the files that were last written that many seconds ago, or more."""
        latest = time.time() - seconds if seconds >= 0 else math.inf
        with _opened(self._directory, _LISTED_FOLDER & ~os.O_NOFOLLOW) as root:
            for first in _folders(root):
                with contextlib.suppress(OSError), _opened(first, _LISTED_FOLDER, root) as outer:
                    for second in _folders(outer):
                        with contextlib.suppress(OSError), _opened(second, _LISTED_FOLDER, outer) as inner:
                            for file in _files(inner, latest):
                                yield f"{first}/{second}/{file}"

    def _new(self) -> tuple[str, int]:
        """Create a file under a new name, and return the name and a descriptor."""
        for _ in range(_MAX_TRIES - 1):
            with contextlib.suppress(OSError):
                return self._create()
        return self._create()

    def _create(self) -> tuple[str, int]:
        digits = os.urandom(16).hex()
        first, second, file = digits[:2], digits[2:4], f"{digits[4:]}.val"
        with (
            _opened(self._directory, _PASS_THROUGH) as root,
            _made(first, root) as outer,
            _made(second, outer) as inner,
        ):
            return f"{first}/{second}/{file}", os.open(file, _NEW, 0o600, dir_fd=inner)

    def _open(self, name: str) -> int:
        if (found := _NAME.fullmatch(name)) is None:
            raise NotAValueFileError(f"{name[:80]!r} is not the name of a value file")
        first, second, file = found.groups()
        with (
            _opened(self._directory, _PASS_THROUGH) as root,
            _opened(first, _FOLDER, root) as outer,
            _opened(second, _FOLDER, outer) as inner,
        ):
            descriptor = os.open(file, _READ, dir_fd=inner)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise NotAValueFileError(f"{name!r} is not a regular file")
        return descriptor


_mapped: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()


def _map(descriptor: int, size: int) -> mmap.mmap:
    """Map a file into memory; writes to it change a private copy."""
    if sys.version_info >= (3, 13):
        mapped = mmap.mmap(descriptor, size, access=mmap.ACCESS_COPY, trackfd=False)
    else:
        mapped = mmap.mmap(descriptor, size, access=mmap.ACCESS_COPY)
    _mapped.add(mapped)
    return mapped


@contextlib.contextmanager
def _opened(path: str | Path, flags: int, parent: int | None = None) -> Iterator[int]:
    descriptor = os.open(path, flags, dir_fd=parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _made(name: str, parent: int) -> contextlib.AbstractContextManager[int]:
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=parent)
    return _opened(name, _FOLDER, parent)


def _folders(parent: int) -> list[str]:
    with os.scandir(parent) as found:
        return [
            entry.name
            for entry in found
            if _FOLDER_NAME.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
        ]


def _files(parent: int, latest: float) -> list[str]:
    names = []
    with os.scandir(parent) as found:
        for entry in found:
            with contextlib.suppress(FileNotFoundError):
                if (
                    _FILE_NAME.fullmatch(entry.name)
                    and not entry.is_dir(follow_symlinks=False)
                    and entry.stat(follow_symlinks=False).st_mtime < latest
                ):
                    names.append(entry.name)
    return names
