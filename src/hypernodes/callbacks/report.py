"""RunReport: what a run has done, how long each node took, what failed, and what to speed up first."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from html import escape
from pathlib import Path as File
from typing import TYPE_CHECKING, Any, Final, Literal

from hypernodes.callbacks.base import PipelineCallback
from hypernodes.callbacks.waterfall import Bar, Bars, Waterfall, What
from hypernodes.exceptions import ExtraMissingError
from hypernodes.text import seconds, short

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hypernodes.callbacks.base import CallbackContext

Path = tuple[str, ...]

_SLOWEST: Final = 10
_FAILURES: Final = 100  # of which texts are kept; all are counted
_VIEWS: Final[tuple[Literal["node", "worker"], ...]] = ("node", "worker")
_STYLE: Final = (
    "body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; "
    "color: #1d2733 } table { border-collapse: collapse } caption { text-align: left; font-weight: 600; "
    "padding-bottom: .5rem } td, th { padding: .2rem .9rem; text-align: right; "
    "border-bottom: 1px solid #e3e7ee } th:first-child { text-align: left } "
    "h2 { font-size: 1rem; margin: 2rem 0 0 }"
)
_TITLES: Final = ("node", "runs", "⚡ cached", "↻ retried", "✗ failed", "in all", "each", "slowest")


@dataclass(slots=True)
class NodeReport:
    """What became of one node.

    Attributes:
        path: The pipelines around it, and its name.
        runs: How often it was executed.
        cached: How often its outputs came from the cache.
        retried: How often it was called again.
        failed: How often it failed.
        seconds: How long all its executions took together; beside each other, that may be more than the run.
        slowest: How long the slowest took.
    """

    path: Path
    runs: int = 0
    cached: int = 0
    retried: int = 0
    failed: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    is_nested: bool = False

    @property
    def mean(self) -> float:
        """How long one execution took."""
        return self.seconds / self.runs if self.runs else 0.0


@dataclass(frozen=True, slots=True)
class SlowItem:
    """One of the items that took longest: the pipelines around it, its indices, and seconds."""

    path: Path
    item: tuple[int, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class FailedNode:
    """One failure: the node's path, the indices of its item, and the error."""

    path: Path
    item: tuple[int, ...]
    error: BaseException


@dataclass(slots=True)
class _Run:
    name: str = ""
    outermost: Path = ()
    started: float = 0.0
    seconds: float | None = None
    items: int = 0
    cached_items: int = 0
    nodes: dict[Path, NodeReport] = field(default_factory=dict)
    needs: dict[Path, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    failures: list[FailedNode] = field(default_factory=list)
    slowest: list[tuple[float, Path, tuple[int, ...]]] = field(default_factory=list)
    bars: Bars = field(default_factory=Bars)
    begun: dict[tuple[Path, tuple[int, ...]], _Begun] = field(default_factory=dict)


@dataclass(slots=True)
class _Begun:
    """What is under way."""

    time: float
    is_retried: bool = False


class RunReport(PipelineCallback):
    """Remember of the last run what people ask: counts, durations by node, hits, slow items, failures.

    Give it as a callback; then `Pipeline.last_run` is this report. It prints as a table, and shows itself as
    one in a notebook.

    Example:
        >>> from hypernodes import Pipeline, node
        >>> pipeline = Pipeline([node(abs, output_name="size")], name="sizes", callbacks=[RunReport()])
        >>> pipeline.map({"x": [-1, 2, -3]}, map_over="x")
        {'size': [1, 2, 3]}
        >>> report = pipeline.last_run
        >>> report.items, report.node("abs").runs, report.failures
        (3, 3, [])
    """

    def __init__(self) -> None:
        self._last = _Run()

    # ------------------------------------------------------------------------------------ listening

    def on_pipeline_start(self, pipeline_id: str, inputs: Mapping[str, Any], ctx: CallbackContext) -> None:
        run = self._run(ctx)
        if not run.needs:
            run.name, run.outermost, run.started = pipeline_id, ctx.hierarchy_path, ctx.time
        if ctx.hierarchy_path not in run.needs:
            run.needs[ctx.hierarchy_path] = ctx.get_pipeline_metadata().get("needs", {})

    def _run(self, ctx: CallbackContext) -> _Run:
        """Return the run that something is told of; others may go on beside it."""
        key = f"report {id(self)}"
        run: _Run | None = ctx.get(key)
        if run is None:
            run = self._last = _Run()
            ctx.set(key, run)
        return run

    def on_pipeline_end(
        self, pipeline_id: str, outputs: Mapping[str, Any], duration: float, ctx: CallbackContext
    ) -> None:
        run = self._run(ctx)
        if ctx.hierarchy_path == run.outermost:
            run.seconds = ctx.time - run.started

    def on_node_end(
        self, node_id: str, outputs: Mapping[str, Any], duration: float, ctx: CallbackContext
    ) -> None:
        node = self._node(node_id, ctx)
        node.runs += 1
        node.seconds += duration
        node.slowest = max(node.slowest, duration)
        begun = self._run(ctx).begun.pop((node.path, ctx.item_path), None)
        what: What = "retried" if begun is not None and begun.is_retried else "done"
        self._bar(node, ctx, ctx.time - duration, what)

    def on_node_start(self, node_id: str, inputs: Mapping[str, Any], ctx: CallbackContext) -> None:
        self._run(ctx).begun[(*ctx.hierarchy_path, node_id), ctx.item_path] = _Begun(ctx.time)

    def on_nested_pipeline_start(self, parent_id: str, child_pipeline_id: str, ctx: CallbackContext) -> None:
        self._node(child_pipeline_id, ctx).is_nested = True

    def on_node_cached(self, node_id: str, signature: str, ctx: CallbackContext) -> None:
        node = self._node(node_id, ctx)
        node.cached += 1
        self._bar(node, ctx, ctx.time, "cached")

    def on_node_retry(self, node_id: str, attempt: int, error: BaseException, ctx: CallbackContext) -> None:
        node = self._node(node_id, ctx)
        node.retried += 1
        begun = self._run(ctx).begun.get((node.path, ctx.item_path))
        if begun is not None:
            begun.is_retried = True

    def on_map_item_end(self, item_index: int, duration: float, ctx: CallbackContext) -> None:
        self._run(ctx).items += 1
        kept, item = self._run(ctx).slowest, (duration, ctx.hierarchy_path, ctx.item_path)
        if len(kept) < _SLOWEST:
            heapq.heappush(kept, item)
        elif item > kept[0]:
            heapq.heapreplace(kept, item)

    def on_map_item_cached(self, item_index: int, signature: str, ctx: CallbackContext) -> None:
        self._run(ctx).cached_items += 1

    def on_error(self, node_id: str, error: BaseException, ctx: CallbackContext) -> None:
        if ctx.about == "item":
            if len(self._run(ctx).failures) < _FAILURES:
                self._run(ctx).failures.append(FailedNode(ctx.hierarchy_path, ctx.item_path, error))
        elif ctx.about == "node":
            node = self._node(node_id, ctx)
            node.failed += 1
            begun = self._run(ctx).begun.pop((node.path, ctx.item_path), None)
            self._bar(node, ctx, ctx.time if begun is None else begun.time, "failed")
            if not node.is_nested and len(self._run(ctx).failures) < _FAILURES:
                self._run(ctx).failures.append(FailedNode(node.path, ctx.item_path, error))

    def _bar(self, node: NodeReport, ctx: CallbackContext, start: float, what: What) -> None:
        bar = Bar(node.path, ctx.item_path, min(start, ctx.time), ctx.time, ctx.worker, what, node.is_nested)
        self._run(ctx).bars.add(bar)

    def _node(self, node_id: str, ctx: CallbackContext) -> NodeReport:
        path = (*ctx.hierarchy_path, node_id)
        if path not in self._run(ctx).nodes:
            self._run(ctx).nodes[path] = NodeReport(path)
        return self._run(ctx).nodes[path]

    # -------------------------------------------------------------------------------------- reading

    @property
    def name(self) -> str:
        """The outermost pipeline."""
        return self._last.name

    @property
    def seconds(self) -> float | None:
        """How long the run took; ``None`` if it has failed, or goes on."""
        return self._last.seconds

    @property
    def items(self) -> int:
        """How many items were done, in maps of every depth."""
        return self._last.items

    @property
    def cached_items(self) -> int:
        """How many of them came from the cache as a whole."""
        return self._last.cached_items

    @property
    def nodes(self) -> list[NodeReport]:
        """What became of each node, in the order of their first events."""
        return list(self._last.nodes.values())

    @property
    def failures(self) -> list[FailedNode]:
        """The first failures."""
        return list(self._last.failures)

    @property
    def slowest_items(self) -> list[SlowItem]:
        """The items that took longest, the slowest first."""
        return [SlowItem(path, item, took) for took, path, item in sorted(self._last.slowest, reverse=True)]

    def node(self, *names: str) -> NodeReport:
        """Return what became of a node.

        Args:
            names: Its name, or as much of its path as tells it from others: ``node("inner", "add")``.

        Raises:
            KeyError: No node of the run is called so, or several are.
        """
        found = [node for path, node in self._last.nodes.items() if path[-len(names) :] == names]
        if len(found) != 1:
            known = ", ".join("/".join(path) for path in self._last.nodes)
            what = "no node" if not found else "more than one node"
            raise KeyError(f"{what} of the last run is {'/'.join(names)!r}; there are: {known or 'none'}")
        return found[0]

    def critical_path(self) -> list[NodeReport]:
        """Return the chain of nodes that took longest, in their order: what to speed up first.

        Nodes that do not need each other may run beside each other; those of this chain cannot. A nested
        pipeline is followed by its own chain.
        """
        outermost = next(iter(self._last.needs), None)
        return [] if outermost is None else list(self._chain(outermost))

    def waterfall(self, by: Literal["node", "worker"] = "node") -> Waterfall:
        """Return a chart of when each node was called, by whom, and what came of it.

        It has the 5 000 calls that failed, were retried, or took longest. A notebook shows it; its ``save``
        writes it as a page, and its ``figure`` is plotly's.

        Args:
            by: ``"node"`` for a row for each node, ``"worker"`` for one for each thread of each process.

        Raises:
            ExtraMissingError: plotly is not installed.
        """
        bars = self._last.bars
        return Waterfall(self._title, bars, self._tree(), by, bars.total)

    def save(self, filename: str | File) -> File:
        """Write the report as a page that needs nothing else, with its waterfalls if plotly is installed.

        Args:
            filename: Where to, as ``"report.html"``.

        Returns:
            The file.
        """
        try:
            charts = [self.waterfall(by).figure.update_layout(title_text="") for by in _VIEWS]
        except ExtraMissingError:
            charts = []
        drawn = "".join(
            f"<h2>by {by}</h2>" + chart.to_html(full_html=False, include_plotlyjs=by == _VIEWS[0])
            for by, chart in zip(_VIEWS, charts, strict=False)
        )
        file = File(filename)
        title = escape(self._title)
        file.write_text(
            f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{title}</title>"
            f"<style>{_STYLE}</style><body>{self._repr_html_()}{drawn}</body></html>",
            encoding="utf-8",
        )
        return file

    def _chain(self, around: Path) -> Iterator[NodeReport]:
        best: dict[str, tuple[float, tuple[str, ...]]] = {}
        for name, needs in self._last.needs.get(around, {}).items():
            before = max((best[other] for other in needs if other in best), default=(0.0, ()))
            node = self._last.nodes.get((*around, name))
            best[name] = (before[0] + (node.seconds if node else 0.0), (*before[1], name))
        for name in max(best.values(), default=(0.0, ()))[1]:
            node = self._last.nodes.get((*around, name))
            if node is not None and node.runs:
                yield node
                yield from self._chain(node.path)

    def _rows(self) -> Iterator[tuple[str, ...]]:
        for path in self._tree():
            node = self._last.nodes[path]
            counts = (node.runs, node.cached, node.retried, node.failed)
            times = (node.seconds, node.mean, node.slowest)
            yield (
                "  " * (len(path) - 2) + path[-1],
                *(str(count) if count else "" for count in counts),
                *(seconds(time) if node.runs else "" for time in times),
            )

    def _tree(self) -> list[Path]:
        """Return the paths as a tree is read: each nested pipeline, then what is in it."""
        order = {path: at for at, path in enumerate(self._last.nodes)}
        first = {path: min(at for other, at in order.items() if other[: len(path)] == path) for path in order}
        return sorted(
            order, key=lambda path: [first.get(path[: depth + 1], -1) for depth in range(1, len(path))]
        )

    @property
    def _title(self) -> str:
        took = "not finished" if self.seconds is None else seconds(self.seconds)
        items = f", {self.items} items" if self.items else ""
        cached = f", {self.cached_items} of them cached" if self.cached_items else ""
        failed = sum(node.failed for node in self._last.nodes.values() if not node.is_nested)
        return f"{self.name}: {took}{items}{cached}" + (f", {failed} failed" if failed else "")

    @property
    def _remarks(self) -> list[str]:
        chain = [node for node in self.critical_path() if not node.is_nested]
        remarks = []
        if chain:
            slowest = max(chain, key=lambda node: node.seconds)
            told = " → ".join(f"{node.path[-1]} {seconds(node.seconds)}" for node in chain)
            remarks.append(f"critical path: {told}; most of it is {slowest.path[-1]}")
        remarks += [
            f"{'/'.join(failure.path)}{_at(failure.item)} failed: {short(failure.error, 100)}"
            for failure in self.failures[:5]
        ]
        return remarks

    def __str__(self) -> str:
        if not self.name:
            return "nothing has run yet"
        try:
            from rich.console import Console
            from rich.table import Table
            from rich.text import Text
        except ImportError as error:
            raise ExtraMissingError(
                "a report prints with rich: pip install rich, or this package with its extra 'progress'"
            ) from error
        table = Table(title=Text(self._title), title_justify="left", title_style="bold")
        for title in _TITLES:
            table.add_column(title, justify="left" if title == "node" else "right", no_wrap=title != "node")
        for row in self._rows():
            table.add_row(*map(Text, row))
        console = Console(width=120, force_jupyter=False, force_terminal=False)
        with console.capture() as captured:
            console.print(table)
        return "\n".join([*map(str.rstrip, captured.get().rstrip().splitlines()), *self._remarks])

    def __repr__(self) -> str:
        return f"<RunReport of {self._title}>" if self.name else "<RunReport: nothing has run yet>"

    def _repr_html_(self) -> str:
        if not self.name:
            return f"<p>{escape(str(self))}</p>"
        head = "".join(f"<th>{escape(title)}</th>" for title in _TITLES)
        rows = "".join(
            f"<tr><td style='text-align: left; white-space: pre'>{escape(name)}</td>"
            + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
            + "</tr>"
            for name, *cells in self._rows()
        )
        remarks = "".join(f"<p>{escape(remark)}</p>" for remark in self._remarks)
        return f"<table><caption>{escape(self._title)}</caption><tr>{head}</tr>{rows}</table>{remarks}"


def _at(item: tuple[int, ...]) -> str:
    return f", item {'.'.join(map(str, item))}," if item else ""
