"""ProgressCallback: how far is it?"""

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

from hypernodes.callbacks.bars import Lines, NotebookBars, Row, TerminalBars
from hypernodes.callbacks.base import PipelineCallback
from hypernodes.callbacks.event import current_worker
from hypernodes.text import seconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hypernodes.callbacks.bars import Display
    from hypernodes.callbacks.base import CallbackContext
    from hypernodes.callbacks.event import Worker

Path = tuple[str, ...]

_REDRAW = 0.1  # seconds between redraws: a map of a million items must not notice its bars
_TICK = 0.5  # seconds between redraws where nothing is heard
_LATELY = 5.0  # seconds


class ProgressCallback(PipelineCallback):
    """Show a bar for each node and each map, nested pipelines indented below their parents.

    A bar tells how much is done, items per second, the time that is left, and how many were cached (⚡),
    retried (↻) and failed (✗); the first one also how many workers have been heard of lately. A pipeline's
    engine and cache stand beside its name where they are others than those of the pipeline around. Where
    there are more nodes than fit, those are shown that are under way or have failed. How many items there
    will be in maps that have not begun is estimated (~) from those that have.

    Args:
        display: ``"terminal"``, ``"notebook"`` (needs ipywidgets), ``"lines"`` (a line every few seconds,
            for logs), or ``"auto"``, which takes the one that fits.

    Raises:
        ExtraMissingError: The library for the display is not installed; it names the extra.
    """

    counts_items = True

    def __init__(self, display: Literal["auto", "terminal", "notebook", "lines"] = "auto") -> None:
        if display == "auto":
            display = "notebook" if _in_notebook() else "terminal" if sys.stderr.isatty() else "lines"
        displays: dict[str, Any] = {"notebook": NotebookBars, "terminal": TerminalBars, "lines": Lines}
        if display not in displays:
            raise ValueError(f"display is 'auto', {', '.join(map(repr, displays))}: {display!r}")
        self._make: type[Display] = displays[display]
        self._make.check()
        self._display: Display | None = None
        self._tallies: dict[Path, _Tally] = {}
        self._drawn = 0.0
        self._under_way: Counter[tuple[Path, tuple[int, ...]]] = Counter()  # outermost pipelines
        self._workers: dict[Worker, _Heard] = {}
        self._driver = current_worker()
        self._ended = threading.Event()
        self._order = count(1)

    # ------------------------------------------------------------------------------------ listening

    def on_pipeline_start(self, pipeline_id: str, inputs: Mapping[str, Any], ctx: CallbackContext) -> None:
        path = ctx.hierarchy_path
        if self._display is None:
            self._display, self._tallies, self._workers = self._make(), {}, {}
            self._driver, self._ended = current_worker(), threading.Event()
            going = weakref.ref(self), self._ended
            threading.Thread(target=_keep_going, args=going, name="hypernodes-progress", daemon=True).start()
        tally = self._tally(path)
        if self._is_outermost(path):
            self._under_way[path, ctx.item_path] += 1
            tally.runs += 1
            tally.is_shown = True
        self._open(path, ctx)
        self._draw()

    def _open(self, path: Path, ctx: CallbackContext) -> None:
        """Make room for the nodes of a pipeline, in their order."""
        known = ctx.get_pipeline_metadata(path)
        self._tally(path).settings = _settings(path, ctx)
        for node_id in known.get("node_ids", ()):
            self._tally((*path, node_id)).is_nested = node_id in known.get("nested", ())

    def on_map_start(self, total_items: int | None, ctx: CallbackContext) -> None:
        tally = self._tally(ctx.hierarchy_path)
        tally.is_map = True
        tally.is_open = total_items is None
        tally.maps += 1
        tally.items += total_items or 0

    def on_map_items_end(self, items: int, ctx: CallbackContext) -> None:
        self._tally(ctx.hierarchy_path).done += items
        self._count_nodes(ctx.hierarchy_path, ctx, items)
        self._draw(self._tally(ctx.hierarchy_path), ctx.worker)

    def _count_nodes(self, path: Path, ctx: CallbackContext, items: int) -> None:
        self._open(path, ctx)
        for node_id in ctx.get_pipeline_metadata(path).get("node_ids", ()):
            tally = self._tally((*path, node_id))
            tally.is_shown = True
            tally.done += items
            tally.changed = monotonic()
            if tally.is_nested:
                self._count_nodes((*path, node_id), ctx, items)

    def on_node_start(self, node_id: str, inputs: Mapping[str, Any], ctx: CallbackContext) -> None:
        tally = self._tally((*ctx.hierarchy_path, node_id))
        tally.is_shown = True
        tally.touched = next(self._order)
        self._draw()

    def on_map_item_end(self, item_index: int, duration: float, ctx: CallbackContext) -> None:
        tally = self._tally(ctx.hierarchy_path)
        tally.done += 1
        self._draw(tally)

    def on_pipeline_end(
        self, pipeline_id: str, outputs: Mapping[str, Any], duration: float, ctx: CallbackContext
    ) -> None:
        tally = self._tally(ctx.hierarchy_path)
        if not tally.is_map:
            tally.done += 1
        self._draw(tally)
        self._leave(ctx)

    def on_node_end(
        self, node_id: str, outputs: Mapping[str, Any], duration: float, ctx: CallbackContext
    ) -> None:
        tally = self._tally((*ctx.hierarchy_path, node_id))
        if not tally.is_nested:
            tally.done += 1
            self._draw(tally, ctx.worker)

    def on_node_cached(self, node_id: str, signature: str, ctx: CallbackContext) -> None:
        tally = self._tally((*ctx.hierarchy_path, node_id))
        tally.is_shown = True
        tally.done += 1
        tally.cached += 1
        self._draw(tally)

    def on_node_retry(self, node_id: str, attempt: int, error: BaseException, ctx: CallbackContext) -> None:
        self._tally((*ctx.hierarchy_path, node_id)).retried += 1

    def on_map_item_cached(self, item_index: int, signature: str, ctx: CallbackContext) -> None:
        self._tally(ctx.hierarchy_path).cached += 1

    def on_error(self, node_id: str, error: BaseException, ctx: CallbackContext) -> None:
        is_of_node = ctx.about == "node"
        tally = self._tally((*ctx.hierarchy_path, node_id) if is_of_node else ctx.hierarchy_path)
        tally.failed += 1
        tally.done += is_of_node and not tally.is_map
        self._draw(tally)
        if ctx.about == "pipeline":
            self._leave(ctx)

    def _leave(self, ctx: CallbackContext) -> None:
        """Leave the bars as they are, if this was the last run that they show."""
        place = ctx.hierarchy_path, ctx.item_path
        if place in self._under_way:
            self._under_way[place] -= 1
            self._under_way += Counter()  # without those of which none is left
            if not self._under_way:
                self._close()

    def _is_outermost(self, path: Path) -> bool:
        return path[:-1] not in self._tallies

    def _tally(self, path: Path) -> _Tally:
        if path not in self._tallies:
            # What happened in a worker is told when it comes back; it began when what is around did.
            around = self._tallies.get(path[:-1])
            self._tallies[path] = _Tally(monotonic() if around is None else around.started)
        return self._tallies[path]

    # -------------------------------------------------------------------------------------- drawing

    def _draw(self, changed: _Tally | None = None, worker: Worker | None = None) -> None:
        now = monotonic()
        if changed is not None:
            changed.changed = now
        if worker is not None:
            heard = self._workers.get(worker)
            if heard is None:
                self._workers[worker] = _Heard(now)
            else:
                heard.silence, heard.last = max(heard.silence, now - heard.last), now
        if self._display is not None and now - self._drawn >= _REDRAW:
            self._drawn = now
            self._display.draw(self._rows(self._display.room, now))

    def _close(self) -> None:
        if self._display is not None:
            self._display.draw(self._rows(self._display.room, monotonic()))
            self._display.close()
            self._display = None
            self._ended.set()

    def _rows(self, room: int, now: float) -> dict[Path, Row]:
        """Return the rows that are to be seen, as they are read: all, or those that matter most."""
        self._expect()
        shown = [path for path in _ordered(self._tallies) if self._tallies[path].is_shown]
        rows = {path: self._row(path, now) for path in shown}
        if len(shown) > room:
            by_weight = sorted(shown, key=lambda path: self._tallies[path].weight, reverse=True)
            kept = set(by_weight[: room - 1])
            rows = {path: row for path, row in rows.items() if path in kept}
            rows[_REST,] = Row(f"… {len(shown) - len(kept)} more", 1, total=1)
        return rows

    def _expect(self) -> None:
        """Work out how much each is expected to do: a node runs once for each run or item of its pipeline."""
        for path, tally in self._tallies.items():  # a pipeline stands before what is in it
            around = self._tallies.get(path[:-1])
            runs = tally.runs if around is None else around.total
            if runs is None or tally.is_open:
                tally.total = None
                continue
            # What comes after a node that has failed will not run.
            left = runs if around is None else max(0, runs - around.done)
            tally.is_estimated = False
            if not tally.is_map:
                tally.total = runs if around is None else min(runs, tally.done + left)
            elif around is not None and not left:
                tally.total = tally.done
            else:
                others = max(0, runs - tally.maps)
                tally.total = tally.items + round(others * tally.items / max(tally.maps, 1))
                tally.is_estimated = others > 0
            if around is not None and around.is_estimated:
                tally.is_estimated = True

    def _row(self, path: Path, now: float) -> Row:
        tally = self._tallies[path]
        is_title = self._is_outermost(path)
        signs = [
            f"{sign} {count:,}"
            for sign, count in (("⚡", tally.cached), ("↻", tally.retried), ("✗", tally.failed))
            if count
        ]
        workers = self._active(now) if is_title else 0
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

    def _active(self, now: float) -> int:
        """Return how many workers, this thread left out, are heard of as often as before."""
        return sum(
            now - heard.last <= max(_LATELY, 2 * heard.silence)
            for worker, heard in self._workers.items()
            if worker != self._driver
        )


@dataclass(slots=True)
class _Heard:
    """When something was last heard of a worker, and how long at most it was not."""

    last: float
    silence: float = 0.0


@dataclass(slots=True)
class _Tally:
    """What was counted of a node or pipeline."""

    started: float
    done: int = 0
    cached: int = 0
    retried: int = 0
    failed: int = 0
    runs: int = 0  # of the outermost pipeline
    maps: int = 0  # that have begun
    items: int = 0  # that these have
    is_map: bool = False
    is_nested: bool = False
    is_open: bool = False  # nobody knows how many items there will be
    is_shown: bool = False  # nodes that nobody asks for, since what they make is cached, are not shown
    settings: str = ""
    total: int | None = None  # of how much, as far as is known now
    is_estimated: bool = False
    touched: int = 0  # the later it was begun, the higher
    changed: float = 0.0  # when it was last done

    @property
    def weight(self) -> tuple[int, ...]:
        """How much it matters that it is seen, where not all can be."""
        is_around = self.runs > 0 or self.is_map or self.is_nested
        is_open = self.total is None or self.done < self.total
        return (is_around, self.failed > 0, is_open, self.touched)

    def cells(self, now: float) -> tuple[str, str, str, str]:
        """Return how much is done, the time it took, the rate, and the time that is left."""
        is_open = self.total is None or self.done < self.total
        taken = max((now if is_open else self.changed) - self.started, 1e-9)
        about = "~" if self.is_estimated else ""
        count = f"{self.done:,}" if self.total is None else f"{self.done:,}/{about}{self.total:,}"
        rate = left = ""
        if self.done and self.total != 1:
            per_second = self.done / taken
            rate = f"{per_second:,.0f}/s" if per_second >= 100 else f"{per_second:.3g}/s"
            if is_open and self.total is not None:
                left = f"{about}{seconds(taken / self.done * (self.total - self.done))} left"
        return count, seconds(taken), rate, left


def _keep_going(progress: weakref.ref[ProgressCallback], ended: threading.Event) -> None:
    """Draw while nothing is heard, so that a long node is seen."""
    while not ended.wait(_TICK):
        callback = progress()
        if callback is None:
            return
        with suppress(RuntimeError):  # something was heard meanwhile, and is drawn by whom it was told to
            callback._draw()
        del callback


def _settings(path: Path, ctx: CallbackContext) -> str:
    """Return a pipeline's engine and cache, where they are others than those of the pipeline around."""
    own, around = ctx.get_pipeline_metadata(path), ctx.get_pipeline_metadata(path[:-1])
    return " · ".join(
        _SHORT[name](own.get(name, "")) for name in _SHORT if own.get(name, "") != around.get(name, "")
    )


def _short_engine(engine: str) -> str:
    executors = re.fullmatch(r"HyperNodesEngine\((.*)\)", engine)
    if executors is None:
        return engine or "no engine"
    named = executors[1].replace("node_executor=", "nodes: ").replace("map_executor=", "items: ")
    return named.replace("'", "").replace(", ", " · ") or "sequential"


def _short_cache(cache: str) -> str:
    directory = re.fullmatch(r"DiskCache\('([^']*)'.*\)", cache)
    if directory is None:
        return cache or "no cache"
    return f"cache {min(directory[1], os.path.relpath(directory[1]), key=len)}"


_SHORT: Final = {"engine": _short_engine, "cache": _short_cache}

_REST: Final = "\N{CHARACTER TABULATION}the rest"  # which is no pipeline's name


def _ordered(paths: Iterable[Path]) -> list[Path]:
    """Return paths as a tree is read: each pipeline, then what is in it."""
    known = list(paths)
    children: dict[Path, list[Path]] = {}
    for path in known:
        children.setdefault(path[:-1], []).append(path)
    ordered: list[Path] = []
    waiting = [path for path in reversed(known) if path[:-1] not in set(known)]
    while waiting:
        path = waiting.pop()
        ordered.append(path)
        waiting.extend(reversed(children.get(path, ())))
    return ordered


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None
