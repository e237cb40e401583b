"""What a cache holds, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hypernodes.cache.about import About


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of an entry, its value left aside.

    Attributes:
        about: How it was made; ``None`` where that cannot be read.
        node: The node that made it.
        size: Bytes on disk.
        stored: When, in seconds since the epoch.
        used: When last, in seconds since the epoch; to the hour, unless the cache has a limit.
    """

    signature: str
    node: str
    size: int
    stored: float
    used: float
    about: About | None


@dataclass(frozen=True, slots=True)
class NodeStats:
    """What a cache holds of one node, and how often it was of use."""

    entries: int = 0
    bytes: int = 0
    hits: int = 0


@dataclass(frozen=True, slots=True)
class Stats:
    """What a cache holds, and how often it was of use."""

    entries: int
    bytes: int
    hits: int
    by_node: dict[str, NodeStats] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verified:
    """What came of reading every entry.

    Attributes:
        whole: The number of good entries.
        damaged: The signatures of the others, and what is wrong with them.
        orphans: The number of files that were removed since nothing belonged to them.
    """

    whole: int
    damaged: dict[str, str]
    orphans: int
