"""Where progress is drawn: in a terminal, in a notebook, or as lines."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from html import escape
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from hypernodes.exceptions import ExtraMissingError

if TYPE_CHECKING:
    from collections.abc import Mapping

Path = tuple[str, ...]

_WIDE = 100  # columns from which on bars are long
_LINE = 5.0  # seconds between lines where there is no terminal


@dataclass(frozen=True, slots=True)
class Row:
    """One bar.

    Attributes:
        label: What stands before it.
        depth: How far it is indented.
        done: How much is done.
        total: Of how much; ``None`` if nobody knows.
        cells: How much is done, the time it took, the rate, and the time that is left, as text.
        signs: What was cached, retried and failed, as text.
        settings: The engine and the cache, as text.
        has_failed: Whether something has failed.
        is_title: Whether it is the outermost pipeline.
        is_map: Whether it is a map.
    """

    label: str
    depth: int
    done: int = 0
    total: int | None = None
    cells: tuple[str, str, str, str] = ("", "", "", "")
    signs: str = ""
    settings: str = ""
    has_failed: bool = False
    is_title: bool = False
    is_map: bool = False


class Display(Protocol):
    """Where bars are drawn."""

    @classmethod
    def check(cls) -> None:
        """Complain about a library that is not installed."""

    @property
    def room(self) -> int:
        """How many rows it has room for."""
        return 40

    def draw(self, rows: Mapping[Path, Row]) -> None:
        """Bring the bars up to date; they are in the order in which they are read."""

    def close(self) -> None:
        """Leave the bars as they are."""


class TerminalBars(Display):
    """Bars of rich, on standard error."""

    @classmethod
    def check(cls) -> None:
        """Complain if rich is not installed."""
        try:
            import rich  # noqa: F401
        except ImportError as error:
            raise ExtraMissingError(
                "progress in a terminal needs rich: pip install rich, or this package with "
                "its extra 'progress'"
            ) from error

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.table import Column

        def text(field: str, justify: Any = "left", **options: Any) -> TextColumn:
            column = Column(no_wrap=True, **options)
            return TextColumn(f"{{task.fields[{field}]}}", justify=justify, table_column=column)

        console = Console(file=sys.stderr)
        # What gives way where the terminal is narrow: settings, long names, the bar; never the numbers.
        name = Column(no_wrap=True, overflow="ellipsis", max_width=max(12, console.width // 4))
        self._progress = Progress(
            TextColumn("{task.description}", table_column=name),
            BarColumn(bar_width=24 if console.width >= _WIDE else 10, table_column=Column(no_wrap=True)),
            *(text(f"cell{number}", "right") for number in range(4)),
            text("signs"),
            text("settings", overflow="ellipsis", ratio=1, style="dim"),
            console=console,
            redirect_stdout=sys.stdout.isatty(),  # what goes to a file goes on going there
            expand=True,
        )
        self._tasks: dict[Path, Any] = {}
        streams = sys.stdout, sys.stderr
        self._progress.start()
        # What is logged to the terminal goes above the bars, as what is printed does.
        self._moved = [
            (handler, stream)
            for stream, now in zip(streams, (sys.stdout, sys.stderr), strict=True)
            if now is not stream
            for handler in _handlers_on(stream)
        ]
        for handler, stream in self._moved:
            handler.setStream(sys.stdout if stream is streams[0] else sys.stderr)

    @property
    def room(self) -> int:
        """How many rows the terminal has, less one for the cursor."""
        return max(5, self._progress.console.height - 2)

    def draw(self, rows: Mapping[Path, Row]) -> None:
        """Bring the bars up to date."""
        from rich.markup import escape

        if self._tasks.keys() != rows.keys():
            # A nested pipeline is known once it starts; its rows belong below it, not at the end.
            for task in self._tasks.values():
                self._progress.remove_task(task)
            self._tasks.clear()
        for path, row in rows.items():
            style = "bold" if row.is_title else "red" if row.has_failed else "default"
            fields: dict[str, Any] = {f"cell{number}": cell for number, cell in enumerate(row.cells)}
            fields |= {"signs": row.signs, "settings": escape(row.settings)}
            label = f"[{style}]{'  ' * row.depth}{escape(row.label)}[/]"
            if path not in self._tasks:
                self._tasks[path] = self._progress.add_task(label, total=row.total, **fields)
            self._progress.update(
                self._tasks[path], description=label, total=row.total, completed=row.done, **fields
            )

    def close(self) -> None:
        """Leave the bars as they are."""
        self._progress.stop()
        for handler, stream in self._moved:
            handler.setStream(stream)


def _handlers_on(stream: Any) -> list[logging.StreamHandler[Any]]:
    """Return the handlers of all loggers that write to a stream."""
    known = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    handlers = {handler for logger in known for handler in getattr(logger, "handlers", ())}
    return [
        handler
        for handler in handlers
        if isinstance(handler, logging.StreamHandler) and getattr(handler, "stream", None) is stream
    ]


class Lines(Display):
    """A line every few seconds: for CI, files, and the logs of jobs."""

    def __init__(self) -> None:
        self._printed = monotonic()
        self._rows: Mapping[Path, Row] = {}

    def draw(self, rows: Mapping[Path, Row]) -> None:
        """Print a line, if it is time to."""
        self._rows = rows
        if monotonic() - self._printed >= _LINE:
            self._printed = monotonic()
            self._print()

    def close(self) -> None:
        """Print how it has ended."""
        self._print()

    def _print(self) -> None:
        whole = [path for path, row in self._rows.items() if row.is_title]
        maps = [path for path, row in self._rows.items() if row.is_map and path not in whole]
        for path in (*whole, *maps):
            row = self._rows[path]
            told = "  ".join(filter(None, (*row.cells, row.signs)))
            print("/".join(path), told, sep=": ", file=sys.stderr, flush=True)  # noqa: T201


class NotebookBars(Display):
    """A widget with a row for each bar, in Jupyter, JupyterLab and VS Code."""

    @classmethod
    def check(cls) -> None:
        """Complain if ipywidgets is not installed."""
        try:
            import ipywidgets  # noqa: F401
        except ImportError as error:
            raise ExtraMissingError(
                "progress in a notebook needs ipywidgets: pip install ipywidgets, or this package with its "
                "extra 'notebook'"
            ) from error

    def __init__(self) -> None:
        from IPython.display import display
        from ipywidgets import GridBox, Layout

        self._cells: dict[Path, list[Any]] = {}
        columns = f"max-content minmax(6em, 16em) repeat({_TEXTS - 2}, max-content) minmax(0, 1fr)"
        self._box = GridBox(layout=Layout(grid_template_columns=columns, grid_gap="0 1em", width="100%"))
        display(self._box)

    def draw(self, rows: Mapping[Path, Row]) -> None:
        """Bring the bars up to date."""
        from ipywidgets import HTML, FloatProgress, Layout

        shown: list[Any] = []
        for path, row in rows.items():
            if path not in self._cells:
                texts = [HTML(layout=Layout(height="24px", margin="0", min_width="0")) for _ in range(_TEXTS)]
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
            shown += self._cells[path]
        if list(self._box.children) != shown:
            self._box.children = shown

    def close(self) -> None:
        """Leave the bars as they are."""


_TEXTS = 7  # cells of a row in a notebook, the bar left out


def _html(text: str, style: str) -> str:
    told = escape(text)
    return f"<div title='{told}' style='white-space: pre; line-height: 24px; {style}'>{told}</div>"
