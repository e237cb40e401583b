"""What can run now, and what follows from a result? No threads, no I/O, no waiting.

    Run ── agenda: what follows from what is known          (steps of frames, worked off by `ready`)
     │  └─ jobs:   what can be called or sent off now       (a driver takes them, and settles them)
     └─ root: Frame   one plan over one set of inputs  ─┬─ child Frame   for a nested pipeline
           or Sweep   one plan over items              ─┴─ child Sweep   for one with map_over

In a frame, values are asked for from the wanted outputs backwards. A step that may be cached is
first identified, which takes identities only; when the cache has it, nothing behind it is asked for:

    wanted ─▶ identified ─▶ looked up ─┬─ hit ──────────────────────────▶ done
       └── may not be cached ──────────┴─▶ waits for values ─▶ called ───▶ done

Nested pipelines and maps are frames of the same run, so that no worker ever waits for another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from hypernodes.callbacks.base import Event, Scope
from hypernodes.config import MISS
from hypernodes.execution.signature import NO_CODES, Codes, identify, output_identity, sign
from hypernodes.execution.steps import CallStep, NestedStep, Plan, Step
from hypernodes.mapping import expand

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hypernodes.execution.invoke import Outcome
    from hypernodes.execution.lane import Lane

OnError = Literal["raise", "return"]
Values: TypeAlias = dict[str, Any]

_REMOTE_AIM = 0.075  # seconds of work in a chunk; sending one costs about a millisecond
_LOCAL_AIM = 0.002  # seconds; handing a chunk to a thread costs some 20 microseconds
_ROUNDS = 3  # chunks that each worker shall still get, so that all end at about the same time
_GROWTH = 16  # a chunk is at most this much larger than the one measured before


@dataclass(frozen=True, slots=True, eq=False)
class Failure:
    """Stands in the row of an item that failed."""

    error: BaseException


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


@dataclass(frozen=True, slots=True, eq=False)
class BatchOutcome:
    """What came of a batch: a row for each item up to the first failure that ends the map."""

    rows: list[Any]
    events: list[Event]
    seconds: float


Job: TypeAlias = Call | Batch


class Run:
    """One run of one plan, over one set of inputs or over items.

    Args:
        codes: The code of the plan's steps.

    Attributes:
        events: What happened and has not been told yet.
        over: Whether there is a result or an error.
        result: The outputs, or for a map the rows.
        error: What ended the run.
    """

    def __init__(self, codes: Codes = NO_CODES) -> None:
        self.codes = codes
        self.events: list[Event] = []
        self.over = False
        self.result: Any = None
        self.error: BaseException | None = None
        self.agenda: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self.jobs: deque[Job] = deque()

    @classmethod
    def of(cls, plan: Plan, inputs: Mapping[str, Any], codes: Codes = NO_CODES) -> Run:
        """Run a plan once."""
        run = cls(codes)
        values = {**plan.bound, **inputs}
        Frame(run, plan, values, Scope(plan.key, plan.path), run._finish, run._fail).begin(told_by=plan.path[-1])
        return run

    @classmethod
    def over_items(
        cls,
        plan: Plan,
        items: Sequence[Mapping[str, Any]],
        fixed: Mapping[str, Any],
        *,
        codes: Codes = NO_CODES,
        on_error: OnError = "raise",
    ) -> Run:
        """Run a plan over items, each with the values of the inputs that vary."""
        run = cls(codes)
        sweep = Sweep(
            run,
            plan,
            items,
            {**plan.bound, **fixed},
            Scope(plan.key, plan.path),
            run._finish,
            run._fail,
            on_error=on_error,
        )
        shown = {name: [item[name] for item in items] for name in (items[0] if items else ())}
        sweep.begin(told_by=plan.path[-1], shown={**fixed, **shown} if plan.hears else {})
        return run

    @classmethod
    def over_batch(
        cls,
        plan: Plan,
        first: int,
        items: Sequence[Mapping[str, Any]],
        fixed: Mapping[str, Any],
        *,
        codes: Codes,
        identities: dict[str, bytes | None],
        scope: Scope,
        on_error: OnError,
    ) -> Run:
        """Run a part of a map that goes on elsewhere; its start and end are told there."""
        run = cls(codes)
        sweep = Sweep(
            run,
            plan,
            items,
            dict(fixed),
            scope,
            run._finish,
            run._fail,
            identities=identities,
            on_error=on_error,
            first=first,
        )
        run.later(sweep.refill)
        return run

    def ready(self) -> Job | None:
        """Return the next job that can be carried out, or ``None`` when all wait for jobs under way."""
        while not self.over:
            while self.agenda:
                follow, args = self.agenda.popleft()
                follow(*args)
            if not self.jobs or self.over:
                return None
            job = self.jobs.popleft()
            if isinstance(job, Batch):
                if job.sweep.is_alive:
                    return job
            elif job.frame.is_alive:
                job.frame.emit("on_node_start", job.step.name, job.arguments)
                return job
        return None

    def settle(self, job: Job, outcome: Outcome | BatchOutcome) -> None:
        """Take note of what came of a job."""
        self.events.extend(outcome.events)
        if isinstance(job, Batch):
            assert isinstance(outcome, BatchOutcome)  # noqa: S101
            job.sweep.batch_done(job, outcome)
        else:
            assert not isinstance(outcome, BatchOutcome)  # noqa: S101
            if outcome.error is not None:
                job.frame.failed(job.step, outcome.error)
            else:
                job.frame.called(job.step, outcome.outputs, outcome.seconds)

    def fail(self, job: Job, error: BaseException) -> None:
        """Take note that a job could not be carried out at all."""
        if isinstance(job, Batch):
            job.sweep.failed(error)
        else:
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


class _Scene:
    """What frames and sweeps have in common: a plan, a place, and somebody who waits for them."""

    def __init__(
        self,
        run: Run,
        plan: Plan,
        scope: Scope,
        finish: Callable[[Any], None],
        fail: Callable[[BaseException], None],
        parent: _Scene | None,
    ) -> None:
        self.run = run
        self.plan = plan
        self.scope = scope
        self.finish = finish
        self.fail = fail
        self.parent = parent
        self.dead = False
        self.started = perf_counter()
        self.told_by: str | None = None
        self.executed = 0

    @property
    def is_alive(self) -> bool:
        """Whether anybody still waits for what is done here."""
        scene: _Scene | None = self
        while scene is not None:
            if scene.dead:
                return False
            scene = scene.parent
        return True

    def emit(self, hook: str, *arguments: Any) -> None:
        if hook in self.plan.hears:
            self.run.events.append(Event(hook, arguments, self.scope))

    def count_executed(self) -> None:
        """Note that something was computed here, and so in every map item around."""
        scene: _Scene | None = self
        while scene is not None:
            scene.executed += 1
            scene = scene.parent

    def tell_failure(self, error: BaseException) -> None:
        self.dead = True
        if self.told_by is not None and self.parent is None:
            self.emit("on_error", self.told_by, error)
        self.fail(error)


class Frame(_Scene):
    """One plan over one set of inputs."""

    def __init__(
        self,
        run: Run,
        plan: Plan,
        values: Values,
        scope: Scope,
        finish: Callable[[Any], None],
        fail: Callable[[BaseException], None],
        *,
        identities: dict[str, bytes | None] | None = None,
        parent: _Scene | None = None,
    ) -> None:
        super().__init__(run, plan, scope, finish, fail, parent)
        self.values = values
        self.identities: dict[str, bytes | None] = {**run.codes.bound.get(plan.key, {}), **(identities or {})}
        self.signatures: dict[int, bytes | None] = {}
        self._asked: set[int] = set()  # steps whose values are wanted
        self._unidentified: dict[int, int] = {}  # how many identities a step still waits for
        self._unmet: dict[int, int] = {}  # how many values a step still waits for
        self._for_identity: dict[str, list[Step]] = {}  # who waits for the identity of a name
        self._for_value: dict[str, list[Step]] = {}  # who waits for its value
        self._children: dict[int, float] = {}  # when a nested step was started
        self._wanted: set[int] = set()

    def begin(self, told_by: str | None = None) -> None:
        """Ask for the wanted outputs."""
        self.told_by = told_by
        if told_by is not None:
            self.emit("on_pipeline_start", told_by, {name: self.values[name] for name in self.plan.inputs})
        for name in self.plan.outputs:
            if name not in self.values:
                step = self.plan.producers[name]
                self._wanted.add(step.index)
                self.run.later(self._ask, step)
        if not self._wanted:
            self.run.later(self._end)

    # ------------------------------------------------------------------ from the outputs backwards

    def _ask(self, step: Step) -> None:
        if step.index in self._asked:
            return
        self._asked.add(step.index)
        if self._is_identified_by_lineage(step):
            if step.index in self.signatures:
                self._look_up(step)
            else:
                self._identify(step)
        else:
            self._wait_for_values(step)

    def _is_identified_by_lineage(self, step: Step) -> bool:
        key = (self.plan.key, step.index)
        return key in self.run.codes.calls or key in self.run.codes.nested

    def _identify(self, step: Step) -> None:
        if step.index in self._unidentified or step.index in self.signatures:
            return
        waiting = 0
        for _, name in step.arguments:
            if name in self.identities:
                continue
            if name in self.values:
                self.identities[name] = identify(self.values[name])
            else:
                waiting += 1
                self._for_identity.setdefault(name, []).append(step)
                self.run.later(self._identify_output, self.plan.producers[name])
        self._unidentified[step.index] = waiting
        if not waiting:
            self._sign(step)

    def _identify_output(self, step: Step) -> None:
        """Identify what a step makes, by how it is made, or by content once it is made."""
        if not self._is_identified_by_lineage(step):
            self._ask(step)
        elif step.index in self.signatures:
            if any(name in self._for_identity for name in step.outputs):
                self._ask(step)
        else:
            self._identify(step)

    def _sign(self, step: Step) -> None:
        key = (self.plan.key, step.index)
        arguments = {parameter: self.identities[name] for parameter, name in step.arguments}
        known = {parameter: identity for parameter, identity in arguments.items() if identity is not None}
        match step:
            case CallStep():
                code = self.run.codes.calls[key]
                signature = sign(code, known) if len(known) == len(arguments) else None
                self.signatures[step.index] = signature
                if signature is not None:
                    for position, name in enumerate(step.outputs):
                        if name is not None:
                            self._identified(name, output_identity(signature, step, position))
            case NestedStep():
                self.signatures[step.index] = None  # a nested pipeline has no entry of its own; its nodes have
                for (_, name), way in zip(step.results, self.run.codes.nested[key], strict=True):
                    if way is not None and way.inputs <= known.keys():
                        used = {inner: known[inner] for inner in sorted(way.inputs)}
                        self._identified(name, sign(way.digest, used))
        if step.index in self._asked:
            self._look_up(step)
        elif any(name in self._for_identity for name in step.outputs if name is not None):
            self.run.later(self._ask, step)  # identified by content, so the value is needed

    def _identified(self, name: str, identity: bytes | None) -> None:
        self.identities[name] = identity
        for step in self._for_identity.pop(name, ()):
            self._unidentified[step.index] -= 1
            if not self._unidentified[step.index]:
                self.run.later(self._sign, step)

    def _look_up(self, step: Step) -> None:
        signature = self.signatures[step.index]
        if signature is not None and self.plan.cache is not None:
            outputs = self.plan.cache.get(signature.hex())
            if outputs is not MISS:
                self.emit("on_node_cached", step.name, signature.hex())
                self._resolve(step, outputs)
                return
        self._wait_for_values(step)

    def _wait_for_values(self, step: Step) -> None:
        waiting = 0
        for _, name in step.arguments:
            if name not in self.values:
                waiting += 1
                self._for_value.setdefault(name, []).append(step)
                self.run.later(self._ask, self.plan.producers[name])
        if waiting:
            self._unmet[step.index] = waiting
        else:
            self._start(step)

    # ------------------------------------------------------------------------ from results forwards

    def _start(self, step: Step) -> None:
        arguments = {parameter: self.values[name] for parameter, name in step.arguments}
        match step:
            case CallStep():
                self.run.jobs.append(Call(self, step, arguments))
            case NestedStep():
                self._start_nested(step, arguments)

    def _start_nested(self, step: NestedStep, arguments: Values) -> None:
        inner = step.inner
        self._children[step.index] = perf_counter()
        self.emit("on_node_start", step.name, arguments)
        self.emit("on_nested_pipeline_start", self.plan.path[-1], step.name)
        known = dict(step.arguments)
        identities = {
            name: self.identities[known[name]]
            for name in arguments
            if name not in step.map_over and known[name] in self.identities
        }
        scope = Scope(inner.key, inner.path, self.scope.items)

        def finish(result: Any) -> None:
            self.run.later(self._nested_done, step, result)

        def fail(error: BaseException) -> None:
            self.failed(step, error)

        if not step.map_over:
            values = {**inner.bound, **arguments}
            Frame(
                self.run, inner, values, scope, finish, fail, identities=identities, parent=self
            ).begin(told_by=step.name)
            return
        try:
            items = expand(arguments, step.map_over, step.map_mode, f"pipeline {inner.label!r}")
        except Exception as error:
            self.failed(step, error)
            return
        fixed = {**inner.bound, **{k: v for k, v in arguments.items() if k not in step.map_over}}
        Sweep(
            self.run, inner, items, fixed, scope, finish, fail, identities=identities, parent=self
        ).begin(told_by=step.name, shown=arguments)

    def _nested_done(self, step: NestedStep, result: Any) -> None:
        if self.dead:
            return
        if step.map_over:
            outputs = tuple([row[inner] for row in result] for inner, _ in step.results)
        else:
            outputs = tuple(result[inner] for inner, _ in step.results)
        seconds = perf_counter() - self._children.pop(step.index)
        self.emit("on_nested_pipeline_end", self.plan.path[-1], step.name, seconds)
        self.emit("on_node_end", step.name, dict(zip(step.outputs, outputs, strict=True)), seconds)
        self._resolve(step, outputs)

    def called(self, step: CallStep, outputs: tuple[Any, ...], seconds: float) -> None:
        """Take note of what a call returned."""
        if self.dead:
            return
        self.count_executed()
        signature = self.signatures.get(step.index)
        if signature is not None and self.plan.cache is not None:
            self.plan.cache.put(signature.hex(), outputs)
        named = {name: value for name, value in zip(step.outputs, outputs, strict=True) if name is not None}
        self.emit("on_node_end", step.name, named, seconds)
        self._resolve(step, outputs)

    def failed(self, step: Step, error: BaseException) -> None:
        """Take note that a step raised, which ends the frame."""
        if self.dead:
            return
        self.emit("on_error", step.name, error)
        self.tell_failure(error)

    def _resolve(self, step: Step, outputs: tuple[Any, ...]) -> None:
        for name, value in zip(step.outputs, outputs, strict=True):
            if name is None:
                continue
            self.values[name] = value
            if name in self._for_identity and name not in self.identities:
                self._identified(name, identify(value))
            for waiting in self._for_value.pop(name, ()):
                self._unmet[waiting.index] -= 1
                if not self._unmet[waiting.index]:
                    self._start(waiting)
        self._wanted.discard(step.index)
        if not self._wanted:
            self.run.later(self._end)

    def _end(self) -> None:
        if self.dead:
            return
        self.dead = True
        outputs = {name: self.values[name] for name in self.plan.outputs}
        if self.told_by is not None:
            self.emit("on_pipeline_end", self.told_by, outputs, perf_counter() - self.started)
        self.finish(outputs)


class Sweep(_Scene):
    """One plan over items: as frames of this run, or in batches that workers run whole."""

    def __init__(
        self,
        run: Run,
        plan: Plan,
        items: Sequence[Mapping[str, Any]],
        fixed: Values,
        scope: Scope,
        finish: Callable[[Any], None],
        fail: Callable[[BaseException], None],
        *,
        identities: dict[str, bytes | None] | None = None,
        parent: _Scene | None = None,
        on_error: OnError = "raise",
        first: int = 0,
    ) -> None:
        super().__init__(run, plan, scope, finish, fail, parent)
        self.items = items
        self.fixed = fixed
        self.on_error = on_error
        self.first = first
        self.rows: list[Any] = [None] * len(items)
        self.identities: dict[str, bytes | None] = {} if identities is None else identities
        self.identities |= run.codes.bound.get(plan.key, {})
        self._next = 0
        self._active = 0
        self._left = len(items)
        self._size = 1
        self._item_seconds = 0.0
        lane = plan.map_lane
        self._ships = plan.shipped is not None
        # One chunk per worker is being run while another one waits there.
        self._window = 1 if lane is None else lane.workers * (2 if self._ships else 1)
        self._workers = 1 if lane is None else lane.workers
        self._aim = _REMOTE_AIM if lane is not None and lane.is_remote else _LOCAL_AIM
        self._largest = 1 if lane is not None and lane.runs_coroutines else len(items)

    def begin(self, *, told_by: str, shown: Mapping[str, Any]) -> None:
        """Start the first items."""
        self.told_by = told_by
        self.emit("on_pipeline_start", told_by, shown)
        self.emit("on_map_start", len(self.items))
        self.run.later(self.refill)

    def refill(self) -> None:
        """Start as many items as have room."""
        if self.dead:
            return
        if not self._left:
            self._end()
        if not self._next and not self._ships:
            self._identify_fixed()
        while self._active < self._window and self._next < len(self.items):
            self._active += 1
            if self._ships:
                size = self._chunk()
                batch = Batch(self, self.first + self._next, self.items[self._next : self._next + size])
                self._next += size
                self.run.jobs.append(batch)
            else:
                self._next += 1
                self._start_item(self._next - 1)

    def _identify_fixed(self) -> None:
        """Identify what all items have in common, once."""
        if self.plan.cache is not None:
            for name in self.plan.inputs:
                if name in self.fixed and name not in self.identities:
                    self.identities[name] = identify(self.fixed[name])

    def _chunk(self) -> int:
        left = len(self.items) - self._next
        if self._item_seconds:
            by_time = int(self._aim / self._item_seconds)
            by_share = ceil(left / (self._workers * _ROUNDS))
            self._size = max(1, min(by_time, by_share, self._size * _GROWTH, self._largest))
        return min(self._size, left)

    def batch_done(self, batch: Batch, outcome: BatchOutcome) -> None:
        """Take note of the rows of a batch."""
        if self.dead:
            return
        start = batch.first - self.first
        self._active -= 1
        self._left -= len(outcome.rows)
        self._item_seconds = max(outcome.seconds / max(1, len(outcome.rows)), 1e-7)
        self.rows[start : start + len(outcome.rows)] = outcome.rows
        if self.on_error == "raise":
            for row in outcome.rows:
                if isinstance(row, Failure):
                    self.failed(row.error)
                    return
        self.run.later(self.refill)

    def failed(self, error: BaseException) -> None:
        """Take note of an error that ends the map."""
        if not self.dead:
            self.tell_failure(error)

    def _start_item(self, at: int) -> None:
        index = self.first + at
        scope = Scope(self.scope.plan, self.scope.path, (*self.scope.items, index))
        started = perf_counter()

        def finish(outputs: Values) -> None:
            if frame.executed == 0 and (signature := self._signature_of(frame)) is not None:
                frame.emit("on_map_item_cached", index, signature)
            self._item_done(frame, at, outputs, started)

        def fail(error: BaseException) -> None:
            if self.on_error == "return":
                self._item_done(frame, at, Failure(error), started)
            else:
                self.rows[at] = Failure(error)
                self.failed(error)

        frame = Frame(
            self.run,
            self.plan,
            {**self.fixed, **self.items[at]},
            scope,
            finish,
            fail,
            identities=self.identities,
            parent=self,
        )
        frame.emit("on_map_item_start", index)
        frame.begin()

    def _item_done(self, frame: Frame, at: int, row: Any, started: float) -> None:
        frame.emit("on_map_item_end", self.first + at, perf_counter() - started)
        self.rows[at] = row
        self._active -= 1
        self._left -= 1
        self.run.later(self.refill)

    def _signature_of(self, frame: Frame) -> str | None:
        """Return the signature of an item whose outputs all came from the cache."""
        for name in self.plan.outputs:
            step = self.plan.producers.get(name)
            identity = frame.identities.get(name)
            if step is not None and identity is not None:
                return identity.hex()
        return None

    def _end(self) -> None:
        self.dead = True
        seconds = perf_counter() - self.started
        if self.told_by is not None:
            self.emit("on_map_end", seconds)
            if "on_pipeline_end" in self.plan.hears:
                good = [row for row in self.rows if not isinstance(row, Failure)]
                columns = {name: [row[name] for row in good] for name in self.plan.outputs}
                self.emit("on_pipeline_end", self.told_by, columns, seconds)
        self.finish(self.rows)
