"""The node context that labels what nodes print and log, in the process where they are called."""

from __future__ import annotations

import logging
import os
import socket
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from hypernodes.callbacks.label import (
    CURRENT_LABEL,
    JsonFormatter,
    Label,
    label_log_records,
    labelled_output,
    unlabelled,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hypernodes.callbacks.node_context import NodeCall


@dataclass(frozen=True, slots=True)
class LabelContext:
    """Labels what nodes print and log; it travels to workers."""

    as_json: bool  # printed lines are JSON objects instead of text with a prefix
    level: int  # of the log records that a worker prints, if its logging is not configured
    driver: tuple[str, int]  # its host and process; its logging is left alone

    @classmethod
    def for_driver(cls, *, as_json: bool) -> LabelContext:
        """Return the context for a run whose driver is this process."""
        level = logging.getLogger().getEffectiveLevel()
        return cls(as_json, level, (socket.gethostname(), os.getpid()))

    @contextmanager
    def __call__(self, call: NodeCall) -> Iterator[None]:
        """Label what is printed and logged while a node is called."""
        label_log_records()
        if self.driver != (socket.gethostname(), os.getpid()):
            configure_worker_logging(self.level)
        label = Label(call, self.as_json)
        token = CURRENT_LABEL.set(label)
        try:
            with labelled_output(label):
                yield None
        finally:
            CURRENT_LABEL.reset(token)


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
