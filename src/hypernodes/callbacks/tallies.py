"""The numbers behind progress bars: what is done of each node and pipeline, and what is still expected."""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic
from typing import TypeAlias

from hypernodes.text import seconds

Path: TypeAlias = tuple[str, ...]


@dataclass(slots=True)
class Tally:
    """The numbers of one node or pipeline.

    A nested pipeline has one tally: as a node of its parent, and as the pipeline that contains other nodes.
    """

    started: float  # by `time.monotonic`; until it emits events, when its parent started
    done: int = 0  # executions that have ended, cached and failed ones included; of a map, its items
    cached: int = 0
    retried: int = 0  # attempts that were made again
    failed: int = 0
    runs: int = 0  # runs of a pipeline whose parent emits no events
    maps: int = 0  # maps that have started
    items: int = 0  # the items of these maps
    is_map: bool = False
    is_nested: bool = False
    is_shared: bool = False  # a node of a map that is executed once for all items
    is_stream: bool = False  # the number of its items is unknown
    is_shown: bool = False  # a node that is not needed, since what takes its outputs is cached, has no bar
    emits_events: bool = False  # a nested pipeline may have callbacks of its own
    settings: str = ""  # the engine and the cache, as text
    total: int | None = None  # executions, or items, that are expected; ``None`` if that is unknown
    is_estimated: bool = False  # the total is an estimate
    start_order: int = 0  # the position of its last start among all starts
    changed: float = 0.0  # when an execution of it last ended, by `time.monotonic`

    @property
    def is_unfinished(self) -> bool:
        """Whether more is expected."""
        return self.total is None or self.done < self.total

    @property
    def priority(self) -> tuple[int, ...]:
        """The sort key for its bar where not all bars fit on the screen; the highest are shown."""
        has_children = self.runs > 0 or self.is_map or self.is_nested
        return (has_children, self.failed > 0, self.is_unfinished, self.start_order)

    def cells(self, now: float) -> tuple[str, str, str, str]:
        """Return as text how much is done, the time it took, the rate, and the time that is left."""
        taken = max((now if self.is_unfinished else self.changed) - self.started, 1e-9)
        estimate = "~" if self.is_estimated else ""
        done = f"{self.done:,}" if self.total is None else f"{self.done:,}/{estimate}{self.total:,}"
        rate = left = ""
        if self.done and self.total != 1:
            per_second = self.done / taken
            rate = f"{per_second:,.0f}/s" if per_second >= 100 else f"{per_second:.3g}/s"
            if self.is_unfinished and self.total is not None:
                left = f"{estimate}{seconds(taken / self.done * (self.total - self.done))} left"
        return done, seconds(taken), rate, left


class Tallies(dict[Path, Tally]):
    """The tallies of nodes and pipelines, by path; a pipeline comes before the nodes in it."""

    def of(self, path: Path) -> Tally:
        """Return the tally of a node or pipeline; a new one if it has none."""
        if path not in self:
            # Events of a worker arrive with its results, so the start of the parent is the better guess.
            parent = self.get(path[:-1])
            self[path] = Tally(monotonic() if parent is None else parent.started)
        return self[path]

    def parent_of(self, path: Path) -> Tally | None:
        """Return the tally of the parent pipeline; ``None`` if that emits no events to the callback."""
        parent = self.get(path[:-1])
        return parent if parent is not None and parent.emits_events else None

    def of_node(self, path: Path, item_path: tuple[int, ...]) -> Tally:
        """Return the tally of a node that has emitted an event in an item, or in none of its map."""
        tally = self.of(path)
        is_shared = len(item_path) < sum(self.of(path[:end]).is_map for end in range(1, len(path)))
        if tally.is_shared and not is_shared:  # a part of a nested pipeline was executed for all items before
            tally.done = 0
        tally.is_shared = is_shared
        return tally

    def update_totals(self) -> None:
        """Compute what is expected of each: a node is executed once for each run or item of its pipeline."""
        for path, tally in self.items():
            parent = self.parent_of(path)
            runs = tally.runs if parent is None else parent.total
            if tally.is_shared and parent is not None:
                tally.total = max(tally.done, parent.maps)
                continue
            if runs is None or tally.is_stream:
                tally.total = None
                continue
            # What depends on a node that has failed is never executed.
            left = runs if parent is None else max(0, runs - parent.done)
            tally.is_estimated = False
            if not tally.is_map:
                tally.total = runs if parent is None else min(runs, tally.done + left)
            elif parent is not None and not left:
                tally.total = tally.done
            else:
                not_started = max(0, runs - tally.maps)
                tally.total = tally.items + round(not_started * tally.items / max(tally.maps, 1))
                tally.is_estimated = not_started > 0
            if parent is not None and parent.is_estimated:
                tally.is_estimated = True

    def shown_in_order(self) -> list[Path]:
        """Return the paths that have bars, each pipeline followed by what is in it."""
        children: dict[Path, list[Path]] = {}
        for path in self:
            children.setdefault(path[:-1], []).append(path)
        ordered: list[Path] = []
        stack = [path for path in reversed(self) if path[:-1] not in self]
        while stack:
            path = stack.pop()
            ordered.append(path)
            stack.extend(reversed(children.get(path, ())))
        return [path for path in ordered if self[path].is_shown]
