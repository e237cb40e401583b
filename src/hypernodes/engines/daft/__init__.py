"""DaftEngine: a pipeline as a Daft query."""

from __future__ import annotations

from hypernodes.engines.daft.engine import DaftEngine, default_engine

__all__ = ["DaftEngine", "default_engine"]
