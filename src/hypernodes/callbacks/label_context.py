"""The node context that labels what nodes print and log, in the process where they are called."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from hypernodes.callbacks.label import CURRENT_LABEL, Label
from hypernodes.callbacks.log_records import label_log_records
from hypernodes.callbacks.node_context import NodeCall
from hypernodes.callbacks.output_streams import labelled_output
from hypernodes.callbacks.worker_logging import configure_worker_logging


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
