"""DaftEngine: a pipeline as a Daft query."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypernodes.earlier_names import lazy_attributes as _lazy_attributes
from hypernodes.engines.daft.runner import import_daft

import_daft()  # The other modules import Daft as a matter of course; this error says what to install.

if TYPE_CHECKING:
    from hypernodes.engines.daft.engine import DaftEngine as DaftEngine

__all__ = ["DaftEngine"]


if not TYPE_CHECKING:  # The processes of Daft import this package, and run no engine.
    __getattr__ = _lazy_attributes(__name__, {"DaftEngine": "hypernodes.engines.daft.engine"})
