"""A run record as text, as a table in a notebook, and as a page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from typing import Final

from hypernodes.callbacks.run_record import RunRecord
from hypernodes.text import seconds, short

_COLUMNS: Final = ("node", "runs", "⚡ cached", "↻ retried", "✗ failed", "in all", "each", "slowest")
_MAX_ERRORS: Final = 5
_STYLE: Final = (
    "body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; "
    "color: #1d2733 } table { border-collapse: collapse } caption { text-align: left; font-weight: 600; "
    "padding-bottom: .5rem } td, th { padding: .2rem .9rem; text-align: right; "
    "border-bottom: 1px solid #e3e7ee } th:first-child { text-align: left } "
    "h2 { font-size: 1rem; margin: 2rem 0 0 }"
)


def title_of(record: RunRecord) -> str:
    """Return the title: the pipeline, how long it took, and how many items and failures there were."""
    took = "not finished" if record.seconds is None else seconds(record.seconds)
    items = f", {record.items} items" if record.items else ""
    cached = f", {record.cached_items} of them cached" if record.cached_items else ""
    failed = f", {record.failed_calls} failed" if record.failed_calls else ""
    return f"{record.name}: {took}{items}{cached}{failed}"


def as_text(record: RunRecord) -> str:
    """Return the table of nodes as text, and the remarks below it."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title_of(record)), title_justify="left", title_style="bold")
    for column in _COLUMNS:
        table.add_column(column, justify="left" if column == "node" else "right", no_wrap=column != "node")
    for row in _rows(record):
        table.add_row(*map(Text, row))
    console = Console(width=120, force_jupyter=False, force_terminal=False)
    with console.capture() as captured:
        console.print(table)
    return "\n".join([*map(str.rstrip, captured.get().rstrip().splitlines()), *_remarks(record)])


def as_html(record: RunRecord) -> str:
    """Return the table of nodes as HTML, and the remarks below it."""
    head = "".join(f"<th>{escape(column)}</th>" for column in _COLUMNS)
    rows = "".join(
        f"<tr><td style='text-align: left; white-space: pre'>{escape(name)}</td>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        + "</tr>"
        for name, *cells in _rows(record)
    )
    remarks = "".join(f"<p>{escape(remark)}</p>" for remark in _remarks(record))
    return f"<table><caption>{escape(title_of(record))}</caption><tr>{head}</tr>{rows}</table>{remarks}"


def as_page(title: str, table: str, charts: Iterable[tuple[str, str]]) -> str:
    """Return a page that needs no other files."""
    sections = "".join(f"<h2>{escape(heading)}</h2>{chart}" for heading, chart in charts)
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{escape(title)}</title>"
        f"<style>{_STYLE}</style><body>{table}{sections}</body></html>"
    )


def _rows(record: RunRecord) -> Iterator[tuple[str, ...]]:
    for path in record.paths_in_order():
        node = record.nodes[path]
        counts = (node.runs, node.cached, node.retried, node.failed)
        times = (node.seconds, node.mean, node.slowest)
        yield (
            "  " * (len(path) - 2) + path[-1],
            *(str(count) if count else "" for count in counts),
            *(seconds(time) if node.runs else "" for time in times),
        )


def _remarks(record: RunRecord) -> Iterator[str]:
    chain = [node for node in record.critical_path() if not node.is_nested]
    if chain:
        slowest = max(chain, key=lambda node: node.seconds)
        names = " → ".join(f"{node.path[-1]} {seconds(node.seconds)}" for node in chain)
        yield f"critical path: {names}; most of it is {slowest.path[-1]}"
    for failure in record.failures[:_MAX_ERRORS]:
        item = f", item {'.'.join(map(str, failure.item))}," if failure.item else ""
        yield f"{'/'.join(failure.path)}{item} failed: {short(failure.error, 100)}"
    abandoned = ["/".join(node.path) for node in record.nodes.values() if node.abandoned]
    if abandoned:
        yield f"abandoned when the run ended: {', '.join(abandoned)}"
