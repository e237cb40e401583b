"""Carry a run through on an event loop, in a worker; see `hypernodes.execution.driver`."""

from __future__ import annotations

import asyncio
from asyncio import wrap_future
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hypernodes.execution.calls.batch import call_batch_of
from hypernodes.execution.calls.call import call_node_on_loop
from hypernodes.execution.in_flight import CallsInFlight
from hypernodes.execution.jobs import BatchCall, Call, Chunk, Fetch, Fetched, LookUp, Outcome
from hypernodes.execution.local_jobs import execute_compiled, look_up
from hypernodes.execution.pacing import Pacing
from hypernodes.execution.provenance import store
from hypernodes.execution.scheduler.run import Run, no_targets
from hypernodes.serialization.remote import resolve

if TYPE_CHECKING:
    from concurrent.futures import Future

    from hypernodes.execution.calls.call import InThread


async def drive_on_loop(run: Run, in_thread: InThread) -> None:
    """Work until a run is over, on an event loop; what would block it is done in threads."""
    in_flight = CallsInFlight()
    pacing = Pacing(no_targets)

    def begins(call: Call) -> Future[None] | None:
        future = None if call.entry is None else in_flight.join(call.key, call.entry, is_running=True)
        if future is None:
            run.begin(call.key)
        return future

    async def settle(call: Call, outcome: Outcome) -> None:
        run.settle(call.key, outcome)
        for result in run.take_stores():
            await in_thread(store, result)
        in_flight.leave(call.key, is_stored=outcome.error is None)

    try:
        while not run.is_over:
            due = pacing.due()
            job = due or run.ready()
            if job is None:
                if (seconds := pacing.seconds_to_wait) is None:
                    break
                await asyncio.sleep(seconds)
                continue
            match job:
                case LookUp():
                    run.settle(job.key, await in_thread(look_up, job))
                case Call():
                    if due is None and job.step.is_paced and pacing.admit(job) is None:
                        continue
                    if not job.step.attempt and (waits := begins(job)) is not None:
                        pacing.ended(job)
                        await wrap_future(waits)
                        run.look_again(job.key)
                        continue
                    outcome = await call_node_on_loop(job.step, job.arguments, job.scope, in_thread)
                    pacing.ended(job)
                    if (event := pacing.retry(job, outcome)) is None:
                        await settle(job, outcome)
                    else:
                        run.events += (*outcome.events, event)
                    del outcome  # the frame of a function that has raised refers to this frame
                case BatchCall():
                    calls = []
                    for call in job.calls:
                        if (waits := begins(call)) is None:
                            calls.append(call)
                        else:
                            await wrap_future(waits)
                            run.look_again(call.key)
                    if calls:
                        made = await in_thread(call_batch_of, replace(job, calls=calls))
                        run.events.extend(made.events)
                        for call, outcome in zip(calls, made.outcomes, strict=True):
                            await settle(call, outcome)
                case Chunk():
                    run.settle(job.key, await in_thread(execute_compiled, job))
                case Fetch():
                    run.settle(job.key, Fetched(tuple(await in_thread(_resolved, job.values))))
    finally:
        in_flight.close()


def _resolved(values: Any) -> list[Any]:
    return list(map(resolve, values))
