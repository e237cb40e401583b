"""What does a store hold? Its entries, statistics, and the check of all seals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hypernodes.cache import entry
from hypernodes.cache.inventory import Entry, NodeStats, Stats, Verification
from hypernodes.cache.provenance import Provenance
from hypernodes.cache.summary import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hypernodes.cache.backend import Backend
    from hypernodes.cache.entry import Blob

HITS_PREFIX: Final = "hits/"
"""The key of a node's counter of hits is this prefix with the node's name."""


def entries(store: Backend, key: bytes | None, node: str | None, prefix: str, limit: int) -> Iterator[Entry]:
    """Iterate over entries, the latest first; a limit of -1 is none."""
    for row in store.rows(node, limit, prefix):
        about = provenance_of(row.key, row.head, key)
        name = row.tag
        if about is not None and about.node != printable(name):  # The seal covers the provenance only.
            if node is not None:
                continue
            name = about.node
        yield Entry(row.key, name, row.size, row.stored, row.used, about)


def provenance_of(signature: str, blob: Blob, key: bytes | None) -> Provenance | None:
    """Return the provenance in the bytes of an entry; ``None`` if there is none, or the seal is broken."""
    try:
        text = entry.read_provenance(signature, blob, key)
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


def verify(store: Backend, key: bytes | None, *, drop: bool) -> Verification:
    """Read every entry and check its seal."""
    whole, damaged = 0, {}
    for row in store.rows():
        if not (found := store.read([row.key])) and store.contains([row.key]):
            damaged[row.key] = "has lost its file"
        for signature, (_, blob) in found.items():
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
