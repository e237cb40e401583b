"""ProgressCallback: progress bars for the nodes and maps of a run."""

from __future__ import annotations

import os
import re
import sys
import threading
import weakref
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Literal

from hypernodes.arguments import flag
from hypernodes.callbacks.bars import Display, Lines, NotebookBars, Row, TerminalBars
from hypernodes.callbacks.base import CallbackContext, PipelineCallback
from hypernodes.callbacks.event import Worker, current_worker
from hypernodes.callbacks.notebook_chart import notebook_kernel
from hypernodes.callbacks.tallies import Path, Tallies, Tally
from hypernodes.exceptions import NodeAbandonedError, OptionError, import_extra
from hypernodes.text import short

if TYPE_CHECKING:
    from collections.abc import Mapping

REDRAW_INTERVAL_S: Final = 0.1
"""Least time between redraws: drawing must cost a map of a million items next to nothing."""
IDLE_REDRAW_INTERVAL_S: Final = 0.5
"""Time between redraws while no event arrives, so that the clock of a long node is seen to run."""
ACTIVE_WORKER_S: Final = 5.0
"""Time without an event after which a worker is not counted as active, unless its events are rarer."""
_REST: Final = "\N{CHARACTER TABULATION}the rest"
"""The key of the row for bars that do not fit; no pipeline is named like this."""


class ProgressCallback(PipelineCallback):
    """Show a bar for each node and each map, nested pipelines indented below their parents.

    A bar shows how much is done, items per second, the time that is left, and how many were cached (⚡),
    retried (↻) and failed (✗); the first bar also shows the number of active workers. The engine and cache of
    a pipeline are shown where they differ from those of its parent. If there are more nodes than fit, those
    are shown that are under way or have failed. The number of items in maps that have not started is
    estimated (~) from those that have.

    A nested pipeline that does not have this callback (``callbacks=[]``) emits no events to it: it has a bar
    as a node of its parent, and the nodes in it have none.

    Args:
        display: ``"terminal"``, ``"notebook"`` (needs ipywidgets), ``"lines"`` (a line every few seconds,
            for logs), or ``"auto"``, which chooses the one that fits.
        enable: Whether it does anything; with ``False`` it subscribes to no event and costs nothing.

    Raises:
        ExtraMissingError: The library for the display is not installed; it names the extra.
        ValueError: `display` is none of these.
    """

    counts_items = True

    def __init__(
        self, display: Literal["auto", "terminal", "notebook", "lines"] = "auto", *, enable: bool = True
    ) -> None:
        self.is_enabled: bool = flag("enable", enable, where="ProgressCallback")
        if display == "auto" and not enable:
            display = "lines"  # No library is needed for nothing.
        if display == "auto":
            display = (
                "notebook"
                if notebook_kernel() is not None
                else "terminal"
                if sys.stderr.isatty()
                else "lines"
            )
        displays: dict[str, type[Display]] = {
            "notebook": NotebookBars,
            "terminal": TerminalBars,
            "lines": Lines,
        }
        if not isinstance(display, str) or display not in displays:
            raise OptionError(
                f"display must be 'auto', {', '.join(map(repr, displays))}, not {short(display)}"
            )
        self._display_type = displays[display]
        if display == "notebook":
            import_extra("ipywidgets", "progress in a notebook needs ipywidgets", "ipywidgets", "notebook")
        self._display: Display | None = None
        self._tallies = Tallies()
        self._drawn = 0.0
        # How many runs are under way, by path and item indices: of pipelines whose parent emits no events.
        self._under_way: Counter[tuple[Path, tuple[int, ...]]] = Counter()
        self._workers: dict[Worker, _LastEvent] = {}
        self._driver = current_worker()
        self._ended = threading.Event()
        self._starts = count(1)

    # ---------------------------------------------------------------------------------------- events

    def on_pipeline_start(self, pipeline_id: str, inputs: Mapping[str, Any], ctx: CallbackContext) -> None:
        path = ctx.hierarchy_path
        if self._display is None:
            self._open_display()
        tally = self._tallies.of(path)
        if self._tallies.parent_of(path) is None:
            self._under_way[path, ctx.item_path] += 1
            tally.runs += 1
            tally.is_shown = True
        self._add_nodes(path, ctx)
        self._draw()

    def _add_nodes(self, path: Path, ctx: CallbackContext) -> None:
        """Add tallies for the nodes of a pipeline, so that bars are in the order of its nodes."""
        metadata = ctx.get_pipeline_metadata(path)
        tally = self._tallies.of(path)
        tally.emits_events = True
        tally.settings = _settings(path, ctx)
        for node_id in metadata.get("node_ids", ()):
            self._tallies.of((*path, node_id)).is_nested = node_id in metadata.get("nested", ())

    def on_map_start(self, total_items: int | None, ctx: CallbackContext) -> None:
        tally = self._tallies.of(ctx.hierarchy_path)
        tally.is_map = True
        tally.is_stream = total_items is None
        tally.maps += 1
        tally.items += total_items or 0

    def on_map_items_end(self, items: int, ctx: CallbackContext) -> None:
        tally = self._tallies.of(ctx.hierarchy_path)
        tally.done += items
        self._count_nodes(ctx.hierarchy_path, ctx, items)
        self._draw(tally, ctx.worker)

    def _count_nodes(self, path: Path, ctx: CallbackContext, items: int) -> None:
        """Count items for all nodes of a pipeline: aggregated events are those of nested pipelines, too."""
        self._add_nodes(path, ctx)
        for node_id in ctx.get_pipeline_metadata(path).get("node_ids", ()):
            tally = self._tallies.of((*path, node_id))
            if self._is_shared((*path, node_id), ctx):
                continue
            if tally.is_shared:
                tally.is_shared, tally.done = False, 0
            tally.is_shown = True
            tally.done += items
            tally.changed = monotonic()
            if tally.is_nested:
                self._count_nodes((*path, node_id), ctx, items)

    def _is_shared(self, path: Path, ctx: CallbackContext) -> bool:
        """Whether a node, or every node of a nested pipeline, is executed once for all items."""
        tally = self._tallies.of(path)
        if not tally.is_nested:
            return tally.is_shared
        nodes = ctx.get_pipeline_metadata(path).get("node_ids", ())
        return tally.is_shared and all(self._is_shared((*path, node_id), ctx) for node_id in nodes)

    def on_node_start(self, node_id: str, inputs: Mapping[str, Any], ctx: CallbackContext) -> None:
        tally = self._tallies.of_node((*ctx.hierarchy_path, node_id), ctx.item_path)
        tally.is_shown = True
        tally.start_order = next(self._starts)
        self._draw()

    def on_map_item_end(self, item_index: int, duration: float, ctx: CallbackContext) -> None:
        tally = self._tallies.of(ctx.hierarchy_path)
        tally.done += 1
        self._draw(tally)

    def on_pipeline_end(
        self, pipeline_id: str, outputs: Mapping[str, Any], duration: float, ctx: CallbackContext
    ) -> None:
        tally = self._tallies.of(ctx.hierarchy_path)
        # Other nested pipelines are counted when they end as nodes of their parents.
        if not tally.is_map and self._tallies.parent_of(ctx.hierarchy_path) is None:
            tally.done += 1
        self._draw(tally)
        self._end_run(ctx)

    def on_node_end(
        self, node_id: str, outputs: Mapping[str, Any], duration: float, ctx: CallbackContext
    ) -> None:
        tally = self._tallies.of((*ctx.hierarchy_path, node_id))
        if not tally.is_map:  # the items of a map have been counted one by one
            tally.done += 1
        self._draw(tally, ctx.worker)

    def on_node_cached(self, node_id: str, signature: str, ctx: CallbackContext) -> None:
        tally = self._tallies.of_node((*ctx.hierarchy_path, node_id), ctx.item_path)
        tally.is_shown = True
        tally.done += 1
        tally.cached += 1
        self._draw(tally)

    def on_node_retry(self, node_id: str, attempt: int, error: BaseException, ctx: CallbackContext) -> None:
        self._tallies.of((*ctx.hierarchy_path, node_id)).retried += 1

    def on_map_item_cached(self, item_index: int, signature: str, ctx: CallbackContext) -> None:
        self._tallies.of(ctx.hierarchy_path).cached += 1

    def on_error(self, node_id: str, error: BaseException, ctx: CallbackContext) -> None:
        is_node = ctx.about == "node"
        tally = self._tallies.of((*ctx.hierarchy_path, node_id) if is_node else ctx.hierarchy_path)
        if isinstance(error, NodeAbandonedError):
            self._draw()  # neither done nor failed: its bar counts it no more than a node that never started
        else:
            tally.failed += 1
            tally.done += is_node and not tally.is_map
            self._draw(tally)
        if ctx.about == "pipeline":
            self._end_run(ctx)

    def _end_run(self, ctx: CallbackContext) -> None:
        """Close the display, if this was the last run that it shows."""
        run = ctx.hierarchy_path, ctx.item_path
        if run in self._under_way:
            self._under_way[run] -= 1
            self._under_way += Counter()  # removes runs whose count is zero
            if not self._under_way:
                self._close_display()

    # --------------------------------------------------------------------------------------- drawing

    def _open_display(self) -> None:
        self._display, self._tallies, self._workers = self._display_type(), Tallies(), {}
        self._driver, self._ended = current_worker(), threading.Event()
        threading.Thread(
            target=_redraw_while_idle,
            args=(weakref.ref(self), self._ended),
            name="hypernodes-progress",
            daemon=True,
        ).start()

    def _close_display(self) -> None:
        if self._display is not None:
            self._display.draw(self._rows(self._display.room, monotonic()))
            self._display.close()
            self._display = None
            self._ended.set()

    def _draw(self, changed: Tally | None = None, worker: Worker | None = None) -> None:
        """Redraw, if the last time is long enough ago; an execution of `changed` has ended in `worker`."""
        now = monotonic()
        if changed is not None:
            changed.changed = now
        if worker is not None:
            if (last := self._workers.get(worker)) is None:
                self._workers[worker] = _LastEvent(now)
            else:
                last.longest_gap, last.time = max(last.longest_gap, now - last.time), now
        if self._display is not None and now - self._drawn >= REDRAW_INTERVAL_S:
            self._drawn = now
            self._display.draw(self._rows(self._display.room, now))

    def _rows(self, room: int, now: float) -> dict[Path, Row]:
        """Return the rows to draw in their order: all, or those of the highest priority."""
        self._tallies.update_totals()
        shown = self._tallies.shown_in_order()
        rows = {path: self._row(path, now) for path in shown}
        if len(shown) > room:
            by_priority = sorted(shown, key=lambda path: self._tallies[path].priority, reverse=True)
            kept = set(by_priority[: room - 1])
            rows = {path: row for path, row in rows.items() if path in kept}
            rows[_REST,] = Row(f"… {len(shown) - len(kept)} more", 1, total=1)
        return rows

    def _row(self, path: Path, now: float) -> Row:
        tally = self._tallies[path]
        is_title = path[:-1] not in self._tallies
        signs = [
            f"{sign} {number:,}"
            for sign, number in (("⚡", tally.cached), ("↻", tally.retried), ("✗", tally.failed))
            if number
        ]
        workers = self._active_workers(now) if is_title else 0
        if workers:
            signs.append(f"{workers} worker{'s' if workers > 1 else ''}")
        return Row(
            label=path[-1],
            depth=sum(path[:end] in self._tallies for end in range(1, len(path))),
            done=tally.done,
            total=tally.total,
            cells=tally.cells(now),
            signs="  ".join(signs),
            settings=tally.settings,
            has_failed=tally.failed > 0,
            is_title=is_title,
            is_map=tally.is_map,
        )

    def _active_workers(self, now: float) -> int:
        """Return the number of workers, without the driver's thread, that emit events as often as before."""
        return sum(
            now - last.time <= max(ACTIVE_WORKER_S, 2 * last.longest_gap)
            for worker, last in self._workers.items()
            if worker != self._driver
        )


@dataclass(slots=True)
class _LastEvent:
    """When a worker emitted its last event, and the longest time between two of its events."""

    time: float
    longest_gap: float = 0.0


def _redraw_while_idle(progress: weakref.ref[ProgressCallback], ended: threading.Event) -> None:
    """Redraw from time to time until the display is closed, or the callback is gone."""
    while not ended.wait(IDLE_REDRAW_INTERVAL_S):
        if (callback := progress()) is None:
            return
        with suppress(RuntimeError):  # an event in another thread has changed the tallies, and redraws
            callback._draw()
        del callback


def _settings(path: Path, ctx: CallbackContext) -> str:
    """Return a pipeline's engine and cache, where they differ from those of its parent."""
    own, parent = ctx.get_pipeline_metadata(path), ctx.get_pipeline_metadata(path[:-1])
    return " · ".join(
        shorten(own.get(name, ""))
        for name, shorten in _SHORTENED.items()
        if own.get(name, "") != parent.get(name, "")
    )


def _short_engine(engine: str) -> str:
    if (executors := re.fullmatch(r"HyperNodesEngine\((.*)\)", engine)) is None:
        return engine or "no engine"
    named = executors[1].replace("node_executor=", "nodes: ").replace("map_executor=", "items: ")
    return named.replace("'", "").replace(", ", " · ") or "sequential"


def _short_cache(cache: str) -> str:
    if (directory := re.fullmatch(r"DiskCache\('([^']*)'.*\)", cache)) is None:
        return cache or "no cache"
    return f"cache {min(directory[1], os.path.relpath(directory[1]), key=len)}"


_SHORTENED: Final = {"engine": _short_engine, "cache": _short_cache}
