"""A run as a waterfall: when each node was called, by whom, and what came of it."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from itertools import count, cycle
from pathlib import Path as File
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

from hypernodes.exceptions import ExtraMissingError
from hypernodes.text import seconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from plotly.graph_objects import Figure

    from hypernodes.callbacks.event import Worker

Path = tuple[str, ...]
What: TypeAlias = Literal["done", "cached", "retried", "failed"]

_MOST: Final = 5000  # bars of one chart: browsers draw as many at once
_ROW: Final = 26  # pixels
_ENTRY: Final = 24  # pixels; of the legend
_LANES: Final = 6  # rows of one node at most, where its calls overlap
_COLOURS: Final[dict[What, str]] = {
    "done": "#4c78a8",
    "cached": "#54a24b",
    "retried": "#eeae2c",
    "failed": "#d62728",
}
_SIGNS: Final[dict[What, str]] = {"done": "", "cached": "⚡ ", "retried": "↻ ", "failed": "✗ "}
_SYMBOLS: Final[dict[What, str]] = {"cached": "diamond", "retried": "circle", "failed": "x"}
_NESTED: Final = "#b8bec9"
_OF_NODES: Final = (
    "#4c78a8", "#f58518", "#72b7b2", "#b279a2", "#9d755d", "#ff9da6", "#439894", "#d6a5c9", "#79706e",
)  # fmt: skip


class Bar(NamedTuple):
    """One call of a node, or one run of a nested pipeline.

    Attributes:
        path: The pipelines around it, and its name.
        item: The item indices of the maps around.
        start: In seconds since the epoch.
        end: In seconds since the epoch.
        worker: Who made it.
        what: What came of it.
        is_nested: Whether it is a nested pipeline.
    """

    path: Path
    item: tuple[int, ...]
    start: float
    end: float
    worker: Worker
    what: What
    is_nested: bool = False

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.end - self.start


class Bars:
    """The bars of a run; of many, those that matter are kept: what failed, was retried, or took longest."""

    def __init__(self) -> None:
        self._numbers = count()
        self._kept: list[tuple[tuple[bool, float], int, Bar]] = []
        self.total = 0

    def add(self, bar: Bar) -> None:
        """Take a bar."""
        self.total += 1
        entry = ((bar.what in ("failed", "retried") or bar.is_nested, bar.seconds), next(self._numbers), bar)
        if len(self._kept) < _MOST:
            heapq.heappush(self._kept, entry)
        elif entry > self._kept[0]:
            heapq.heapreplace(self._kept, entry)

    def __iter__(self) -> Iterator[Bar]:
        return iter(sorted((bar for _, _, bar in self._kept), key=lambda bar: (bar.start, bar.end)))

    def __len__(self) -> int:
        return len(self._kept)


@dataclass(frozen=True, slots=True)
class _Row:
    """Bars that stand behind each other.

    Attributes:
        label: What stands beside it; nothing where it goes on with the row above.
        bars: The bars, which do not overlap where that can be helped.
    """

    label: str
    bars: list[Bar]


class Waterfall:
    """A chart of a run: a row for each node, or for each worker, and a bar for each call.

    Args:
        title: What stands above it.
        bars: The bars.
        order: The nodes in the order of their rows.
        by: Whether the rows are nodes or workers.
        total: How many calls there were, of which `bars` are those that matter most.

    Raises:
        ExtraMissingError: plotly is not installed.
        ValueError: `by` is none of the two.

    Attributes:
        figure: The chart as a figure of plotly, which can be changed.
    """

    def __init__(
        self,
        title: str,
        bars: Iterable[Bar],
        order: Sequence[Path],
        by: Literal["node", "worker"] = "node",
        total: int | None = None,
    ) -> None:
        if by not in ("node", "worker"):
            raise ValueError(f"by is 'node' or 'worker': {by!r}")
        try:
            import plotly.graph_objects  # noqa: F401
        except ImportError as error:
            raise ExtraMissingError(
                "a waterfall needs plotly: pip install plotly, or this package with its extra 'viz'"
            ) from error
        shown = list(bars)
        rows = list(_by_node(shown, order) if by == "node" else _by_worker(shown))
        if total is not None and total > len(shown):
            title += f" (the {len(shown):,} of {total:,} calls that failed, were retried, or took longest)"
        self.figure: Figure = _figure(title, rows, shown, by)

    def save(self, filename: str | File) -> File:
        """Write the chart as a page that needs nothing else, and no network.

        Args:
            filename: Where to, as ``"run.html"``.

        Returns:
            The file.
        """
        file = File(filename)
        self.figure.write_html(file, include_plotlyjs=True)
        return file

    def _repr_html_(self) -> str:
        text: str = self.figure.to_html(full_html=False, include_plotlyjs=True)
        return text


def _by_node(bars: list[Bar], order: Sequence[Path]) -> Iterator[_Row]:
    found: dict[Path, list[Bar]] = {path: [] for path in order}
    for bar in bars:
        found.setdefault(bar.path, []).append(bar)
    for path, its in found.items():
        if its:
            yield from _in_lanes("/".join(path[1:]), its)


def _by_worker(bars: list[Bar]) -> Iterator[_Row]:
    found: dict[Worker, list[Bar]] = {}
    for bar in bars:
        if not bar.is_nested:  # its nodes are on the rows of those who call them
            found.setdefault(bar.worker, []).append(bar)
    hosts = {worker.host for worker in found}
    for worker in sorted(found):
        host = f"{worker.host} " if len(hosts) > 1 else ""
        yield from _in_lanes(f"{host}{worker.pid} {worker.thread}", found[worker])


def _in_lanes(label: str, bars: list[Bar]) -> Iterator[_Row]:
    """Put bars that overlap on rows of their own, as long as there are few."""
    lanes: list[list[Bar]] = []
    for bar in bars:
        free = next((lane for lane in lanes if lane[-1].end <= bar.start + 1e-6), None)
        if free is None and len(lanes) < _LANES:
            free = []
            lanes.append(free)
        (free if free is not None else min(lanes, key=lambda lane: lane[-1].end)).append(bar)
    for number, lane in enumerate(lanes):
        yield _Row("" if number else label, lane)


def _figure(title: str, rows: list[_Row], bars: list[Bar], by: str) -> Figure:
    import plotly.graph_objects as go

    began = min((bar.start for bar in bars), default=0.0)
    colours = dict(zip(dict.fromkeys(bar.path for bar in bars), cycle(_OF_NODES), strict=False))
    drawn: dict[tuple[str, str], list[tuple[int, Bar]]] = {}
    marked: dict[What, list[tuple[int, Bar]]] = {}
    for at, row in enumerate(rows):
        for bar in row.bars:
            if bar.what != "cached":  # which takes no time
                drawn.setdefault(_entry(bar, by, colours), []).append((at, bar))
            if bar.what == "cached" or (by == "worker" and bar.what != "done"):
                marked.setdefault(bar.what, []).append((at, bar))
    figure = go.Figure()
    for (name, colour), its in drawn.items():
        figure.add_bar(
            orientation="h",
            name=name,
            y=[at for at, _ in its],
            x=[bar.seconds for _, bar in its],
            base=[bar.start - began for _, bar in its],
            width=0.72,
            hovertext=[_hover(bar, began) for _, bar in its],
            hoverinfo="text",
            marker={"color": colour, "line": {"width": 0.5, "color": "white"}},
        )
    for what, its in marked.items():
        figure.add_scatter(
            mode="markers",
            name=f"{_SIGNS[what]}{what}",
            y=[at for at, _ in its],
            x=[(bar.start + bar.end) / 2 - began for _, bar in its],
            hovertext=[_hover(bar, began) for _, bar in its],
            hoverinfo="text",
            marker={
                "symbol": _SYMBOLS[what],
                "color": _COLOURS[what],
                "size": 11,
                "line": {"width": 1.5, "color": "white"},
            },
        )
    figure.update_layout(
        title={
            "text": _text(title),
            "x": 0.01,
            "y": 1,
            "yref": "container",
            "yanchor": "top",
            "pad": {"t": 16},
        },
        barmode="overlay",
        template="plotly_white",
        height=110 + max(_ROW * max(3, len(rows)), _ENTRY * (len(drawn) + len(marked))),
        margin={"l": 10, "r": 20, "t": 60, "b": 50},
        showlegend=True,
        xaxis={"title": "seconds since the start", "rangemode": "tozero"},
        yaxis={
            "tickvals": [at for at, row in enumerate(rows) if row.label],
            "ticktext": [_text(row.label) for row in rows if row.label],
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


def _entry(bar: Bar, by: str, colours: dict[Path, str]) -> tuple[str, str]:
    """Return the entry of the legend for a bar, and its colour."""
    if by == "worker":
        return _text("/".join(bar.path[1:])), colours[bar.path]
    if bar.is_nested and bar.what == "done":
        return "pipeline", _NESTED
    return f"{_SIGNS[bar.what]}{bar.what}", _COLOURS[bar.what]


def _hover(bar: Bar, began: float) -> str:
    item = f", item {'.'.join(map(str, bar.item))}" if bar.item else ""
    lines = [
        f"<b>{_text('/'.join(bar.path))}</b>{item}",
        f"{_SIGNS[bar.what]}{bar.what}, {seconds(bar.seconds)}, after {seconds(bar.start - began)}",
        _text(f"{bar.worker.host} · process {bar.worker.pid} · {bar.worker.thread}"),
    ]
    return "<br>".join(lines)


def _text(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
