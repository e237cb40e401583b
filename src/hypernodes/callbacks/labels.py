"""Whose is this line? What a node prints or logs is labelled with the node and its item, where it runs.

text/words/measure[3] | what it has printed
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import threading
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from math import isfinite
from typing import TYPE_CHECKING, Any, Final

from hypernodes.callbacks.event import here

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hypernodes.callbacks.node_context import NodeCall

_PARTS: Final = 4096  # of a line that a node prints piece by piece
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """Formats records as JSON, one object a line, with everything that was given as ``extra``.

    Example:
        >>> told = {"name": "app", "levelname": "INFO", "msg": "done", "node": "size"}
        >>> record = logging.makeLogRecord(told)
        >>> line = json.loads(JsonFormatter().format(record))
        >>> line["level"], line["logger"], line["message"], line["node"]
        ('INFO', 'app', 'done', 'size')
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        if isinstance(record, _OfNode):
            record._is_bare = True
        told = {
            "time": _iso(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "pid": record.process,
            "thread": record.threadName,
        }
        if isinstance(record, _OfNode):
            del record._is_bare  # other handlers' formatters show the label
        for name, value in vars(record).items():
            if name not in _STANDARD and not name.startswith("_"):
                told.setdefault(name, value)
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            told["stack"] = self.formatStack(record.stack_info)
        try:
            return json.dumps(told, default=repr, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError):  # keys that are no text, numbers that JSON does not have
            return json.dumps({name: _plain(value) for name, value in told.items()}, ensure_ascii=False)


def _plain(value: Any) -> Any:
    is_plain = isinstance(value, str | bool | int | None) or (isinstance(value, float) and isfinite(value))
    return value if is_plain else repr(value)


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


@dataclass(slots=True)
class _Label:
    """The node that is being called, and the line that it has begun on each stream."""

    call: NodeCall
    as_json: bool
    begun: dict[str, list[str]] = field(default_factory=dict)

    def __str__(self) -> str:
        items = f"[{'.'.join(map(str, self.call.item_path))}]" if self.call.item_path else ""
        return f"{'/'.join(self.call.pipeline_path)}/{self.call.node_id}{items}"

    @property
    def fields(self) -> dict[str, Any]:
        path, node, items = self.call
        return {
            "pipeline_path": "/".join(path),
            "node": node,
            "item_path": items,
            "depth": len(path) - 1,
            "host": here().host,
        }

    def line(self, stream: str, text: str) -> str:
        """Return a line that was printed, labelled."""
        if not self.as_json:
            return text if text.startswith(f"{self} | ") else f"{self} | {text}"
        told = {
            "time": _iso(datetime.now(UTC).timestamp()),
            "stream": stream,
            "message": text,
            **here()._asdict(),
            **self.fields,
        }
        return json.dumps(told, ensure_ascii=False)


_LABEL: ContextVar[_Label | None] = ContextVar("hypernodes_label", default=None)


class _Labelled:
    """A text stream that labels the lines of nodes, and leaves all others as they are."""

    def __init__(self, name: str, stream: Any) -> None:
        self.name_of_stream = name
        self.stream = stream

    def write(self, text: str) -> int:
        label = _LABEL.get()
        if label is None:
            written: int = self.stream.write(text)
            return written
        begun = label.begun.setdefault(self.name_of_stream, [])
        first, *rest = text.split("\n")
        begun.append(first)
        if rest:
            self._write_line(label, "".join(begun))
            for line in rest[:-1]:
                self._write_line(label, line)
            begun[:] = [rest[-1]]
        elif len(begun) >= _PARTS:
            self.finish(label)
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def finish(self, label: _Label) -> None:
        """Write the line that a node has begun and not ended."""
        rest = "".join(label.begun.pop(self.name_of_stream, ()))
        if rest:
            self._write_line(label, rest)

    def _write_line(self, label: _Label, line: str) -> None:
        line = line.rstrip("\r").rsplit("\r", 1)[
            -1
        ]  # a bar that has been drawn over itself ends as it was last
        self.stream.write(f"{label.line(self.name_of_stream, line)}\n")  # at once, so that lines stay whole

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class _Streams:
    """The process's output streams, which are replaced while nodes are called."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls = 0

    @contextmanager
    def labelled(self, label: _Label) -> Iterator[None]:
        with self._lock:
            self._calls += 1
            for name in ("stdout", "stderr"):
                stream = getattr(sys, name)
                if stream is not None and not isinstance(stream, _Labelled):
                    setattr(sys, name, _Labelled(name, stream))
        try:
            yield
        finally:
            with self._lock:
                self._calls -= 1
                for name in ("stdout", "stderr"):
                    stream = getattr(sys, name)
                    if isinstance(stream, _Labelled):
                        stream.finish(label)
                        if not self._calls:
                            setattr(sys, name, stream.stream)


_streams = _Streams()


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels what nodes print and log, in the process where they are called.

    Attributes:
        as_json: Whether lines are JSON, or text with the label before it.
        level: From which level on a worker process prints what is logged there.
        driver: The host and process of the driver, whose logging is set up by whoever runs it.
    """

    as_json: bool
    level: int
    driver: tuple[str, int]

    @classmethod
    def here(cls, *, as_json: bool) -> Labels:
        """Return labels for a run whose driver this is."""
        level = logging.getLogger().getEffectiveLevel()
        return cls(as_json, level, (socket.gethostname(), os.getpid()))

    @contextmanager
    def __call__(self, call: NodeCall) -> Iterator[None]:
        """Call a node."""
        _label_records()
        if self.driver != (socket.gethostname(), os.getpid()):
            _log_here(self.level)
        label = _Label(call, self.as_json)
        token = _LABEL.set(label)
        try:
            with _streams.labelled(label):
                yield None
        finally:
            _LABEL.reset(token)


class _OfNode(logging.LogRecord):
    """A record that was made in a node: its message is labelled, and it has the node's fields."""

    _label: _Label

    def getMessage(self) -> str:  # noqa: N802  logging's name
        for name, value in self._label.fields.items():
            vars(self).setdefault(name, value)  # late, so that whoever logs may have fields of these names
        text = super().getMessage()
        return text if self._is_bare else f"{self._label} | {text}"

    _is_bare = False

    def __reduce__(self) -> tuple[Any, ...]:  # as queues between processes need it
        told = {"msg": self.getMessage(), "args": None}
        return logging.makeLogRecord, ({**vars(self), **told, "_label": None},)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or (value := self._label.fields.get(name, _NOTHING)) is _NOTHING:
            raise AttributeError(name)
        return value


_NOTHING: Final = object()


@cache
def _of_node(kind: type[logging.LogRecord]) -> type[logging.LogRecord]:
    return type(kind.__name__, (_OfNode, kind), {})


def _label_records() -> None:
    """See to it that the records of this process are labelled, whoever has said how they are made."""
    make = logging.getLogRecordFactory()
    if getattr(make, "_labels", False):
        return

    def labelled(*args: Any, **options: Any) -> logging.LogRecord:
        record = make(*args, **options)
        label = _LABEL.get()
        if label is not None and not isinstance(record, _OfNode):
            record.__class__ = _of_node(type(record))  # type: ignore[arg-type]
            vars(record)["_label"] = label
        return record

    labelled._labels = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(labelled)


class _HereFormatter(logging.Formatter):
    """Formats what is logged in a worker process as the run wants it that is being logged."""

    def format(self, record: logging.LogRecord) -> str:
        label = _LABEL.get()
        if label is not None and label.as_json:
            return JsonFormatter().format(record)
        first, *rest = super().format(record).split("\n")
        return "\n".join([first, *(line if label is None else f"{label} | {line}" for line in rest)])


@cache
def _log_here(level: int) -> None:
    """Print what is logged in a worker process, if nobody has said what becomes of it."""
    root = logging.getLogger()
    ours = [handler for handler in root.handlers if isinstance(handler.formatter, _HereFormatter)]
    if root.handlers and not ours:
        return
    if not ours:
        stream = sys.stderr.stream if isinstance(sys.stderr, _Labelled) else sys.stderr
        handler = logging.StreamHandler(stream)
        handler.setFormatter(_HereFormatter("%(message)s  (%(levelname)s %(name)s)"))
        root.addHandler(handler)
    root.setLevel(level)
