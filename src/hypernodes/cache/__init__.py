"""The cache: when two computations are the same, and where their results are stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypernodes.earlier_names import lazy_attributes as _lazy_attributes

if TYPE_CHECKING:
    from hypernodes.cache.disk import DiskCache as DiskCache
    from hypernodes.cache.file import File as File

_LAZY = {"DiskCache": "hypernodes.cache.disk", "File": "hypernodes.cache.file"}

__all__ = ["DiskCache", "File"]


if not TYPE_CHECKING:  # Type checkers know the names that are imported for them above, and no others.
    __getattr__ = _lazy_attributes(__name__, _LAZY)
