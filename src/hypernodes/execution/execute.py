"""Do what a job says, in the worker that it was sent to.

These are all the ways in which a node is executed, with the reason for each:

    call                   calls.call        the general path: one call, with everything that belongs to it
    call group             targets.pickled   short calls of a run: the same, one by one in one process
    batch call             calls.batch       the general path of ``batch=``: the calls of several items
    general chunk          scheduler         the general path of items: a run in the worker, on a loop or not
    compiled plan          compiled.codegen  nothing but calls and events: one function, for a run or a row
    compiled over columns  compiled.codegen  a map that stays in this process: no dictionary for each item
    compiled on loop       compiled.codegen  nothing but async functions: calls that are awaited
    stages                 stages            batch functions and Daft: arrays of items from stage to stage

The call group and the last four are derived from the same plan as the general path, and are taken only if
they support all that the plan needs (`hypernodes.execution.plan.needs`).
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

from hypernodes.execution.calls.call import call_node, call_node_on_loop, run_sync
from hypernodes.execution.compiled.codegen import compiled_on_loop
from hypernodes.execution.compiled.rows import compute_rows, compute_rows_on_loop
from hypernodes.execution.current import OCCUPIED
from hypernodes.execution.driver import drive
from hypernodes.execution.driver_on_loop import drive_on_loop
from hypernodes.execution.jobs import Call, Chunk, ChunkOutcome, Failure
from hypernodes.execution.plan.needs import MAP_TARGET, NODE_TARGET, STAGES
from hypernodes.execution.scheduler.run import Run, no_targets
from hypernodes.execution.stages import compute_stages
from hypernodes.executors.context import own_context

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hypernodes.callbacks.event import Event
    from hypernodes.execution.calls.call import InThread
    from hypernodes.execution.jobs import Outcome, Values
    from hypernodes.execution.plan.model import Plan
    from hypernodes.execution.plan.placement import TargetRef
    from hypernodes.execution.target import ExecutionTarget


def execute(job: Call | Chunk, target_of: Callable[[TargetRef], ExecutionTarget]) -> Outcome | ChunkOutcome:
    """Execute a job in this thread.

    `target_of` returns this worker's own target for one that a nested plan names.
    """
    if isinstance(job, Call):
        return call_node(job.step, job.arguments, job.scope)
    return run_chunk(job, target_of)


def run_chunk(chunk: Chunk, target_of: Callable[[TargetRef], ExecutionTarget]) -> ChunkOutcome:
    """Execute the items of a chunk in this thread."""
    return run_sync(_execute_chunk(chunk, None, target_of))


async def execute_on_loop(job: Call | Chunk, in_thread: InThread) -> Outcome | ChunkOutcome:
    """Execute a job on an event loop of this process, whose driver has all targets."""
    if isinstance(job, Call):
        return await call_node_on_loop(job.step, job.arguments, job.scope, in_thread)
    return await run_chunk_on_loop(job, in_thread, no_targets)


async def run_chunk_on_loop(
    chunk: Chunk, in_thread: InThread, target_of: Callable[[TargetRef], ExecutionTarget]
) -> ChunkOutcome:
    """Execute the items of a chunk on an event loop."""
    if not chunk.context.plan.needs.isdisjoint((NODE_TARGET, MAP_TARGET)):
        outcome: ChunkOutcome = await in_thread(run_chunk, chunk, target_of)  # waiting for a target blocks
        return outcome
    return await _execute_chunk(chunk, in_thread, target_of)


def execute_in_worker(job: Call | Chunk, worker_of: TargetRef) -> Outcome | ChunkOutcome:
    """Execute a job in a worker that shares memory with the driver.

    What the job runs itself never waits for the same target: that could take forever.
    """
    return execute_isolated(job, worker_of.id, no_targets)


def execute_isolated(
    job: Call | Chunk, worker_of: int, target_of: Callable[[TargetRef], ExecutionTarget]
) -> Outcome | ChunkOutcome:
    """Execute a job in a worker, in a context of its own."""

    def occupied() -> Outcome | ChunkOutcome:
        OCCUPIED.set(OCCUPIED.get() | {worker_of})
        return execute(job, target_of)

    return own_context().run(occupied)


def is_async(job: Call | Chunk) -> bool:
    """Whether a job awaits, so that it belongs on an event loop."""
    return job.step.is_async if isinstance(job, Call) else job.context.plan.awaits


async def _execute_chunk(
    chunk: Chunk, in_thread: InThread | None, target_of: Callable[[TargetRef], ExecutionTarget]
) -> ChunkOutcome:
    context, started = chunk.context, perf_counter()
    plan = context.plan
    # No local variable holds the rows: the frame of a function that has raised refers to this one.
    if plan.has_batch:
        if in_thread is None and context.on_error == "raise" and plan.needs <= STAGES:
            return _outcome(plan, started, _compute_stages(chunk), ())
    elif in_thread is None:
        if plan.compiles and chunk.items.columns:
            return _outcome(plan, started, *compute_rows(chunk, is_isolated=True))
    elif (compute := compiled_on_loop(plan)) is not None:
        return _outcome(plan, started, *await compute_rows_on_loop(chunk, compute))
    run = Run.over_chunk(context, chunk.indices, chunk.items, chunk.known, target_info=target_of)
    if in_thread is None:
        drive(run, target_of)
    else:
        await drive_on_loop(run, in_thread)
    try:
        return ChunkOutcome(
            run.result if run.error is None else [Failure(run.error)],
            list(run.events),
            perf_counter() - started,
            executed=run.executed,
            hits=run.hits,
        )
    finally:
        run.close()


def _outcome(
    plan: Plan, started: float, rows: Sequence[Values | Failure], events: Sequence[Event]
) -> ChunkOutcome:
    return ChunkOutcome(rows, events, perf_counter() - started, executed=len(plan.steps))


def _compute_stages(chunk: Chunk) -> Sequence[Values | Failure]:
    context, columns = chunk.context, chunk.items.columns
    try:
        return compute_stages(context.plan, columns, context.fixed, chunk.indices, context.scope)
    except Exception as error:
        return [Failure(error)]
