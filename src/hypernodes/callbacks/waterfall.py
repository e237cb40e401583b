"""A waterfall chart of a run: when each node was called, on which worker, and with which result."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path as File
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

from hypernodes.callbacks.notebook_chart import chart_html
from hypernodes.exceptions import import_extra
from hypernodes.text import seconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from plotly.graph_objects import Figure

    from hypernodes.callbacks.event import Worker

Path: TypeAlias = tuple[str, ...]
Result: TypeAlias = Literal["done", "cached", "retried", "failed", "abandoned"]

_MAX_CALLS: Final = 5000
"""Calls in one chart: browsers are slow to draw more."""
_ROW_PX: Final = 26
_LEGEND_ENTRY_PX: Final = 24
_MAX_ROWS: Final = 6
"""Rows of one node whose calls overlap."""
_COLOURS: Final[dict[Result, str]] = {
    "done": "#4c78a8",
    "cached": "#54a24b",
    "retried": "#eeae2c",
    "failed": "#d62728",
    "abandoned": "#8a94a3",
}
_KEPT_FIRST: Final = ("failed", "retried", "abandoned")
"""Results of calls that a chart shows whatever time they took."""
_SIGNS: Final = {"done": "", "cached": "⚡ ", "retried": "↻ ", "failed": "✗ ", "abandoned": "◌ "}
_SYMBOLS: Final = {"cached": "diamond", "retried": "circle", "failed": "x", "abandoned": "circle-open"}
_NESTED_COLOUR: Final = "#b8bec9"
_NODE_COLOURS: Final = (
    "#4c78a8", "#f58518", "#72b7b2", "#b279a2", "#9d755d", "#ff9da6", "#439894", "#d6a5c9", "#79706e",
)  # fmt: skip


class CallBar(NamedTuple):
    """One call of a node, or one run of a nested pipeline."""

    path: Path
    item: tuple[int, ...]
    start: float  # in seconds since the epoch
    end: float
    worker: Worker
    result: Result
    is_nested: bool = False

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.end - self.start


class Calls:
    """The calls of a run; of very many, those that failed, were retried, or took longest."""

    def __init__(self) -> None:
        # Each with its rank and its number, as a plain tuple: a `CallBar` is made when it is read.
        self._kept: list[tuple[tuple[bool, float], int, tuple[Any, ...]]] = []
        self.total = 0  # the number of calls, with those that are not kept

    def add(
        self,
        path: Path,
        item: tuple[int, ...],
        start: float,
        end: float,
        worker: Worker,
        result: Result,
        *,
        is_nested: bool,
    ) -> None:
        """Add a call, as `CallBar` has it."""
        self.total += 1
        rank = is_nested or result in _KEPT_FIRST, end - start
        is_full = len(self._kept) >= _MAX_CALLS
        if is_full and rank < self._kept[0][0]:
            return
        entry = rank, self.total, (path, item, start, end, worker, result, is_nested)
        if is_full:
            heapq.heapreplace(self._kept, entry)
        else:
            heapq.heappush(self._kept, entry)

    def __iter__(self) -> Iterator[CallBar]:
        calls = (CallBar(*call) for _, _, call in self._kept)
        return iter(sorted(calls, key=lambda call: (call.start, call.end)))

    def __len__(self) -> int:
        return len(self._kept)


@dataclass(frozen=True, slots=True)
class _Row:
    """One row of the chart."""

    label: str  # empty for a row that continues the one above
    calls: list[CallBar]  # they do not overlap unless there are too many


class Waterfall:
    """A chart of a run: a row for each node, or for each worker, and a bar for each call.

    Args:
        title: The title.
        calls: The calls to show.
        order: The paths of the nodes, in the order of their rows.
        by: Whether rows are nodes or workers.
        total: The number of calls of the run, if `calls` are not all of them.

    Raises:
        ExtraMissingError: plotly is not installed.
        ValueError: `by` is neither ``"node"`` nor ``"worker"``.

    Attributes:
        figure: The chart as a figure of plotly; it may be changed.
    """

    def __init__(
        self,
        title: str,
        calls: Iterable[CallBar],
        order: Sequence[Path],
        by: Literal["node", "worker"] = "node",
        total: int | None = None,
    ) -> None:
        if by not in ("node", "worker"):
            raise ValueError(f"by must be 'node' or 'worker', not {by!r}")
        import_extra("plotly.graph_objects", "a waterfall needs plotly", "plotly", "viz")
        shown = list(calls)
        rows = list(_by_node(shown, order) if by == "node" else _by_worker(shown))
        if total is not None and total > len(shown):
            title += f" (the {len(shown):,} of {total:,} calls that failed, were retried, or took longest)"
        self.figure: Figure = _figure(title, rows, shown, by)

    def save(self, filename: str | File) -> File:
        """Write the chart as a page that needs no other files, and no network.

        Args:
            filename: The file to write, such as ``"run.html"``.

        Returns:
            The file.
        """
        file = File(filename)
        self.figure.write_html(file, include_plotlyjs=True)
        return file

    def _repr_html_(self) -> str:
        return chart_html(self.figure)


def _by_node(calls: list[CallBar], order: Sequence[Path]) -> Iterator[_Row]:
    by_path: dict[Path, list[CallBar]] = {path: [] for path in order}
    for call in calls:
        by_path.setdefault(call.path, []).append(call)
    for path, calls_of_node in by_path.items():
        if calls_of_node:
            yield from _rows_of("/".join(path[1:]), calls_of_node)


def _by_worker(calls: list[CallBar]) -> Iterator[_Row]:
    by_worker: dict[Worker, list[CallBar]] = {}
    for call in calls:
        if not call.is_nested:  # the nodes in it are on the rows of the workers that called them
            by_worker.setdefault(call.worker, []).append(call)
    hosts = {worker.host for worker in by_worker}
    for worker in sorted(by_worker):
        host = f"{worker.host} " if len(hosts) > 1 else ""
        yield from _rows_of(f"{host}{worker.pid} {worker.thread}", by_worker[worker])


def _rows_of(label: str, calls: list[CallBar]) -> Iterator[_Row]:
    """Put calls that overlap on rows of their own, up to a number of rows."""
    rows: list[list[CallBar]] = []
    for call in calls:
        free = next((row for row in rows if row[-1].end <= call.start + 1e-6), None)
        if free is None and len(rows) < _MAX_ROWS:
            free = []
            rows.append(free)
        (free if free is not None else min(rows, key=lambda row: row[-1].end)).append(call)
    for number, row in enumerate(rows):
        yield _Row("" if number else label, row)


def _figure(title: str, rows: list[_Row], calls: list[CallBar], by: str) -> Figure:
    import plotly.graph_objects as go

    began = min((call.start for call in calls), default=0.0)
    colours = dict(zip(dict.fromkeys(call.path for call in calls), cycle(_NODE_COLOURS), strict=False))
    # The calls of each entry of the legend, with the number of their row: as bars, and as markers.
    bars: dict[tuple[str, str], list[tuple[int, CallBar]]] = {}
    markers: dict[Result, list[tuple[int, CallBar]]] = {}
    for number, row in enumerate(rows):
        for call in row.calls:
            if call.result != "cached":  # a cache hit takes no time
                bars.setdefault(_entry(call, by, colours), []).append((number, call))
            if call.result == "cached" or (by == "worker" and call.result != "done"):
                markers.setdefault(call.result, []).append((number, call))
    figure = go.Figure()
    for (name, colour), numbered in bars.items():
        figure.add_bar(
            orientation="h",
            name=name,
            y=[number for number, _ in numbered],
            x=[call.seconds for _, call in numbered],
            base=[call.start - began for _, call in numbered],
            width=0.72,
            hovertext=[_hover_text(call, began) for _, call in numbered],
            hoverinfo="text",
            marker={"color": colour, "line": {"width": 0.5, "color": "white"}},
        )
    for result, numbered in markers.items():
        figure.add_scatter(
            mode="markers",
            name=f"{_SIGNS[result]}{result}",
            y=[number for number, _ in numbered],
            x=[(call.start + call.end) / 2 - began for _, call in numbered],
            hovertext=[_hover_text(call, began) for _, call in numbered],
            hoverinfo="text",
            marker={"symbol": _SYMBOLS[result], "color": _COLOURS[result], "size": 11},
            marker_line={"width": 1.5, "color": "white"},
        )
    figure.update_layout(
        title={"text": _escaped(title), "x": 0.01, "y": 1, "yref": "container", "yanchor": "top"},
        title_pad={"t": 16},
        barmode="overlay",
        template="plotly_white",
        height=110 + max(_ROW_PX * max(3, len(rows)), _LEGEND_ENTRY_PX * (len(bars) + len(markers))),
        margin={"l": 10, "r": 20, "t": 60, "b": 50},
        showlegend=True,
        xaxis={"title": "seconds since the start", "rangemode": "tozero"},
        yaxis={
            "tickvals": [number for number, row in enumerate(rows) if row.label],
            "ticktext": [_escaped(row.label) for row in rows if row.label],
            "range": [len(rows) - 0.4, -0.6],
            "automargin": True,
            "showgrid": False,
            "zeroline": False,
            "ticks": "outside",
            "ticklen": 6,
            "tickcolor": "rgba(0, 0, 0, 0)",
        },
    )
    return figure


def _entry(call: CallBar, by: str, colours: dict[Path, str]) -> tuple[str, str]:
    """Return the legend entry of a call, and its colour."""
    if by == "worker":
        return _escaped("/".join(call.path[1:])), colours[call.path]
    if call.is_nested and call.result == "done":
        return "pipeline", _NESTED_COLOUR
    return f"{_SIGNS[call.result]}{call.result}", _COLOURS[call.result]


def _hover_text(call: CallBar, began: float) -> str:
    item = f", item {'.'.join(map(str, call.item))}" if call.item else ""
    lines = [
        f"<b>{_escaped('/'.join(call.path))}</b>{item}",
        f"{_SIGNS[call.result]}{call.result}, {seconds(call.seconds)}, after {seconds(call.start - began)}",
        _escaped(f"{call.worker.host} · process {call.worker.pid} · {call.worker.thread}"),
    ]
    return "<br>".join(lines)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
