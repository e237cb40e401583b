"""What commands print: JSON, tables, sizes and times."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any, Final

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hypernodes.cache.summary import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_MAX_CELL_LENGTH: Final = 5000
"""Characters. Formatting a forged name of many megabytes would take minutes."""


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    click.echo(json.dumps(value, indent=2))


def print_table(
    titles: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    total: Sequence[str] | None = None,
    right: Sequence[int] = (),
) -> None:
    """Print rows in columns, some of them aligned to the right, and a last row set off from the others.

    Without any title, there is no header. Control characters in cells are replaced.
    """
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_header=any(titles), show_footer=total is not None)
    for position, title in enumerate(titles):
        table.add_column(
            title,
            footer="" if total is None else total[position],
            justify="right" if position in right else "left",
            overflow="fold",
        )
    for row in rows:
        # Cells come from cache entries, which another user may have written with control characters.
        table.add_row(*(Text(printable(cell[:_MAX_CELL_LENGTH])) for cell in row))
    # Output to a pipe is not cut to the width of a terminal.
    console = Console(width=None if "COLUMNS" in os.environ or os.isatty(1) else 160)
    console.print(table)


def as_bytes(size: float) -> str:
    """Return a number of bytes with a unit that suits its size."""
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def as_seconds(seconds: float) -> str:
    """Return a duration in seconds with a unit that suits its size."""
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"


def ago(moment: float) -> str:
    """Return the time since a moment, given in seconds since the epoch."""
    seconds = max(0.0, time.time() - moment)
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
