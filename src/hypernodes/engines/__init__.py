"""Engines: they run pipelines and decide what runs when."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypernodes.earlier_names import lazy_attributes as _lazy_attributes
from hypernodes.engine import Engine

if TYPE_CHECKING:
    from hypernodes.engines.daft import DaftEngine as DaftEngine
    from hypernodes.engines.local import HyperNodesEngine as HyperNodesEngine

__all__ = ["DaftEngine", "Engine", "HyperNodesEngine"]


if not TYPE_CHECKING:  # Type checkers know the names that are imported for them above, and no others.
    __getattr__ = _lazy_attributes(
        __name__,
        # The processes of Daft import this package, and run no engine.
        {"DaftEngine": "hypernodes.engines.daft", "HyperNodesEngine": "hypernodes.engines.local"},
    )
