"""A store with a tier behind it: what the directory lacks is read from the tier, and kept here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hypernodes.cache.inventory import NodeStats, Stats
from hypernodes.cache.record import Record
from hypernodes.cache.remote.compact import compact
from hypernodes.cache.remote.push import Pusher
from hypernodes.cache.store import Store
from hypernodes.cache.summary import describe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from hypernodes.cache.entry import Blob
    from hypernodes.cache.inventory import Compaction
    from hypernodes.cache.remote.tier import RemoteTier, Sealed

_WRITTEN_AT_ONCE: Final = 2000
"""Entries of a segment that one transaction writes; other processes wait for so long (20 µs an entry)."""
_MIN_READ_AHEAD_LIMIT: Final = 1 << 27
"""Bytes. A smaller directory would drop what is read ahead before it is asked for."""
_PULLED_AT_ONCE: Final = 5000
"""Keys of entries that `pull` reads together."""


class TieredStore(Store):
    """A directory and a tier. What lists or drops entries is about the directory."""

    def __init__(
        self,
        tier: RemoteTier,
        path: Path,
        size_limit: int | None,
        expire: float | None,
        *,
        key: bytes | None,
        warn: Callable[[str, str], None],
    ) -> None:
        super().__init__(path, size_limit, expire, can_map=key is None, has_tier=True)
        self.tier = tier
        self._warn = warn
        tier.reads_ahead = size_limit is None or size_limit >= _MIN_READ_AHEAD_LIMIT
        self._pusher = Pusher(self, tier, path, key)

    def read(self, keys: Iterable[str]) -> dict[str, tuple[str, Blob]]:
        """Return the tag and bytes of those keys that exist."""
        wanted = list(keys)
        found = super().read(wanted)
        if missing := [key for key in wanted if key not in found]:
            read = self.tier.read(missing)
            self._write_to_directory(read)
            asked = set(missing)
            found |= {one.key: (one.tag or "", one.blob) for one in read if one.key in asked}
        return found

    def _write_to_directory(self, read: Sequence[Sealed]) -> int:
        """Write entries of the tier to the directory, and return their number."""
        present = super().contains([one.key for one in read])
        records = [Record.of(one.key, one.tag, [one.blob]) for one in read if one.key not in present]
        try:
            for position in range(0, len(records), _WRITTEN_AT_ONCE):
                self.write(records[position : position + _WRITTEN_AT_ONCE], is_pushed=True)
        except Exception as error:
            self.tier.reads_ahead = False
            self._warn("write", f"cannot be written ({describe(error)}); results are returned but not stored")
            return 0
        return len(records)

    def contains(self, keys: Iterable[str]) -> set[str]:
        """Return those keys that exist."""
        wanted = list(keys)
        found = super().contains(wanted)
        missing = [key for key in wanted if key not in found]
        return found | self.tier.contains(missing) if missing else found

    def write(
        self, records: Sequence[Record], counts: dict[str, int] | None = None, *, is_pushed: bool = False
    ) -> bool:
        """Store records and add to counters, and have the tier get the records that it lacks."""
        is_written = super().write(records, counts, is_pushed=is_pushed)
        if records and not is_pushed:
            self._pusher.note(records)
        return is_written

    def close(self) -> None:
        """Close the files."""
        super().close()
        self.tier.close()

    # ------------------------------------------------------------------------------------ the tier

    def finish(self) -> None:
        """Write to the tier what the directory has, as far as this is possible; the next run lists anew."""
        try:
            self._pusher.push()
        except Exception as error:
            self.tier.writes.failed(error)
        self.tier.expect_changes()

    def push(self) -> int:
        """Write all entries of the directory that the tier lacks, and return their number."""
        with self.tier.requested():
            self.tier.synchronize()
        keys = self._pusher.marks.keys()
        for position in range(0, len(keys), _PULLED_AT_ONCE):
            part = keys[position : position + _PULLED_AT_ONCE]
            present = self.tier.known.find(part)
            self._pusher.marks.mark_unpushed([key for key in part if key not in present])
        number = self._pusher.push()
        if self._pusher.marks.has_unpushed():
            raise ConnectionError(f"not all entries could be written to the remote tier {self.tier.url!r}")
        return number

    def pull(self) -> int:
        """Read all entries of the tier that the directory lacks, and return their number."""
        with self.tier.requested():
            self.tier.synchronize()
        keys = [place.item.key for place in self.tier.known.items() if place.item.size is not None]
        number = 0
        for position in range(0, len(keys), _PULLED_AT_ONCE):
            part = keys[position : position + _PULLED_AT_ONCE]
            present = super().contains(part)
            number += self._write_to_directory(self.tier.read([key for key in part if key not in present]))
        return number

    def delete_remote(
        self, keys: Iterable[str] | None = None, *, node: str | None = None, before: float | None = None
    ) -> int:
        """Say in the tier that entries are deleted, by key, node, or time; return their number."""
        with self.tier.requested():
            self.tier.synchronize()
        known = self.tier.known
        if keys is not None:
            found = list(known.find(keys).values())
        else:
            selected = known.items(node=node) if before is None else known.items(node=node, before=before)
            found = [place for place in selected if place.item.size is not None]
        if found:
            with self.tier.requested():
                self.tier.write_segment([], {place.item.key: None for place in found})
        return len(found)

    def compact(self, grace: float) -> Compaction:
        """Merge the segments of the tier; see `compact`."""
        with self.tier.requested():
            return compact(self.tier, grace)

    def stats(self) -> Stats:
        """Return the number of entries and bytes of the tier, in all and by node."""
        with self.tier.requested():
            self.tier.synchronize()
        by_node = {tag: NodeStats(*held) for tag, held in sorted(self.tier.known.by_tag().items())}
        return Stats(
            sum(node.entries for node in by_node.values()),
            sum(node.bytes for node in by_node.values()),
            0,
            by_node,
        )

    def clear_remote(self, node: str | None, before: float | None) -> int:
        """Drop everything in the tier, or entries of a node or written before a time; return their number."""
        if node is not None or before is not None:
            return self.delete_remote(node=node, before=before)
        with self.tier.requested():
            return self.tier.clear()
