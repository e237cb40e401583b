"""Call one node, with all that belongs to a call: contexts, retries, timeout, awaiting, notes on errors."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from time import perf_counter, time
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from hypernodes.callbacks.event import Event, current_worker
from hypernodes.execution.calls.location import locate
from hypernodes.execution.calls.location import note as add_note
from hypernodes.execution.calls.mutation import watch
from hypernodes.execution.calls.node_contexts import NodeContexts
from hypernodes.execution.calls.returned import (
    awaitable_of,
    called_and_collected,
    collected,
    final_value,
    unpack,
    unpack_on_loop,
)
from hypernodes.execution.calls.timeout import await_with_timeout, call_with_timeout
from hypernodes.execution.calls.watchdog import ending_process
from hypernodes.execution.current import CURRENT_CALL
from hypernodes.execution.jobs import Outcome
from hypernodes.executors.loops import run_awaitable
from hypernodes.executors.settled import Settled, cancelled_inside, settle
from hypernodes.iterators import is_consumed_once
from hypernodes.raw_errors import is_a, traceback_of, without_frame
from hypernodes.text import described

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping

    from tenacity import RetryCallState

    from hypernodes.callbacks.event import Scope
    from hypernodes.execution.plan.model import CallStep

    InThread = Callable[..., Awaitable[Any]]

T = TypeVar("T")


def call_node(step: CallStep, arguments: Mapping[str, Any], scope: Scope) -> Outcome:
    """Call a node's function, and say what came of it."""
    return run_sync(call_node_on_loop(step, arguments, scope, None))


async def call_node_on_loop(
    step: CallStep, arguments: Mapping[str, Any], scope: Scope, in_thread: InThread | None
) -> Outcome:
    """Call a node's function, and say what came of it.

    `in_thread` calls a plain function beside the event loop. It is ``None`` where there is no loop: then this
    never suspends, so that `run_sync` can run it.
    """
    if not scope.node_contexts:
        return await _attempts(step, arguments, scope, in_thread)
    with NodeContexts(step.name, scope) as leave:
        outcome = await _attempts(step, arguments, scope, in_thread)
        return replace(outcome, events=(*outcome.events, *leave()))


async def _attempts(
    step: CallStep, arguments: Mapping[str, Any], scope: Scope, in_thread: InThread | None
) -> Outcome:
    values = {**step.filled, **arguments} if step.filled else arguments
    args = [values[name] for name, _ in step.positional]
    if step.named:
        call = partial(step.function, *args, **{name: arguments[name] for name in step.named})
    else:
        call = partial(step.function, *args)
    options = step.options
    watched = watch(step, arguments) if step.strict else None
    started = perf_counter()
    events: list[Event] = []
    calling = CURRENT_CALL.set(scope)
    try:
        while True:
            try:
                if in_thread is None:
                    value = final_value(call()) if options.timeout is None else _within(options.timeout, call)
                else:
                    value = (await _on_loop(step, call, in_thread)).get()
                if len(step.outputs) == 1:
                    outputs: tuple[Any, ...] = (value,)
                elif in_thread is None:
                    outputs = unpack(value, step, scope.path)
                else:
                    outputs = await unpack_on_loop(value, step, scope.path)
                if watched is not None:
                    watched.check(step, scope)
                return Outcome(
                    outputs, None, perf_counter() - started, list(events), ended=(time(), current_worker())
                )
            except BaseException as error:
                error = cancelled_inside(error)
                if not is_a(error, Exception):
                    locate(error, step, scope, arguments)
                    raise
                retry_in = None
                if options.retry_delay is not None:
                    retry_in = delay_before_retry(step, error)
                elif len(events) < options.retries and is_a(error, options.retry_on):
                    events.append(
                        Event.now("on_node_retry", (step.name, len(events) + 1, without_frame(error)), scope)
                    )
                    continue
                if retry_in is None:
                    locate(error, step, scope, arguments)
                return Outcome(
                    (),
                    without_frame(error),
                    perf_counter() - started,
                    list(events),
                    retry_in=retry_in,
                    ended=(time(), current_worker()),
                )
    finally:
        CURRENT_CALL.reset(calling)
        events.clear()  # The errors in them refer to this frame.


def delay_before_retry(step: CallStep, error: BaseException) -> float | None:
    """Return after how many seconds a call is made again that has failed; ``None`` if it is not."""
    options, attempt = step.options, step.attempt + 1
    if attempt > options.retries or not is_a(error, options.retry_on) or not isinstance(error, Exception):
        return None
    delay = options.retry_delay
    if isinstance(delay, tuple):
        return delay[min(attempt, len(delay)) - 1]
    if not callable(delay):
        return None if delay is None else _growing(delay, attempt, error)
    try:
        seconds = delay(_state_of(attempt, error)) if _is_of_tenacity(delay) else delay(attempt, error)
        return None if seconds is None else max(0.0, float(seconds))
    except Exception as failure:  # The error of the node is what the user has to see.
        add_note(error, f"its retry_delay raised {described(failure)}, so that it was not called again")
        return None


MAX_DELAY_S: Final = 60.0
"""Seconds to which a delay grows at most, unless the first one is longer."""


def _growing(first: float, attempt: int, error: Exception) -> float:
    """Return a delay that doubles with each attempt, with up to half of the first one as jitter."""
    from tenacity import wait_exponential_jitter

    times = wait_exponential_jitter(max=max(1.0, MAX_DELAY_S / first), jitter=0.5)
    return first * times(_state_of(attempt, error))


def _is_of_tenacity(delay: object) -> bool:
    """Whether a delay is one of the strategies of tenacity, which take its own state."""
    tenacity = sys.modules.get("tenacity")
    return tenacity is not None and isinstance(delay, tenacity.wait.wait_base)


def _state_of(attempt: int, error: Exception) -> RetryCallState:
    from tenacity import RetryCallState

    state = RetryCallState(retry_object=None, fn=None, args=(), kwargs={})  # type: ignore[arg-type]
    state.attempt_number = attempt
    state.set_exception((type(error), error, traceback_of(error)))
    return state


def _within(seconds: float, call: Callable[[], Any]) -> Any:
    with ending_process(seconds):
        value = call_with_timeout(seconds, called_and_collected, call)
        if (awaitable := awaitable_of(value)) is None:
            return value
        return collected(run_awaitable(await_with_timeout(seconds, awaitable)))


async def _on_loop(step: CallStep, call: Callable[[], Any], in_thread: InThread) -> Settled[Any]:
    """Call a function on an event loop, and return an error: a coroutine cannot raise a StopIteration."""
    seconds = step.options.timeout
    settled: Settled[Any]
    if step.is_async:
        value = call()
    else:
        # A plain function would hold up the loop; so would the body of a generator.
        plain = called_and_collected
        bounded = plain if seconds is None else partial(call_with_timeout, seconds, plain)
        settled = await in_thread(settle, bounded, call)
        if settled.error is not None:
            return settled
        value = settled.value
    if (awaitable := awaitable_of(value)) is not None:
        value = await (awaitable if seconds is None else await_with_timeout(seconds, awaitable))
        if is_consumed_once(value):
            settled = await in_thread(settle, collected, value)
            if settled.error is not None:
                return settled
            value = settled.value
    return Settled(value)


def run_sync(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        # No local variable holds the result: since Python 3.12, the traceback of an error keeps this frame.
        return cast("T", stop.value)
    raise AssertionError("a call that was made without an event loop waited for one")
