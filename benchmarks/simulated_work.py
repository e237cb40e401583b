"""What the workers of the simulated cluster do: functions that take virtual time, and a cache that counts."""

from __future__ import annotations

import random
from typing import Any

from hypernodes import Pipeline, node
from hypernodes.config import MISS

# -------------------------------------------------------------------------------------------- pipelines


class Elapsed:
    """The virtual seconds that the node functions of one job have taken."""

    seconds = 0.0


def work(seconds: float) -> None:
    """Take as long as the item says, or fail where it says less than nothing."""
    if seconds < 0:
        raise ValueError("this item fails")
    Elapsed.seconds += seconds


def inner_items(item: Any) -> Any:
    """Return the inner items of an outer item, in no time."""
    return item


def flat() -> Pipeline:
    """Return a pipeline whose items take as many seconds as they say."""
    return Pipeline([node(work, output_name="done")], name="flat")


def nested(depth: int = 1) -> Pipeline:
    """Return a pipeline whose items are lists of durations, or lists of such lists ...; see `item_name`."""
    pipeline = Pipeline([node(work, output_name="done")], name="inner")
    argument, inner_done = "seconds", "done"
    for level in range(depth):
        parts, done = f"parts_{level}", f"done_{level}"
        mapped = pipeline.as_node(
            input_mapping={parts: argument},
            output_mapping={inner_done: done},
            map_over=parts,
            name=f"map_{level}",
        )
        argument = f"item_{level}"
        divide = node(inner_items, output_name=parts).rename(inputs={"item": argument})
        pipeline = Pipeline([divide, mapped], name=f"outer_{level}")
        inner_done = done
    return pipeline


def item_name(depth: int) -> str:
    """Return the input that the outermost of so many nested maps is over."""
    return f"item_{depth - 1}" if depth else "seconds"


def total(item: Any) -> float:
    """Return how many seconds of work an item is."""
    return sum(map(total, item)) if isinstance(item, list) else item


# --------------------------------------------------------------------------------------- the shared cache


class CountedCache:
    """A cache in memory that counts what a worker would ask the actor of a shared cache for."""

    has_quick_contains = True

    def __init__(self, hits: float, seed: int) -> None:
        self._hits = hits
        self._seed = seed
        self._entries: dict[str, Any] = {}
        self._is_dirty = False
        self.calls = self.entries = self.look_ups = 0

    def _has(self, signature: str) -> bool:
        if signature in self._entries:
            return True
        return random.Random(f"{self._seed} {signature}").random() < self._hits

    def get(self, signature: str) -> Any:
        return self.get_many((signature,)).get(signature, MISS)

    def get_many(self, signatures: Any) -> dict[str, Any]:
        asked = list(signatures)
        found = {name: self._entries.get(name, (None,)) for name in asked if self._has(name)}
        self.calls += bool(asked)
        self.look_ups += len(asked)
        self.entries += len(found)
        return found

    def contains(self, signatures: Any) -> set[str]:
        asked = list(signatures)
        self.calls += bool(asked)
        self.look_ups += len(asked)
        return {signature for signature in asked if self._has(signature)}

    def put(self, signature: str, value: Any, provenance: object = None) -> None:
        self._entries[signature] = value
        self.entries += 1
        self._is_dirty = True

    def write_delayed(self) -> None:
        self.calls += self._is_dirty
        self._is_dirty = False

    flush = write_delayed

    def provenances(self, node: str) -> tuple[()]:
        return ()

    def code_parts(self, code: str) -> dict[str, Any]:
        return {}

    def has_code_parts(self, code: str) -> bool:
        return True

    def put_code_parts(self, code: str, parts: object) -> None:
        pass

    def take_counts(self) -> tuple[int, int, int]:
        """Return the calls, look-ups and entries since the last time."""
        counts = (self.calls, self.look_ups, self.entries)
        self.calls = self.look_ups = self.entries = 0
        return counts
