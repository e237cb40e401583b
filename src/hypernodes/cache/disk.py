"""DiskCache: results on disk, by signature, shared by every process of a host and by a whole cluster.

put ─▶ sealed at once ─▶ pending ──(256 entries, 4 MB, 50 ms, or flush)──▶ one transaction of the store
get ─▶ pending, else the store ─▶ seal checked ─▶ unpickled
"""

from __future__ import annotations

import atexit
import hashlib
import os
import stat
import threading
import time
import warnings
import weakref
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from hypernodes.cache import entry
from hypernodes.cache.about import About, Part, parts_from_json, parts_to_json
from hypernodes.cache.inventory import Entry, NodeStats, Stats, Verified
from hypernodes.config import MISS
from hypernodes.exceptions import CacheWarning

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from hypernodes.cache.store import Record, Row

_LONGEST_KEY: Final = hashlib.blake2b.MAX_KEY_SIZE
_KEY_VARIABLE: Final = "HYPERNODES_CACHE_KEY"
_MOST_PENDING: Final = 256  # entries
_LARGEST_PENDING: Final = 4 << 20  # bytes
_SOON: Final = 0.05  # seconds that an entry may wait for others to be written with
_COMPARED: Final = 500  # of a node's latest entries; more would hardly explain more
_CODE: Final = "code/"
_HITS: Final = "hits/"


class DiskCache:
    """Keep results in a directory that many processes share.

    Args:
        path: The directory; it is made when it does not exist.
        size_limit: Bytes to keep; beyond, the least recently used entries are dropped. Everything is
            kept by default.
        key: Secret bytes or text; entries carry an HMAC made with it, which is checked before they are
            unpickled. By default the value of ``HYPERNODES_CACHE_KEY``, if set.
        expire: Seconds after which an entry counts as absent; never by default.

    On a Ray cluster the directory belongs to the node whose process opened it; workers elsewhere reach it
    through an actor there.

    Raises:
        NotADirectoryError: The path is a file.
        ValueError: A limit that is not positive.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as directory, DiskCache(directory) as cache:
        ...     cache.put("signature", [1, 2])
        ...     cache.get("signature"), cache.get("another")
        ([1, 2], MISS)
    """

    has_quick_contains = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        size_limit: int | None = None,
        key: str | bytes | None = None,
        *,
        expire: float | None = None,
    ) -> None:
        self.path = Path(path).expanduser().absolute()
        if self.path.exists() and not self.path.is_dir():
            raise NotADirectoryError(
                f"DiskCache({str(path)!r}): there is a file where the directory should be. Give another path."
            )
        for name, limit in (("size_limit", size_limit), ("expire", expire)):
            if limit is not None and limit <= 0:
                raise ValueError(f"DiskCache({str(path)!r}): {name} must be more than 0, not {limit!r}.")
        self._hash = hash(self.path)
        self.size_limit = size_limit
        self.expire = expire
        key = os.environ.get(_KEY_VARIABLE) if key is None else key
        key = key.encode() if isinstance(key, str) else key
        # blake2b takes keys of up to 64 bytes; a longer one counts by its digest, as HMAC has it.
        self._key = hashlib.blake2b(key).digest() if key is not None and len(key) > _LONGEST_KEY else key
        self._home: Home | None = None
        self._warned: set[str] = set()
        self._codes: set[str] = set()
        self._begin()

    def _begin(self) -> None:
        """Start with nothing open and nothing pending, as in a process that was forked."""
        self._store: Any = None
        self._lock = threading.RLock()  # what is pending
        self._writing = threading.RLock()  # one batch after the other
        self._pending: dict[str, Record] = {}
        self._under_way: dict[str, Record] = {}
        self._pending_bytes = 0
        self._oldest = 0.0  # when the oldest of them was put
        self._hits: Counter[str] = Counter()
        self._has_flusher = False
        self._untold: list[tuple[str, str]] = []
        _open_caches[id(self)] = self

    # ------------------------------------------------------------------------------------ reading

    def get(self, signature: str) -> Any:
        """Return the value stored under a signature, or `MISS`; a damaged entry is a miss and is dropped."""
        return self.get_many((signature,)).get(signature, MISS)

    def get_many(self, signatures: Iterable[str]) -> dict[str, Any]:
        """Return the values stored under signatures, those that are there and whole."""
        values: dict[str, Any] = {}
        for signature, (node, blob) in self._read(signatures).items():
            try:
                values[signature] = entry.open_entry(signature, blob, self._key)
            except entry.UnreadableEntryError as error:  # another program may be able to
                self._warn("unpickle", f"an entry {error}; it is computed again")
            except entry.EntryError as error:
                self._damaged(signature, str(error))
            else:
                self._hits[node] += 1
        return values

    def contains(self, signatures: Iterable[str]) -> set[str]:
        """Return those signatures that have an entry."""
        wanted = list(signatures)
        found = {signature for signature in wanted if self._pending_record(signature) is not None}
        try:
            return found.union(self._opened().contains(wanted))
        except Exception as error:
            self._warn("read", f"cannot be read ({error!r}); everything is computed")
            return found

    def _read(self, signatures: Iterable[str]) -> dict[str, tuple[str, entry.Blob]]:
        found: dict[str, tuple[str, entry.Blob]] = {}
        missing = []
        for signature in signatures:
            record = self._pending_record(signature)
            if record is None:
                missing.append(signature)
            else:
                found[signature] = (record.tag or "", b"".join(record.pieces))
        if missing:
            try:
                found |= self._opened().read(missing)
            except Exception as error:
                self._warn("read", f"cannot be read ({error!r}); everything is computed")
        return found

    def _pending_record(self, key: str) -> Record | None:
        return self._pending.get(key) or self._under_way.get(key)

    def _damaged(self, signature: str, why: str) -> None:
        if self._key is not None:  # perhaps it is whole for somebody with another key
            self._warn("damage", f"an entry {why}; it is computed again")
            return
        try:
            self._opened().delete([signature])
        except Exception as error:
            why += f" and cannot be dropped ({error!r})"
        self._warn("damage", f"an entry {why}; it is dropped and computed again")

    # ------------------------------------------------------------------------------------ writing

    def put(self, signature: str, value: Any, about: About | None = None) -> None:
        """Store a value, together with others a little later; see `flush`.

        When that fails, the entry is lost and a warning says so once.

        Args:
            signature: Under which it is found.
            value: The value; what happens to it afterwards does not change the entry.
            about: How it was made.
        """
        node = about.node if about is not None else ""
        try:
            pieces = entry.seal(signature, value, about.to_json() if about is not None else b"", self._key)
        except Exception as error:
            of_node = f" of node {node!r}" if node else ""
            self._warn(
                f"pickle {node}",
                f"cannot keep a result{of_node} that does not pickle ({error}); it is returned but not kept",
            )
            return
        self._add(signature, node, pieces)

    def _add(self, key: str, tag: str | None, pieces: list[entry.Blob]) -> None:
        from hypernodes.cache.store import Record

        record = Record.of(key, tag, pieces)
        with self._lock:
            if not self._pending:
                self._oldest = time.monotonic()
            self._pending[key] = record
            self._pending_bytes += record.size
            # Pieces that refer to the value's own memory are written before it can change.
            is_full = len(self._pending) >= _MOST_PENDING or self._pending_bytes >= _LARGEST_PENDING
            is_at_once = is_full or len(pieces) > 1
            needs_flusher = not is_at_once and not self._has_flusher
            self._has_flusher |= needs_flusher
        if is_at_once:
            self._flush()
        elif needs_flusher:
            try:
                threading.Thread(target=self._flush_soon, name="hypernodes-cache", daemon=True).start()
            except RuntimeError:  # the interpreter is about to end
                self._has_flusher = False
                self._flush()

    def flush(self) -> None:
        """Store now what was put."""
        if self._pending or self._hits or self._under_way:
            self._flush()
        while self._untold:
            self._warn(*self._untold.pop())

    def _flush(self) -> None:
        with self._writing:
            with self._lock:
                records, self._under_way = list(self._pending.values()), self._pending
                self._pending, self._pending_bytes = {}, 0
                hits, self._hits = self._hits, Counter()
            try:
                if records or hits:  # else what was closed would be opened again
                    self._opened().write(records, {f"{_HITS}{node}": number for node, number in hits.items()})
            except Exception as error:
                if records:
                    self._warn("write", f"cannot be written ({error!r}); results are returned but not kept")
            finally:
                self._under_way = {}

    def _flush_soon(self) -> None:
        """Write what has waited long enough, until nothing is left: a thread of its own."""
        while True:
            time.sleep(max(0.001, self._oldest + _SOON - time.monotonic()))
            if self._pending and time.monotonic() - self._oldest < _SOON:
                continue  # others were written meanwhile, and these are new
            self._flush()
            with self._lock:
                if not self._pending:
                    self._has_flusher = False
                    return

    # ------------------------------------------------------------------------------- how it was made

    def has_code(self, code: str) -> bool:
        """Whether it is known what a node's code is made of."""
        if code not in self._codes and self.code(code):
            self._codes.add(code)
        return code in self._codes

    def keep_code(self, code: str, parts: Mapping[str, Part]) -> None:
        """Store what a node's code is made of."""
        self._codes.add(code)
        # As text beside no value, so that nothing is unpickled to say why something was computed.
        self._add(_CODE + code, None, entry.seal(_CODE + code, None, parts_to_json(parts), self._key))

    def code(self, code: str) -> dict[str, Part]:
        """Return what a node's code is made of; nothing where that is not known."""
        for key, (_, blob) in self._read([_CODE + code]).items():
            try:
                entry.check(key, blob, self._key)
                return parts_from_json(entry.read_about(blob))
            except (entry.EntryError, ValueError):
                return {}
        return {}

    def computations(self, node: str) -> Iterator[About]:
        """Walk how the entries of a node were made, the latest first."""
        try:
            found = list(self.entries(node, limit=_COMPARED))
        except Exception as error:
            self._warn("read", f"cannot be read ({error!r}); everything is computed")
            return
        for of_node in found:
            if of_node.about is not None:
                yield of_node.about

    def entries(self, node: str | None = None, *, start: str = "", limit: int = -1) -> Iterator[Entry]:
        """Walk entries, the latest first.

        Args:
            node: Those of this node only.
            start: Those only whose signature begins so.
            limit: At most so many; -1 for all.
        """
        self.flush()
        for row in self._opened().rows(node, limit, start):
            yield _entry(row)

    def about(self, signature: str) -> About | None:
        """Return how an entry was made; ``None`` where that is not known."""
        for _, blob in self._read([signature]).values():
            return _about(blob)
        return None

    # ---------------------------------------------------------------------------------- looking after it

    def stats(self) -> Stats:
        """Return what it holds, and how often it was of use."""
        self.flush()
        store = self._opened()
        held, hits = store.by_tag(), store.counts(_HITS)
        by_node = {}
        for node in sorted({*held, *hits}):
            entries, size = held.get(node, (0, 0))
            by_node[node] = NodeStats(entries, size, hits.get(node, 0))
        return Stats(
            sum(node.entries for node in by_node.values()),
            sum(node.bytes for node in by_node.values()),
            sum(node.hits for node in by_node.values()),
            by_node,
        )

    def clear(self, *, node: str | None = None, older_than: float | None = None) -> int:
        """Drop entries, and return how many there were.

        Args:
            node: Those of this node only.
            older_than: Those only that were not used for so many seconds.
        """
        self.flush()
        store = self._opened()
        self._codes.clear()
        if node is None and older_than is None:
            return int(store.clear())
        before = time.time() - older_than if older_than is not None else float("inf")
        return int(store.delete([row.key for row in store.rows(node) if row.used < before]))

    def delete(self, *signatures: str) -> int:
        """Drop these entries, and return how many there were."""
        self.flush()
        return int(self._opened().delete(signatures))

    def verify(self, *, drop: bool = False) -> Verified:
        """Read every entry and check its seal.

        Args:
            drop: Whether to drop those that are damaged, or sealed with another key.
        """
        self.flush()
        store = self._opened()
        whole, damaged = 0, {}
        for signature in self:
            for key, (_, blob) in store.read([signature]).items():
                try:
                    entry.check(key, blob, self._key)
                    whole += 1
                except entry.EntryError as error:
                    damaged[key] = str(error)
        foreign = store.foreign()
        damaged.update(dict.fromkeys(foreign.values(), entry.WHY_NOT_OWN))
        if drop:
            self.delete(*damaged)
            store.delete_rows(foreign)
        return Verified(whole, damaged, store.tidy())

    def close(self) -> None:
        """Store what was put, and close the files; they are opened again when needed."""
        self.flush()
        with self._lock:
            if self._store is not None:
                self._store.close()
                self._store = None

    def __iter__(self) -> Iterator[str]:
        """Walk the signatures of all entries."""
        return (found.signature for found in self.entries())

    def __len__(self) -> int:
        self.flush()
        return sum(number for number, _ in self._opened().by_tag().values())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"DiskCache({str(self.path)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DiskCache) and self._identity == other._identity

    def __hash__(self) -> int:
        return self._hash

    @property
    def _identity(self) -> tuple[Any, ...]:
        return (self.path, self.size_limit, self._key, self.expire, self._home)

    def __reduce__(self) -> tuple[Any, ...]:
        home = self._home or here()
        return _reopen, (str(self.path), self.size_limit, self._key, self.expire, home)

    def _opened(self) -> Any:
        if self._store is None:
            with self._lock:
                if self._store is None:
                    self._store = self._open()
        return self._store

    def _open(self) -> Any:
        now = here()
        if self._home is not None and now is not None and self._home != now:
            from hypernodes.cache.cluster import RemoteStore

            return RemoteStore(self._home.node, self.path, self.size_limit, self.expire, self._warn)
        from hypernodes.cache.store import Store

        # What is mapped could still be changed by others when its seal has been checked.
        store = Store(self.path, self.size_limit, self.expire, can_map=self._key is None)
        if self._key is None and stat.S_IMODE(self.path.stat().st_mode) & (stat.S_IWGRP | stat.S_IWOTH):
            self._warn(
                "open to others",
                "can be written to by other users, and what they write is unpickled here. Take their right "
                f"to write (chmod go-w), or give a key: DiskCache(path, key=...) or {_KEY_VARIABLE}",
            )
        return store

    def _warn(self, cause: str, what: str) -> None:
        if cause in self._warned:
            return
        if threading.current_thread().name == "hypernodes-cache":
            self._untold.append((cause, what))  # nobody would hear it here
            return
        self._warned.add(cause)
        warnings.warn(f"cache {str(self.path)!r}: {what}.", CacheWarning, stacklevel=4)


def _entry(row: Row) -> Entry:
    return Entry(row.key, row.tag, row.size, row.stored, row.used, _about(row.head))


def _about(blob: entry.Blob) -> About | None:
    try:
        text = entry.read_about(blob)
        return About.from_json(text) if text else None
    except (entry.EntryError, ValueError):
        return None


# ------------------------------------------------------------------------------- in other processes


@dataclass(frozen=True, slots=True)
class Home:
    """The node of a Ray cluster whose disk has the directory."""

    node: str


def here() -> Home | None:
    """Return the Ray node that this process runs on, if it is connected to Ray at all."""
    import sys

    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return None
    return Home(ray.get_runtime_context().get_node_id())


_reopened: dict[tuple[Any, ...], DiskCache] = {}
_open_caches: weakref.WeakValueDictionary[int, DiskCache] = weakref.WeakValueDictionary()


def _reopen(
    path: str, size_limit: int | None, key: bytes | None, expire: float | None, home: Home | None
) -> DiskCache:
    """Return this process's one cache for a directory, so that files stay open from task to task."""
    own = (os.getpid(), path, size_limit, key, expire, home)
    if own not in _reopened:
        cache = DiskCache(path, size_limit, key, expire=expire)
        cache._home = home
        _reopened[own] = cache
    return _reopened[own]


def _begin_anew() -> None:
    """Let a forked process write what it puts itself, and not what its parent is about to."""
    for cache in list(_open_caches.values()):
        cache._begin()


def _flush_all() -> None:
    for cache in list(_open_caches.values()):
        cache.flush()


os.register_at_fork(after_in_child=_begin_anew)
atexit.register(_flush_all)
