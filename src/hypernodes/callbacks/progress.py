"""ProgressCallback: bars for nodes and maps, in a terminal or a notebook."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from hypernodes.callbacks.base import PipelineCallback
from hypernodes.callbacks.event import here
from hypernodes.exceptions import ExtraMissingError
from hypernodes.portable import seconds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hypernodes.callbacks.base import CallbackContext
    from hypernodes.callbacks.event import Worker

_LINE = 5.0  # seconds between lines where there is no terminal
_LATELY = 5.0  # seconds
_REDRAW = 0.1  # seconds between redraws: a map of a million items must not notice its bars


class ProgressCallback(PipelineCallback):
    """Show a bar for each node and each map, nested pipelines indented below their parents.

    A bar tells how much is done, items per second, the time that is left, and how many were cached (⚡),
    retried (↻) and failed (✗); the first one also how many workers have been heard of lately. A pipeline's
    engine and cache stand beside its name where they are others than those of the pipeline around. Where
    there are more nodes than fit, those are shown that are under way or have failed.

    Args:
        display: ``"terminal"``, ``"notebook"`` (needs tqdm and ipywidgets), ``"lines"`` (a line every few
            seconds, for logs), or ``"auto"``, which takes the one that fits.

    Raises:
        ExtraMissingError: The library for the display is not installed; it names the extra.
    """

    counts_items = True

    def __init__(self, display: Literal["auto", "terminal", "notebook", "lines"] = "auto") -> None:
        if display == "auto":
            display = "notebook" if _in_notebook() else "terminal" if sys.stderr.isatty() else "lines"
        displays: dict[str, Any] = {"notebook": _NotebookBars, "terminal": _TerminalBars, "lines": _Lines}
        self._make: type[_Display] = displays[display]
        self._make.check()
        self._bars: _Display | None = None
        self._rows: dict[tuple[str, ...], _Row] = {}
        self._drawn = 0.0
        self._outermost: tuple[tuple[str, ...], tuple[int, ...]] = ((), ())
        self._workers: dict[Worker, _Heard] = {}

    def on_pipeline_start(self, pipeline_id: str, inputs: Mapping[str, Any], ctx: CallbackContext) -> None:
        path = ctx.hierarchy_path
        if self._bars is None:
            self._bars, self._rows, self._outermost = self._make(), {}, (path, ctx.item_path)
            self._workers = {}
        if path == self._outermost[0]:
            self._row(path, title=True).total += 1  # a nested one is expected as a node of its parent
        self._row(path).settings = _settings(path, ctx)
        self._expect(path, ctx, 1)

    def on_map_start(self, total_items: int | None, ctx: CallbackContext) -> None:
        row = self._row(ctx.hierarchy_path)
        row.is_map = True
        row.is_open = total_items is None
        row.total += (total_items or 0) - 1
        self._expect(ctx.hierarchy_path, ctx, (total_items or 0) - 1)

    def on_map_item_start(self, item_index: int, ctx: CallbackContext) -> None:
        row = self._rows.get(ctx.hierarchy_path)
        if row is not None and row.is_open:
            row.total += 1
            self._expect(ctx.hierarchy_path, ctx, 1)

    def on_map_items_end(self, items: int, ctx: CallbackContext) -> None:
        row = self._row(ctx.hierarchy_path)
        row.done += items
        if row.is_open:
            row.total += items
            self._expect(ctx.hierarchy_path, ctx, items)
        self._count_nodes(ctx.hierarchy_path, ctx, items)
        self._draw(ctx.worker)

    def _count_nodes(self, path: tuple[str, ...], ctx: CallbackContext, items: int) -> None:
        for node_id in ctx.get_pipeline_metadata(path[-1]).get("node_ids", ()):
            row = self._row((*path, node_id))
            row.is_shown = True
            row.done += items
            if node_id in ctx.get_pipeline_metadata(path[-1]).get("nested", ()):
                row.is_nested, row.settings = True, _settings((*path, node_id), ctx)
                self._expect((*path, node_id), ctx, items)
                self._count_nodes((*path, node_id), ctx, items)

    def _expect(self, path: tuple[str, ...], ctx: CallbackContext, more: int) -> None:
        """Count on so many more runs of each node of a pipeline."""
        for node_id in ctx.get_pipeline_metadata(path[-1]).get("node_ids", ()):
            row = self._row((*path, node_id))
            row.total += more
            row.is_open = row.is_open or self._row(path).is_open
        self._draw()

    def _row(self, path: tuple[str, ...], *, title: bool = False) -> _Row:
        if path not in self._rows:
            # What happened in a worker is told when it comes back; it began when what is around did.
            around = self._rows.get(path[:-1])
            started = monotonic() if around is None else around.started
            self._rows[path] = _Row(path[-1], len(path) - 1, is_title=title, is_shown=title, started=started)
        return self._rows[path]

    def on_node_start(self, node_id: str, inputs: Mapping[str, Any], ctx: CallbackContext) -> None:
        self._row((*ctx.hierarchy_path, node_id)).is_shown = True

    def on_map_item_end(self, item_index: int, duration: float, ctx: CallbackContext) -> None:
        self._row(ctx.hierarchy_path).done += 1
        self._draw()

    def on_pipeline_end(
        self, pipeline_id: str, outputs: Mapping[str, Any], duration: float, ctx: CallbackContext
    ) -> None:
        row = self._row(ctx.hierarchy_path)
        if not row.is_map:
            row.done += 1
        self._draw()
        if (ctx.hierarchy_path, ctx.item_path) == self._outermost:
            self._close()

    def on_node_end(
        self, node_id: str, outputs: Mapping[str, Any], duration: float, ctx: CallbackContext
    ) -> None:
        row = self._row((*ctx.hierarchy_path, node_id))
        if not row.is_nested:
            row.done += 1
            self._draw(ctx.worker)

    def on_nested_pipeline_start(self, parent_id: str, child_pipeline_id: str, ctx: CallbackContext) -> None:
        self._row((*ctx.hierarchy_path, child_pipeline_id)).is_nested = True

    def on_node_cached(self, node_id: str, signature: str, ctx: CallbackContext) -> None:
        row = self._row((*ctx.hierarchy_path, node_id))
        row.is_shown = True
        row.done += 1
        row.cached += 1
        self._draw()

    def on_node_retry(self, node_id: str, attempt: int, error: BaseException, ctx: CallbackContext) -> None:
        self._row((*ctx.hierarchy_path, node_id)).retried += 1

    def on_map_item_cached(self, item_index: int, signature: str, ctx: CallbackContext) -> None:
        self._row(ctx.hierarchy_path).cached += 1

    def on_error(self, node_id: str, error: BaseException, ctx: CallbackContext) -> None:
        is_outermost = node_id == ctx.current_pipeline_id
        row = self._row(ctx.hierarchy_path if is_outermost else (*ctx.hierarchy_path, node_id))
        row.failed += 1
        row.done += not is_outermost
        row.total = max(row.total, row.done)
        if (ctx.hierarchy_path, ctx.item_path) == self._outermost:
            self._close()
        else:
            self._draw()

    def _draw(self, worker: Worker | None = None) -> None:
        now = monotonic()
        if worker is not None:
            heard = self._workers.get(worker)
            if heard is None:
                self._workers[worker] = _Heard(now)
            else:
                heard.silence, heard.last = max(heard.silence, now - heard.last), now
        if self._bars is not None and now - self._drawn >= _REDRAW:
            self._drawn = now
            self._bars.draw(self._shown(), now)

    def _shown(self) -> dict[tuple[str, ...], _Row]:
        """Return the rows that are to be seen: all, or those that matter most."""
        shown = {path: row for path, row in self._rows.items() if row.is_shown}
        if self._outermost[0] in shown:
            shown[self._outermost[0]].workers = self._active(monotonic())
        assert self._bars is not None  # noqa: S101
        most = self._bars.room
        if len(shown) <= most:
            return shown
        by_weight = sorted(shown, key=lambda path: shown[path].weight, reverse=True)
        kept = set(by_weight[: most - 1])
        rest = _Row(f"… {len(shown) - len(kept)} more", 1, started=0.0, is_title=False, is_rest=True)
        return {**{path: row for path, row in shown.items() if path in kept}, (_REST,): rest}

    def _active(self, now: float) -> int:
        """Return how many workers, this thread left out, are heard of as often as before."""
        return sum(
            now - heard.last <= max(_LATELY, 2 * heard.silence)
            for worker, heard in self._workers.items()
            if worker != here()
        )

    def _close(self) -> None:
        if self._bars is not None:
            self._bars.draw(self._shown(), monotonic())
            self._bars.close()
            self._bars = None


@dataclass(slots=True)
class _Heard:
    """When something was last heard of a worker, and how long at most it was not."""

    last: float
    silence: float = 0.0


@dataclass(slots=True)
class _Row:
    """One bar."""

    label: str
    depth: int
    is_title: bool
    started: float
    total: int = 0
    done: int = 0
    cached: int = 0
    retried: int = 0
    failed: int = 0
    is_map: bool = False
    is_nested: bool = False
    is_open: bool = False  # nobody knows how many there will be
    settings: str = ""
    workers: int = 0  # that are heard of
    is_rest: bool = False  # stands for the rows that there is no room for
    is_shown: bool = False  # nodes that nobody asks for, since what they make is cached, are not shown
    seen: int = -1  # what was done when it was last drawn, and since when
    changed: float = 0.0

    @property
    def weight(self) -> tuple[int, ...]:
        """How much it matters that it is seen, where not all can be."""
        is_around = self.is_title or self.is_map or self.is_nested
        return (is_around, self.failed > 0, 0 < self.done < self.total, self.done < self.total, self.retried)

    def note(self, now: float) -> str:
        """Return what stands behind the bar."""
        if self.is_rest:
            return ""
        if self.done != self.seen:
            self.seen, self.changed = self.done, now
        taken = (self.changed if self.done >= self.total else now) - self.started
        parts = [f"{self.done}" if self.is_open else f"{self.done}/{self.total}", seconds(taken)]
        if self.total > 1 and self.done:
            parts.append(f"{self.done / max(taken, 1e-9):.3g}/s")
            if self.done < self.total and not self.is_open:
                parts.append(f"{seconds(taken / self.done * (self.total - self.done))} left")
        parts += [
            f"{sign} {count}"
            for sign, count in (("⚡", self.cached), ("↻", self.retried), ("✗", self.failed))
            if count
        ]
        if self.workers:
            parts.append("1 worker" if self.workers == 1 else f"{self.workers} workers")
        return "  ".join(parts)


class _Display(Protocol):
    """Where bars are drawn."""

    @classmethod
    def check(cls) -> None:
        """Complain about a library that is not installed."""

    @property
    def room(self) -> int:
        """How many rows it has room for."""
        return 40

    def draw(self, rows: Mapping[tuple[str, ...], _Row], now: float) -> None:
        """Bring the bars up to date."""

    def close(self) -> None:
        """Leave the bars as they are."""


class _TerminalBars(_Display):
    @classmethod
    def check(cls) -> None:
        try:
            import rich  # noqa: F401, PLC0415
        except ImportError as error:
            raise ExtraMissingError(
                "progress in a terminal needs rich: pip install rich, or this package with "
                "its extra 'progress'"
            ) from error

    def __init__(self) -> None:
        from rich.console import Console  # noqa: PLC0415
        from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415
        from rich.table import Column  # noqa: PLC0415

        self._progress = Progress(
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=24, table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[note]}", table_column=Column(no_wrap=True)),
            # What gives way where the terminal is narrow.
            TextColumn(
                "[dim]{task.fields[settings]}[/]",
                table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
            ),
            console=Console(file=sys.stderr),
            expand=True,
        )
        self._tasks: dict[tuple[str, ...], Any] = {}
        self._progress.start()

    @property
    def room(self) -> int:
        """How many rows the terminal has, less one for the cursor."""
        return max(5, self._progress.console.height - 2)

    def draw(self, rows: Mapping[tuple[str, ...], _Row], now: float) -> None:
        from rich.markup import escape  # noqa: PLC0415

        if self._tasks.keys() != rows.keys():
            # A nested pipeline is known once it starts; its rows belong below it, not at the end.
            for task in self._tasks.values():
                self._progress.remove_task(task)
            self._tasks.clear()
        for path in _ordered(rows):
            row = rows[path]
            style = "bold" if row.is_title else "red" if row.failed else "default"
            label = f"[{style}]{'  ' * row.depth}{escape(row.label)}[/]"
            if path not in self._tasks:
                settings = escape(row.settings)
                self._tasks[path] = self._progress.add_task(
                    label, total=row.total, note="", settings=settings
                )
            self._progress.update(
                self._tasks[path], description=label, total=row.total, completed=row.done, note=row.note(now)
            )

    def close(self) -> None:
        self._progress.stop()


class _Lines(_Display):
    """A line every few seconds: for CI, files, and the logs of jobs."""

    def __init__(self) -> None:
        self._printed = monotonic()
        self._rows: Mapping[tuple[str, ...], _Row] = {}

    def draw(self, rows: Mapping[tuple[str, ...], _Row], now: float) -> None:
        self._rows = rows
        if now - self._printed >= _LINE:
            self._printed = now
            self._print(now)

    def close(self) -> None:
        self._print(monotonic())

    def _print(self, now: float) -> None:
        whole = [path for path in _ordered(self._rows) if self._rows[path].is_title]
        maps = [path for path in _ordered(self._rows) if self._rows[path].is_map and path not in whole]
        for path in (*whole, *maps):
            print("/".join(path), self._rows[path].note(now), sep=": ", file=sys.stderr, flush=True)  # noqa: T201


class _NotebookBars(_Display):
    @classmethod
    def check(cls) -> None:
        try:
            import ipywidgets  # noqa: F401, PLC0415
            import tqdm  # noqa: F401, PLC0415
        except ImportError as error:
            raise ExtraMissingError(
                "progress in a notebook needs tqdm and ipywidgets: pip install tqdm ipywidgets, or "
                "this package with its extra 'notebook'"
            ) from error

    def __init__(self) -> None:
        self._bars: dict[tuple[str, ...], Any] = {}

    def draw(self, rows: Mapping[tuple[str, ...], _Row], now: float) -> None:
        from tqdm.notebook import tqdm  # noqa: PLC0415

        for path in _ordered(rows):
            row = rows[path]
            if path not in self._bars:
                label = "\u2003" * row.depth + row.label + (f" ({row.settings})" if row.settings else "")
                self._bars[path] = tqdm(total=row.total, desc=label, bar_format="{desc} {bar} {postfix}")
            bar = self._bars[path]
            bar.total, bar.n = row.total, row.done
            bar.set_postfix_str(row.note(now))

    def close(self) -> None:
        for bar in self._bars.values():
            bar.close()


def _settings(path: tuple[str, ...], ctx: CallbackContext) -> str:
    """Return a pipeline's engine and cache, where they are others than those of the pipeline around."""
    own = ctx.get_pipeline_metadata(path[-1])
    around = ctx.get_pipeline_metadata(path[-2]) if len(path) > 1 else {}
    return " · ".join(
        own.get(name) or f"no {name}"
        for name in ("engine", "cache")
        if own.get(name, "") != around.get(name, "")
    )


_REST: Final = "\N{CHARACTER TABULATION}the rest"  # which is no pipeline's name


def _ordered(rows: Mapping[tuple[str, ...], _Row]) -> list[tuple[str, ...]]:
    """Return the paths as a tree is read: each pipeline, then what is in it."""
    children: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for path in rows:
        children.setdefault(path[:-1], []).append(path)
    ordered: list[tuple[str, ...]] = []
    open_paths = [path for path in reversed(list(rows)) if path[:-1] not in rows]
    while open_paths:
        path = open_paths.pop()
        ordered.append(path)
        open_paths.extend(reversed(children.get(path, ())))
    return ordered


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None
