"""A directory on another node of a Ray cluster, through one actor there.

    worker ─▶ RemoteStore (copies of what it has seen) ─▶ Keeper, pinned to the directory's node ─▶ Store

What travels is sealed entries: the actor needs neither a key nor any of the user's code. When it is
slow, dead, or gone with its node, entries are missing for a while, and nothing else is.
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

from hypernodes.cache.store import Record, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from hypernodes.cache.entry import Blob
    from hypernodes.cache.store import Row

_NAMESPACE: Final = "hypernodes"
_COPIED: Final = 256 << 20  # bytes of entries that a worker process keeps at hand
_FIRST_PATIENCE: Final = 30.0  # seconds; the actor's process must start
_PATIENCE: Final = 10.0  # seconds for an answer
_BACK_OFF: Final = 15.0  # seconds in which nobody asks again; doubles as long as there is no answer
_LONGEST_BACK_OFF: Final = 240.0
_IDLE: Final = 600.0  # seconds without a request after which the actor ends
_AT_ONCE: Final = 4  # requests that the actor works on at the same time


class RemoteStore:
    """The store of another node, with the methods of a `Store`.

    Args:
        node: The Ray node whose disk has the directory.
        path: The directory there.
        size_limit: Bytes to keep there.
        expire: Seconds to keep them.
        warn: Takes a cause and what happened, and tells the user once.
    """

    def __init__(
        self,
        node: str,
        path: Path,
        size_limit: int | None,
        expire: float | None,
        warn: Callable[[str, str], None],
    ) -> None:
        self._node = node
        self._settings = (str(path), size_limit, expire)
        self._warn = warn
        self._actor: Any = None
        self._lock = threading.Lock()
        self._copies: OrderedDict[str, tuple[str, bytes]] = OrderedDict()
        self._copied = 0
        self._ask_again = 0.0  # not before then, by the monotonic clock
        self._back_off = _BACK_OFF

    def read(self, keys: Iterable[str]) -> dict[str, tuple[str, Blob]]:
        """Return tag and bytes of those keys that are there."""
        found: dict[str, tuple[str, Blob]] = {}
        missing = []
        for key in keys:
            copy = self._copy_of(key)
            if copy is None:
                missing.append(key)
            else:
                found[key] = copy
        if missing:
            fetched = self._ask("read", missing) or {}
            for key, (tag, blob) in fetched.items():
                self._keep_copy(key, tag, blob)
            found |= fetched
        return found

    def contains(self, keys: Iterable[str]) -> set[str]:
        """Return those keys that are there."""
        wanted = list(keys)
        at_hand = {key for key in wanted if key in self._copies}
        missing = [key for key in wanted if key not in at_hand]
        return at_hand.union(self._ask("contains", missing) or () if missing else ())

    def write(self, records: Sequence[Record], counts: dict[str, int] | None = None) -> None:
        """Store records, and add to counters."""
        whole = [(record.key, record.tag, b"".join(record.pieces)) for record in records]
        for key, tag, blob in whole:
            self._keep_copy(key, tag or "", blob)
        self._ask("write", whole, counts or {})

    def delete(self, keys: Iterable[str]) -> int:
        """Drop what is stored under these keys, and return how many there were."""
        dropped = list(keys)
        self._forget(dropped)
        return self._ask("delete", dropped) or 0

    def rows(self, tag: str | None = None, limit: int = -1, start: str = "") -> Iterator[Row]:
        """Walk what is stored by nodes, or by one of them, under keys that begin so, the latest first."""
        yield from self._ask("rows", tag, limit, start) or ()

    def counts(self, prefix: str) -> dict[str, int]:
        """Return the counters whose key begins with a prefix."""
        return self._ask("counts", prefix) or {}

    def by_tag(self) -> dict[str, tuple[int, int]]:
        """Return the number of entries and their bytes, by node."""
        return self._ask("by_tag") or {}

    def tidy(self) -> int:
        """Remove files that writers who died have left behind, and return how many."""
        return self._ask("tidy") or 0

    def foreign(self) -> dict[int, str]:
        """Return the rows that are not of this library: their keys, by the numbers of the rows."""
        return self._ask("foreign") or {}

    def delete_rows(self, numbers: Iterable[int]) -> int:
        """Drop rows by their numbers, and return how many there were."""
        return self._ask("delete_rows", list(numbers)) or 0

    def clear(self) -> int:
        """Drop everything, and return how many entries there were."""
        self._forget(list(self._copies))
        return self._ask("clear") or 0

    def close(self) -> None:
        """Forget the copies."""
        self._forget(list(self._copies))

    # ---------------------------------------------------------------------------------- asking

    def _ask(self, method: str, *arguments: Any) -> Any:
        """Return the actor's answer, or ``None`` when there is none for now."""
        if time.monotonic() < self._ask_again:
            return None
        for attempt in (1, 2):
            try:
                answer = self._answer(method, arguments)
            except (ActorDiedError, ActorUnavailableError) as error:
                self._actor = None  # another one takes its place
                if attempt == 1:
                    continue
                return self._give_up(error)
            except Exception as error:
                return self._give_up(error)
            self._back_off = _BACK_OFF
            return answer
        return None

    def _answer(self, method: str, arguments: tuple[Any, ...]) -> Any:
        patience = _PATIENCE
        with self._lock:
            if self._actor is None:
                if not any(node["Alive"] and node["NodeID"] == self._node for node in ray.nodes()):
                    raise ConnectionError("its node is gone")
                self._actor = keeper(self._node, *self._settings)
                patience = _FIRST_PATIENCE
            actor = self._actor
        return ray.get(actor.do.remote(method, *arguments), timeout=patience)

    def _give_up(self, error: Exception) -> None:
        self._ask_again = time.monotonic() + self._back_off
        self._warn(
            "away",
            f"is on another node of the cluster and does not answer ({type(error).__name__}: "
            f"{str(error).partition(chr(10))[0]}). Until it does, results are computed and not kept",
        )
        self._back_off = min(self._back_off * 2, _LONGEST_BACK_OFF)

    # ---------------------------------------------------------------------------------- copies

    def _copy_of(self, key: str) -> tuple[str, bytes] | None:
        with self._lock:
            copy = self._copies.get(key)
            if copy is not None:
                self._copies.move_to_end(key)
            return copy

    def _keep_copy(self, key: str, tag: str, blob: bytes) -> None:
        if len(blob) > _COPIED // 4:
            return
        with self._lock:
            self._copied += len(blob) - len(self._copies.pop(key, ("", b""))[1])
            self._copies[key] = (tag, blob)
            while self._copied > _COPIED:
                _, (_, dropped) = self._copies.popitem(last=False)
                self._copied -= len(dropped)

    def _forget(self, keys: Iterable[str]) -> None:
        with self._lock:
            for key in keys:
                self._copied -= len(self._copies.pop(key, ("", b""))[1])


def keeper(node: str, path: str, size_limit: int | None, expire: float | None) -> Any:
    """Return the actor that keeps a directory of a node, for all jobs of the cluster."""
    name = f"cache-{node}-{hashlib.blake2b(path.encode(), digest_size=8).hexdigest()}"
    return (
        ray.remote(Keeper)
        .options(
            name=name,
            namespace=_NAMESPACE,
            get_if_exists=True,
            lifetime="detached",  # the job that happens to make it may end before the others
            num_cpus=0,  # else it could wait for those who wait for it
            max_concurrency=_AT_ONCE,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
        )
        .remote(path, size_limit, expire)
    )


class Keeper:
    """A store for those who cannot reach its directory: an actor on the directory's node."""

    def __init__(self, path: str, size_limit: int | None, expire: float | None) -> None:
        # Its entries are copied in any case, and a mapped file that somebody cuts off would end the actor.
        self._store = Store(Path(path), size_limit, expire, can_map=False)
        self._asked = time.monotonic()
        threading.Thread(target=self._end_when_idle, daemon=True).start()

    def do(self, method: str, *arguments: Any) -> Any:
        """Call a method of the store."""
        self._asked = time.monotonic()
        if method == "read":
            found = self._store.read(*arguments)
            return {key: (tag, bytes(blob)) for key, (tag, blob) in found.items()}
        if method == "write":
            records, counts = arguments
            return self._store.write([Record.of(key, tag, [blob]) for key, tag, blob in records], counts)
        answer = getattr(self._store, method)(*arguments)
        return list(answer) if method == "rows" else answer

    def leave(self) -> None:
        """End, if nobody has asked meanwhile."""
        if self._is_idle:
            ray.actor.exit_actor()

    @property
    def _is_idle(self) -> bool:
        return time.monotonic() - self._asked > _IDLE

    def _end_when_idle(self) -> None:
        me = ray.get_runtime_context().current_actor
        while True:
            time.sleep(_IDLE / 10)
            if self._is_idle:
                me.leave.remote()
