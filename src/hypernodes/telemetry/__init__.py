"""Telemetry: runs as traces and metrics of OpenTelemetry."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hypernodes.telemetry.callback import TelemetryCallback as TelemetryCallback

__all__ = ["TelemetryCallback"]


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name != "TelemetryCallback":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("hypernodes.telemetry.callback"), name)
