"""What all parts of a run share: the queues, the events, and how steps are signed."""

from __future__ import annotations

from collections import deque
from itertools import count
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol
from weakref import WeakSet

from hypernodes.execution.jobs import BatchCall, CommonValue
from hypernodes.execution.kept_fingerprints import signer_of
from hypernodes.execution.scheduler.item_statistics import ItemStatistics

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hypernodes.callbacks.event import Event, Scope
    from hypernodes.execution.durations import CallDurations
    from hypernodes.execution.jobs import Call, JobKey, KeyedJob, Store, Values
    from hypernodes.execution.plan.model import CallStep, NestedStep, Plan
    from hypernodes.execution.plan.placement import TargetRef
    from hypernodes.execution.signature import Fingerprints, Signer


ABSENT_S: Final = 1.0
"""Seconds for which a look-up is trusted that has found nothing: other processes store results meanwhile.

What other runs of this process have stored since is known to `execution.in_flight`.
"""


class TargetInfo(Protocol):
    """What the scheduler asks of an execution target, while the run goes on."""

    @property
    def workers(self) -> int:
        """How many jobs run at once."""

    @property
    def max_retries(self) -> int:
        """How often work is started again whose worker died."""

    @property
    def durations(self) -> CallDurations:
        """How long the functions take that were called there."""

    def chunk_items(self, total: int | None) -> int:
        """Return how many items make a chunk, for a target that gathers."""


class JobOwner(Protocol):
    """The part of a run that waits for a job."""

    @property
    def over(self) -> bool:
        """Whether it has ended, so that nothing waits for its jobs."""

    def job_begins(self, about: Any) -> None:
        """Take note that a call is about to be made."""

    def job_done(self, about: Any, outcome: Any) -> None:
        """Go on with the outcome of a job."""

    def job_failed(self, about: Any, error: BaseException) -> None:
        """Go on after a job that could not be carried out at all."""

    def look_again(self, about: Any) -> None:
        """Look up the result of a call that was made elsewhere meanwhile."""


class Continuation(NamedTuple):
    """Which part of a run waits for a job, and what the job is about for that part.

    For a `PlanRun` that is a step (its call, or its look-up); the name of a value that is fetched to be
    identified; a step and the names of values that are fetched to be mapped over; or ``None`` for outputs
    that are fetched to be returned. For a `MapRun` it is a block of items that are looked up, or a chunk
    that was sent.
    """

    owner: JobOwner
    about: Any


class Parent(Protocol):
    """Whom a part of a run tells how it ended."""

    def child_finished(self, child: Any, result: Any) -> None:
        """Go on with the result of a child."""

    def child_failed(self, child: Any, error: BaseException) -> None:
        """Go on after a child that failed."""


class OpenNested(Protocol):
    """Begins a nested plan as a part of the run."""

    def __call__(
        self,
        step: NestedStep,
        arguments: Values,
        *,
        identities: dict[str, bytes | None],
        common: Mapping[str, CommonValue],
        scope: Scope,
        parent: Parent,
    ) -> Any:
        """Return the part of the run that was begun."""


class RunState:
    """The queues of a run, and what its parts share."""

    def __init__(
        self,
        fingerprints: Fingerprints,
        target_info: Callable[[TargetRef], TargetInfo],
        open_nested: OpenNested,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self.fingerprints = fingerprints
        self.clock = clock
        self.target_info = target_info
        self.open_nested = open_nested
        self.events: list[Event] = []  # not emitted yet
        self.stores: list[Store] = []  # results that are to be put into a cache
        self.jobs: deque[KeyedJob] = deque()  # what can be done now
        # What follows from what is known; worked off before the next job is handed out.
        self.agenda: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        # Each sends a chunk when no other job is ready, so that its size follows from the latest outcomes.
        self.senders: deque[Callable[[], None]] = deque()
        self.retries = 0  # calls that wait for a retry, and leave their worker to others
        self.maps: WeakSet[Any] = WeakSet()  # those with nodes that are called again after a delay
        self.has_remote_values = False  # any value has stayed with its worker
        self._absent: set[bytes] = set()
        self._absent_until = 0.0
        self._keys = count(1)
        self.waiting: dict[JobKey, Continuation] = {}  # which part waits for which job
        self._batches: dict[tuple[JobOwner, CallStep], list[Call]] = {}
        self._signers: dict[int, Signer] = {}
        self._items: dict[int, ItemStatistics] = {}
        self._bound: dict[int, dict[str, CommonValue]] = {}

    def later(self, follow: Callable[..., None], *args: Any) -> None:
        """Put on the agenda what follows, so that long chains need no deep recursion."""
        self.agenda.append((follow, args))

    def key_for(self, owner: JobOwner, about: Any) -> JobKey:
        """Return the key of a job that is to be handed out."""
        key = next(self._keys)
        self.waiting[key] = Continuation(owner, about)
        return key

    def take(self, key: JobKey) -> Continuation | None:
        """Return who waits for a job, which is done now; ``None`` if nothing waits for it any longer."""
        waiting = self.waiting.pop(key, None)
        return waiting if waiting is not None and not waiting.owner.over else None

    def is_wanted(self, key: JobKey) -> bool:
        """Whether the run still waits for a job."""
        waiting = self.waiting.get(key)
        return waiting is not None and not waiting.owner.over

    def add_to_batch(self, group: JobOwner, call: Call) -> None:
        """Keep a call until no other job is ready, so that its node's batch function makes it with others."""
        self._batches.setdefault((group, call.step), []).append(call)

    def next_batch(self) -> BatchCall | None:
        """Return calls that are made together."""
        while self._batches:
            (_, step), calls = next(iter(self._batches.items()))
            del self._batches[next(iter(self._batches))]
            wanted = [call for call in calls if self.is_wanted(call.key)]
            if wanted:
                return BatchCall(step, wanted)
        return None

    def note_absent(self, signatures: frozenset[bytes]) -> None:
        """Take note that these were looked up just now and are not there: other runs may store them soon."""
        self._absent = set(signatures)
        self._absent_until = self.clock() + ABSENT_S

    def is_absent(self, signature: bytes) -> bool:
        """Whether a signature was looked up just now and is not there."""
        return signature in self._absent and self.clock() < self._absent_until

    def store(self, store: Store) -> None:
        """Hand out a result that is to be kept."""
        self._absent.discard(store.entry.signature)
        self.stores.append(store)

    def close(self) -> None:
        """Let go of everything."""
        for held in (
            self.jobs,
            self.agenda,
            self.senders,
            self.waiting,
            self._batches,
            self.stores,
            self.events,
        ):
            held.clear()
        del self.open_nested
        self._bound.clear()

    def common_of_bound(self, plan: Plan) -> dict[str, CommonValue]:
        """Return the bound values of a nested plan, which all its parts in this run have in common."""
        if plan.key not in self._bound:
            self._bound[plan.key] = {name: CommonValue(value) for name, value in plan.bound.items()}
        return self._bound[plan.key]

    def items_of(self, plan: Plan) -> ItemStatistics:
        """Return what is known of the items of a plan, from all maps over it."""
        if (items := self._items.get(plan.key)) is None:
            items = self._items[plan.key] = ItemStatistics()
        return items

    def signer(self, plan: Plan) -> Signer:
        """Return what signs the steps of a plan of this run."""
        if (signer := self._signers.get(plan.key)) is None:
            signer = self._signers[plan.key] = signer_of(plan, self.fingerprints)
        return signer
