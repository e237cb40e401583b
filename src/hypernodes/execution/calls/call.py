"""Call one node, with all that belongs to a call: contexts, retries, timeout, awaiting, notes on errors."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from time import perf_counter, time
from typing import TYPE_CHECKING, Any, TypeVar

from hypernodes.callbacks.event import Event, current_worker
from hypernodes.callbacks.node_context import NodeCall, enter_node_contexts
from hypernodes.execution.calls.location import UNKNOWN, locate, without_frame
from hypernodes.execution.calls.mutation import watch
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

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping

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
    with node_contexts(step, scope) as leave:
        outcome = await _attempts(step, arguments, scope, in_thread)
        return replace(outcome, events=(*outcome.events, *leave()))


@contextmanager
def node_contexts(step: CallStep, scope: Scope) -> Iterator[Callable[[], tuple[Event, ...]]]:
    """Enter the contexts of callbacks around a call; yields what leaves them and returns their events."""
    items = tuple(index for index in scope.items if index != UNKNOWN)
    with enter_node_contexts(scope.node_contexts, NodeCall(scope.path, step.name, items)) as leave:

        def left() -> tuple[Event, ...]:
            notes = leave()
            return (Event.now("on_node_notes", (step.name, notes), scope),) if notes else ()

        yield left


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
                    outputs, None, perf_counter() - started, events, ended=(time(), current_worker())
                )
            except BaseException as raised:
                error = cancelled_inside(raised)
                if not isinstance(error, Exception):
                    locate(error, step, scope, arguments)
                    raise
                if len(events) < options.retries and isinstance(error, options.retry_on):
                    events.append(
                        Event.now("on_node_retry", (step.name, len(events) + 1, without_frame(error)), scope)
                    )
                    continue
                locate(error, step, scope, arguments)
                return Outcome(
                    (),
                    without_frame(error),
                    perf_counter() - started,
                    events,
                    ended=(time(), current_worker()),
                )
    finally:
        CURRENT_CALL.reset(calling)


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
        value: T = stop.value
        return value
    raise AssertionError("a call that was made without an event loop waited for one")
