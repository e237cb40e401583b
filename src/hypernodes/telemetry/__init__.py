"""Telemetry: runs as traces and metrics of OpenTelemetry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypernodes.earlier_names import lazy_attributes as _lazy_attributes

if TYPE_CHECKING:
    from hypernodes.callbacks.progress import ProgressCallback as ProgressCallback
    from hypernodes.telemetry.callback import TelemetryCallback as TelemetryCallback

__all__ = ["ProgressCallback", "TelemetryCallback"]

_LAZY = {
    "ProgressCallback": "hypernodes.callbacks.progress",
    "TelemetryCallback": "hypernodes.telemetry.callback",
}


if not TYPE_CHECKING:  # Type checkers know the names that are imported for them above, and no others.
    __getattr__ = _lazy_attributes(__name__, _LAZY)
