"""A cache directory on another node of a Ray cluster, through one actor on that node.

    worker ─▶ RemoteStore (copies of entries it has read) ─▶ StoreActor, pinned to the node ─▶ Store

Entries travel sealed, so that the actor needs neither the key nor the user's code. While the actor is slow
or dead, or its node is gone, entries count as absent; nothing else happens.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from hypernodes.cache.record import Record
from hypernodes.cache.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from hypernodes.cache.entry import Blob
    from hypernodes.cache.record import Row

_NAMESPACE: Final = "hypernodes"
_MAX_COPIES_SIZE: Final = 256 << 20
"""Bytes of entries that a worker process keeps in memory."""
_START_TIMEOUT_S: Final = 30.0
"""The first call waits for the process of the actor to start."""
_CALL_TIMEOUT_S: Final = 10.0
_MIN_BACKOFF_S: Final = 15.0
"""After a call without an answer no other one is made for so long. The time doubles with each failure."""
_MAX_BACKOFF_S: Final = 240.0
_MAX_IDLE_S: Final = 600.0
"""The actor ends after so long without a call."""
_MAX_CONCURRENT_CALLS: Final = 4


class RemoteStore:
    """The store of another node, with the methods of a `Store`."""

    def __init__(
        self,
        node_id: str,
        path: Path,
        size_limit: int | None,
        expire: float | None,
        warn: Callable[[str, str], None],
    ) -> None:
        self._node_id = node_id
        self._settings = (str(path), size_limit, expire)
        self._warn = warn
        self._actor: Any = None
        self._lock = threading.Lock()
        self._copies: OrderedDict[str, tuple[str, bytes]] = OrderedDict()
        self._copies_size = 0
        self._next_call_at = 0.0  # by the monotonic clock
        self._backoff_s = _MIN_BACKOFF_S

    def read(self, keys: Iterable[str]) -> dict[str, tuple[str, Blob]]:
        found: dict[str, tuple[str, Blob]] = {}
        missing = []
        for key in keys:
            if (copy := self._copy_of(key)) is None:
                missing.append(key)
            else:
                found[key] = copy
        if missing:
            fetched = self._call("read", missing) or {}
            for key, (tag, blob) in fetched.items():
                self._add_copy(key, tag, blob)
            found |= fetched
        return found

    def contains(self, keys: Iterable[str]) -> set[str]:
        wanted = list(keys)
        copied = {key for key in wanted if key in self._copies}
        missing = [key for key in wanted if key not in copied]
        return copied.union(self._call("contains", missing) or () if missing else ())

    def write(self, records: Sequence[Record], counts: dict[str, int] | None = None) -> bool:
        joined = [(record.key, record.tag, b"".join(record.pieces)) for record in records]
        for key, tag, blob in joined:
            self._add_copy(key, tag or "", blob)
        return self._call("write", joined, counts or {}) is not False

    def delete(self, keys: Iterable[str]) -> int:
        dropped = list(keys)
        self._drop_copies(dropped)
        return self._call("delete", dropped) or 0

    def rows(self, tag: str | None = None, limit: int = -1, prefix: str = "") -> Iterator[Row]:
        yield from self._call("rows", tag, limit, prefix) or ()

    def counts(self, prefix: str) -> dict[str, int]:
        return self._call("counts", prefix) or {}

    def by_tag(self) -> dict[str, tuple[int, int]]:
        return self._call("by_tag") or {}

    def remove_orphans(self) -> int:
        return self._call("remove_orphans") or 0

    def foreign(self) -> dict[int, str]:
        return self._call("foreign") or {}

    def delete_rows(self, row_ids: Iterable[int]) -> int:
        return self._call("delete_rows", list(row_ids)) or 0

    def clear(self, tag: str | None = None, used_before: float | None = None) -> int:
        self._drop_copies(list(self._copies))
        return self._call("clear", tag, used_before) or 0

    def leave_thread(self) -> None:
        """Do nothing: the actor has the files."""

    def close(self) -> None:
        self._drop_copies(list(self._copies))

    # ------------------------------------------------------------------------------ calls of the actor

    def _call(self, method: str, *arguments: Any) -> Any:
        """Return the actor's answer, or ``None`` while it does not answer."""
        if time.monotonic() < self._next_call_at:
            return None
        for attempt in (1, 2):
            try:
                answer = self._call_actor(method, arguments)
            except (ActorDiedError, ActorUnavailableError) as error:
                self._actor = None  # The next attempt starts another one.
                if attempt == 1:
                    continue
                return self._back_off(error)
            except Exception as error:
                return self._back_off(error)
            self._backoff_s = _MIN_BACKOFF_S
            return answer
        return None

    def _call_actor(self, method: str, arguments: tuple[Any, ...]) -> Any:
        timeout = _CALL_TIMEOUT_S
        with self._lock:
            if self._actor is None:
                if not any(node["Alive"] and node["NodeID"] == self._node_id for node in ray.nodes()):
                    raise ConnectionError("its node is gone")
                self._actor = store_actor(self._node_id, *self._settings)
                timeout = _START_TIMEOUT_S
            actor = self._actor
        return ray.get(actor.call.remote(method, *arguments), timeout=timeout)

    def _back_off(self, error: Exception) -> None:
        self._next_call_at = time.monotonic() + self._backoff_s
        self._warn(
            "remote",
            f"is on another node of the cluster, which does not answer ({type(error).__name__}: "
            f"{str(error).partition(chr(10))[0]}). Until it does, results are computed and not cached",
        )
        self._backoff_s = min(self._backoff_s * 2, _MAX_BACKOFF_S)

    # ------------------------------------------------------------------------------------------ copies

    def _copy_of(self, key: str) -> tuple[str, bytes] | None:
        with self._lock:
            if (copy := self._copies.get(key)) is not None:
                self._copies.move_to_end(key)
            return copy

    def _add_copy(self, key: str, tag: str, blob: bytes) -> None:
        if len(blob) > _MAX_COPIES_SIZE // 4:
            return
        with self._lock:
            self._copies_size += len(blob) - len(self._copies.pop(key, ("", b""))[1])
            self._copies[key] = (tag, blob)
            while self._copies_size > _MAX_COPIES_SIZE:
                _, (_, dropped) = self._copies.popitem(last=False)
                self._copies_size -= len(dropped)

    def _drop_copies(self, keys: Iterable[str]) -> None:
        with self._lock:
            for key in keys:
                self._copies_size -= len(self._copies.pop(key, ("", b""))[1])


def store_actor(node_id: str, path: str, size_limit: int | None, expire: float | None) -> Any:
    """Return the actor for a directory of a node. All jobs of the cluster share it."""
    name = f"cache-{node_id}-{hashlib.blake2b(path.encode(), digest_size=8).hexdigest()}"
    return (
        ray.remote(StoreActor)
        .options(
            name=name,
            namespace=_NAMESPACE,
            get_if_exists=True,
            lifetime="detached",  # The job that starts it may end before the others.
            num_cpus=0,  # Otherwise it could wait for a CPU that one of its callers holds: a deadlock.
            max_concurrency=_MAX_CONCURRENT_CALLS,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
        )
        .remote(path, size_limit, expire)
    )


class StoreActor:
    """An actor on the node of a directory, for workers on other nodes."""

    def __init__(self, path: str, size_limit: int | None, expire: float | None) -> None:
        # Entries are copied for the answer anyway, and truncating a mapped file would end the actor.
        self._store = Store(Path(path), size_limit, expire, can_map=False)
        self._last_call = time.monotonic()
        threading.Thread(target=self._end_when_idle, daemon=True).start()

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the store."""
        self._last_call = time.monotonic()
        if method == "read":
            found = self._store.read(*arguments)
            return {key: (tag, bytes(blob)) for key, (tag, blob) in found.items()}
        if method == "write":
            records, counts = arguments
            return self._store.write([Record.of(key, tag, [blob]) for key, tag, blob in records], counts)
        answer = getattr(self._store, method)(*arguments)
        return list(answer) if method == "rows" else answer

    def end_if_idle(self) -> None:
        """End the actor, unless there was a call meanwhile."""
        if self._is_idle:
            ray.actor.exit_actor()

    @property
    def _is_idle(self) -> bool:
        return time.monotonic() - self._last_call > _MAX_IDLE_S

    def _end_when_idle(self) -> None:
        own_handle = ray.get_runtime_context().current_actor
        while True:
            time.sleep(_MAX_IDLE_S / 10)
            if self._is_idle:
                own_handle.end_if_idle.remote()
