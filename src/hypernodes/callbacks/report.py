"""RunReport: what a run did, how long each node took, what failed, and what to speed up first."""

from __future__ import annotations

from html import escape
from pathlib import Path as File
from typing import TYPE_CHECKING, Any, Final, Literal

from hypernodes.callbacks.base import CallbackContext, PipelineCallback, event_of, run_of
from hypernodes.callbacks.run_record import FailedNode, NodeReport, RunRecord, SlowItem
from hypernodes.callbacks.waterfall import Result, Waterfall
from hypernodes.exceptions import ExtraMissingError, NodeAbandonedError
from hypernodes.text import seconds, short

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_VIEWS: Final[tuple[Literal["node", "worker"], ...]] = ("node", "worker")


class RunReport(PipelineCallback):
    """Record the last run: counts, durations by node, cache hits, slow items and failures.

    `Pipeline.last_run` is this report, if it is among the pipeline's callbacks. It prints as a table, and a
    notebook shows it as one.

    A node that is abandoned, since another node's error ended the run while it was under way, has not failed:
    it is in `NodeReport.abandoned` and in the waterfall, and not among the failures.

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
        self._last = RunRecord()

    # ---------------------------------------------------------------------------------------- events

    def on_pipeline_start(self, pipeline_id: str, inputs: Mapping[str, Any], ctx: CallbackContext) -> None:
        run = self._record(ctx)
        if not run.needs:
            run.name, run.outermost, run.started = pipeline_id, ctx.hierarchy_path, ctx.time
        if ctx.hierarchy_path not in run.needs:
            run.needs[ctx.hierarchy_path] = ctx.get_pipeline_metadata().get("needs", {})

    def _record(self, ctx: CallbackContext) -> RunRecord:
        """Return the record of the run that an event belongs to; concurrent runs have one each."""
        state, key = run_of(ctx).state, id(self)
        run: RunRecord | None = state.get(key)
        if run is None:
            run = state[key] = self._last = RunRecord()
        return run

    def on_pipeline_end(
        self, pipeline_id: str, outputs: Mapping[str, Any], duration: float, ctx: CallbackContext
    ) -> None:
        run = self._record(ctx)
        if ctx.hierarchy_path == run.outermost:
            run.seconds = ctx.time - run.started

    def on_node_end(
        self, node_id: str, outputs: Mapping[str, Any], duration: float, ctx: CallbackContext
    ) -> None:
        run, event = self._record(ctx), event_of(ctx)
        scope, end = event.scope, event.time
        node = run.node((*scope.path, node_id))
        node.runs += 1
        node.seconds += duration
        if duration > node.slowest:  # noqa: PLR1730  `max` would take twice as long
            node.slowest = duration
        is_retried = run.retried and (node.path, scope.items) in run.retried
        result: Result = "retried" if is_retried else "done"
        run.calls.add(
            node.path, scope.items, end - duration, end, event.worker, result, is_nested=node.is_nested
        )

    def on_nested_pipeline_start(self, parent_id: str, child_pipeline_id: str, ctx: CallbackContext) -> None:
        self._record(ctx).node((*ctx.hierarchy_path, child_pipeline_id)).is_nested = True

    def on_node_cached(self, node_id: str, signature: str, ctx: CallbackContext) -> None:
        run = self._record(ctx)
        node = run.node((*ctx.hierarchy_path, node_id))
        node.cached += 1
        self._add_call(run, node, ctx, ctx.time, "cached")

    def on_node_retry(self, node_id: str, attempt: int, error: BaseException, ctx: CallbackContext) -> None:
        run = self._record(ctx)
        node = run.node((*ctx.hierarchy_path, node_id))
        node.retried += 1
        run.retried.add((node.path, ctx.item_path))

    def on_map_item_end(self, item_index: int, duration: float, ctx: CallbackContext) -> None:
        scope = event_of(ctx).scope
        self._record(ctx).add_item(scope.path, scope.items, duration)

    def on_map_item_cached(self, item_index: int, signature: str, ctx: CallbackContext) -> None:
        self._record(ctx).cached_items += 1

    def on_error(self, node_id: str, error: BaseException, ctx: CallbackContext) -> None:
        run = self._record(ctx)
        match ctx.about:
            case "item":
                run.add_failure(ctx.hierarchy_path, ctx.item_path, error)
            case "node":
                self._node_failed(run, run.node((*ctx.hierarchy_path, node_id)), error, ctx)

    def _node_failed(
        self, run: RunRecord, node: NodeReport, error: BaseException, ctx: CallbackContext
    ) -> None:
        start = ctx.time - event_of(ctx).seconds
        if isinstance(error, NodeAbandonedError):
            node.abandoned += 1
            self._add_call(run, node, ctx, start, "abandoned")
            return
        node.failed += 1
        self._add_call(run, node, ctx, start, "failed")
        if not node.is_nested:
            run.add_failure(node.path, ctx.item_path, error)

    def _add_call(
        self, run: RunRecord, node: NodeReport, ctx: CallbackContext, start: float, result: Result
    ) -> None:
        end = ctx.time
        start = min(start, end)  # the clocks of two hosts may differ
        run.calls.add(node.path, ctx.item_path, start, end, ctx.worker, result, is_nested=node.is_nested)

    # --------------------------------------------------------------------------------------- results

    @property
    def name(self) -> str:
        """The name of the outermost pipeline."""
        return self._last.name

    @property
    def seconds(self) -> float | None:
        """How long the run took; ``None`` if it failed, or is under way."""
        return self._last.seconds

    @property
    def items(self) -> int:
        """The number of items that are done, in maps of every depth."""
        return self._last.items

    @property
    def cached_items(self) -> int:
        """The number of items all of whose outputs came from the cache."""
        return self._last.cached_items

    @property
    def nodes(self) -> list[NodeReport]:
        """The report of each node, in the order of their first events."""
        return list(self._last.nodes.values())

    @property
    def failures(self) -> list[FailedNode]:
        """The first failures, abandoned nodes not included."""
        return list(self._last.failures)

    @property
    def slowest_items(self) -> list[SlowItem]:
        """The slowest items, the slowest first."""
        return self._last.slowest_items

    def node(self, *names: str) -> NodeReport:
        """Return the report of a node.

        Args:
            names: Its name, or the end of its path that tells it from others: ``node("inner", "add")``.

        Raises:
            KeyError: No node of the run is called so, or several are.
        """
        found = [node for path, node in self._last.nodes.items() if path[-len(names) :] == names]
        if len(found) != 1:
            known = ", ".join("/".join(path) for path in self._last.nodes)
            which = "no node" if not found else "more than one node"
            raise KeyError(f"{which} of the last run is {'/'.join(names)!r}; there are: {known or 'none'}")
        return found[0]

    def critical_path(self) -> list[NodeReport]:
        """Return the chain of dependent nodes that took longest, in their order: what to speed up first.

        Nodes that do not depend on each other can run concurrently; those of this chain cannot. A nested
        pipeline is followed by its own chain.
        """
        return self._last.critical_path()

    def waterfall(self, by: Literal["node", "worker"] = "node") -> Waterfall:
        """Return a chart of the calls: when each node was called, on which worker, and with which result.

        It has the 5 000 calls that failed, were retried, or took longest. A notebook shows it, its ``save``
        writes a page, and its ``figure`` is a figure of plotly.

        Args:
            by: ``"node"`` for a row for each node, ``"worker"`` for a row for each thread of each process.

        Raises:
            ExtraMissingError: plotly is not installed.
            ValueError: `by` is neither of the two.
        """
        calls = self._last.calls
        title, order = _title_of(self._last), self._last.paths_in_order()
        return Waterfall(title, calls, order, by, calls.total)

    def save(self, filename: str | File) -> File:
        """Write the report as a page that needs no other files, with its waterfalls if plotly is installed.

        Args:
            filename: The file to write, such as ``"report.html"``.

        Returns:
            The file.
        """
        try:
            figures = [self.waterfall(by).figure.update_layout(title_text="") for by in _VIEWS]
        except ExtraMissingError:
            figures = []
        charts = [
            # The first chart brings the library along, for both.
            (f"by {by}", figure.to_html(full_html=False, include_plotlyjs=by == _VIEWS[0]))
            for by, figure in zip(_VIEWS, figures, strict=False)
        ]
        file = File(filename)
        page = _as_page(_title_of(self._last), self._repr_html_(), charts)
        file.write_text(page, encoding="utf-8")
        return file

    def __str__(self) -> str:
        return _as_text(self._last) if self.name else "nothing has run yet"

    def __repr__(self) -> str:
        title = _title_of(self._last)
        return f"<RunReport of {title}>" if self.name else "<RunReport: nothing has run yet>"

    def _repr_html_(self) -> str:
        return _as_html(self._last) if self.name else f"<p>{escape(str(self))}</p>"


_COLUMNS: Final = ("node", "runs", "⚡ cached", "↻ retried", "✗ failed", "in all", "each", "slowest")
_MAX_ERRORS: Final = 5
_STYLE: Final = (
    "body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; "
    "color: #1d2733 } table { border-collapse: collapse } caption { text-align: left; font-weight: 600; "
    "padding-bottom: .5rem } td, th { padding: .2rem .9rem; text-align: right; "
    "border-bottom: 1px solid #e3e7ee } th:first-child { text-align: left } "
    "h2 { font-size: 1rem; margin: 2rem 0 0 }"
)


def _title_of(record: RunRecord) -> str:
    """Return the title: the pipeline, how long it took, and how many items and failures there were."""
    took = "not finished" if record.seconds is None else seconds(record.seconds)
    items = f", {record.items} items" if record.items else ""
    cached = f", {record.cached_items} of them cached" if record.cached_items else ""
    failed = f", {record.failed_calls} failed" if record.failed_calls else ""
    return f"{record.name}: {took}{items}{cached}{failed}"


def _as_text(record: RunRecord) -> str:
    """Return the table of nodes as text, and the remarks below it."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(_title_of(record)), title_justify="left", title_style="bold")
    for column in _COLUMNS:
        table.add_column(column, justify="left" if column == "node" else "right", no_wrap=column != "node")
    for row in _rows(record):
        table.add_row(*map(Text, row))
    console = Console(width=120, force_jupyter=False, force_terminal=False)
    with console.capture() as captured:
        console.print(table)
    return "\n".join([*map(str.rstrip, captured.get().rstrip().splitlines()), *_remarks(record)])


def _as_html(record: RunRecord) -> str:
    """Return the table of nodes as HTML, and the remarks below it."""
    head = "".join(f"<th>{escape(column)}</th>" for column in _COLUMNS)
    rows = "".join(
        f"<tr><td style='text-align: left; white-space: pre'>{escape(name)}</td>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        + "</tr>"
        for name, *cells in _rows(record)
    )
    remarks = "".join(f"<p>{escape(remark)}</p>" for remark in _remarks(record))
    return f"<table><caption>{escape(_title_of(record))}</caption><tr>{head}</tr>{rows}</table>{remarks}"


def _as_page(title: str, table: str, charts: Iterable[tuple[str, str]]) -> str:
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
