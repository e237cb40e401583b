"""The cache: when two computations are the same, and where results are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hypernodes.cache.disk import DiskCache as DiskCache

__all__ = ["DiskCache"]


def __getattr__(name: str) -> object:
    from importlib import import_module  # noqa: PLC0415

    if name != "DiskCache":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module("hypernodes.cache.disk").DiskCache
