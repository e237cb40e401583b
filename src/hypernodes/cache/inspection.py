"""What does a store hold? Its entries, statistics, and the check of all seals."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from hypernodes.cache import entry
from hypernodes.cache.inventory import Entry, NodeStats, Stats, Verification
from hypernodes.cache.provenance import Provenance

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hypernodes.cache.backend import Backend
    from hypernodes.cache.entry import Blob

HITS_PREFIX: Final = "hits/"
"""The key of a node's counter of hits is this prefix with the node's name."""


def entries(store: Backend, node: str | None, prefix: str, limit: int) -> Iterator[Entry]:
    """Iterate over entries, the latest first.

    Args:
        store: The store.
        node: The node whose entries are wanted; ``None`` for all.
        prefix: The first characters of their signatures.
        limit: The largest number of entries; -1 for all.
    """
    for row in store.rows(node, limit, prefix):
        yield Entry(row.key, row.tag, row.size, row.stored, row.used, provenance_of(row.head))


def provenance_of(blob: Blob) -> Provenance | None:
    """Return the provenance in the bytes of an entry; ``None`` if there is none, or it is damaged."""
    try:
        text = entry.read_provenance(blob)
        return Provenance.from_json(text) if text else None
    except (entry.EntryError, ValueError):
        return None


def stats(store: Backend) -> Stats:
    """Return the number of entries, bytes and hits, in all and by node."""
    held, hits = store.by_tag(), store.counts(HITS_PREFIX)
    by_node = {}
    for node in sorted({*held, *hits}):
        count, size = held.get(node, (0, 0))
        by_node[node] = NodeStats(count, size, hits.get(node, 0))
    return Stats(
        sum(node.entries for node in by_node.values()),
        sum(node.bytes for node in by_node.values()),
        sum(node.hits for node in by_node.values()),
        by_node,
    )


def clear(store: Backend, node: str | None, older_than: float | None) -> int:
    """Drop entries, and return their number.

    Args:
        store: The store.
        node: The node whose entries are dropped; ``None`` for all.
        older_than: Seconds. Entries that were used since then are kept.
    """
    if node is None and older_than is None:
        return store.clear()
    latest = time.time() - older_than if older_than is not None else float("inf")
    return store.delete([row.key for row in store.rows(node) if row.used < latest])


def verify(store: Backend, key: bytes | None, *, drop: bool) -> Verification:
    """Read every entry and check its seal.

    Args:
        store: The store.
        key: The secret with which entries are sealed.
        drop: Whether entries that fail the check are dropped.
    """
    whole, damaged = 0, {}
    for row in store.rows():
        for signature, (_, blob) in store.read([row.key]).items():
            try:
                entry.check(signature, blob, key)
                whole += 1
            except entry.EntryError as error:
                damaged[signature] = str(error)
    foreign = store.foreign()
    damaged.update(dict.fromkeys(foreign.values(), entry.FOREIGN_REASON))
    if drop:
        store.delete(damaged)
        store.delete_rows(foreign)
    return Verification(whole, damaged, store.remove_orphans())
