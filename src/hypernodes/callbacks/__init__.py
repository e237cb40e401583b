"""Callbacks: hooks that are called with the events of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypernodes.callbacks.base import CallbackContext, PipelineCallback

if TYPE_CHECKING:
    from hypernodes.callbacks.label import JsonFormatter as JsonFormatter
    from hypernodes.callbacks.log import LoggingCallback as LoggingCallback
    from hypernodes.callbacks.progress import ProgressCallback as ProgressCallback
    from hypernodes.callbacks.ray_metrics import RayMetrics as RayMetrics
    from hypernodes.callbacks.report import RunReport as RunReport

_LAZY = {
    "JsonFormatter": "hypernodes.callbacks.label",
    "LoggingCallback": "hypernodes.callbacks.log",
    "ProgressCallback": "hypernodes.callbacks.progress",
    "RayMetrics": "hypernodes.callbacks.ray_metrics",
    "RunReport": "hypernodes.callbacks.report",
}

__all__ = [
    "CallbackContext",
    "JsonFormatter",
    "LoggingCallback",
    "PipelineCallback",
    "ProgressCallback",
    "RayMetrics",
    "RunReport",
]


if not TYPE_CHECKING:  # Type checkers know the names that are imported for them above, and no others.

    def __getattr__(name: str) -> object:
        from importlib import import_module

        from hypernodes.earlier_names import missing_name

        if (home := _LAZY.get(name)) is None:
            raise missing_name(__name__, name)
        return getattr(import_module(home), name)
