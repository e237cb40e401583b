"""What a run hands out to be done, and what comes back. All of it is data: frozen, and picklable.

    Run.ready() ─▶ Call        call a node's function once
                   BatchCall   call a node's batch function for several items
                   CallGroup   make short calls one after the other
                   Chunk       run a plan over some items of a map
                   LookUp      look signatures up in a cache
                   Fetch       bring values here that have stayed with their workers
    Run.settle(key, outcome) ◀─ Outcome, GroupOutcome, ChunkOutcome, Found, Fetched
    Run.stores  ─▶ Store       put a result into a cache; nothing comes back

A job names the part of the run that waits for it by an opaque key, and the target it goes to by a reference.
A target of ``None`` is the place where the run itself is.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from hypernodes.cache.bulk import BulkCache
    from hypernodes.cache.provenance import ArgumentProvenance
    from hypernodes.callbacks.event import Event, Scope, Worker
    from hypernodes.execution.plan.model import CallStep, Plan
    from hypernodes.execution.plan.placement import TargetRef
    from hypernodes.execution.signature import Fingerprints
    from hypernodes.mapping import Columns

OnError: TypeAlias = Literal["raise", "return"]
Values: TypeAlias = dict[str, Any]
JobKey: TypeAlias = int


class CommonValue:
    """A value that many jobs of a run have in common; a target that serializes broadcasts it once."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value: Any = value


@dataclass(frozen=True, slots=True, eq=False)
class EntryKey:
    """Under which signature the result of a call is kept, and in which cache."""

    cache: BulkCache
    signature: bytes
    code: str  # the fingerprint of the node's code


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """A step with its arguments, ready to be called anywhere."""

    key: JobKey  # names the part of the run that waits for the outcome
    step: CallStep
    arguments: Values  # values by parameter
    scope: Scope
    target: TargetRef | None = None
    # Those arguments that many jobs have in common.
    common: Mapping[str, CommonValue] = field(default_factory=dict)
    entry: EntryKey | None = None  # where its result is kept, if it is cached
    # How its arguments came to be, for a target that stores results itself.
    takes: Mapping[str, ArgumentProvenance] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class BatchCall:
    """Calls of one node for several items of a map, which the node's batch function makes together.

    Each call has an outcome of its own, under its own key.
    """

    step: CallStep
    calls: Sequence[Call]
    target: None = None  # it is called where the run is

    @property
    def fixed(self) -> frozenset[str]:
        """The parameters whose argument is the same for all items."""
        return frozenset(self.calls[0].common)


@dataclass(frozen=True, slots=True, eq=False)
class CallGroup:
    """Short calls of one plan, which go to a worker together and are made there one after the other."""

    key: JobKey  # names the part of the run that waits for the outcomes
    steps: tuple[CallStep, ...]  # each after what it needs
    values: Values  # what the calls take, by its name in the plan, less what they make themselves
    scope: Scope
    target: TargetRef | None = None
    # Those values that many jobs have in common.
    common: Mapping[str, CommonValue] = field(default_factory=dict)
    entries: Mapping[int, EntryKey] = field(default_factory=dict)  # of the cached calls, by index


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class SignedStep:
    """A step on its way to a worker, with the digest of its code, if its result is cached."""

    step: CallStep
    code: bytes | None


def signed_step(step: CallStep, entry: EntryKey | None) -> SignedStep:
    """Return the step of a call with the digest of its code."""
    return SignedStep(step, None if entry is None else bytes.fromhex(entry.code))


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class MapContext:
    """What the chunks of one map have in common."""

    plan: Plan  # as it is run inside a chunk
    fingerprints: Fingerprints  # of the code of its steps
    fixed: Values  # the inputs that are the same for all items, less those in `common`
    common: Mapping[str, CommonValue]  # those that are placed once for all chunks, where the target does so
    identities: Mapping[str, bytes | None]  # of the fixed inputs
    scope: Scope
    on_error: OnError


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Some items of a map, ready to be run together."""

    key: JobKey  # names the part of the run that waits for the rows
    context: MapContext
    indices: Sequence[int]  # of each item in its map
    items: Columns  # the inputs that vary
    target: TargetRef | None = None
    # Results that were found in a cache already, by position and step index.
    known: Mapping[int, Mapping[int, tuple[Any, ...]]] = field(default_factory=dict)

    def part(self, start: int, end: int) -> Chunk:
        """Return the items from one position to before another as a chunk."""
        known = {position - start: self.known[position] for position in self.known if start <= position < end}
        return replace(self, indices=self.indices[start:end], items=self.items[start:end], known=known)


@dataclass(frozen=True, slots=True, eq=False)
class LookUp:
    """Signatures to be looked up in a cache."""

    key: JobKey  # names the part of the run that waits for what is found
    cache: BulkCache
    wanted: Sequence[Sequence[bytes]]  # for each item the signatures whose results are asked for
    # For each item those of all its steps, which matter if one of `wanted` is missing.
    upstream: Sequence[Iterable[bytes | None]] = ()
    is_again: bool = False  # they were looked up before, and an equal call has ended since
    target: None = None  # it is done where the run is


@dataclass(frozen=True, slots=True, eq=False)
class Fetch:
    """Values that have stayed with their workers, and are needed where the run is."""

    key: JobKey  # names the part of the run that waits for them
    values: Sequence[Any]
    target: None = None  # it is done where the run is


@dataclass(frozen=True, slots=True, eq=False)
class Store:
    """A result to be kept."""

    entry: EntryKey
    step: CallStep
    outputs: tuple[Any, ...]
    takes: Mapping[str, ArgumentProvenance]  # how the arguments of the call came to be
    seconds: float  # how long the call took


RemoteJob: TypeAlias = Call | CallGroup | Chunk
"""The jobs that go to a target."""
KeyedJob: TypeAlias = RemoteJob | LookUp | Fetch
Job: TypeAlias = KeyedJob | BatchCall


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What came of one call: its outputs or its error."""

    outputs: tuple[Any, ...] = ()  # one value for each output of the node
    error: BaseException | None = None
    seconds: float = 0.0  # with its retries
    events: Sequence[Event] = ()
    is_stored: bool = False  # the worker has put the result into the cache
    retry_in: float | None = None  # it is to be made again after so many seconds
    ended: tuple[float, Worker] | None = None  # when, in seconds since the epoch, and by which worker


@dataclass(frozen=True, slots=True, eq=False)
class GroupOutcome:
    """What came of a group of calls: an outcome for each that was made, up to the first that failed."""

    outcomes: Sequence[Outcome]


@dataclass(frozen=True, slots=True, eq=False)
class BatchOutcome:
    """What came of a batch call: an outcome for each item."""

    outcomes: Sequence[Outcome]
    events: Sequence[Event] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Failure:
    """Stands in the row of an item that failed."""

    error: BaseException


@dataclass(frozen=True, slots=True, eq=False)
class ChunkOutcome:
    """What came of a chunk."""

    # Outputs or a `Failure`; up to the first failure that ends the map. If none has failed, `Columns`.
    rows: Sequence[Values | Failure]
    events: Sequence[Event] = ()
    seconds: float = 0.0
    nbytes: int = 0  # of its items and rows, as far as they had to travel
    executed: int = 0  # how many calls were made, at least
    hits: int = 0  # how many results came from a cache


@dataclass(frozen=True, slots=True, eq=False)
class Fetched:
    """Values that were brought here."""

    values: Sequence[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What a look-up has found."""

    # For each item the results that are there, by signature.
    values: Sequence[Mapping[bytes, tuple[Any, ...]]]
    absent: frozenset[bytes] = frozenset()  # signatures that were looked up and are not there
