"""Callbacks: hooks that are called with the events of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypernodes.callbacks.base import CallbackContext, PipelineCallback
from hypernodes.earlier_names import lazy_attributes as _lazy_attributes

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
    __getattr__ = _lazy_attributes(__name__, _LAZY)
