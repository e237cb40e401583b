"""JSON lines: log records, and what nodes print, as one JSON object a line."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from math import isfinite
from typing import Any, Final

from hypernodes.callbacks.label import unlabelled_message

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
    return value if is_json else repr(value)


def iso_time(timestamp: float) -> str:
    """Return a time in seconds since the epoch as ISO 8601, in UTC, with milliseconds."""
    return datetime.fromtimestamp(timestamp, UTC).isoformat(timespec="milliseconds")
