"""The cache: when two computations are the same, and where their results are stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hypernodes.cache.disk import DiskCache as DiskCache
    from hypernodes.cache.file import File as File

_LAZY = {"DiskCache": "hypernodes.cache.disk", "File": "hypernodes.cache.file"}

__all__ = ["DiskCache", "File"]


if not TYPE_CHECKING:  # Type checkers know the names that are imported for them above, and no others.

    def __getattr__(name: str) -> object:
        from importlib import import_module

        from hypernodes.earlier_names import missing_name

        if (home := _LAZY.get(name)) is None:
            raise missing_name(__name__, name)
        return getattr(import_module(home), name)
