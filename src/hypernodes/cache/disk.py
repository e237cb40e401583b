"""DiskCache: results on disk, by signature, shared by all processes of a host and by a whole cluster.

put ─▶ sealed at once ─▶ WriteBehind ─▶ a batch of the store
get ─▶ WriteBehind, else the store ─▶ seal checked ─▶ unpickled
"""

from __future__ import annotations

import functools
import hashlib
import math
import multiprocessing
import os
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from hypernodes.arguments import number_of_bytes, path_text, seconds
from hypernodes.cache import entry, inspection, processes
from hypernodes.cache.backend import KEY_VARIABLE, BackendHandle, current_ray_node, is_outside_cluster
from hypernodes.cache.maintenance import Maintenance
from hypernodes.cache.provenance import code_parts_from_json, code_parts_to_json
from hypernodes.cache.record import Record
from hypernodes.cache.remote.address import check_url
from hypernodes.cache.remote.hosts import finish_on_other_hosts
from hypernodes.cache.summary import describe
from hypernodes.cache.warn_once import WarnOnce
from hypernodes.cache.write_behind import WriteBehind
from hypernodes.config import MISS
from hypernodes.exceptions import OptionError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import timedelta

    from hypernodes.cache.provenance import CodePart, Provenance

_ANY_KEY: Final = "any"
_MAX_PROVENANCES: Final = 500
"""The latest entries of a node that a miss is compared with; more of them would hardly explain more."""
_CODE_PREFIX: Final = "code/"
"""The key of the parts of a node's code is this prefix with the fingerprint of the code."""


class DiskCache(Maintenance):
    """Keep results in a directory that many processes share.

    On a Ray cluster the directory belongs to the node whose process has opened it. Workers on other nodes
    reach it through an actor there. With a remote tier there is no actor, and each host has a directory.

    Args:
        path: The directory. It is created if it does not exist.
        size_limit: Bytes to keep, as a number or a text such as ``"10GB"``; beyond, the least recently used
            entries are dropped. By default nothing is dropped.
        key: Secret bytes or text. Entries carry an HMAC made with it, which is checked before they are
            unpickled. By default the value of ``HYPERNODES_CACHE_KEY``, if it is set.
        expire: Seconds, or a `datetime.timedelta`, after which an entry counts as absent; never by default.
        remote: The address of a tier behind the directory, which other directories share:
            ``"s3://bucket/prefix"``, ``"gs://..."``, ``"az://..."`` or ``"file:///directory"``. Credentials
            are taken from the environment. Each host of a Ray cluster then has a directory of its own.

    Raises:
        ExtraMissingError: There is a remote tier, and the package ``obstore`` is not installed.
        NotADirectoryError: The path is a file.
        TypeError: The key is neither bytes nor text.
        ValueError: A limit is not positive, or the key is empty.

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
        size_limit: int | str | None = None,
        key: str | bytes | None = None,
        *,
        expire: float | timedelta | None = None,
        remote: str | None = None,
    ) -> None:
        self.path: Path = Path(path_text("path", path, where="DiskCache")).expanduser().absolute()
        if self.path.exists() and not self.path.is_dir():
            raise NotADirectoryError(
                f"DiskCache({str(path)!r}): there is a file where the directory should be. Give another path."
            )
        for name, limit in (("size_limit", size_limit), ("expire", expire)):
            if isinstance(limit, int | float) and limit <= 0:
                raise ValueError(f"DiskCache({str(path)!r}): {name} must be more than 0, not {limit!r}.")
        where = f"DiskCache({str(path)!r})"
        self._hash = hash(self.path)
        self.size_limit: int | None = (
            None if size_limit is None else number_of_bytes("size_limit", size_limit, where=where)
        )
        self.expire: float | None = None if expire is None else seconds("expire", expire, where=where)
        self._key = _key_bytes(os.environ.get(KEY_VARIABLE), KEY_VARIABLE) if key is None else _key_bytes(key)
        self.remote: str | None = None if remote is None else check_url(remote)
        self._ray_node: str | None = None
        self._is_received = False  # by a worker, which may end without further notice
        self._was_sent = False  # whether other processes may have written entries since `flush`
        self._known_codes: set[str] = set()
        self._warn = WarnOnce(self.path)
        self._reset()
        processes.register(self)

    def _reset(self) -> None:
        """Begin with no open files and no delayed entries, also in a forked process.

        Delayed entries stay with the parent process, which writes them.
        """
        # Caches with the same id have the same entries, so that their calls are made once (`in_flight`).
        # A copy that another process has sent names the Ray node of the directory, also if it is this one.
        elsewhere = None if self._ray_node == current_ray_node() else self._ray_node
        self.store_id: tuple[str, bytes | None, str | None] = (
            os.path.realpath(self.path),
            self._key,
            elsewhere,
        )
        self._store = BackendHandle(
            self.path,
            self.size_limit,
            self.expire,
            ray_node=self._ray_node,
            key=self._key,
            remote=self.remote,
            warn=self._warn,
        )
        self._delayed = WriteBehind(self._store, self._warn)
        self._warn.drop_deferred()

    # ------------------------------------------------------------------------------------ reading

    def get(self, signature: str) -> Any:
        """Return the value stored under a signature, or `MISS`; a damaged entry is dropped, and is a miss."""
        return self.get_many((signature,)).get(signature, MISS)

    def get_many(self, signatures: Iterable[str]) -> dict[str, Any]:
        """Return the values stored under signatures, without those that are missing or damaged."""
        values: dict[str, Any] = {}
        hits: list[str] = []
        for signature, (node, blob) in self._read(signatures).items():
            try:
                value = entry.open_entry(signature, blob, self._key)
            except entry.OutdatedEntryError:
                continue
            except entry.UnreadableEntryError as error:  # Another program may have the classes it needs.
                self._warn("unpickle", f"an entry {error}; it is computed again")
            except entry.EntryError as error:
                self._drop_damaged(signature, str(error))
            else:
                if value is not MISS:
                    values[signature] = value
                    hits.append(node)
        if hits:
            self._delayed.count({inspection.HITS_PREFIX + node: n for node, n in Counter(hits).items()})
        return values

    def contains(self, signatures: Iterable[str]) -> set[str]:
        """Return those signatures that have an entry."""
        wanted = list(signatures)
        found = set(self._delayed.get_many(wanted))
        try:
            return found.union(self._store.get().contains(wanted))
        except Exception as error:
            self._warn_of_failed_read(error)
            return found

    def _read(self, signatures: Iterable[str]) -> dict[str, tuple[str, entry.Blob]]:
        wanted = list(signatures)
        delayed = self._delayed.get_many(wanted)
        found = {key: (record.tag or "", b"".join(record.pieces)) for key, record in delayed.items()}
        missing = [key for key in wanted if key not in found] if found else wanted
        if missing:
            try:
                found |= self._store.get().read(missing)
            except Exception as error:
                self._warn_of_failed_read(error)
        return found

    def _drop_damaged(self, signature: str, reason: str) -> None:
        if self._key is not None:  # The entry may be valid for a program with another key.
            self._warn("damage", f"an entry {reason}; it is computed again")
            return
        try:
            self._store.get().delete([signature])
        except Exception as error:
            reason += f" and cannot be dropped ({describe(error)})"
        self._warn("damage", f"an entry {reason}; it is dropped and computed again")

    def _warn_of_failed_read(self, error: Exception) -> None:
        self._warn("read", f"cannot be read ({describe(error)}); everything is computed")

    # ------------------------------------------------------------------------------------ writing

    def put(self, signature: str, value: Any, provenance: Provenance | None = None) -> None:
        """Store a value, together with others after a short delay; `flush` writes them at once.

        If that fails, the entry is lost, and a warning says so once.

        Args:
            signature: The signature under which it is stored.
            value: The value. Changing it afterwards does not change the entry.
            provenance: The provenance of the value.
        """
        node = "" if provenance is None else provenance.node
        of_node = f" of node {node!r}" if node else ""
        expiry = math.inf if self.expire is None else time.time() + self.expire
        try:
            text = b"" if provenance is None else provenance.to_json()
            record = Record.of(signature, node, entry.seal(signature, value, text, self._key, expiry=expiry))
        except MemoryError:
            self._warn(
                f"memory {node}",
                f"cannot store a result{of_node}, since there is not enough memory to pickle it; it is only "
                "returned",
            )
        except Exception as error:
            self._warn(
                f"pickle {node}",
                f"cannot store a result{of_node} that is not picklable ({describe(error)}); it is only "
                "returned",
            )
        else:
            if self.size_limit is not None and record.size > self.size_limit:
                self._warn(
                    f"size {node}",
                    f"cannot store a result{of_node} of {record.size:,} bytes, which is more than its size "
                    f"limit of {self.size_limit:,} bytes; it is only returned. Give a higher size_limit",
                )
                return
            self._delayed.add(record)

    def write_delayed(self) -> None:
        """Write all delayed entries, and the counts of hits, to the directory."""
        self._delayed.flush()
        self._warn.emit_deferred()

    def flush(self) -> None:
        """Write all delayed entries, to the directory and to the remote tier.

        The counts of hits follow within milliseconds, unless this process may end without further notice.
        """
        self._delayed.flush(with_counts=self._is_received or multiprocessing.parent_process() is not None)
        if self._was_sent:
            self._store.get()
        if (tiered := self._store.tiered) is not None:
            tiered.finish()
        if self._was_sent:
            finish_on_other_hosts(self, self._warn)
            self._was_sent = False
        self._warn.emit_deferred()

    # --------------------------------------------------------------------------------- provenance

    def has_code_parts(self, code: str) -> bool:
        """Return whether the cache knows the parts of the code with a fingerprint."""
        if code not in self._known_codes and self.code_parts(code):
            self._known_codes.add(code)
        return code in self._known_codes

    def put_code_parts(self, code: str, parts: Mapping[str, CodePart]) -> None:
        """Store the parts of the code with a fingerprint."""
        self._known_codes.add(code)
        key = _CODE_PREFIX + code
        # The parts are stored in the place of a provenance, so that reading them unpickles nothing.
        self._delayed.add(Record.of(key, None, entry.seal(key, None, code_parts_to_json(parts), self._key)))

    def code_parts(self, code: str) -> dict[str, CodePart]:
        """Return the parts of the code with a fingerprint; empty if the cache does not know them."""
        for key, (_, blob) in self._read([_CODE_PREFIX + code]).items():
            try:
                return code_parts_from_json(entry.read_provenance(key, blob, self._key))
            except (entry.EntryError, ValueError):
                return {}
        return {}

    def about(self, signature: str) -> Provenance | None:
        """Return the provenance of an entry; ``None`` if it is not known."""
        for _, blob in self._read([signature]).values():
            return inspection.provenance_of(signature, blob, self._key)
        return None

    def provenances(self, node: str) -> Iterator[Provenance]:
        """Iterate over the provenance of a node's latest entries, the latest first."""
        try:
            found = list(self.entries(node, limit=_MAX_PROVENANCES))
        except Exception as error:
            self._warn_of_failed_read(error)
            return
        for one in found:
            if one.about is not None:
                yield one.about

    def close(self) -> None:
        """Write all delayed entries, and close the files. They are opened again when they are needed."""
        self.write_delayed()
        self.flush()
        self._store.close()

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
        return (self.path, self.size_limit, self._key, self.expire, self._ray_node, self.remote)

    def __reduce__(self) -> tuple[Any, ...]:
        ray_node = self._ray_node or current_ray_node()
        if self.remote is not None:  # Each host has a directory of its own.
            self._was_sent = True
            ray_node = None
        elif is_outside_cluster():
            self._warn(
                "client",
                "is on a host outside the Ray cluster, which workers cannot reach (Ray Client). They keep "
                "their results in a directory of the same path on the host of the client's server. Give the "
                "cache a remote tier, DiskCache(path, remote=...), which all hosts share",
            )
        return _unpickle, (str(self.path), self.size_limit, self._key, self.expire, ray_node, self.remote)


def _key_bytes(key: str | bytes | None, source: str = "key") -> bytes | None:
    """Return a key in the form that blake2b takes."""
    if key is None:
        return None
    if not isinstance(key, str | bytes):
        raise OptionError(f"DiskCache: {source} must be bytes or text, not {type(key).__name__}.")
    if not key.strip():
        raise ValueError(
            f"DiskCache: {source} is empty, so that entries would not be protected. Set it to a secret, or "
            "leave it out if there shall be no key."
        )
    raw = key.encode(errors="surrogateescape") if isinstance(key, str) else key
    # blake2b takes keys of up to 64 bytes. A longer one is replaced by its digest, as HMAC does.
    return hashlib.blake2b(raw).digest() if len(raw) > hashlib.blake2b.MAX_KEY_SIZE else raw


def _unpickle(*settings: Any) -> DiskCache:
    return processes.shared_in_process(settings, functools.partial(_make, *settings))


def _make(
    path: str,
    size_limit: int | None,
    key: bytes | None,
    expire: float | None,
    ray_node: str | None,
    remote: str | None,
) -> DiskCache:
    cache = DiskCache(path, size_limit, _ANY_KEY, expire=expire)
    cache._key = key  # The environment of this process may have another key, or an empty one.
    cache._ray_node = ray_node
    cache._is_received = True
    cache.remote = remote  # If its package is not installed here, the first look-up says so.
    cache._reset()
    return cache
