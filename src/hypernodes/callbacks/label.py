"""The label of the node that is being called, and the log records that carry it, as text or as JSON.

It tells which pipeline, node and item an output line belongs to. The process's log record factory is replaced
by one that labels records. It wraps the factory that was set before: one of the application is used, too.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from math import isfinite
from typing import Any, Final

from hypernodes.callbacks.event import current_worker
from hypernodes.callbacks.node_context import NodeCall
from hypernodes.text import short


@dataclass(slots=True)
class Label:
    """The label of one call of a node: ``text/words/measure[3]`` as text."""

    call: NodeCall
    as_json: bool  # labelled lines are JSON objects instead of text with a prefix
    partial_lines: dict[str, list[str]] = field(default_factory=dict)

    def __str__(self) -> str:
        items = f"[{'.'.join(map(str, self.call.item_path))}]" if self.call.item_path else ""
        return f"{'/'.join(self.call.pipeline_path)}/{self.call.node_id}{items}"

    @property
    def fields(self) -> dict[str, Any]:
        """The same as fields of a log record or a JSON object."""
        path, node, items = self.call
        return {
            "pipeline_path": "/".join(path),
            "node": node,
            "item_path": items,
            "depth": len(path) - 1,
            "host": current_worker().host,
        }


CURRENT_LABEL: Final[ContextVar[Label | None]] = ContextVar("hypernodes_label", default=None)
"""The label of the node that is being called in this thread or task; ``None`` outside of nodes."""


_ABSENT: Final = object()


class LabelledRecord(logging.LogRecord):
    """A record made while a node is called: its message starts with the label, and it has the label's fields.

    It has these fields only when they are read, so that the application may log with fields of the same names
    in ``extra``: `logging` refuses to overwrite an attribute that exists.
    """

    _label: Label
    _hides_label = False

    def getMessage(self) -> str:  # noqa: N802  `logging` has named it
        """Return the message, with the label as its prefix."""
        for name, value in self._label.fields.items():
            vars(self).setdefault(name, value)  # formatters read fields from `vars` after this call
        text = super().getMessage()
        return text if self._hides_label else f"{self._label} | {text}"

    def message_without_label(self) -> str:
        """Return the message as the node has logged it."""
        self._hides_label = True
        try:
            return self.getMessage()
        finally:
            del self._hides_label  # the formatters of other handlers show the label

    def __reduce__(self) -> tuple[Any, ...]:
        # A queue handler sends records to other processes, where they are plain records.
        formatted = {"msg": self.getMessage(), "args": None, "_label": None}
        return logging.makeLogRecord, ({**vars(self), **formatted},)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or (value := self._label.fields.get(name, _ABSENT)) is _ABSENT:
            raise AttributeError(name)
        return value


def unlabelled_message(record: logging.LogRecord) -> str:
    """Return the message of a record without the label of its node."""
    return record.message_without_label() if isinstance(record, LabelledRecord) else record.getMessage()


class _LabellingFactory:
    """A log record factory that labels the records of another one."""

    def __init__(self, make_record: Callable[..., logging.LogRecord]) -> None:
        self._make_record = make_record

    def __call__(self, *args: Any, **options: Any) -> logging.LogRecord:
        record: Any = self._make_record(*args, **options)
        label = CURRENT_LABEL.get()
        if label is not None and not isinstance(record, LabelledRecord):
            # The class is changed, since the application's factory may return records of a class of its own.
            record.__class__ = _labelled(record.__class__)
            vars(record)["_label"] = label
        made: logging.LogRecord = record
        return made


@cache
def _labelled(kind: type) -> type:
    return type(kind.__name__, (LabelledRecord, kind), {})


def label_log_records() -> None:
    """Make the process label its records; again, if the application has set another factory since."""
    make_record = logging.getLogRecordFactory()
    if not isinstance(make_record, _LabellingFactory):
        logging.setLogRecordFactory(_LabellingFactory(make_record))


_STANDARD_FIELDS: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """Formats records as JSON, one object a line, with everything that was given as ``extra``.

    Example:
        >>> fields = {"name": "app", "levelname": "INFO", "msg": "done", "node": "size"}
        >>> record = logging.makeLogRecord(fields)
        >>> line = json.loads(JsonFormatter().format(record))
        >>> line["level"], line["logger"], line["message"], line["node"]
        ('INFO', 'app', 'done', 'size')
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the JSON object of a record."""
        fields: dict[str, Any] = {
            "time": iso_time(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": unlabelled_message(record),
            "pid": record.process,
            "thread": record.threadName,
        }
        for name, value in vars(record).items():
            if name not in _STANDARD_FIELDS and not name.startswith("_"):
                fields.setdefault(name, value)
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            fields["stack"] = self.formatStack(record.stack_info)
        return json_line(fields)


def json_line(fields: dict[str, Any]) -> str:
    """Return fields as a JSON object; values that JSON does not have are their ``repr``."""
    try:
        return json.dumps(fields, default=repr, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError):  # JSON has no keys but strings, no NaN and no infinity
        return json.dumps({name: _json_value(value) for name, value in fields.items()}, ensure_ascii=False)


def _json_value(value: Any) -> Any:
    is_json = isinstance(value, str | bool | int | None) or (isinstance(value, float) and isfinite(value))
    return value if is_json else short(value, 1000)


def iso_time(timestamp: float) -> str:
    """Return a time in seconds since the epoch as ISO 8601, in UTC, with milliseconds."""
    return datetime.fromtimestamp(timestamp, UTC).isoformat(timespec="milliseconds")
