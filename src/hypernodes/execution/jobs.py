"""What a run hands out to be done, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hypernodes.callbacks.base import Event
    from hypernodes.execution.frame import Frame
    from hypernodes.execution.lane import Lane
    from hypernodes.execution.steps import CallStep
    from hypernodes.execution.sweep import Sweep

OnError: TypeAlias = Literal["raise", "return"]
Values: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """A step with its arguments, ready to be called anywhere."""

    frame: Frame
    step: CallStep
    arguments: Values

    @property
    def lane(self) -> Lane | None:
        """Where it is to be called; ``None`` is right here."""
        return self.frame.plan.node_lane

    @property
    def is_wanted(self) -> bool:
        """Whether anybody still waits for it."""
        return self.frame.is_alive


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Neighbouring items of a map, ready to be run whole in a worker."""

    sweep: Sweep
    first: int
    items: Sequence[Mapping[str, Any]]

    @property
    def lane(self) -> Lane | None:
        """Where it is to be run."""
        return self.sweep.plan.map_lane

    @property
    def is_wanted(self) -> bool:
        """Whether anybody still waits for it."""
        return self.sweep.is_alive


Job: TypeAlias = Call | Batch


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one call: its outputs or its error.

    Attributes:
        outputs: One value for each output of the node.
        error: What it raised; a `PackedError` while it travels.
        seconds: How long it took, retries included.
        events: What happened on the way.
    """

    outputs: tuple[Any, ...] = ()
    error: Any = None
    seconds: float = 0.0
    events: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Failure:
    """Stands in the row of an item that failed."""

    error: BaseException


@dataclass(frozen=True, slots=True, eq=False)
class BatchOutcome:
    """What came of a batch.

    Attributes:
        rows: The outputs of each item, or its `Failure`, up to the first failure that ends the map.
        events: What happened on the way.
        seconds: How long it took.
    """

    rows: list[Any]
    events: list[Event]
    seconds: float
