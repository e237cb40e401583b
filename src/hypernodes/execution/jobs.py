"""What a run hands out to be done, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from concurrent.futures import Future

    from hypernodes.callbacks.event import Event, Worker
    from hypernodes.execution.frame import Frame
    from hypernodes.execution.lane import Lane
    from hypernodes.execution.steps import CallStep
    from hypernodes.execution.sweep import Sweep

OnError: TypeAlias = Literal["raise", "return"]
Values: TypeAlias = dict[str, Any]
Claim: TypeAlias = tuple[Any, bytes]  # a cache, and a signature in it


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """A step with its arguments, ready to be called anywhere."""

    frame: Frame
    step: CallStep
    arguments: Values
    signature: bytes | None = None

    @property
    def lane(self) -> Lane | None:
        """Where it is to be called; ``None`` is right here."""
        return self.frame.plan.node_lane

    @property
    def is_batched(self) -> bool:
        """Whether it is made together with those of the other items that are here."""
        return (
            self.step.batch is not None
            and self.frame.is_of_chunk
            and any(name not in self.frame.common for _, name in self.step.arguments)
        )

    @property
    def claim(self) -> Claim | None:
        """What is claimed by whoever computes it, so that nobody else does at the same time."""
        return None if self.signature is None else (self.frame.plan.cache, self.signature)

    @property
    def is_wanted(self) -> bool:
        """Whether anybody still waits for it."""
        return self.frame.is_alive


@dataclass(frozen=True, slots=True, eq=False)
class Awaited:
    """A call that somebody else in this process is making.

    Attributes:
        call: The call; it is looked up again when `future` is done.
    """

    call: Call
    future: Future[None]


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """Items of a map, to be looked up before any of them is started."""

    sweep: Sweep
    at: Sequence[int]

    @property
    def is_wanted(self) -> bool:
        """Whether anybody still waits for it."""
        return self.sweep.is_alive


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Some items of a map, ready to be run whole in a worker.

    Attributes:
        numbers: The index of each item in its map.
        at: The place of each among the items of its sweep.
        deaths: How many workers have died of it, or of what it is a part of.
    """

    sweep: Sweep
    numbers: Sequence[int]
    items: Sequence[Mapping[str, Any]]
    at: Sequence[int]
    deaths: int = 0

    @property
    def lane(self) -> Lane | None:
        """Where it is to be run."""
        return self.sweep.plan.map_lane

    @property
    def is_wanted(self) -> bool:
        """Whether anybody still waits for it."""
        return self.sweep.is_alive


Job: TypeAlias = Call | Batch

Task: TypeAlias = Job | Awaited | Probe


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one call: its outputs or its error.

    Attributes:
        outputs: One value for each output of the node.
        error: What it raised; a `PackedError` while it travels.
        seconds: How long it took, retries included.
        events: What happened on the way.
        stored: Whether the worker has put it into the cache.
        ended: When it ended, in seconds since the epoch, and who has made it.
    """

    outputs: tuple[Any, ...] = ()
    error: Any = None
    seconds: float = 0.0
    events: tuple[Event, ...] = ()
    stored: bool = False
    ended: tuple[float, Worker] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Failure:
    """Stands in the row of an item that failed."""

    error: BaseException


@dataclass(frozen=True, slots=True, eq=False)
class BatchOutcome:
    """What came of a batch.

    Attributes:
        rows: A list of the outputs of each item, or its `Failure`, up to the first failure that ends the
            map; packed while it travels.
        events: What happened on the way.
        seconds: How long it took.
        size: Bytes of its items and rows, as far as they had to travel.
    """

    rows: Any
    events: list[Event]
    seconds: float
    size: int = 0
