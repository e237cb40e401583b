"""Output streams that label each line that a node prints with the node and its item.

text/words/measure[3] | what the node has printed
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import time
from typing import Any, Final

from hypernodes.callbacks.event import current_worker
from hypernodes.callbacks.label import CURRENT_LABEL, Label, iso_time, json_line

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

    @contextmanager
    def labelled(self, label: Label) -> Iterator[None]:
        with self._lock:
            self._calls += 1
            for name in _STREAMS:
                stream = getattr(sys, name)
                if stream is not None and not isinstance(stream, LabelledStream):
                    setattr(sys, name, LabelledStream(name, stream))
        try:
            yield
        finally:
            with self._lock:
                self._calls -= 1
                for name in _STREAMS:
                    stream = getattr(sys, name)
                    if isinstance(stream, LabelledStream):
                        stream.flush_line(label)
                        if not self._calls:
                            setattr(sys, name, stream.stream)


labelled_output = _OutputStreams().labelled
"""Label what is printed under a label, in a context."""


def unlabelled(stream: Any) -> Any:
    """Return the stream that a labelled stream writes to; other streams unchanged."""
    return stream.stream if isinstance(stream, LabelledStream) else stream
