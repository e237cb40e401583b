"""What a Daft query computes, and how it is run: data that the engine makes and the query modules read."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from hypernodes._compat.daft import MAX_UDFS
from hypernodes.execution.stages import Stage, as_single_stage, split
from hypernodes.serialization.broadcast import InlineValue, PlacedValue

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from hypernodes.callbacks.event import Scope
    from hypernodes.engines.daft.runner import Runner
    from hypernodes.engines.daft.shared import SharedValues
    from hypernodes.execution.jobs import MapContext, SignedStep
    from hypernodes.execution.plan.model import Plan
    from hypernodes.serialization.pickling import Serialized


@dataclass(frozen=True, slots=True)
class QueryOptions:
    """How the queries of an engine are run."""

    runner: Runner
    batch_size: int | None = None  # how many rows a UDF gets at most
    concurrency: int | None = None  # the processes of each UDF, and the coroutines of an async one
    show_plan: bool = False
    plain_batch_size: int | None = None  # of a UDF of plain functions, if there is no ``batch_size``
    sends_code: bool = False  # whether the user's modules go along to other processes

    @property
    def is_remote(self) -> bool:
        """Whether other processes compute the stages."""
        return self.runner == "ray" or self.concurrency is not None

    @property
    def workers(self) -> int:
        """How many CPUs compute."""
        if self.runner != "ray":
            return os.cpu_count() or 4
        import ray

        return max(1, int(ray.cluster_resources().get("CPU", 1)))

    def place(self, serialized: Serialized) -> PlacedValue:
        """Place a serialized value where each process that computes finds it."""
        if self.runner != "ray":
            return InlineValue(serialized)
        from hypernodes.executors.ray.objects import place

        return place(serialized, by_ray=False)


KNOWN_RESULTS: Final = "known results"
"""The column with the results of each row that were found in a cache; no input can have this name."""


@dataclass(frozen=True)
class QuerySpec:
    """What a query computes."""

    stages: Sequence[Stage]  # each after those whose outputs it needs
    outputs: tuple[str, ...]
    fixed: Mapping[str, Any]  # the values that are the same for all items
    indices: Sequence[int] | None = None  # of each item, by its position; by default the position itself
    scope: Scope | None = None  # of the map, if it is not the outermost one
    context: MapContext | None = None  # if the items are executed as chunks by the general path
    signed: SignedStep | None = None  # of a call that is made by itself
    shared: SharedValues | None = None  # what is the same for all rows, and computed where it is needed

    @cached_property
    def readers(self) -> Counter[str]:
        """How many stages read each value."""
        return Counter(name for stage in self.stages for name in stage.takes)

    @cached_property
    def computed(self) -> set[str]:
        """The names of the values that the stages compute."""
        return {name for stage in self.stages for name in stage.makes}

    @property
    def columns_needed(self) -> list[str]:
        """The names of the values that must be columns of the source."""
        return [name for name in self.readers if name not in self.computed]


def stages_of(plan: Plan, fixed: Collection[str], *, finely: bool = False) -> list[Stage]:
    """Return the stages of a plan, or the plan as one stage if a query has no room for that many UDFs.

    Finely, plain functions that are not connected are stages of their own, if there is room.
    """
    if finely and len(stages := split(plan, fixed, finely=True)) <= MAX_UDFS:
        return stages
    stages = split(plan, fixed)
    return stages if len(stages) <= MAX_UDFS else [as_single_stage(plan, fixed)]
