"""The one place where a node's function is called.

`attempt` calls one node with everything that belongs to it: retries, awaiting, the time it took, the
note on its error. `straight` makes one Python function of a whole plan that nobody watches (no
cache, no callbacks, no executor), in which a node costs what its call costs.
"""

from __future__ import annotations

import inspect
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import replace
from functools import partial
from itertools import count
from time import perf_counter, time
from types import AsyncGeneratorType, GeneratorType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from hypernodes.callbacks.event import Event, Scope, here
from hypernodes.callbacks.node_context import NodeCall, entered
from hypernodes.exceptions import OutputCountError
from hypernodes.execution.claims import CALLING
from hypernodes.execution.deadline import awaited, within
from hypernodes.execution.jobs import Outcome
from hypernodes.execution.mutation import watch
from hypernodes.execution.steps import CallStep, NestedStep, Plan
from hypernodes.executors.loops import resolve
from hypernodes.executors.settled import settle
from hypernodes.mapping import expand
from hypernodes.portable import short

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence

    InThread = Callable[..., Awaitable[Any]]

T = TypeVar("T")


async def attempt(
    step: CallStep, arguments: Mapping[str, Any], scope: Scope, in_thread: InThread | None = None
) -> Outcome:
    """Call a node's function and say what came of it.

    With ``in_thread`` this awaits coroutines and moves plain functions out of the event loop; without,
    it never suspends, so that `now` can run it where there is no loop.
    """
    if not scope.node_contexts:
        return await _attempt(step, arguments, scope, in_thread)
    with within_contexts(step, scope) as leave:
        outcome = await _attempt(step, arguments, scope, in_thread)
        return replace(outcome, events=(*outcome.events, *leave()))


@contextmanager
def within_contexts(step: CallStep, scope: Scope) -> Iterator[Callable[[], tuple[Event, ...]]]:
    """Make a call within what callbacks put around it; yields what leaves it and returns the events."""
    items = tuple(number for number in scope.items if number != UNKNOWN)
    with entered(scope.node_contexts, NodeCall(scope.path, step.name, items)) as leave:

        def told() -> tuple[Event, ...]:
            notes = leave()
            return (Event.now("on_node_notes", (step.name, notes), scope),) if notes else ()

        yield told


async def _attempt(
    step: CallStep, arguments: Mapping[str, Any], scope: Scope, in_thread: InThread | None
) -> Outcome:
    named = dict(arguments)
    args = [named.pop(name, default) for name, default in step.positional]
    call = partial(step.function, *args, **named)
    watched = watch(step, arguments) if step.strict else None
    started = perf_counter()
    events: list[Event] = []
    while True:
        calling = CALLING.set(True)
        try:
            if in_thread is None:
                value = _settled(call()) if step.timeout is None else _settled_within(step.timeout, call)
            else:
                # A plain function would hold up the loop; so would the body of a generator.
                listed = _list if step.timeout is None else partial(within, step.timeout, _list)
                if step.is_async:
                    value = call()
                else:
                    # As a value, since a StopIteration would not come back through asyncio's futures.
                    value = (await in_thread(settle, copy_context().run, listed, call)).get()
                if (awaitable := _awaitable(value)) is not None:
                    value = await (awaitable if step.timeout is None else awaited(step.timeout, awaitable))
            outputs = (value,) if len(step.outputs) == 1 else unpack(value, step, scope.path)
            if watched is not None:
                watched.check(step, scope)
            return Outcome(outputs, None, perf_counter() - started, tuple(events), ended=(time(), here()))
        except Exception as error:
            if len(events) < step.retries and isinstance(error, step.retry_on):
                events.append(Event.now("on_node_retry", (step.name, len(events) + 1, error), scope))
                continue
            locate(error, step.name, scope.path, scope.items, arguments)
            return Outcome((), error, perf_counter() - started, tuple(events), ended=(time(), here()))
        finally:
            CALLING.reset(calling)


def _settled(value: Any) -> Any:
    """Return what a function has returned, once it is awaited, and listed if it is a generator."""
    if value.__class__ is GeneratorType:
        return list(value)
    awaitable = _awaitable(value)
    return value if awaitable is None else resolve(awaitable)


async def _settled_on_loop(value: Any) -> Any:
    awaitable = _awaitable(value)
    return value if awaitable is None else await awaitable


def _settled_within(seconds: float, call: Callable[[], Any]) -> Any:
    value = within(seconds, _list, call)
    awaitable = _awaitable(value)
    return value if awaitable is None else resolve(awaited(seconds, awaitable))


def _list(call: Callable[[], Any]) -> Any:
    value = call()
    return list(value) if value.__class__ is GeneratorType else value


def _awaitable(value: Any) -> Awaitable[Any] | None:
    """Return what to await for a value, if it is not there yet."""
    if isinstance(value, AsyncGeneratorType):
        return _collect(value)
    return value if inspect.isawaitable(value) else None


async def _collect(items: AsyncIterable[Any]) -> list[Any]:
    return [item async for item in items]


def now(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        value: T = stop.value
        return value
    raise AssertionError("a call that was made without an event loop waited for one")


def unpack(value: Any, step: CallStep, path: tuple[str, ...]) -> tuple[Any, ...]:
    """Return the values of a node with several outputs.

    Raises:
        OutputCountError: There are more or fewer values than outputs.
    """
    expected = len(step.outputs)
    if isinstance(value, str | bytes | dict) or not hasattr(value, "__iter__"):
        got = f"one {type(value).__name__}"
    else:
        values = tuple(value)
        if len(values) == expected:
            return values
        got = f"{len(values)} values"
    raise OutputCountError(
        f"node {step.name!r} of pipeline {'/'.join(path)!r} has {expected} outputs but returned {got}. "
        f"Return a tuple of {expected} values, or correct output_name."
    )


def locate(
    error: BaseException,
    name: str,
    path: tuple[str, ...],
    items: tuple[int, ...],
    arguments: Mapping[str, Any],
) -> None:
    """Note on an error where it happened, once."""
    told = ".".join(str(number) for number in items if number != UNKNOWN)
    item = f", item {told}" if told else ""
    given = ", ".join(f"{key}={short(value, 60)}" for key, value in arguments.items())
    note(error, f"in node {name!r} of pipeline {'/'.join(path)!r}{item}, called with {given or 'nothing'}")


def note(error: BaseException, text: str) -> None:
    """Add a note to an error, unless it says where it comes from already."""
    if not any(known.startswith(_OURS) for known in getattr(error, "__notes__", ())):
        error.add_note(text)


_OURS: Final = ("in node ", "in item ", "in items ")

UNKNOWN: Final = -1
"""Stands for the index of an item that nobody knows, as where rows stream from one storage to another."""


# ---------------------------------------------------------------------------------- straight plans

IN_NUMBERS: Final = frozenset(("on_map_items_end",))
"""What is heard where items are only counted."""

BLAMED: ContextVar[list[tuple[Scope, str]] | None] = ContextVar("hypernodes_blamed", default=None)
"""Where a straight plan puts down which node has raised, then each pipeline around it."""


def straight(plan: Plan) -> Callable[..., dict[str, Any]] | None:
    """Return one function ``(inputs, items=()) -> outputs`` for a plan, or ``None`` where it is watched."""
    if plan.compiled is None:
        plan.compiled = _compile(plan) if is_straight(plan) else False
    return plan.compiled or None


def straight_on_loop(plan: Plan) -> Callable[..., Coroutine[Any, Any, dict[str, Any]]] | None:
    """Return the same as a coroutine function, for a plan of async functions only, to be run on a loop."""
    if plan.compiled_on_loop is None:
        fits = is_straight(plan, on_loop=True)
        plan.compiled_on_loop = _compile(plan, on_loop=True) if fits else False
    return plan.compiled_on_loop or None


def straight_over(plan: Plan, names: Sequence[str]) -> Callable[..., dict[str, list[Any]]]:
    """Return ``(columns, inputs, items=(), numbers=None) -> columns`` for a straight plan over items.

    Args:
        plan: The plan; it is always run over the same inputs.
        names: The inputs that vary.
    """
    if plan.compiled_over is None:
        plan.compiled_over = _compile(plan, over=names)
    compute: Callable[..., dict[str, list[Any]]] = plan.compiled_over
    return compute


def is_straight(plan: Plan, *, on_loop: bool = False) -> bool:
    """Whether nothing has to happen between the calls of a plan."""
    if plan.cache is not None or plan.hears - IN_NUMBERS or plan.node_lane is not None:
        return False
    for step in plan.steps:
        match step:
            case CallStep():
                if step.retries or step.strict or step.timeout or step.is_async is not on_loop:
                    return False
            case NestedStep():
                if (
                    on_loop
                    or not is_straight(step.inner)
                    or (step.map_over and step.inner.map_lane is not None)
                ):
                    return False
    return True


def _compile(plan: Plan, *, on_loop: bool = False, over: Sequence[str] = ()) -> Callable[..., Any]:
    """Write the plan out as source, one call a line, and compile it; with ``over``, as a loop over columns.

    For ``c = add(a, b)`` after ``a = inc(x)`` this is, in essence::

        def compute(inputs, items=()):
            v0 = inputs['x']
            at = 0
            try:
                v1 = f0(v0)
                at = 1
                v2 = f1(v1, v0)
            except Exception as error:
                blame(error, at, items, locals())
                raise
            return {'a': v1, 'c': v2}

    Over items, the calls stand in ``for number, (v0,) in zip(count(), zip(columns['x'])):``, and each output
    is put into a list.
    """
    variable: dict[str, str] = {}
    scope: dict[str, Any] = {
        "blame": _blame(plan, variable),
        "count": count,
        "settle": _settled_on_loop if on_loop else _settled,
        "take": _taker(plan),
        "THERE": _THERE,
    }
    columns = "columns, " if over else ""
    numbers = ", numbers=None" if over else ""
    lines = [f"{'async ' if on_loop else ''}def compute({columns}inputs, items=(){numbers}):"]
    for name in over:
        variable[name] = f"v{len(variable)}"
    for name in plan.inputs:
        if name in over:
            continue
        variable[name] = f"v{len(variable)}"
        if name in plan.bound:
            scope[f"bound_{variable[name]}"] = plan.bound[name]
        source = f"bound_{variable[name]}" if name in plan.bound else f"inputs[{name!r}]"
        lines.append(f"    {variable[name]} = {source}")
    head, lines = lines, ["        at = 0"]
    item = "(*items, number)" if over else "items"
    for step in plan.steps:
        if step.index:
            lines.append(f"        at = {step.index}")
        function = f"f{step.index}"
        match step:
            case CallStep():
                scope[function] = step.function
                passed = _passed(step, scope, variable)
                settle = "await settle" if on_loop else "settle"
                lines += _assign(step, f"{function}({passed})", settle, variable)
            case NestedStep():
                scope[function] = _nested(step)
                passed = ", ".join(f"{inner!r}: {variable[name]}" for inner, name in step.arguments)
                targets = []
                for _, name in step.results:
                    variable[name] = f"v{len(variable)}"
                    targets.append(variable[name])
                lines.append(f"        {', '.join(targets)}, = {function}({{{passed}}}, {item})")
    result = {name: variable[name] for name in plan.outputs}
    if over:
        lines += [f"        put{target}({target})" for target in dict.fromkeys(result.values())]
        each = ", ".join(variable[name] for name in over)
        drawn = ", ".join(f"columns[{name!r}]" for name in over)
        head += [
            f"    at{target} = []; put{target} = at{target}.append"
            for target in dict.fromkeys(result.values())
        ]
        lines = [
            f"        for number, ({each},) in zip(count() if numbers is None else numbers, zip({drawn})):",
            *(f"    {line}" for line in lines),
        ]
        result = {name: f"at{target}" for name, target in result.items()}
    lines = [
        *head,
        "    at = 0",
        "    try:",
        *lines,
        "    except Exception as error:",
        f"        blame(error, at, {item}, locals())",
        "        raise",
        f"    return {{{', '.join(f'{name!r}: {target}' for name, target in result.items())}}}",
    ]
    exec(compile("\n".join(lines), f"<plan of {plan.label}>", "exec"), scope)  # noqa: S102
    compute: Callable[..., Any] = scope["compute"]
    return compute


def _passed(step: CallStep, scope: dict[str, Any], variable: dict[str, str]) -> str:
    """Write the arguments of a call."""
    if not step.positional and _are_first(step):
        return ", ".join(variable[name] for _, name in step.arguments)  # the fastest way to call
    names = dict(step.arguments)
    parts = []
    for parameter, default in step.positional:
        scope[f"default{step.index}_{parameter}"] = default
        name = names.pop(parameter, None)
        parts.append(f"default{step.index}_{parameter}" if name is None else variable[name])
    return ", ".join(parts + [f"{parameter}={variable[name]}" for parameter, name in names.items()])


def _are_first(step: CallStep) -> bool:
    """Whether the arguments are simply the function's first parameters."""
    if not inspect.isfunction(step.function):
        return False
    code = step.function.__code__
    parameters = code.co_varnames[: code.co_argcount]
    return parameters[: len(step.arguments)] == tuple(parameter for parameter, _ in step.arguments)


def _assign(step: CallStep, call: str, settle: str, variable: dict[str, str]) -> list[str]:
    """Write one call: its value, settled where it might not be there yet, and taken apart."""
    targets = []
    for position, name in enumerate(step.outputs):
        variable[name or f"{step.index}.{position}"] = target = f"v{len(variable)}"
        targets.append(target)
    first = targets[0]
    if settle.startswith("await") and inspect.iscoroutinefunction(step.function):
        lines = [f"        {first} = await {call}"]
    else:
        lines = [
            f"        {first} = {call}",
            f"        if {first}.__class__ not in THERE: {first} = {settle}({first})",
        ]
    if len(targets) > 1:
        lines.append(f"        {', '.join(targets)} = take({step.index}, {first})")
    return lines


_THERE: Final = frozenset({int, float, str, bytes, bool, type(None), list, tuple, dict, set, complex})
"""Types that are neither awaitable nor generators: asking them one by one would cost more than the call."""


def _taker(plan: Plan) -> Callable[[int, Any], tuple[Any, ...]]:
    def take(index: int, value: Any) -> tuple[Any, ...]:
        step = plan.steps[index]
        assert isinstance(step, CallStep)  # noqa: S101
        return unpack(value, step, plan.path)

    return take


def _nested(step: NestedStep) -> Callable[[dict[str, Any], tuple[int, ...]], tuple[Any, ...]]:
    results = [inner for inner, _ in step.results]
    if not step.map_over:
        compute = straight(step.inner)
        assert compute is not None  # noqa: S101
        return lambda inputs, items: tuple(map(compute(inputs, items).__getitem__, results))

    compute_over = straight_over(step.inner, step.map_over)

    def compute_all(inputs: dict[str, Any], items: tuple[int, ...]) -> tuple[Any, ...]:
        rows = expand(inputs, step.map_over, step.map_mode, where(step.inner))
        return tuple(map(compute_over(rows.columns, inputs, items).__getitem__, results))

    return compute_all


def where(plan: Plan) -> str:
    """Return how a message names the pipeline of a plan."""
    return f"pipeline {plan.label!r}"


def _blame(
    plan: Plan, variable: Mapping[str, str]
) -> Callable[[BaseException, int, tuple[int, ...], dict[str, Any]], None]:
    def blame(error: BaseException, at: int, items: tuple[int, ...], local: dict[str, Any]) -> None:
        step = plan.steps[at]
        arguments = {parameter: local[variable[name]] for parameter, name in step.arguments}
        locate(error, step.name, plan.path, items, arguments)
        blamed = BLAMED.get()
        if blamed is not None:
            blamed.append((Scope(plan.key, plan.path, items), step.name))

    return blame
