"""Logging in worker processes where the application has not configured it."""

from __future__ import annotations

import logging
import sys
from functools import cache

from hypernodes.callbacks.json_lines import JsonFormatter
from hypernodes.callbacks.label import CURRENT_LABEL
from hypernodes.callbacks.output_streams import unlabelled


class _WorkerFormatter(logging.Formatter):
    """Formats a record as the run asks for whose node is being called: as JSON, or as labelled text."""

    def format(self, record: logging.LogRecord) -> str:
        if (label := CURRENT_LABEL.get()) is not None and label.as_json:
            return JsonFormatter().format(record)
        first, *rest = super().format(record).split("\n")
        return "\n".join([first, *(line if label is None else f"{label} | {line}" for line in rest)])


@cache
def configure_worker_logging(level: int) -> None:
    """Print the records of this process to standard error, unless its root logger has handlers."""
    root = logging.getLogger()
    is_configured_here = any(isinstance(handler.formatter, _WorkerFormatter) for handler in root.handlers)
    if root.handlers and not is_configured_here:
        return
    if not is_configured_here:
        handler = logging.StreamHandler(unlabelled(sys.stderr))
        handler.setFormatter(_WorkerFormatter("%(message)s  (%(levelname)s %(name)s)"))
        root.addHandler(handler)
    root.setLevel(level)
