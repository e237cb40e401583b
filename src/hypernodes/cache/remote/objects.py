"""Bytes by name in a bucket or a shared directory, through obstore."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

# Not imported later: a process that is forked meanwhile could never import it.
import obstore
from obstore.store import from_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from hypernodes.cache.entry import Blob

_REQUEST_TIMEOUT: Final = "15s"
"""A part of `PART_SIZE` takes longer only below 0.5 MB/s."""
_CONNECT_TIMEOUT: Final = "4s"
_MAX_RETRIES: Final = 2
_RETRY_TIMEOUT: Final = timedelta(seconds=15)
PART_SIZE: Final = 8 << 20
"""Bytes of one request."""
_MAX_REQUESTS: Final = 16
"""Requests at the same time."""
_ALLOW_HTTP: Final = ("AWS_ALLOW_HTTP", "GOOGLE_ALLOW_HTTP", "AZURE_ALLOW_HTTP", "ALLOW_HTTP")
"""obstore reads these variables only if it is given no options for its client."""

_In = TypeVar("_In")
_Out = TypeVar("_Out")

_process_of_runtime: int | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """An object in a listing."""

    name: str
    size: int
    modified: float  # in seconds since the epoch, by the clock of the store


class Objects:
    """The objects below an address."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._opened: Any = None

    @property
    def can_be_used(self) -> bool:
        """Whether requests are possible in this process.

        The threads of obstore do not exist in a process that was forked after they were started, where a
        request would never end.
        """
        return _process_of_runtime in {None, os.getpid()}

    @property
    def _store(self) -> Any:
        global _process_of_runtime  # noqa: PLW0603  # obstore has one runtime for the whole process.
        if self._opened is None:
            options: dict[str, Any] = {}
            if self._url.startswith("file:"):
                options["mkdir"] = True
            else:
                options["retry_config"] = {"max_retries": _MAX_RETRIES, "retry_timeout": _RETRY_TIMEOUT}
                options["client_options"] = {
                    "timeout": _REQUEST_TIMEOUT,
                    "connect_timeout": _CONNECT_TIMEOUT,
                    "allow_http": any(
                        os.environ.get(name, "").lower() in {"1", "true"} for name in _ALLOW_HTTP
                    ),
                }
            self._opened = from_url(self._url, **options)
        _process_of_runtime = os.getpid()
        return self._opened

    def list(self, folder: str) -> Iterator[Listed]:
        """Iterate over the objects whose names begin with a folder; the names are without it."""
        for page in obstore.list(self._store, f"{folder}/"):
            for found in page:
                name = found["path"].removeprefix(f"{folder}/")
                yield Listed(name, found["size"], found["last_modified"].timestamp())

    def read(self, name: str, start: int, end: int) -> memoryview:
        """Return a range of bytes of an object, in one request; fewer if the object is shorter.

        Raises:
            FileNotFoundError: There is no such object.
        """
        return memoryview(obstore.get_range(self._store, name, start=start, end=end))

    def read_all(self, name: str, size: int) -> bytearray:
        """Return the first bytes of an object of any size, in memory that can be changed."""
        blob = bytearray(size)

        def read_part(start: int) -> None:
            end = min(start + PART_SIZE, size)
            part = self.read(name, start, end)
            blob[start : start + len(part)] = part

        in_parallel(read_part, range(0, size, PART_SIZE))
        return blob

    def write(self, name: str, content: Blob) -> None:
        """Create an object. It does not exist before all of it is written."""
        size = memoryview(content).nbytes
        obstore.put(self._store, name, content, use_multipart=size > 2 * PART_SIZE, chunk_size=PART_SIZE)

    def delete(self, names: Iterable[str]) -> int:
        """Delete objects, and return their number; another process may have deleted some."""

        def delete_one(name: str) -> int:
            try:
                obstore.delete(self._store, name)
            except FileNotFoundError:
                return 0
            return 1

        return sum(in_parallel(delete_one, names))


def in_parallel(function: Callable[[_In], _Out], arguments: Iterable[_In]) -> list[_Out]:
    """Return the results of a function that waits for requests, for each argument."""
    given = list(arguments)
    if len(given) > 1:
        try:
            with ThreadPoolExecutor(min(_MAX_REQUESTS, len(given)), "hypernodes-remote") as pool:
                return list(pool.map(function, given))
        except RuntimeError as error:  # No thread can be started while the interpreter shuts down.
            if "shutdown" not in str(error):
                raise
    return [function(one) for one in given]
