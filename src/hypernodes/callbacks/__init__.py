"""Callbacks: what a run tells while it goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypernodes.callbacks.base import CallbackContext, PipelineCallback

if TYPE_CHECKING:
    from hypernodes.callbacks.log import LoggingCallback as LoggingCallback
    from hypernodes.callbacks.progress import ProgressCallback as ProgressCallback

_LAZY = {
    "LoggingCallback": "hypernodes.callbacks.log",
    "ProgressCallback": "hypernodes.callbacks.progress",
}

__all__ = ["CallbackContext", "LoggingCallback", "PipelineCallback", "ProgressCallback"]


def __getattr__(name: str) -> object:
    from importlib import import_module  # noqa: PLC0415

    if (home := _LAZY.get(name)) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home), name)
