"""Engines: they run pipelines and decide what runs when."""

from __future__ import annotations

from hypernodes.engines.base import Engine
from hypernodes.engines.local import HyperNodesEngine

__all__ = ["Engine", "HyperNodesEngine"]
