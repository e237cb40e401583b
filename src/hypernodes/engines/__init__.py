"""Engines: they run pipelines and decide what runs when."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypernodes.engine import Engine
from hypernodes.engines.local import HyperNodesEngine

if TYPE_CHECKING:
    from hypernodes.engines.daft import DaftEngine as DaftEngine

__all__ = ["DaftEngine", "Engine", "HyperNodesEngine"]


def __getattr__(name: str) -> object:
    if name == "DaftEngine":
        from hypernodes.engines.daft import DaftEngine

        return DaftEngine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
