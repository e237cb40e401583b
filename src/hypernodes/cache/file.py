"""A file as an input: what it says counts, and not what it is called."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from hashlib import blake2b
from pathlib import Path
from typing import Final, Self

from hypernodes.exceptions import SignatureError

_KEPT: Final = 4096  # digests
_RECENT: Final = 2.0  # seconds; file systems may give two changes in quick succession the same time


class File(os.PathLike[str]):
    """A path to a file whose content counts in the cache.

    A node that takes one is computed again when the content has changed, and not when the file was moved,
    touched, or copied to another machine. A file that has not changed is not read again to tell.

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
        """Make one; it does not change afterwards."""
        made = super().__new__(cls)
        object.__setattr__(made, "path", Path(path))
        return made

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{self!r} does not change; make another File.")

    def __fspath__(self) -> str:
        return str(self.path)

    def __cache_key__(self) -> bytes:
        """Return the digest of its content.

        Raises:
            SignatureError: It cannot be read.
        """
        try:
            return _content(self.path)
        except OSError as error:
            raise SignatureError(f"{self!r} cannot be read ({error})") from None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, File) and self.path == other.path

    def __hash__(self) -> int:
        return hash(self.path)

    def __reduce__(self) -> tuple[type[File], tuple[str]]:
        return File, (str(self.path),)

    def __repr__(self) -> str:
        return f"File({str(self.path)!r})"


_known: OrderedDict[tuple[str, *tuple[int, ...]], bytes] = OrderedDict()
_lock = threading.Lock()


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        about = os.fstat(file.fileno())
        changed = (about.st_mtime_ns, about.st_ctime_ns)
        key = (str(path.absolute()), about.st_dev, about.st_ino, about.st_size, *changed)
        with _lock:
            if key in _known:
                _known.move_to_end(key)
                return _known[key]
        state = blake2b(digest_size=20)
        while chunk := file.read(1 << 20):
            state.update(chunk)
        found = state.digest()
    if time.time() - max(about.st_mtime, about.st_ctime) > _RECENT:
        with _lock:
            _known[key] = found
            while len(_known) > _KEPT:
                _known.popitem(last=False)
    return found
