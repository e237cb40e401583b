"""What can run now, and what follows from a result? No threads, no I/O, no waiting.

    Run ── agenda: what follows from what is known          (steps of scenes, worked off by `ready`)
     │  └─ jobs:   what can be called or sent off now       (a driver takes them, and settles them)
     └─ root: Frame   one plan over one set of inputs  ─┬─ child Frame   for a nested pipeline
           or Sweep   one plan over items              ─┴─ child Sweep   for one with map_over

Nested pipelines and maps are scenes of the same run, so that no worker ever waits for another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from hypernodes.callbacks.event import Scope
from hypernodes.exceptions import WorkerDiedError
from hypernodes.execution.claims import CLAIMS
from hypernodes.execution.deadline import overdue
from hypernodes.execution.frame import Frame
from hypernodes.execution.invoke import locate, note
from hypernodes.execution.jobs import Awaited, Batch, BatchOutcome, Call
from hypernodes.execution.scene import Waiter
from hypernodes.execution.signature import NO_CODES, Codes, Signer
from hypernodes.execution.sweep import Sweep
from hypernodes.mapping import expand
from hypernodes.portable import Kept, fetched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from hypernodes.callbacks.event import Event
    from hypernodes.callbacks.node_context import NodeContext
    from hypernodes.execution.jobs import Claim, Job, OnError, Outcome, Probe, Task, Values
    from hypernodes.execution.steps import NestedStep, Plan
    from hypernodes.execution.sweep import Rows

    Around: TypeAlias = Mapping[int, tuple[NodeContext, ...]]

NOTHING: Final[dict[int, Any]] = {}
"""What is around calls that nobody puts anything around."""

_MOMENT: Final = 0.1  # seconds


class Run:
    """One run of one plan, over one set of inputs or over items.

    Args:
        codes: The code of the plan's steps.

    Attributes:
        events: What happened and has not been told yet.
        over: Whether there is a result or an error.
        result: The outputs, or for a map the rows.
        root: The outermost map, where it is one.
        error: What ended the run.
    """

    def __init__(self, codes: Codes = NO_CODES) -> None:
        self.codes = codes
        self.events: list[Event] = []
        self.over = False
        self.result: Any = None
        self.error: BaseException | None = None
        self.root: Sweep | None = None
        self.agenda: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self.jobs: deque[Job | Probe] = deque()
        self._waiter = Waiter(self._finish, self._fail)
        self._signers: dict[int, Signer] = {}
        self._claimed: set[Claim] = set()
        # Signatures that were looked up in vain just now; of no use for longer, since others compute, too.
        self.has_kept = False  # whether any result has stayed in a cluster
        # What all items of a map have in common, by id: executors place it once.
        self.common: dict[int, Any] = {}
        self.absent: set[bytes] = set()
        self.absent_until = 0.0

    def signer(self, plan: Plan) -> Signer:
        """Return who identifies what a plan of this run makes."""
        signer = self._signers.get(plan.key)
        if signer is None:
            signer = self._signers[plan.key] = Signer(plan, self.codes)
        return signer

    @classmethod
    def of(
        cls,
        plan: Plan,
        inputs: Mapping[str, Any],
        codes: Codes = NO_CODES,
        around: Around = NOTHING,
    ) -> Run:
        """Run a plan once."""
        run = cls(codes)
        values = {**plan.bound, **inputs}
        scope = Scope(plan.key, plan.path, around=around)
        Frame(run, plan, scope, run._waiter, values, identities={}).begin(plan.path[-1])
        return run

    @classmethod
    def over_items(
        cls,
        plan: Plan,
        items: Sequence[Mapping[str, Any]] | Iterator[Mapping[str, Any]],
        fixed: Mapping[str, Any],
        *,
        codes: Codes = NO_CODES,
        around: Around = NOTHING,
        on_error: OnError = "raise",
        rows: Rows | None = None,
    ) -> Run:
        """Run a plan over items, each with the values of the inputs that vary."""
        run = cls(codes)
        sweep = Sweep(
            run,
            plan,
            Scope(plan.key, plan.path, around=around),
            run._waiter,
            items,
            fixed={**plan.bound, **fixed},
            identities={},
            on_error=on_error,
            rows=rows,
        )
        columns: Mapping[str, Any] = {}
        if plan.hears and isinstance(items, Sequence):
            columns = {name: [item[name] for item in items] for name in items[0]}
        sweep.begin(plan.path[-1], {**fixed, **columns})
        run.root = sweep
        return run

    @classmethod
    def over_batch(
        cls,
        plan: Plan,
        scope: Scope,
        items: Sequence[Mapping[str, Any]],
        *,
        numbers: Sequence[int],
        fixed: Mapping[str, Any],
        identities: dict[str, bytes | None],
        codes: Codes,
        on_error: OnError,
    ) -> Run:
        """Run a part of a map that goes on elsewhere; its start and end are told there."""
        run = cls(codes)
        sweep = Sweep(
            run,
            plan,
            scope,
            run._waiter,
            items,
            fixed=dict(fixed),
            identities=identities,
            on_error=on_error,
            numbers=numbers,
        )
        run.later(sweep.refill)
        return run

    def open_nested(
        self,
        step: NestedStep,
        arguments: Values,
        identities: dict[str, bytes | None],
        around: Scope,
        waiter: Waiter,
    ) -> None:
        """Begin a nested plan, as a part of this run.

        Raises:
            MapError: What it maps over is no collection, or zipped ones differ in length.
        """
        inner = step.inner
        scope = around.of_nested(inner.key, inner.path)
        if not step.map_over:
            values = {**inner.bound, **arguments}
            Frame(self, inner, scope, waiter, values, identities=identities).begin(step.name)
            return
        arguments = {
            name: fetched(value) if name in step.map_over else value for name, value in arguments.items()
        }
        rows = expand(arguments, step.map_over, step.map_mode, f"pipeline {inner.label!r}")
        fixed = {name: value for name, value in arguments.items() if name not in step.map_over}
        Sweep(self, inner, scope, waiter, rows, fixed={**inner.bound, **fixed}, identities=identities).begin(
            step.name, arguments
        )

    def ready(self) -> Task | None:
        """Return what can be done next, or ``None`` when all waits for what is under way."""
        while not self.over:
            while self.agenda:
                follow, args = self.agenda.popleft()
                follow(*args)
            if not self.jobs or self.over:
                return None
            job = self.jobs.popleft()
            if not job.is_wanted:
                continue
            if isinstance(job, Call):
                claim = job.claim
                if claim is not None:
                    future = CLAIMS.take(claim, self, here=job.lane is None)
                    if future is not None:
                        return Awaited(job, future)
                    self._claimed.add(claim)
                signature = job.frame.signatures.get(job.step.index)
                job.frame.emit("on_node_start", job.step.name, job.arguments, signature=signature)
            return job
        return None

    def is_absent(self, signature: bytes) -> bool:
        """Whether something was looked up in vain just now."""
        return signature in self.absent and perf_counter() < self.absent_until

    def note_absent(self, signatures: Iterable[bytes]) -> None:
        """Remember for a moment that these were looked up in vain."""
        self.absent = set(signatures)
        self.absent_until = perf_counter() + _MOMENT

    def look_again(self, awaited: Awaited) -> None:
        """Go on with a call that somebody else was making."""
        awaited.call.frame.look_again(awaited.call.step)

    def release(self) -> None:
        """Give up what is claimed, so that others compute it."""
        while self._claimed:
            CLAIMS.release(self._claimed.pop(), self)

    def _release(self, job: Job) -> None:
        claim = job.claim if isinstance(job, Call) else None
        if claim is not None and claim in self._claimed:
            self._claimed.discard(claim)
            CLAIMS.release(claim, self)

    def settle(self, job: Job, outcome: Outcome | BatchOutcome) -> None:
        """Take note of what came of a job."""
        self.events.extend(outcome.events)
        if isinstance(job, Batch):
            assert isinstance(outcome, BatchOutcome)  # noqa: S101
            job.sweep.batch_done(job, outcome)
        else:
            assert not isinstance(outcome, BatchOutcome)  # noqa: S101
            if outcome.error is not None:
                job.frame.failed(job.step, outcome.error, outcome.ended)
            else:
                self.has_kept = self.has_kept or any(isinstance(value, Kept) for value in outcome.outputs)
                job.frame.called(job.step, outcome)
        self._release(job)

    def fail(self, job: Job, error: BaseException) -> None:
        """Take note that a job could not be carried out at all."""
        self._release(job)
        if isinstance(job, Batch) and isinstance(error, WorkerDiedError):
            job.sweep.died(job, error)
        elif isinstance(job, Batch):
            first, last = job.numbers[0], job.numbers[-1]
            items = f"item {first}" if last == first else f"items {first} to {last}"
            note(error, f"in {items} of pipeline {job.sweep.plan.label!r}")
            job.sweep.failed(job, error)
        else:
            scope = job.frame.scope
            if isinstance(error, WorkerDiedError):
                error = overdue(error, job.step.timeout) or error
            locate(error, job.step.name, scope.path, scope.items, job.arguments)
            job.frame.failed(job.step, error)

    def later(self, follow: Callable[..., None], *args: Any) -> None:
        """Put on the agenda what follows, so that long chains need no deep recursion."""
        self.agenda.append((follow, args))

    def _finish(self, result: Any) -> None:
        self.result = result
        self.over = True

    def _fail(self, error: BaseException) -> None:
        self.error = error
        self.over = True
