"""Records of what a cache holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hypernodes.cache.provenance import Provenance


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry without its value.

    Attributes:
        signature: The signature under which it is stored.
        node: The node that computed it.
        size: Its bytes on disk.
        stored: The time when it was written, in seconds since the epoch.
        used: The time when it was last read, in seconds since the epoch; to the hour, unless the cache has a
            size limit.
        about: Its provenance; ``None`` if it cannot be read.
    """

    signature: str
    node: str
    size: int
    stored: float
    used: float
    about: Provenance | None


@dataclass(frozen=True, slots=True)
class NodeStats:
    """The number of a node's entries, their bytes, and the number of hits so far."""

    entries: int
    bytes: int
    hits: int = 0


@dataclass(frozen=True, slots=True)
class Stats:
    """The number of all entries, their bytes, and the number of hits so far; the same by node."""

    entries: int
    bytes: int
    hits: int
    by_node: dict[str, NodeStats] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Compaction:
    """The numbers of segments that were merged, and of segments and large values that were deleted."""

    merged: int
    deleted: int
    values: int


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of checking every entry.

    Attributes:
        whole: The number of entries that passed.
        damaged: The signatures of the others, each with what is wrong.
        orphans: The number of files without an entry, which were removed.
    """

    whole: int
    damaged: dict[str, str]
    orphans: int
