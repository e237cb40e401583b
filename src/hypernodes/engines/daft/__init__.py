"""DaftEngine: a pipeline as a Daft query."""

from __future__ import annotations

from hypernodes.engines.daft.engine import DaftEngine

__all__ = ["DaftEngine"]
