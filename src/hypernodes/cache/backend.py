"""Where are the entries of a cache? In a directory of this host, or of another node of a Ray cluster."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import sys
import threading
from importlib import import_module
from typing import TYPE_CHECKING, Final, Protocol

from hypernodes._compat.ray import is_client
from hypernodes.cache.remote.address import INSTALL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from hypernodes.cache.entry import Blob
    from hypernodes.cache.record import Record, Row
    from hypernodes.cache.remote.tiered import TieredStore
    from hypernodes.cache.store import Store

KEY_VARIABLE: Final = "HYPERNODES_CACHE_KEY"
"""The environment variable with the key of caches that are given none."""


class Backend(Protocol):
    """Bytes by key; `Store` and `RemoteStore` are the implementations."""

    def read(self, keys: Iterable[str]) -> dict[str, tuple[str, Blob]]:
        """Return the tag and bytes of those keys that exist."""

    def contains(self, keys: Iterable[str]) -> set[str]:
        """Return those keys that exist."""

    def write(self, records: Sequence[Record], counts: dict[str, int] | None = None) -> bool:
        """Store records and add to counters; return whether this was possible without waiting for long."""

    def delete(self, keys: Iterable[str]) -> int:
        """Drop the entries with these keys, and return their number."""

    def rows(self, tag: str | None = None, limit: int = -1, prefix: str = "") -> Iterator[Row]:
        """Iterate over the entries of all nodes or of one, whose keys have a prefix, the latest first."""

    def counts(self, prefix: str) -> dict[str, int]:
        """Return the counters whose keys have a prefix, without that prefix."""

    def by_tag(self) -> dict[str, tuple[int, int]]:
        """Return the number of entries and of their bytes, by node."""

    def foreign(self) -> dict[int, str]:
        """Return the keys of rows that this library has not written, by row id."""

    def delete_rows(self, row_ids: Iterable[int]) -> int:
        """Drop rows by their ids, and return their number."""

    def remove_orphans(self) -> int:
        """Remove files that writers have left behind when they died, and return their number."""

    def clear(self, tag: str | None = None, used_before: float | None = None) -> int:
        """Drop everything, or the entries of a node or not used since a time; return their number."""

    def leave_thread(self) -> None:
        """Close what a thread has open that is about to end."""

    def close(self) -> None:
        """Close the files."""


def current_ray_node() -> str | None:
    """Return the id of the Ray node that this process runs on; ``None`` if it is not connected to Ray.

    For a client outside the cluster (``ray.init("ray://...")``), it is the node of the client's server.
    """
    if (ray := sys.modules.get("ray")) is None or not ray.is_initialized():
        return None
    node_id: str = _node_of_client() or ray.get_runtime_context().get_node_id()
    return node_id


def is_outside_cluster() -> bool:
    """Whether this process is a client of a Ray cluster on a host that has no node of the cluster."""
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized() and is_client() and _node_of_client() is None


def _node_of_client() -> str | None:
    """Return the id of the node on this host, if this process is a client; `ray` says that of its server."""
    if not is_client():
        return None
    import ray

    host = socket.gethostname()
    here = (node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeManagerHostname"] == host)
    return next(here, None)


class BackendHandle:
    """Opens the store of a directory, also that of another Ray node, when it is first needed."""

    def __init__(
        self,
        path: Path,
        size_limit: int | None,
        expire: float | None,
        *,
        ray_node: str | None,
        key: bytes | None,
        remote: str | None,
        warn: Callable[[str, str], None],
    ) -> None:
        self._path = path
        self._size_limit = size_limit
        self._expire = expire
        self._ray_node = ray_node
        self._key = key
        self._remote = remote
        self._warn = warn
        self._lock = threading.RLock()
        self._backend: Backend | None = None
        self._tiered: TieredStore | None = None  # the same as `_backend`, if there is a remote tier

    def get(self) -> Backend:
        """Return the store, and open it if it is not open."""
        if (backend := self._backend) is None:
            with self._lock:
                if (backend := self._backend) is None:
                    backend = self._backend = self._open()
        return backend

    @property
    def tiered(self) -> TieredStore | None:
        """The store, if it has a remote tier and is open."""
        return self._tiered

    def with_tier(self) -> TieredStore:
        """Return the store with its remote tier, or raise an error that says that there is none."""
        self.get()
        if self._tiered is None:
            raise ValueError(
                f"cache {str(self._path)!r} has no remote tier. Give one: "
                "DiskCache(path, remote='s3://bucket/prefix')."
            )
        return self._tiered

    def preload(self) -> None:
        """Import the modules that `get` needs, before another thread calls it.

        A process that is forked while another thread imports a module cannot import that module any more: it
        would wait for ever for the lock of the import.
        """
        with contextlib.suppress(ImportError):  # `get` raises it again.
            if self._is_remote():
                import_module("hypernodes.cache.cluster")
            else:
                import_module(f"hypernodes.cache.{'store' if self._remote is None else 'remote.tiered'}")

    def clear(self) -> int:
        """Drop everything, whatever the directory holds, and return the number of entries as far as known."""
        import sqlite3

        from hypernodes.cache.database import database_inode, is_locked
        from hypernodes.cache.store import clear_directory

        if self._is_remote() or database_inode(self._path) is not None or not self._path.is_dir():
            try:
                return self.get().clear()
            except sqlite3.Error as error:
                if is_locked(error):
                    raise
        self.close()
        number = clear_directory(self._path)
        self.get()  # This creates an empty database.
        return number

    def leave_thread(self) -> None:
        """Close what this thread has open, which is about to end."""
        if (backend := self._backend) is not None:
            backend.leave_thread()

    def close(self) -> None:
        """Close the store, if it is open."""
        with self._lock:
            if self._backend is not None:
                self._backend.close()
                self._backend = self._tiered = None

    def _is_remote(self) -> bool:
        return self._ray_node is not None and current_ray_node() not in (None, self._ray_node)

    def _open(self) -> Backend:
        if self._ray_node is not None and self._is_remote():
            from hypernodes.cache.cluster import RemoteStore

            return RemoteStore(self._ray_node, self._path, self._size_limit, self._expire, self._warn)
        from hypernodes.cache.store import Store

        store: Store | None = None if self._remote is None else self._open_tiered(self._remote)
        if store is None:
            # Other processes could change a mapped file after its seal was checked.
            store = Store(
                self._path,
                self._size_limit,
                self._expire,
                can_map=self._key is None,
                has_tier=self._remote is not None,
            )
        if self._key is None:
            self._warn_of_other_writers()
        return store

    def _open_tiered(self, url: str) -> TieredStore | None:
        try:
            from hypernodes.cache.remote.tier import RemoteTier
            from hypernodes.cache.remote.tiered import TieredStore
        except ImportError as error:  # A worker may have other packages.
            self._warn("remote package", f"cannot use its remote tier {url!r} here ({error}): {INSTALL}")
            return None
        tier = RemoteTier(url, self._path, self._key, self._warn)
        self._tiered = TieredStore(
            tier, self._path, self._size_limit, self._expire, key=self._key, warn=self._warn
        )
        return self._tiered

    def _warn_of_other_writers(self) -> None:
        from hypernodes.cache.database import database_files

        present = [(self._path, self._path.stat()), *database_files(self._path)]
        remedy = f"give a key: DiskCache(path, key=...) or {KEY_VARIABLE}"
        for path, state in present:
            its = "" if path == self._path else f"has a {path.name} that "
            if state.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                self._warn(
                    "writable by others",
                    f"{its}can be written to by other users, and what they write is unpickled here. Take "
                    f"their right to write (chmod go-w), or {remedy}",
                )
            elif state.st_uid not in {0, os.geteuid()}:
                self._warn(
                    "owned by another",
                    f"{its}belongs to another user, who can write to it, and what is written is unpickled "
                    f"here. Use a directory of your own, or {remedy}",
                )
