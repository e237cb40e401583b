"""How the commands print: tables, JSON, amounts."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


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
    """Print rows in columns, some of them flush right."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from hypernodes.cache.about import printable

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_header=any(titles), show_footer=total is not None)
    for position, title in enumerate(titles):
        table.add_column(
            title,
            footer="" if total is None else total[position],
            justify="right" if position in right else "left",
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))  # who wrote the entries is not known
    # Into a pipe goes all of it, however wide.
    console = Console(width=None if "COLUMNS" in os.environ or os.isatty(1) else 160)
    console.print(table)


def as_bytes(size: float) -> str:
    """Return an amount of bytes as people read it."""
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def as_seconds(seconds: float) -> str:
    """Return a duration as people read it."""
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"


def ago(moment: float) -> str:
    """Return how long ago a moment was."""
    seconds = max(0.0, time.time() - moment)
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
