"""Telemetry: runs as traces and metrics of OpenTelemetry."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hypernodes.callbacks.progress import ProgressCallback as ProgressCallback
    from hypernodes.telemetry.callback import TelemetryCallback as TelemetryCallback

__all__ = ["ProgressCallback", "TelemetryCallback"]

_HOMES = {
    "ProgressCallback": "hypernodes.callbacks.progress",
    "TelemetryCallback": "hypernodes.telemetry.callback",
}


if not TYPE_CHECKING:  # Type checkers know the names that are imported for them above, and no others.

    def __getattr__(name: str) -> object:
        from importlib import import_module

        from hypernodes.earlier_names import missing_name

        if name not in _HOMES:
            raise missing_name(__name__, name)
        return getattr(import_module(_HOMES[name]), name)
