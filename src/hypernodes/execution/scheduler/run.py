"""The state machine of one run: what can be done now, and what follows from an outcome?

It has no threads, waits for nothing and does no I/O, and its clock is given to it: a driver takes jobs with
`ready`, does them or has them done, and gives the outcomes back with `settle`. Nested pipelines and maps are
parts of the same run, so that no worker ever waits for another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any, NoReturn

from hypernodes.callbacks.event import Scope
from hypernodes.execution.jobs import CommonValue
from hypernodes.execution.plan.needs import NODE_TARGET
from hypernodes.execution.scheduler.map_run import MapRun
from hypernodes.execution.scheduler.plan_run import PlanRun
from hypernodes.execution.scheduler.state import RunState, TargetInfo
from hypernodes.execution.signature import NO_FINGERPRINTS, Fingerprints
from hypernodes.mapping import Columns

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hypernodes.execution.jobs import Job, JobKey, MapContext, OnError, Store, Values
    from hypernodes.execution.plan.model import CallStep, NestedStep, Plan
    from hypernodes.execution.plan.placement import TargetRef
    from hypernodes.execution.scheduler.items import Rows
    from hypernodes.execution.scheduler.plan_execution import PlanExecution
    from hypernodes.execution.scheduler.state import Parent


def no_targets(target: TargetRef) -> NoReturn:
    """Refuse to know a target, for a plan that uses none."""
    raise LookupError(f"the plan uses a target that the run does not know: {target}")


class Run:
    """One run of one plan, over one set of inputs or over items."""

    def __init__(
        self,
        fingerprints: Fingerprints = NO_FINGERPRINTS,
        target_info: Callable[[TargetRef], TargetInfo] = no_targets,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self._state = RunState(fingerprints, target_info, self._open_nested, clock)
        self.events = self._state.events  # not emitted yet; whoever emits events empties it
        self.has_remote_values = False  # any value has stayed with its worker
        self.is_over = False
        self.result: Any = None
        self.error: BaseException | None = None
        self.root: PlanRun | MapRun | None = None
        self.executed = 0
        self.hits = 0

    @classmethod
    def once(
        cls,
        plan: Plan,
        inputs: Mapping[str, Any],
        *,
        fingerprints: Fingerprints = NO_FINGERPRINTS,
        target_info: Callable[[TargetRef], TargetInfo] = no_targets,
        scope: Scope | None = None,
        clock: Callable[[], float] = perf_counter,
    ) -> Run:
        """Run a plan over one set of inputs."""
        run = cls(fingerprints, target_info, clock)
        values = {**plan.bound, **inputs}
        sends_calls = NODE_TARGET in plan.needs  # of which several may take the same input
        root = PlanRun(
            run._state,
            plan,
            scope or Scope(plan.key, plan.path),
            _Root(run),
            values,
            identities={},
            common={name: CommonValue(value) for name, value in values.items()} if sends_calls else {},
            returns_here=True,
        )
        run.root = root
        root.begin(plan.path[-1])
        return run

    @classmethod
    def over_items(
        cls,
        plan: Plan,
        items: Sequence[Mapping[str, Any]] | Iterator[Mapping[str, Any]],
        fixed: Mapping[str, Any],
        *,
        fingerprints: Fingerprints = NO_FINGERPRINTS,
        target_info: Callable[[TargetRef], TargetInfo] = no_targets,
        scope: Scope | None = None,
        on_error: OnError = "raise",
        rows: Rows | None = None,
        clock: Callable[[], float] = perf_counter,
    ) -> Run:
        """Run a plan over items, each with the values of the inputs that vary."""
        run = cls(fingerprints, target_info, clock)
        if isinstance(items, Sequence):
            items = Columns.of(items, tuple(items[0]) if items else ())
        root = MapRun(
            run._state,
            plan,
            scope or Scope(plan.key, plan.path),
            _Root(run),
            items,
            fixed={**plan.bound, **fixed},
            identities={},
            on_error=on_error,
            rows=rows,
            returns_here=True,
        )
        run.root = root
        columns: Mapping[str, Any] = {}
        if "on_pipeline_start" in plan.subscribed and isinstance(items, Columns):
            columns = items.columns
        root.begin(plan.path[-1], {**fixed, **columns})
        return run

    @classmethod
    def over_chunk(
        cls,
        context: MapContext,
        indices: Sequence[int],
        items: Columns,
        known: Mapping[int, Mapping[int, tuple[Any, ...]]],
        *,
        target_info: Callable[[TargetRef], TargetInfo] = no_targets,
    ) -> Run:
        """Run some items of a map that goes on elsewhere; its start and end are emitted there."""
        run = cls(context.fingerprints, target_info)
        root = MapRun(
            run._state,
            context.plan,
            context.scope,
            _Root(run),
            items,
            fixed=dict(context.fixed),
            identities=context.identities,
            on_error=context.on_error,
            indices=indices,
            known=known,
        )
        run.root = root
        run._state.later(root.refill)
        return run

    def ready(self) -> Job | None:
        """Return what can be done next, or ``None`` when everything waits for jobs that are under way."""
        state = self._state
        agenda, jobs, senders, waiting = state.agenda, state.jobs, state.senders, state.waiting
        while not self.is_over:
            while agenda:
                follow, args = agenda.popleft()
                follow(*args)
            if self.is_over:
                break
            if not jobs:
                if senders:
                    senders.popleft()()
                    continue
                return state.next_batch()
            job = jobs.popleft()
            if (waits := waiting.get(job.key)) is not None and not waits.owner.over:
                return job
            waiting.pop(job.key, None)
        return None

    def begin(self, key: JobKey) -> None:
        """Take note that a call is about to be made."""
        owner, about = self._state.waiting[key]
        owner.job_begins(about)

    def settle(self, key: JobKey, outcome: Any) -> None:
        """Take note of the outcome of a job."""
        if (waiting := self._state.take(key)) is not None:
            waiting.owner.job_done(waiting.about, outcome)

    def fail(self, key: JobKey, error: BaseException) -> None:
        """Take note that a job could not be carried out at all."""
        if (waiting := self._state.take(key)) is not None:
            waiting.owner.job_failed(waiting.about, error)

    def look_again(self, key: JobKey) -> None:
        """Go on with a call that was made elsewhere meanwhile."""
        if (waiting := self._state.take(key)) is not None:
            waiting.owner.look_again(waiting.about)

    def leave_out(self, key: JobKey, steps: Sequence[CallStep]) -> None:
        """Take calls out of a group that has not begun: they wait for equal calls that are made elsewhere."""
        owner, about = self._state.waiting[key]
        about[:] = [step for step in about if step not in steps]
        if not about:  # Nothing of the group is left that has an outcome.
            self._state.take(key)
        owner.look_again(steps)

    def abandon(self, error: BaseException) -> None:
        """End without a result, and emit errors for all that has started."""
        if not self.is_over and self.root is not None:
            self.root.abandon(error)
            self.is_over = True

    def finish(self) -> Any:
        """Let go of everything, and return the result or raise the error of a run that is over."""
        result, error = self.result, self.error
        self.close()
        if error is not None:
            try:
                raise error
            finally:
                del error  # the traceback refers to this frame
        return result

    def close(self) -> None:
        """Let go of everything, so that results live no longer than their users want them."""
        self.result = self.error = self.root = None
        self._state.close()

    def note_remote_values(self) -> None:
        """Take note that an output has stayed with its worker."""
        self.has_remote_values = self._state.has_remote_values = True

    def is_wanted(self, key: JobKey) -> bool:
        """Whether anything waits for a job that was handed out."""
        return not self.is_over and self._state.is_wanted(key)

    def note_retries(self, waiting: int) -> None:
        """Take note how many calls wait for a retry: maps may start other items meanwhile."""
        state = self._state
        if waiting > state.retries:
            for mapped in state.maps:
                state.later(mapped.refill)
        state.retries = waiting

    @property
    def fingerprints(self) -> Fingerprints:
        """The code of the plans, as it was when the run started."""
        return self._state.fingerprints

    @property
    def has_agenda(self) -> bool:
        """Whether `ready` has something to work off."""
        return bool(self._state.agenda)

    def refill(self) -> None:
        """Draw further items, now that rows of a stream were taken."""
        if isinstance(self.root, MapRun):
            self._state.later(self.root.refill)

    def take_stores(self) -> list[Store]:
        """Return the results that are to be put into a cache, once."""
        if stores := self._state.stores:
            self._state.stores = []
        return stores

    def _open_nested(
        self,
        step: NestedStep,
        arguments: Values,
        *,
        identities: dict[str, bytes | None],
        common: Mapping[str, CommonValue],
        scope: Scope,
        parent: Parent,
    ) -> PlanRun | MapRun:
        inner, state = step.inner, self._state
        inside = scope.of_nested(inner.key, inner.path)
        if inner.bound:
            bound = state.common_of_bound(inner)
            common = {**{name: bound[name] for name in bound if name not in arguments}, **common}
        if not step.map_over:
            values = {**inner.bound, **arguments}
            child = PlanRun(
                state, inner, inside, parent, values, identities=identities, common=common, about=step
            )
            child.begin(step.name)
            return child
        rows = step.items(arguments)
        fixed = {name: value for name, value in arguments.items() if name not in step.map_over}
        mapped = MapRun(
            state,
            inner,
            inside,
            parent,
            rows,
            fixed={**inner.bound, **fixed},
            identities=identities,
            common=common,
            about=step,
            on_error=step.on_error,
        )
        mapped.begin(step.name, arguments)
        return mapped


class _Root:
    """The parent of the outermost part of a run."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def child_finished(self, child: PlanExecution, result: Any) -> None:
        self._run.result = result
        self._end(child)

    def child_failed(self, child: PlanExecution, error: BaseException) -> None:
        self._run.error = error
        self._end(child)

    def _end(self, child: PlanExecution) -> None:
        self._run.executed, self._run.hits = child.executed, child.hits
        self._run.is_over = True
