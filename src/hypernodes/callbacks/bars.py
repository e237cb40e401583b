"""Displays of progress: bars in a terminal, bars in a notebook, or lines of text."""

from __future__ import annotations

import logging
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from html import escape
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.markup import escape as escape_markup
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hypernodes.callbacks.tallies import Path

WIDE_TERMINAL_COLUMNS: Final = 100
"""Columns from which on a terminal has room for long bars."""
LINE_INTERVAL_S: Final = 5.0
"""Time between lines where there is no terminal: short enough to watch, long enough not to flood a log."""
_NOTEBOOK_TEXTS: Final = 7
"""Cells of a row in a notebook, without the bar."""


@dataclass(frozen=True, slots=True)
class Row:
    """The content of one bar."""

    label: str
    depth: int  # the number of steps by which it is indented
    done: int = 0
    total: int | None = None  # ``None`` if that is unknown
    # How much is done, the time that it took, the rate, and the time that is left.
    cells: tuple[str, str, str, str] = ("", "", "", "")
    signs: str = ""  # the numbers of cached, retried and failed executions
    settings: str = ""  # the engine and the cache
    has_failed: bool = False
    is_title: bool = False  # the outermost pipeline
    is_map: bool = False


class Display(ABC):
    """A place to draw bars."""

    @property
    def room(self) -> int:
        """The number of rows that fit."""
        return 40

    @abstractmethod
    def draw(self, rows: Mapping[Path, Row]) -> None:
        """Draw the bars, in the order of the rows."""

    @abstractmethod
    def close(self) -> None:
        """Stop drawing; the bars stay as they were drawn last."""


class TerminalBars(Display):
    """Bars drawn by rich, on standard error."""

    def __init__(self) -> None:
        def text(field: str, justify: Any = "left", **options: Any) -> TextColumn:
            column = Column(no_wrap=True, **options)
            return TextColumn(f"{{task.fields[{field}]}}", justify=justify, table_column=column)

        console = Console(file=sys.stderr)
        # In a narrow terminal, the settings, long names and the bar are cut, and never the numbers.
        name = Column(no_wrap=True, overflow="ellipsis", max_width=max(12, console.width // 4))
        self._progress = Progress(
            TextColumn("{task.description}", table_column=name),
            BarColumn(
                bar_width=24 if console.width >= WIDE_TERMINAL_COLUMNS else 10,
                table_column=Column(no_wrap=True),
            ),
            *(text(f"cell{number}", "right") for number in range(4)),
            text("signs"),
            text("settings", overflow="ellipsis", ratio=1, style="dim"),
            console=console,
            redirect_stdout=sys.stdout.isatty(),  # output that is redirected to a file must reach the file
            expand=True,
        )
        self._tasks: dict[Path, TaskID] = {}
        streams = sys.stdout, sys.stderr
        self._progress.start()
        # rich has replaced the streams of the terminal, so that printed lines appear above the bars. Handlers
        # that log to these streams follow, so that records do, too.
        self._redirected = [
            (handler, stream)
            for stream, replaced in zip(streams, (sys.stdout, sys.stderr), strict=True)
            if replaced is not stream
            for handler in _handlers_on(stream)
        ]
        for handler, stream in self._redirected:
            handler.setStream(sys.stdout if stream is streams[0] else sys.stderr)

    @property
    def room(self) -> int:
        """The height of the terminal, less the line of the cursor and one to spare."""
        return max(5, self._progress.console.height - 2)

    def draw(self, rows: Mapping[Path, Row]) -> None:
        if self._tasks.keys() != rows.keys():
            # rich can only append rows, and those of a nested pipeline belong below it: all are added again.
            for task in self._tasks.values():
                self._progress.remove_task(task)
            self._tasks.clear()
        for path, row in rows.items():
            style = "bold" if row.is_title else "red" if row.has_failed else "default"
            fields: dict[str, Any] = {f"cell{number}": cell for number, cell in enumerate(row.cells)}
            fields |= {"signs": row.signs, "settings": escape_markup(row.settings)}
            label = f"[{style}]{'  ' * row.depth}{escape_markup(row.label)}[/]"
            if path not in self._tasks:
                self._tasks[path] = self._progress.add_task(label, total=row.total, **fields)
            self._progress.update(
                self._tasks[path], description=label, total=row.total, completed=row.done, **fields
            )

    def close(self) -> None:
        self._progress.stop()
        for handler, stream in self._redirected:
            handler.setStream(stream)


def _handlers_on(stream: Any) -> list[logging.StreamHandler[Any]]:
    """Return the handlers of all loggers that log to a stream."""
    loggers = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    handlers = {handler for logger in loggers for handler in getattr(logger, "handlers", ())}
    return [
        handler
        for handler in handlers
        if isinstance(handler, logging.StreamHandler) and getattr(handler, "stream", None) is stream
    ]


class Lines(Display):
    """A line every few seconds for the outermost pipeline and each map: for CI, files, and logs of jobs."""

    def __init__(self) -> None:
        self._printed = monotonic()
        self._rows: Mapping[Path, Row] = {}

    def draw(self, rows: Mapping[Path, Row]) -> None:
        """Print lines, if the last ones are long enough ago."""
        self._rows = rows
        if monotonic() - self._printed >= LINE_INTERVAL_S:
            self._printed = monotonic()
            self._print()

    def close(self) -> None:
        """Print the final state."""
        self._print()

    def _print(self) -> None:
        titles = [path for path, row in self._rows.items() if row.is_title]
        maps = [path for path, row in self._rows.items() if row.is_map and path not in titles]
        for path in (*titles, *maps):
            row = self._rows[path]
            numbers = "  ".join(filter(None, (*row.cells, row.signs)))
            sys.stderr.write(f"{'/'.join(path)}: {numbers}\n")
            sys.stderr.flush()


class NotebookBars(Display):
    """A widget with a row for each bar, in Jupyter, JupyterLab and VS Code."""

    def __init__(self) -> None:
        from IPython.display import display
        from ipywidgets import GridBox, Layout

        self._cells: dict[Path, list[Any]] = {}
        columns = f"max-content minmax(6em, 16em) repeat({_NOTEBOOK_TEXTS - 2}, max-content) minmax(0, 1fr)"
        self._box = GridBox(layout=Layout(grid_template_columns=columns, grid_gap="0 1em", width="100%"))
        display(self._box)

    def draw(self, rows: Mapping[Path, Row]) -> None:
        from ipywidgets import HTML, FloatProgress, Layout

        cells: list[Any] = []
        for path, row in rows.items():
            if path not in self._cells:
                texts = [
                    HTML(layout=Layout(height="24px", margin="0", min_width="0"))
                    for _ in range(_NOTEBOOK_TEXTS)
                ]
                bar = FloatProgress(layout=Layout(width="auto", height="18px", margin="auto 0"))
                self._cells[path] = [texts[0], bar, *texts[1:]]
            label, bar, *others = self._cells[path]
            label.value = _html("\u2003" * row.depth + row.label, "font-weight: bold" if row.is_title else "")
            bar.max, bar.value = max(row.total or 0, 1), row.done if row.total is not None else 0
            is_done = row.total is not None and row.done >= row.total
            bar.bar_style = "danger" if row.has_failed else "success" if is_done else ""
            for cell, text in zip(others, (*row.cells, row.signs), strict=False):
                cell.value = _html(text, "text-align: right")
            others[-1].value = _html(row.settings, "opacity: .6; overflow: hidden; text-overflow: ellipsis")
            cells += self._cells[path]
        if list(self._box.children) != cells:
            self._box.children = cells

    def close(self) -> None:
        """Stop drawing; the bars stay as they were drawn last."""


def _html(text: str, style: str) -> str:
    escaped = escape(text)
    return f"<div title='{escaped}' style='white-space: pre; line-height: 24px; {style}'>{escaped}</div>"
