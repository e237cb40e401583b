"""The verdicts of `Pipeline.explain` as a table, for a terminal and for a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any, Protocol


class Row(Protocol):
    """The verdict on one node."""

    @property
    def node(self) -> str:
        """The name of the node."""

    @property
    def path(self) -> tuple[str, ...]:
        """The enclosing pipelines."""

    @property
    def kind(self) -> str:
        """The verdict in one word or two: hit, miss, mixed, not cached, open."""

    @property
    def status(self) -> str:
        """The verdict, with counts if there are several items."""

    @property
    def is_needed(self) -> bool:
        """Whether a run would look the node up."""

    @property
    def because(self) -> str:
        """The reason why it is not a hit."""


def rich_table(rows: Sequence[Row]) -> Any:
    """Return verdicts as a coloured table for a terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape as escape_markup
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for title in ("node", "cache", "why"):
        table.add_column(title, overflow="fold")
    for row in rows:
        style = "dim" if not row.is_needed else _TERMINAL_COLOURS.get(row.kind, "yellow")
        table.add_row(escape_markup(_name(row)), f"[{style}]{row.status}[/]", escape_markup(_why(row)))
    return table


def as_text(rows: Sequence[Row], width: int = 110) -> str:
    """Return verdicts as a table in plain text."""
    from io import StringIO

    from rich.console import Console

    text = StringIO()
    console = Console(
        file=text, width=width, no_color=True, legacy_windows=False, force_jupyter=False, force_terminal=False
    )
    console.print(rich_table(rows))
    return "\n".join(line[1:].rstrip() for line in text.getvalue().splitlines() if line.strip())


def as_html(rows: Sequence[Row]) -> str:
    """Return verdicts as an HTML table for a notebook."""
    cells = "".join(
        f'<tr style="{"opacity:0.55" if not row.is_needed else ""}">'
        f'<td style="text-align:left"><code>{escape(_name(row))}</code></td>'
        f'<td style="text-align:left;color:{_HTML_COLOURS.get(row.kind, "#b8860b")}">'
        f"{escape(row.status)}</td>"
        f'<td style="text-align:left">{escape(_why(row))}</td></tr>'
        for row in rows
    )
    head = "".join(f'<th style="text-align:left">{title}</th>' for title in ("node", "cache", "why"))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{cells}</tbody></table>"


def _name(row: Row) -> str:
    return "/".join((*row.path[1:], row.node))


def _why(row: Row) -> str:
    return "; ".join(filter(None, (row.because, "" if row.is_needed else "not needed")))


_TERMINAL_COLOURS = {"hit": "green", "miss": "red", "not cached": "yellow", "open": "cyan"}
_HTML_COLOURS = {"hit": "green", "miss": "crimson", "not cached": "#b8860b", "open": "teal"}
