"""Which execution target a plan's calls and map items go to, as data that travels with the plan."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import Final


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a plan and a run must know of an execution target.

    Attributes:
        serializes: Whether jobs and results are pickled on their way, since the workers are other processes.
        runs_coroutines: Whether it runs coroutine functions on an event loop.
        places_calls: Whether it places calls by their resources, keeps large results where they were made and
            starts a call again whose worker died.
        groups_calls: Whether it takes short calls that go to a worker together.
        gathers: Whether it executes all jobs that are ready together, and not one by one.
        worker_alias: The executor alias by which a worker process makes a target like it; empty for a target
            that stays in the process that made it.
    """

    serializes: bool = True
    runs_coroutines: bool = False
    places_calls: bool = False
    groups_calls: bool = False
    gathers: bool = False
    worker_alias: str = ""

    @property
    def shares_work(self) -> bool:
        """Whether its workers each do one thing at a time, so that some may be without work."""
        return not self.gathers and not self.runs_coroutines


_ids: Final = count(1)


@dataclass(frozen=True, slots=True)
class TargetRef:
    """Names an execution target in a plan; the target itself stays in the process that made it."""

    id: int
    label: str = field(compare=False)
    capabilities: Capabilities = field(compare=False)

    @classmethod
    def new(cls, label: str, capabilities: Capabilities) -> TargetRef:
        """Return a reference that no other target of this process has."""
        return cls(next(_ids), label, capabilities)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the work of an engine goes; ``None`` is the place where the plan itself runs."""

    node: TargetRef | None = None
    map: TargetRef | None = None

    def with_calls_on_map_target(self) -> Placement:
        """Return a placement for items that stay with the run: their calls go where the items would go.

        A target that gathers is for whole items only: single calls then stay with the run.
        """
        if self.map is not None and self.map.capabilities.gathers:
            return Placement(self.node, None)
        return Placement(self.map, self.map)
