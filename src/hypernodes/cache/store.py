"""DiskCache: results on disk, by signature, shared by every process on the host.

    entry = magic | seal (checksum, or HMAC where there is a key) | pickle

The seal is checked before anything is unpickled, so a torn or foreign entry is a miss and never
runs code.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from hypernodes.config import MISS
from hypernodes.exceptions import CacheWarning
from hypernodes.portable import dumps, loads

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAGIC: Final = b"hn1\0"
_SEAL_SIZE: Final = 16
_LONGEST_KEY: Final = hashlib.blake2b.MAX_KEY_SIZE
_KEY_VARIABLE: Final = "HYPERNODES_CACHE_KEY"
_NO_LIMIT: Final = 1 << 62  # bytes; diskcache wants a number, and 1 GiB is its own default
_BUSY_TIMEOUT: Final = 60.0  # seconds that a writer waits for another process's transaction


class DiskCache:
    """Keep results in a directory that many processes share.

    Args:
        path: The directory; it is made when it does not exist.
        size_limit: Bytes to keep; beyond, the least recently used entries are dropped. Everything is
            kept by default.
        key: Secret bytes or text; entries carry an HMAC made with it, which is checked before they are
            unpickled. By default the value of ``HYPERNODES_CACHE_KEY``, if set.

    Raises:
        NotADirectoryError: The path is a file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as directory, DiskCache(directory) as cache:
        ...     cache.put("signature", [1, 2])
        ...     cache.get("signature"), cache.get("another")
        ([1, 2], MISS)
    """

    def __init__(
        self, path: str | os.PathLike[str], size_limit: int | None = None, key: str | bytes | None = None
    ) -> None:
        self.path = Path(path).expanduser().absolute()
        if self.path.exists() and not self.path.is_dir():
            raise NotADirectoryError(
                f"DiskCache({str(path)!r}): there is a file where the directory should be. Give another path."
            )
        self.size_limit = size_limit
        key = os.environ.get(_KEY_VARIABLE) if key is None else key
        key = key.encode() if isinstance(key, str) else key
        # blake2b takes keys of up to 64 bytes; a longer one counts by its digest, as HMAC has it.
        self._key = hashlib.blake2b(key).digest() if key is not None and len(key) > _LONGEST_KEY else key
        self._store: Any = None
        self._lock = threading.Lock()
        self._warned: set[str] = set()

    def get(self, signature: str) -> Any:
        """Return the value stored under a signature, or `MISS`; a damaged entry is a miss and is dropped."""
        try:
            entry = self._open().get(signature)
        except Exception as error:
            self._warn("read", f"cannot be read ({error!r}); everything is computed")
            return MISS
        if entry is None:
            return MISS
        if not isinstance(entry, bytes) or not entry.startswith(_MAGIC):
            return self._drop(signature, "is of another version")
        body = memoryview(entry)[len(_MAGIC) + _SEAL_SIZE :]
        if not hmac.compare_digest(
            entry[len(_MAGIC) : len(_MAGIC) + _SEAL_SIZE], self._seal(signature, body)
        ):
            return self._drop(signature, "is damaged, or was written with another key")
        try:
            return loads(body)
        except Exception as error:
            return self._drop(signature, f"cannot be unpickled ({error!r})")

    def put(self, signature: str, value: Any) -> None:
        """Store a value; when that fails, the entry is lost and a warning says so once."""
        try:
            body = dumps(value)
        except Exception as error:
            self._warn(
                "pickle", f"cannot keep a result that does not pickle ({error}); it is returned but not kept"
            )
            return
        try:
            self._open().set(signature, _MAGIC + self._seal(signature, memoryview(body)) + body)
        except Exception as error:
            self._warn("write", f"cannot be written ({error!r}); results are returned but not kept")

    def clear(self) -> int:
        """Drop every entry and return how many there were."""
        return int(self._open().clear())

    def close(self) -> None:
        """Close the files; they are opened again when needed."""
        with self._lock:
            if self._store is not None:
                self._store.close()
                self._store = None

    def __iter__(self) -> Iterator[str]:
        """Walk the signatures of all entries."""
        yield from self._open().iterkeys()

    def __len__(self) -> int:
        return len(self._open())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"DiskCache({str(self.path)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (str(self.path), self.size_limit, self._key)

    def _open(self) -> Any:
        store = self._store
        if store is None:
            with self._lock:
                if self._store is None:
                    import diskcache  # noqa: PLC0415

                    self._store = diskcache.Cache(
                        str(self.path),
                        timeout=_BUSY_TIMEOUT,
                        size_limit=self.size_limit or _NO_LIMIT,
                        eviction_policy="least-recently-used" if self.size_limit else "none",
                        cull_limit=10 if self.size_limit else 0,
                    )
                store = self._store
        return store

    def _seal(self, signature: str, body: memoryview) -> bytes:
        # The signature is sealed in, so that an entry cannot be passed off as another's.
        state = hashlib.blake2b(signature.encode(), digest_size=_SEAL_SIZE, key=self._key or b"")
        state.update(body)
        return state.digest()

    def _drop(self, signature: str, why: str) -> Any:
        with contextlib.suppress(Exception):
            self._open().delete(signature)
        self._warn("damage", f"an entry {why}; it is dropped and computed again")
        return MISS

    def _warn(self, cause: str, what: str) -> None:
        if cause not in self._warned:
            self._warned.add(cause)
            warnings.warn(f"cache {str(self.path)!r}: {what}.", CacheWarning, stacklevel=3)


_reopened: dict[tuple[int, str, int | None, bytes | None], DiskCache] = {}


def _reopen(path: str, size_limit: int | None, key: bytes | None) -> DiskCache:
    """Return this process's one cache for a directory, so that files stay open from task to task."""
    own = (os.getpid(), path, size_limit, key)
    if own not in _reopened:
        _reopened[own] = DiskCache(path, size_limit, key)
    return _reopened[own]
