"""The node context that labels what nodes print and log, in the process where they are called."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from hypernodes.callbacks.event import current_worker
from hypernodes.callbacks.label import (
    CURRENT_LABEL,
    OUTPUT_STREAMS,
    JsonFormatter,
    Label,
    label_log_records,
    unlabelled,
)

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

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
        return cls(as_json, level, current_worker()[:2])

    def __call__(self, call: NodeCall) -> AbstractContextManager[None]:
        """Label what is printed and logged while a node is called."""
        if self.driver != current_worker()[:2]:
            configure_worker_logging(self.level)
        return _Labelled(Label(call, self.as_json))


class _Labelled:
    """A context in which a label is the current one."""

    __slots__ = ("_label", "_token")

    def __init__(self, label: Label) -> None:
        self._label = label

    def __enter__(self) -> None:
        label_log_records()
        self._token = CURRENT_LABEL.set(self._label)
        OUTPUT_STREAMS.begin()

    def __exit__(self, *raised: object) -> None:
        OUTPUT_STREAMS.end(self._label)
        CURRENT_LABEL.reset(self._token)


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
