"""The verdicts of `Pipeline.explain` as a table, for a terminal and for a notebook."""

from __future__ import annotations

from html import escape
from io import StringIO
from typing import TYPE_CHECKING, Protocol

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape as escape_markup
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence


class _Verdict(Protocol):
    """The verdict on one node, as `hypernodes.execution.explain` gives it."""

    @property
    def node(self) -> str: ...
    @property
    def path(self) -> tuple[str, ...]: ...
    @property
    def kind(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def is_needed(self) -> bool: ...
    @property
    def because(self) -> str: ...


def rich_table(rows: Sequence[_Verdict]) -> Table:
    """Return verdicts as a coloured table for a terminal."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for title in ("node", "cache", "why"):
        table.add_column(title, overflow="fold")
    for row in rows:
        style = "dim" if not row.is_needed else _TERMINAL_COLOURS.get(row.kind, "yellow")
        table.add_row(escape_markup(_name(row)), f"[{style}]{row.status}[/]", escape_markup(_why(row)))
    return table


def as_text(rows: Sequence[_Verdict]) -> str:
    """Return verdicts as a table in plain text."""
    text = StringIO()
    console = Console(
        file=text, width=110, no_color=True, legacy_windows=False, force_jupyter=False, force_terminal=False
    )
    console.print(rich_table(rows))
    return "\n".join(line[1:].rstrip() for line in text.getvalue().splitlines() if line.strip())


def as_html(rows: Sequence[_Verdict]) -> str:
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


def _name(row: _Verdict) -> str:
    return "/".join((*row.path[1:], row.node))


def _why(row: _Verdict) -> str:
    return "; ".join(filter(None, (row.because, "" if row.is_needed else "not needed")))


_TERMINAL_COLOURS = {"hit": "green", "miss": "red", "not cached": "yellow", "open": "cyan"}
_HTML_COLOURS = {"hit": "green", "miss": "crimson", "not cached": "#b8860b", "open": "teal"}
