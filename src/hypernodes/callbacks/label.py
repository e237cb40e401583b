"""The label of the node that is being called, on the lines that it prints and the records that it logs.

    text/words/measure[3] | what the node has printed

The process's log record factory is replaced by one that labels records. It wraps the factory that was set
before: one of the application is used, too.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from math import isfinite
from time import time
from typing import TYPE_CHECKING, Any, Final

from hypernodes.callbacks.event import current_worker
from hypernodes.text import short

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypernodes.callbacks.node_context import NodeCall


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


_MAX_PIECES: Final = 4096
"""Pieces of an unfinished line that are kept: a node that prints dots without end must not fill memory."""
_STREAMS: Final = ("stdout", "stderr")


class LabelledStream:
    """A text stream that labels the lines of nodes, and passes on everything else unchanged."""

    def __init__(self, name: str, stream: Any) -> None:
        self.stream_name = name
        self.stream = stream

    def write(self, text: str) -> int:
        """Write text; within a node, only lines that are complete."""
        if (label := CURRENT_LABEL.get()) is None:
            written: int = self.stream.write(text)
            return written
        pieces = label.partial_lines.setdefault(self.stream_name, [])
        first, *rest = text.split("\n")
        pieces.append(first)
        if rest:
            self._write_line(label, "".join(pieces))
            for line in rest[:-1]:
                self._write_line(label, line)
            pieces[:] = [rest[-1]]
        elif len(pieces) >= _MAX_PIECES:
            self.flush_line(label)
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def flush_line(self, label: Label) -> None:
        """Write the line that a node has begun and not ended."""
        if rest := "".join(label.partial_lines.pop(self.stream_name, ())):
            self._write_line(label, rest)

    def _write_line(self, label: Label, line: str) -> None:
        # A progress bar redraws its line after a carriage return: only its last state is written.
        last_state = line.rstrip("\r").rsplit("\r", 1)[-1]
        # One call writes the whole line, so that lines of several threads do not mix.
        self.stream.write(f"{_labelled_line(label, self.stream_name, last_state)}\n")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def _labelled_line(label: Label, stream: str, text: str) -> str:
    if label.as_json:
        worker = current_worker()._asdict()
        return json_line(
            {"time": iso_time(time()), "stream": stream, "message": text, **worker, **label.fields}
        )
    # A log record that a handler prints to this stream is labelled already.
    return text if text.startswith(f"{label} | ") else f"{label} | {text}"


class _OutputStreams:
    """The output streams of this process, which are replaced while nodes with a label are called."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls = 0

    def begin(self) -> None:
        """Label what is printed, until as many calls have ended as have begun."""
        with self._lock:
            self._calls += 1
            for name in _STREAMS:
                stream = getattr(sys, name)
                if stream is not None and not isinstance(stream, LabelledStream):
                    setattr(sys, name, LabelledStream(name, stream))

    def end(self, label: Label) -> None:
        """Write the lines that a call has begun and not ended."""
        with self._lock:
            self._calls -= 1
            for name in _STREAMS:
                stream = getattr(sys, name)
                if isinstance(stream, LabelledStream):
                    if label.partial_lines:
                        stream.flush_line(label)
                    if not self._calls:
                        setattr(sys, name, stream.stream)


OUTPUT_STREAMS: Final = _OutputStreams()
"""The standard output and standard error of this process."""


def unlabelled(stream: Any) -> Any:
    """Return the stream that a labelled stream writes to; other streams unchanged."""
    return stream.stream if isinstance(stream, LabelledStream) else stream
