"""Small segments are merged into larger ones, and what nothing needs any more is deleted.

A merged segment names the segments that it supersedes. They stay for a while: a process that has listed them
may be about to read them. Afterwards another compaction deletes them, and readers that meet one that is gone
list again. So compactions and writers on any number of hosts need no locks: at worst two of them merge the
same segments.
"""

from __future__ import annotations

import time
from collections import defaultdict
from typing import TYPE_CHECKING, Final

from hypernodes.cache.inventory import Compaction
from hypernodes.cache.remote.objects import PART_SIZE
from hypernodes.cache.remote.segment import SEGMENTS, VALUES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hypernodes.cache.remote.known import Place
    from hypernodes.cache.remote.objects import Listed
    from hypernodes.cache.remote.segment import Item, SegmentName
    from hypernodes.cache.remote.tier import RemoteTier

_MERGED_SIZE: Final = 4 * PART_SIZE
"""Bytes of data of a merged segment, as far as there are enough entries."""
_MIN_ORPHAN_AGE_S: Final = 3600.0
"""The index that names a younger value may not be written yet."""


def compact(tier: RemoteTier, grace: float) -> Compaction:
    """Merge small segments, and delete those that were merged more than `grace` seconds ago."""
    listed = tier.synchronize()
    deleted = _delete_superseded(tier, listed, grace)
    listed = {name: found for name, found in listed.items() if name.text not in deleted}
    items: dict[str, list[Place]] = defaultdict(list)
    for place in tier.known.items():
        items[place.segment].append(place)
    superseded = _superseded(tier, listed)
    small = [name for name in listed if name.data_size < _MERGED_SIZE // 2 and name.text not in superseded]
    number = 0
    if len(small) > 1:
        for group in _groups(sorted(small, key=lambda name: name.time)):
            if len(group) > 1:
                _merge(tier, [place.item for name in group for place in items[name.text]], group)
                number += len(group)
    values = _delete_orphans(tier, max(grace, _MIN_ORPHAN_AGE_S))
    return Compaction(number, len(deleted), values)


def _groups(small: list[SegmentName]) -> list[list[SegmentName]]:
    """Return segments in groups whose data make a merged segment each."""
    groups: list[list[SegmentName]] = [[]]
    size = 0
    for name in small:
        if size + name.data_size > _MERGED_SIZE:
            groups.append([])
            size = 0
        groups[-1].append(name)
        size += name.data_size
    return groups


def _merge(tier: RemoteTier, items: list[Item], group: list[SegmentName]) -> None:
    """Write the present entries of segments to a new one; expired ones are left out."""
    now = time.time()
    present = [item for item in items if item.size is not None and item.expiry > now]
    kept = [item for item in present if item.value is not None]
    small = [item.key for item in present if item.value is None]
    deleted = {item.key: item.time for item in items if item.size is None}
    wanted = set(small)
    read = [one for one in tier.read_unchecked(small) if one.key in wanted]
    tier.write_segment(read, deleted, kept, [name.text for name in group])


def _superseded(tier: RemoteTier, listed: Mapping[SegmentName, Listed]) -> dict[str, float]:
    """Return the names of segments that others supersede, with the times when those were written."""
    merged = {name: found for name, found in listed.items() if name.is_merged}
    indexes = tier.indexes({name: found.size for name, found in merged.items()})
    superseded: dict[str, float] = {}
    for name, found in merged.items():
        if (index := indexes.get(name.text)) is not None:
            for text in index.supersedes:
                superseded[text] = min(found.modified, superseded.get(text, found.modified))
    return superseded


def _delete_superseded(tier: RemoteTier, listed: Mapping[SegmentName, Listed], grace: float) -> set[str]:
    """Delete the segments that were merged long ago, and return their names."""
    latest = time.time() - grace
    superseded = {text for text, written in _superseded(tier, listed).items() if written <= latest}
    names = {name.text for name in listed} & superseded
    tier.objects.delete([f"{SEGMENTS}/{name}" for name in names])
    tier.known.update({}, (), names)
    return names


def _delete_orphans(tier: RemoteTier, grace: float) -> int:
    """Delete the large values that no segment names, and return their number."""
    latest = time.time() - grace
    named = {place.item.value for place in tier.known.items() if place.item.value is not None}
    orphans = [found.name for found in tier.objects.list(VALUES) if found.modified < latest]
    return tier.objects.delete([f"{VALUES}/{name}" for name in orphans if name not in named])
