"""The cache: when two computations are the same, and where their results are stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hypernodes.cache.disk import DiskCache as DiskCache
    from hypernodes.cache.file import File as File

_LAZY = {"DiskCache": "hypernodes.cache.disk", "File": "hypernodes.cache.file"}

__all__ = ["DiskCache", "File"]


def __getattr__(name: str) -> object:
    from importlib import import_module

    if (home := _LAZY.get(name)) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home), name)
