"""What a run would find in the cache, node by node, and how that is shown in a terminal and in a notebook."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from io import StringIO
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from hypernodes.exceptions import listing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from rich.table import Table

    from hypernodes.cache.compare import Change

Status: TypeAlias = Literal["hit", "miss", "not cached", "open"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a run would find of one node.

    Attributes:
        node: The name of the node.
        path: The ids of the pipelines around it, the outermost first.
        counts: How often it is a ``"hit"``, a ``"miss"``, ``"not cached"``, or ``"open"``: it is known
            only once something that it takes is computed. More than one in all within a map.
        is_needed: Whether the run would look at it at all; what a hit makes unnecessary is not.
        because: Why it is not a hit, the first time it is not.
        changes: In what it differs from the most similar entry, the first time it is a miss.
        signature: Its signature, the first time; empty where it has none.
    """

    node: str
    path: tuple[str, ...]
    counts: Mapping[Status, int]
    is_needed: bool
    because: str = ""
    changes: tuple[Change, ...] = ()
    signature: str = ""

    @property
    def kind(self) -> Status | Literal["mixed"]:
        """Its status, where it is the same each time."""
        return next(iter(self.counts)) if len(self.counts) == 1 else "mixed"

    @property
    def status(self) -> str:
        """In a word, or in numbers where there are several."""
        if sum(self.counts.values()) == 1:
            return self.kind
        return ", ".join(f"{times} {status}" for status, times in self.counts.items())


class Explanation:
    """What a run would find in the cache, node by node.

    It prints as a table, and shows as one in a notebook. ``explanation["embed"]`` is the verdict on a
    node; iterating gives all of them, in the order in which they run.
    """

    def __init__(self, verdicts: Iterable[Verdict]) -> None:
        self.verdicts: tuple[Verdict, ...] = tuple(verdicts)

    def __iter__(self) -> Iterator[Verdict]:
        return iter(self.verdicts)

    def __len__(self) -> int:
        return len(self.verdicts)

    def __getitem__(self, node: str) -> Verdict:
        for verdict in self.verdicts:
            if node in (verdict.node, "/".join((*verdict.path, verdict.node))):
                return verdict
        names = listing([verdict.node for verdict in self.verdicts])
        raise KeyError(f"no node is named {node!r}; the nodes are {names}")

    def __rich__(self) -> Any:
        return _rich_table(self.verdicts)

    def __repr__(self) -> str:
        return _as_text(self.verdicts)

    def _repr_html_(self) -> str:
        return _as_html(self.verdicts)


def _rich_table(rows: Sequence[Verdict]) -> Table:
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


def _as_text(rows: Sequence[Verdict]) -> str:
    """Return verdicts as a table in plain text."""
    from rich.console import Console

    text = StringIO()
    console = Console(
        file=text, width=110, no_color=True, legacy_windows=False, force_jupyter=False, force_terminal=False
    )
    console.print(_rich_table(rows))
    return "\n".join(line[1:].rstrip() for line in text.getvalue().splitlines() if line.strip())


def _as_html(rows: Sequence[Verdict]) -> str:
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


def _name(row: Verdict) -> str:
    return "/".join((*row.path[1:], row.node))


def _why(row: Verdict) -> str:
    return "; ".join(filter(None, (row.because, "" if row.is_needed else "not needed")))


_TERMINAL_COLOURS = {"hit": "green", "miss": "red", "not cached": "yellow", "open": "cyan"}


_HTML_COLOURS = {"hit": "green", "miss": "crimson", "not cached": "#b8860b", "open": "teal"}
