"""The node context that labels what nodes print and log, in the process where they are called."""

from __future__ import annotations

import logging
import os
import socket
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hypernodes.callbacks.label import CURRENT_LABEL, Label
from hypernodes.callbacks.log_records import label_log_records
from hypernodes.callbacks.output_streams import labelled_output
from hypernodes.callbacks.worker_logging import configure_worker_logging

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hypernodes.callbacks.node_context import NodeCall


@dataclass(frozen=True, slots=True)
class LabelContext:
    """Labels what nodes print and log; it travels to workers.

    Attributes:
        as_json: Whether printed lines are JSON objects instead of text with the label as its prefix.
        level: The level from which on a worker process prints log records, if its logging is not configured.
        driver: The host and process of the driver, whose logging is left alone.
    """

    as_json: bool
    level: int
    driver: tuple[str, int]

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
