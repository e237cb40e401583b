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


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
