"""The other end of a lane: what a worker does with a job, and how jobs and outcomes travel.

In a worker that shares memory with the driver, a job is carried out as it is. To any other it goes
packed, and the parts that many jobs have in common (a plan, a node's function, the fixed inputs of a
map) are parcels that each worker process unpacks once.

    most executors             carry_out_packed(parcels, payload) ─▶ the packed outcome
    those that place (Ray)     carry_out_apart(parcels, payload)  ─▶ the outcome, and each large output
                                                                      where it is
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass, replace
from itertools import chain, count
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeAlias

from hypernodes.callbacks.event import Event, NotSent, Scope
from hypernodes.exceptions import TransportError, UnpackError, WorkerDiedError
from hypernodes.execution.deadline import MAY_END_PROCESS
from hypernodes.execution.drive import drive, drive_on_loop
from hypernodes.execution.invoke import BLAMED, attempt, locate, now, straight, straight_on_loop
from hypernodes.execution.jobs import Batch, BatchOutcome, Call, Failure, OnError, Outcome
from hypernodes.execution.lane import A_PROCESS, BUSY
from hypernodes.execution.parcel import OWN_PARCEL, Parcel, parcel_of
from hypernodes.execution.record import Place
from hypernodes.execution.run import Run
from hypernodes.execution.stages import has_batch, over_columns
from hypernodes.execution.steps import CallStep
from hypernodes.executors import process_worker
from hypernodes.executors.culprit import missing_module, where
from hypernodes.executors.settled import result_of
from hypernodes.portable import (
    KEEP_FROM,
    Kept,
    Packed,
    PackedError,
    Several,
    fetched,
    pack,
    pack_error,
    unpack_error,
)
from hypernodes.resources import Resources

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from concurrent.futures import Future

    from hypernodes.execution.drive import Completed
    from hypernodes.execution.invoke import InThread
    from hypernodes.execution.jobs import Job
    from hypernodes.execution.lane import Gatherer, Lane
    from hypernodes.execution.signature import Codes
    from hypernodes.execution.steps import Plan


_logger = logging.getLogger("hypernodes")


@dataclass(frozen=True, slots=True)
class CallTask:
    """A call without its frame: all that a worker needs."""

    step: CallStep
    arguments: dict[str, Any]
    scope: Scope

    @property
    def is_async(self) -> bool:
        """Whether it is to be carried out on an event loop."""
        return self.step.is_async

    async def carry_out(self, in_thread: InThread | None) -> Outcome | BatchOutcome:
        """Make the call."""
        return await attempt(self.step, self.arguments, self.scope, in_thread)


@dataclass(frozen=True, slots=True)
class Sweeping:
    """What the batches of one map have in common."""

    plan: Plan
    codes: Codes
    fixed: dict[str, Any]
    identities: dict[str, bytes | None]
    scope: Scope
    on_error: OnError

    @classmethod
    def of(cls, batch: Batch) -> Sweeping:
        """Return what a batch has in common with the others of its map."""
        sweep = batch.sweep
        assert sweep.plan.shipped is not None  # noqa: S101
        return cls(
            plan=replace(sweep.plan.shipped, bound={}),  # which are among the fixed inputs
            codes=sweep.run.codes,
            fixed={name: value for name, value in sweep.fixed.items() if name in sweep.plan.inputs},
            identities=dict(sweep.identities),
            scope=sweep.scope,
            on_error=sweep.on_error,
        )


@dataclass(frozen=True, slots=True)
class BatchTask:
    """A batch without its sweep."""

    sweeping: Sweeping
    numbers: Sequence[int]
    items: Sequence[Mapping[str, Any]]

    @property
    def is_async(self) -> bool:
        """Whether it is to be carried out on an event loop."""
        return self.sweeping.plan.awaits

    async def carry_out(self, in_thread: InThread | None) -> Outcome | BatchOutcome:
        """Run the items one after the other."""
        common, started = self.sweeping, perf_counter()
        events: list[Event] = []
        if has_batch(common.plan):
            compute = None
            if in_thread is None and common.on_error == "raise" and straight(common.plan):
                rows = self._over_columns()
                return BatchOutcome(rows, self._counted(rows), perf_counter() - started)
        else:
            compute = straight(common.plan) if in_thread is None else straight_on_loop(common.plan)
        if compute is not None:
            rows = await self._straight(compute, events, on_loop=in_thread is not None)
            return BatchOutcome(rows, [*self._counted(rows), *events], perf_counter() - started)
        run = Run.over_batch(
            common.plan,
            common.scope,
            self.items,
            numbers=self.numbers,
            fixed=common.fixed,
            identities=common.identities,
            codes=common.codes,
            on_error=common.on_error,
        )
        if in_thread is None:
            drive(run, Dispatch(), _keep_in(events))
        else:
            await drive_on_loop(run, in_thread, Dispatch())
        events += run.events
        return BatchOutcome(_rows(run), events, perf_counter() - started)

    def _over_columns(self) -> list[Any]:
        common = self.sweeping
        columns = {name: [item[name] for item in self.items] for name in self.items[0]}
        try:
            rows: list[Any] = over_columns(common.plan, columns, common.fixed, self.numbers, common.scope)
        except Exception as error:
            return [Failure(error)]
        return rows

    async def _straight(
        self, compute: Callable[..., Any], events: list[Event], *, on_loop: bool
    ) -> list[Any]:
        common = self.sweeping
        rows: list[Any] = []
        blamed: list[tuple[Scope, str]] = []
        blaming = BLAMED.set(blamed)
        try:
            for index, item in zip(self.numbers, self.items, strict=True):
                values = {**common.fixed, **item}
                try:
                    row = compute(values, (*common.scope.items, index))
                    rows.append(await row if on_loop else row)
                except Exception as error:
                    rows.append(Failure(error))
                    if common.plan.hears:
                        events += [Event.now("on_error", (name, error), scope) for scope, name in blamed]
                    blamed.clear()
                    if common.on_error == "raise":
                        break
                    if common.plan.hears:
                        events.append(Event.now("on_map_item_end", (index, 0.0), common.scope.of_item(index)))
        finally:
            BLAMED.reset(blaming)
        return rows

    def _counted(self, rows: list[Any]) -> list[Event]:
        """Return what is told of items in numbers, if that is how they are told."""
        if not self.sweeping.plan.hears:
            return []
        done = sum(row.__class__ is not Failure for row in rows)
        return [Event.now("on_map_items_end", (done,), self.sweeping.scope)] if done else []


def _rows(run: Run) -> list[Any]:
    if run.error is None:
        rows: list[Any] = run.result
        return rows
    return [Failure(run.error)]


_Task: TypeAlias = CallTask | BatchTask


def _keep_in(kept: list[Event]) -> Callable[[list[Event]], None]:
    def keep(events: list[Event]) -> None:
        kept.extend(events)
        events.clear()

    return keep


class Dispatch:
    """Sends the jobs of one run along their lanes."""

    def __init__(self) -> None:
        # dask takes submissions with equal arguments for one, and hands out its result again.
        self._numbers = count(secrets.randbits(62))
        self._parcels: dict[tuple[int, int], tuple[object, Parcel | None]] = {}
        self._lean: dict[int, Sweeping] = {}  # without the fixed inputs that have parcels of their own
        self._placing: set[Lane] = set()
        self._travel: dict[int, bool] = {}  # whether a cache can be used elsewhere, by its id
        self._tasks: dict[int, tuple[Batch, Sweeping]] = {}
        self._gatherers: dict[Lane, Gatherer] = {}

    def send(self, job: Job) -> Future[Any]:
        """Submit a job to the executor of its lane.

        Raises:
            TransportError: A part of it cannot be pickled.
        """
        lane = job.lane
        assert lane is not None  # noqa: S101
        if lane.gathers:
            if lane not in self._gatherers:
                self._gatherers[lane] = lane.gatherer()
            return self._gatherers[lane].send(job)
        if lane.is_remote:
            if isinstance(job, Batch):
                job.sweep.plan.flush()  # other processes find only what is stored
            try:
                order = self._order(job, lane)
            except Exception as error:
                raise _culprit(job, error) from error
            if lane.places:
                self._placing.add(lane)
                try:
                    return lane.submit_apart(carry_out_apart, *order, **_options(job))
                except TransportError as error:
                    raise _culprit(job, error) from error
            return lane.submit(carry_out_packed, *order)
        task, executor = self._local(job), lane.executor
        if lane.runs_coroutines and task.is_async:
            return lane.submit(_work_on_loop, task, id(executor), _threads_of(executor))
        return lane.submit(_work_here, task, id(executor))

    def receive(self, job: Job, future: Future[Any]) -> Outcome | BatchOutcome:
        """Return what came of a job that was sent."""
        outcome: Any = result_of(future)
        if isinstance(outcome, tuple):
            note, *outputs = outcome
            outcome = fetched(note)
            if isinstance(outcome, Outcome) and outcome.error is None:
                outcome = replace(outcome, outputs=tuple(outputs))
        elif isinstance(outcome, Packed):
            outcome = outcome.unpack()
        else:
            here: Outcome | BatchOutcome = outcome
            return here
        if isinstance(outcome, Outcome):
            error = None if outcome.error is None else unpack_error(outcome.error)
            return replace(outcome, error=error, events=(*_deaths(job, future), *outcome.events))
        return _arrived(outcome)

    def wait(self, completed: Completed) -> Future[Any] | None:
        """Return what is done next, once it is; what a worker can give back while it waits is not held."""
        while completed.empty() and any(gatherer.advance() for gatherer in self._gatherers.values()):
            pass
        while completed.empty() and any(lane.give_way() for lane in self._placing):
            pass
        return completed.get()

    def here(self, batch: Batch) -> BatchOutcome:
        """Carry out some items right here."""
        outcome = now(BatchTask(self._common(batch), batch.numbers, batch.items).carry_out(None))
        assert isinstance(outcome, BatchOutcome)  # noqa: S101
        return outcome

    def close(self) -> None:
        """Leave undone what is gathered."""
        for gatherer in self._gatherers.values():
            gatherer.close()

    def _local(self, job: Job) -> _Task:
        if isinstance(job, Call):
            return CallTask(job.step, job.arguments, job.frame.scope)
        return BatchTask(self._common(job), job.numbers, job.items)

    def _common(self, batch: Batch) -> Sweeping:
        key = id(batch.sweep)
        if key not in self._tasks:
            self._tasks[key] = (batch, Sweeping.of(batch))  # the batch keeps the sweep, and so its id, alive
        return self._tasks[key][1]

    def _order(self, job: Job, lane: Lane) -> tuple[Parcel, dict[str, Parcel], Packed]:
        """Pack a job: what it has in common with others, and what is its own."""
        number = next(self._numbers)
        if isinstance(job, Batch):
            shared: Any = self._common(job)
            parcels = self._parcels_of(shared.fixed, lane)
            if id(shared) not in self._lean:
                left = {name: value for name, value in shared.fixed.items() if name not in parcels}
                self._lean[id(shared)] = replace(shared, fixed={n: fetched(v) for n, v in left.items()})
            parcel = self._parcel(self._lean[id(shared)], lane)
            return parcel, parcels, pack((number, job.numbers, job.items))
        common = job.frame.run.common
        parcels = self._parcels_of({n: v for n, v in job.arguments.items() if id(v) in common}, lane)
        own = {name: value for name, value in job.arguments.items() if name not in parcels}
        place = Place.of(job.frame, job.step) if lane.places else None
        if place is not None and not self._travel.setdefault(id(place.cache), _pickles(place.cache)):
            place = None  # then its results are brought here
        return self._parcel(job.step, lane), parcels, pack((number, own, job.frame.scope, place))

    def _parcels_of(self, values: Mapping[str, Any], lane: Lane) -> dict[str, Parcel]:
        """Return parcels for those values that are large."""
        parcels = {}
        for name, value in values.items():
            if isinstance(value, Kept) and lane.places:
                parcels[name] = Parcel(*value.as_shared(), value.size)
                continue
            key = (id(value), id(lane))
            if key not in self._parcels:
                packed = pack(fetched(value))
                made = parcel_of(packed, lane.share) if packed.size >= OWN_PARCEL else None
                self._parcels[key] = (value, made)
            parcel = self._parcels[key][1]
            if parcel is not None:
                parcels[name] = parcel
        return parcels

    def _parcel(self, value: object, lane: Lane) -> Parcel:
        key = (id(value), id(lane))
        if key not in self._parcels:
            self._parcels[key] = (value, parcel_of(pack(value), lane.share))
        parcel = self._parcels[key][1]
        assert parcel is not None  # noqa: S101
        return parcel


def _arrived(outcome: BatchOutcome) -> BatchOutcome:
    rows = outcome.rows.unpack() if isinstance(outcome.rows, Packed) else outcome.rows
    return replace(
        outcome, rows=[Failure(unpack_error(row)) if isinstance(row, PackedError) else row for row in rows]
    )


def unpack_batch(packed: Packed) -> BatchOutcome:
    """Return what came of a batch; see `pack_batch`."""
    return _arrived(packed.unpack())


def _options(job: Job) -> dict[str, Any]:
    """Return what an executor that places must know of a job."""
    if isinstance(job, Call):
        options = {"returns": len(job.step.outputs), "resources": job.step.resources}
        # Its process is ended if nothing else ends it: then it has had its time.
        return options if job.step.timeout is None else {**options, "retries": 0}
    resources = Resources()
    for plan in job.sweep.plan.tree():
        for step in plan.steps:
            if isinstance(step, CallStep):
                resources = resources.with_most_of(step.resources)
    # A batch that has cost a worker its life is taken apart here, before it is tried again.
    return {"resources": resources, "retries": 0}


def _deaths(job: Job, future: Future[Any]) -> list[Event]:
    """Return the events of an executor that has tried again by itself."""
    assert isinstance(job, Call)  # noqa: S101
    return [
        Event.now(
            "on_node_retry",
            (job.step.name, attempt, WorkerDiedError("a worker ended before its work was done")),
            job.frame.scope,
        )
        for attempt in range(1, getattr(future, "attempts", 1))
        if "on_node_retry" in job.frame.plan.hears
    ]


def _threads_of(executor: Any) -> InThread:
    in_thread: InThread = executor.in_thread
    return in_thread


def _work_here(task: _Task, executor: int) -> Outcome | BatchOutcome:
    token = BUSY.set(BUSY.get() | {executor})
    try:
        return now(task.carry_out(None))
    finally:
        BUSY.reset(token)


async def _work_on_loop(task: _Task, executor: int, in_thread: InThread) -> Outcome | BatchOutcome:
    BUSY.set(BUSY.get() | {executor})  # in a task's own context, which ends with it
    return await task.carry_out(in_thread)


# ------------------------------------------------------------------------------ in another process


def _unpack(parcel: Parcel, parcels: dict[str, Parcel], payload: Packed) -> tuple[_Task, Place | None]:
    try:
        return _unpacked_parts(parcel, parcels, payload)
    except (ImportError, AttributeError) as error:
        raise UnpackError(
            f"what was sent to a worker process cannot be unpickled there: "
            f"{missing_module(str(error)) or error}"
        ) from error


def _unpacked_parts(
    parcel: Parcel, parcels: dict[str, Parcel], payload: Packed
) -> tuple[_Task, Place | None]:
    # Parcels are arguments of their own, so that Ray sees the references in them and keeps the objects.
    common = parcel.unpack()
    large = {name: shared.unpack() for name, shared in parcels.items()}
    _, *rest = payload.unpack()
    if isinstance(common, Sweeping):
        numbers, items = rest
        return BatchTask(replace(common, fixed={**common.fixed, **large}), numbers, items), None
    own, scope, place = rest
    return CallTask(common, {**own, **large}, scope), place


def carry_out_packed(parcel: Parcel, parcels: dict[str, Parcel], payload: Packed) -> Packed:
    """Carry out a packed job, in a worker process, and return its packed outcome."""
    task, _ = _unpack(parcel, parcels, payload)
    MAY_END_PROCESS.set(process_worker.is_replaced)
    outcome = _portable_outcome(task, _work_here(task, A_PROCESS))
    if isinstance(outcome, BatchOutcome):
        return _packed_rows(task, outcome, payload.size)
    try:
        return pack(outcome)
    except Exception as failure:
        return pack(_unreturned(task, outcome, failure))


def carry_out_apart(parcel: Parcel, parcels: dict[str, Parcel], payload: Packed) -> Any:
    """Carry out a packed job, in a worker process, and return its outcome and its outputs apart."""
    task, place = _unpack(parcel, parcels, payload)
    MAY_END_PROCESS.set(True)
    outcome = _portable_outcome(task, _work_here(task, A_PROCESS))
    if isinstance(outcome, BatchOutcome):
        return _packed_rows(task, outcome, payload.size)
    assert isinstance(task, CallTask)  # noqa: S101
    try:
        outputs = tuple(map(pack, outcome.outputs))
    except Exception as failure:
        return pack(_unreturned(task, outcome, failure))
    if place is not None and any(output.size >= KEEP_FROM for output in outputs):
        place.keep(task.step, outcome.outputs, outcome.seconds)
        place.cache.flush()
        outcome = replace(outcome, stored=True)
    kinds = tuple(type(value).__qualname__ for value in outcome.outputs)
    return Several((replace(outcome, outputs=()), *outputs), ("", *kinds))


def pack_batch(task: BatchTask, outcome: BatchOutcome) -> Packed:
    """Pack what came of a batch, for its way to another process."""
    portable = _portable_outcome(task, outcome)
    assert isinstance(portable, BatchOutcome)  # noqa: S101
    return _packed_rows(task, portable, 0)


def _portable_outcome(task: _Task, outcome: Outcome | BatchOutcome) -> Outcome | BatchOutcome:
    """Make what happened portable; values are not looked at."""
    if isinstance(task, BatchTask):  # before anybody is told that it is done, and before the process may end
        task.sweeping.plan.flush()
    events = tuple(map(_portable, outcome.events))
    if isinstance(outcome, BatchOutcome):
        rows = [pack_error(row.error) if isinstance(row, Failure) else row for row in outcome.rows]
        return replace(outcome, rows=rows, events=list(events))
    return replace(outcome, error=None if outcome.error is None else pack_error(outcome.error), events=events)


def _packed_rows(task: _Task, outcome: BatchOutcome, size: int) -> Packed:
    assert isinstance(task, BatchTask)  # noqa: S101
    try:
        rows = pack(outcome.rows)
    except Exception:
        rows = pack(_checked(task, outcome.rows))
    return pack(replace(outcome, rows=rows, size=size + rows.size))


def _unreturned(task: _Task, outcome: Outcome, failure: Exception) -> Outcome:
    assert isinstance(task, CallTask)  # noqa: S101
    unsent = not_returned(dict(zip(task.step.outputs, outcome.outputs, strict=True)), failure)
    locate(unsent, task.step.name, task.scope.path, task.scope.items, task.arguments)
    return replace(outcome, outputs=(), error=pack_error(unsent))


def _checked(task: BatchTask, rows: list[Any]) -> list[Any]:
    """Put an error in the place of each row that does not pickle."""
    checked: list[Any] = []
    plan, scope = task.sweeping.plan, task.sweeping.scope
    for index, row in zip(task.numbers, rows, strict=False):
        try:
            pack(row)
            checked.append(row)
        except Exception as failure:
            error = not_returned(row, failure)
            name = next((name for name in row if not _pickles(row[name])), plan.outputs[0])
            step = plan.producers.get(name)
            locate(error, step.name if step else name, scope.path, (*scope.items, index), {})
            checked.append(pack_error(error))
            if task.sweeping.on_error == "raise":
                break
    return checked


def not_returned(values: dict[Any, Any], failure: Exception) -> TransportError:
    """Return the error that says which results do not pickle."""
    names = [name for name in values if not _pickles(values[name])]
    kinds = ", ".join(f"{name!r}, a {type(values[name]).__qualname__}," for name in names)
    return TransportError(
        f"the result {kinds} cannot be pickled on its way back from a worker process: {failure}. Return "
        f"something that pickles, or run this node in this process (executor 'sequential' or 'threaded')."
    )


def _pickles(value: object) -> bool:
    try:
        pack(fetched(value))
    except Exception:
        return False
    return True


def _culprit(job: Job, failure: Exception) -> TransportError:
    """Say which part of a job does not pickle, and whose it is."""
    scope = job.frame.scope if isinstance(job, Call) else job.sweep.scope
    for context in {id(each): each for each in chain(*scope.around.values())}.values():
        if not _pickles(context):
            return TransportError(
                f"what a callback's node_context has returned, {context!r}, cannot be pickled on its way to "
                f"a worker process: {failure}. Return a function of a module, or an instance of a class that "
                f"pickles."
            )
    if isinstance(job, Call):
        return not_sent([job.step], job.arguments, repr("/".join(job.frame.scope.path)), failure)
    sweep = job.sweep
    values = dict(sweep.fixed)
    for index, item in zip(job.numbers, job.items, strict=True):
        values |= {f"{name}[{index}]": value for name, value in item.items()}
    label = f"{'/'.join(sweep.scope.path)!r}, item {job.numbers[0]}"
    return not_sent(calls_of(sweep.plan), values, label, failure)


def calls_of(plan: Plan) -> list[CallStep]:
    """Return the calls of a plan and of those nested in it."""
    every = (step for inner in plan.tree() for step in inner.steps)
    return [step for step in every if isinstance(step, CallStep)]


def not_sent(
    steps: Sequence[CallStep], values: Mapping[str, Any], label: str, failure: Exception
) -> TransportError:
    """Return the error that says which functions and inputs do not pickle."""
    parts = [
        f"the function of node {step.name!r}{_holding(step.function)}"
        for step in steps
        if not _pickles(step.function)
    ]
    parts += [
        f"input {name!r} (a {type(value).__qualname__}{_holding(value)})"
        for name, value in values.items()
        if not _pickles(value)
    ]
    what = ", ".join(parts) or "its work"
    names = " or ".join(repr(step.name) for step in steps)
    return TransportError(
        f"{what} cannot be pickled on its way to a worker process: {failure}. It belongs to node {names} of "
        f"pipeline {label}. Make it in the node itself, or run the node in this process (executor "
        f"'sequential' or 'threaded')."
    )


def _holding(value: object) -> str:
    found = where(value)
    return f", {found}," if found else ""


def _portable(event: Event) -> Event:
    """Return an event whose values stay behind."""
    arguments = tuple(
        {name: NotSent.of(value) for name, value in part.items()} if isinstance(part, dict) else part
        for part in event.arguments
    )
    arguments = tuple(
        _EventError(pack_error(part)) if isinstance(part, BaseException) else part for part in arguments
    )
    if event.hook == "on_node_notes" and not _pickles(arguments):
        _logger.warning("what was noted around node %r cannot be pickled, and is lost", arguments[0])
        arguments = (arguments[0], ())
    return event._replace(arguments=arguments)


class _EventError:
    """An error in an event on its way; unpickling gives the error."""

    __slots__ = ("packed",)

    def __init__(self, packed: PackedError) -> None:
        self.packed = packed

    def __reduce__(self) -> tuple[Any, ...]:
        return unpack_error, (self.packed,)
