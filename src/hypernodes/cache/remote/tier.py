"""The entries of a tier: looked up and read in bulk, and written in segments.

find ─▶ known items of this host ──(misses, and the list of segments is old)──▶ list, read new indexes
read ─▶ find ─▶ ranges of segments, and large values, many at the same time ─▶ seals checked
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from hypernodes.cache import entry
from hypernodes.cache.remote.circuit import Circuit
from hypernodes.cache.remote.known import KnownItems, remove_known_items
from hypernodes.cache.remote.locks import host_lock
from hypernodes.cache.remote.objects import PART_SIZE, Objects, in_parallel
from hypernodes.cache.remote.segment import (
    SEGMENTS,
    VALUES,
    Index,
    Item,
    SegmentError,
    SegmentName,
    decode,
    encode,
    new_value_name,
)
from hypernodes.cache.summary import describe
from hypernodes.exceptions import CacheWarning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from hypernodes.cache.entry import Blob
    from hypernodes.cache.remote.known import Place
    from hypernodes.cache.remote.objects import Listed

MIN_VALUE_SIZE: Final = 1 << 20
"""Bytes. A larger entry is an object of its own, so that a segment can be read as a whole."""
_MIN_LIST_INTERVAL_S: Final = 2.0
"""A miss asks for new segments at most so often, besides once in each run. The time doubles while there are
none: a cluster can have many workers."""
_MAX_LIST_INTERVAL_S: Final = 60.0
_MAX_GAP: Final = 1 << 18
"""Bytes between two entries that are read along with them. A request takes as long as some of these."""
_MAX_RANGES: Final = 4
"""Of a part of a segment. If there are more, the part is read as a whole."""
MAX_SEGMENT_SIZE: Final = PART_SIZE
"""Bytes of the small entries that are written together."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A sealed entry, with what an index says of it."""

    key: str
    tag: str | None
    blob: Blob
    expiry: float
    time: int | None = None  # when it was written; now by default


class RemoteTier:
    """The tier at an address, as one process uses it."""

    def __init__(
        self, url: str, directory: Path, key: bytes | None, warn: Callable[[str, str], None]
    ) -> None:
        self.url = url
        self._key = key
        self._warn = warn
        self.objects = Objects(url)
        digest = hashlib.blake2b(url.encode(), digest_size=8).hexdigest()
        self._path = directory / f"remote-{digest}.db"
        self.lock = directory / f"remote-{digest}.lock"
        self._opened: KnownItems | None = None
        self._list_at = 0.0  # by the monotonic clock
        self._list_interval_s = _MIN_LIST_INTERVAL_S
        self.reads_ahead = True  # whether the directory has room for entries that are not asked for yet
        self._touches: Counter[tuple[str, int]] = Counter()
        self._unusable: set[tuple[str, str, int]] = set()
        self.reads = Circuit(warn, url, "cannot be read", "results are computed and kept in this directory")
        self.writes = Circuit(
            warn, url, "cannot be written", "results are kept in this directory, and written there later"
        )

    @property
    def known(self) -> KnownItems:
        """The items that this host knows."""
        if self._opened is None:
            self._opened = KnownItems(self._path)
        return self._opened

    @contextlib.contextmanager
    def requested(self) -> Iterator[None]:
        """Return a context for what a user has asked for: that it is not possible is an error."""
        try:
            yield
        except Exception as error:
            if isinstance(error, sqlite3.Error):
                raise
            text = describe(error).partition("\\n")[0]
            raise ConnectionError(f"the remote tier {self.url!r} cannot be used ({text})") from error

    def close(self) -> None:
        """Close the database of known items."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def expect_changes(self) -> None:
        """List the segments at the next miss, since another run begins."""
        self._list_at, self._list_interval_s = 0.0, _MIN_LIST_INTERVAL_S

    # ------------------------------------------------------------------------------------ reading

    def contains(self, keys: Iterable[str]) -> set[str]:
        """Return those keys that exist; none while the tier cannot be read."""
        return set(self._read(lambda: self._find(keys)) or ())

    def read(self, keys: Iterable[str]) -> list[Sealed]:
        """Return the whole entries with these keys, and others that were read along with them."""
        wanted = list(keys)
        return self._read(lambda: self._fetch(self._find(wanted).values(), wanted)) or []

    def read_unchecked(self, keys: Iterable[str]) -> list[Sealed]:
        """Return entries, with any key that they are sealed with; raise what prevents that."""
        places = self.known.find(keys).values()
        return self._content(places, is_checked=False)

    def _read(self, ask: Callable[[], Any]) -> Any:
        if self.reads.is_open or not self.objects.can_be_used:
            return None
        try:
            answer = ask()
        except CacheWarning:  # A filter has made an error of it.
            raise
        except Exception as error:
            if type(error) is sqlite3.DatabaseError:  # It is damaged. The next attempt makes it anew.
                self.close()
                remove_known_items(self._path)
            self.reads.failed(error)
            return None
        self.reads.worked()
        return answer

    def _find(self, keys: Iterable[str]) -> dict[str, Place]:
        wanted = list(keys)
        found = self.known.find(wanted)
        if len(found) < len(set(wanted)) and time.monotonic() >= self._list_at:
            self.synchronize()
            found = self.known.find(wanted)
        return {key: place for key, place in found.items() if _identity(place) not in self._unusable}

    def synchronize(self) -> dict[SegmentName, Listed]:
        """Read the indexes of segments that this host does not know, and return all segments."""
        with host_lock(self.lock):  # Another process may be reading the same indexes.
            listed = {
                name: found
                for found in self.objects.list(SEGMENTS)
                if (name := SegmentName.parse(found.name)) is not None and found.size > name.data_size
            }
            present = self.known.segments()
            new = [name for name in listed if name.text not in present]
            merged = self.indexes({name: listed[name].size for name in new if name.is_merged})
            superseded = {text for index in merged.values() for text in index.supersedes}
            others = self.indexes(
                {
                    name: listed[name].size
                    for name in new
                    if not name.is_merged and name.text not in superseded
                }
            )
            added = {**merged, **others}
            gone = present.keys() - {name.text for name in listed}
            if new or gone:
                self.known.update(added, {name.text for name in new} - added.keys(), gone)
            self._list_interval_s = (
                _MIN_LIST_INTERVAL_S if new else min(2 * self._list_interval_s, _MAX_LIST_INTERVAL_S)
            )
            self._list_at = time.monotonic() + self._list_interval_s
            return listed

    def indexes(self, sizes: Mapping[SegmentName, int]) -> dict[str, Index]:
        """Return the indexes of segments of some sizes, without those that are damaged or gone."""

        def read(name: SegmentName) -> Blob:
            try:
                return self.objects.read(f"{SEGMENTS}/{name.text}", name.data_size, sizes[name])
            except FileNotFoundError:
                return None

        indexes = {}
        for name, raw in zip(sizes, in_parallel(read, sizes), strict=True):
            if raw is None:
                continue
            try:
                indexes[name.text] = decode(raw, name)
            except SegmentError as error:
                self._warn(
                    "remote segment", f"a segment of its remote tier {self.url!r} {error}; it is not used"
                )
        return indexes

    def _fetch(self, places: Iterable[Place], wanted: Sequence[str]) -> list[Sealed]:
        try:
            return self._content(places)
        except FileNotFoundError:  # It was merged into another segment, or deleted.
            self.synchronize()
            places = self.known.find(wanted).values()
            return self._content(places, may_be_gone=True)

    def _content(
        self, places: Iterable[Place], *, may_be_gone: bool = False, is_checked: bool = True
    ) -> list[Sealed]:
        by_part: dict[tuple[str, int], list[Item]] = defaultdict(list)
        values: list[Place] = []
        for place in places:
            if place.item.value is None:
                by_part[place.segment, place.item.start // PART_SIZE].append(place.item)
            else:
                values.append(place)

        def read_range(asked: tuple[str, int, int]) -> list[tuple[Item, str, Blob]]:
            segment, start, end = asked
            items = self.known.within(segment, start, end)
            data = self.objects.read(f"{SEGMENTS}/{segment}", start, max(map(_end, items), default=end))
            return [(item, segment, bytes(data[item.start - start : _end(item) - start])) for item in items]

        def read_value(place: Place) -> list[tuple[Item, str, Blob]]:
            item = place.item
            return [(item, place.segment, self.objects.read_all(f"{VALUES}/{item.value}", item.size or 0))]

        def read(asked: Any) -> list[tuple[Item, str, Blob]]:
            try:
                return read_range(asked) if isinstance(asked, tuple) else read_value(asked)
            except FileNotFoundError:
                if not may_be_gone:
                    raise
                if not isinstance(asked, tuple):
                    self._unusable.add(_identity(asked))
                return []

        ranges = [
            one for (segment, part), items in by_part.items() for one in self._ranges(segment, part, items)
        ]
        found = [one for several in in_parallel(read, [*ranges, *values]) for one in several]
        if is_checked:
            return self._whole(found)
        return [
            Sealed(item.key, item.tag, blob, item.expiry, item.time)
            for item, _, blob in found
            if len(blob) == item.size
        ]

    def _ranges(self, segment: str, part: int, items: Sequence[Item]) -> list[tuple[str, int, int]]:
        """Return the ranges of a part of a segment to read for some items.

        The second time all of the part is read: further items of it are likely to be looked up.
        """
        self._touches[segment, part] += 1
        merged: list[tuple[str, int, int]] = []
        for item in sorted(items, key=_start):
            if merged and item.start - merged[-1][2] <= _MAX_GAP:
                merged[-1] = (segment, merged[-1][1], _end(item))
            else:
                merged.append((segment, item.start, _end(item)))
        if self.reads_ahead and (self._touches[segment, part] > 1 or len(merged) > _MAX_RANGES):
            return [(segment, part * PART_SIZE, (part + 1) * PART_SIZE)]
        return merged

    def _whole(self, found: Iterable[tuple[Item, str, Blob]]) -> list[Sealed]:
        whole = []
        for item, segment, blob in found:
            try:
                entry.check(item.key, blob, self._key)
            except entry.EntryError as error:
                self._unusable.add((item.key, segment, item.start))
                self._warn(
                    "remote damage", f"an entry of its remote tier {self.url!r} {error}; it is computed again"
                )
            else:
                whole.append(Sealed(item.key, item.tag, blob, item.expiry, item.time))
        return whole

    # ------------------------------------------------------------------------------------ writing

    @property
    def can_be_written(self) -> bool:
        """Whether a write is worth an attempt: a tier that cannot be read would let it wait, too."""
        return self.objects.can_be_used and not (self.writes.is_open or self.reads.is_open)

    def write(self, entries: Iterable[Sealed], deleted: Mapping[str, int | None] | None = None) -> bool:
        """Write entries, and that others are deleted, in a new segment; return whether it was possible."""
        if not self.can_be_written:
            return False
        try:
            self.write_segment(list(entries), deleted or {})
        except Exception as error:
            self.writes.failed(error)
            return False
        self.writes.worked()
        return True

    def write_segment(
        self,
        entries: Sequence[Sealed],
        deleted: Mapping[str, int | None],
        kept: Sequence[Item] = (),
        supersedes: Sequence[str] = (),
    ) -> None:
        """Write a segment. `kept` are entries with objects of their own, which exist already."""
        # Later than all that is known here: a clock that is slow must not make a deletion an earlier event.
        now = max(int(time.time() * 1e6), self.known.latest_time() + 1)
        data, items, values = [], [], []
        start = 0
        for one in entries:
            size, expiry, written = memoryview(one.blob).nbytes, one.expiry, one.time or now
            if size < MIN_VALUE_SIZE:
                data.append(one.blob)
                items.append(Item(one.key, one.tag, start, size, expiry, written))
                start += size
            else:
                values.append((new_value_name(one.key), one.blob))
                items.append(Item(one.key, one.tag, 0, size, expiry, written, values[-1][0]))
        items += kept
        items += [Item(key, time=written or now) for key, written in deleted.items()]
        # Values are written first, so that each value that is named in an index can be read.
        in_parallel(lambda value: self.objects.write(f"{VALUES}/{value[0]}", value[1]), values)
        index = Index(items, supersedes)
        name = SegmentName.new(now, start, is_merged=bool(supersedes))
        self.objects.write(f"{SEGMENTS}/{name.text}", b"".join((*data, encode(index))))
        self.known.update({name.text: index}, (), ())

    def clear(self) -> int:
        """Delete everything, and return the number of entries; those that another host writes now stay."""
        self.synchronize()
        number = sum(place.item.size is not None for place in self.known.items())
        for folder in (SEGMENTS, VALUES):  # No index names a value that is gone.
            self.objects.delete([f"{folder}/{found.name}" for found in self.objects.list(folder)])
        self.known.update({}, (), self.known.segments())
        return number


def _start(item: Item) -> int:
    return item.start


def _end(item: Item) -> int:
    return item.start + (item.size or 0)


def _identity(place: Place) -> tuple[str, str, int]:
    return place.item.key, place.segment, place.item.start
