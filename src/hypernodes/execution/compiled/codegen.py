"""A plan compiled to a Python function, in which a node costs what its call costs.

For ``c = add(a, b)`` after ``a = inc(x)`` the source is, in essence::

    def compute(inputs, items=()):
        v0 = inputs['x']
        at = 0
        try:
            v1 = f0(v0)
            at = 1
            v2 = f1(v1, v0)
        except BaseException as error:
            if (other := blame(error, at, items, locals())) is not None:
                raise other
            raise
        return {'a': v1, 'c': v2}

Over columns, the calls stand in a loop, ``for number, (v0,) in zip(count(), zip(columns['x'])):``, and each
output is appended to a list. If a coroutine awaits the run, it is checked before each call if it still waits.
"""

from __future__ import annotations

import inspect
from contextvars import ContextVar
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias
from weakref import WeakKeyDictionary

from hypernodes.callbacks.event import Scope
from hypernodes.execution.calls.location import locate
from hypernodes.execution.calls.returned import (
    FINAL_TYPES,
    collected,
    final_value,
    final_value_on_loop,
    unpack,
    unpack_on_loop,
)
from hypernodes.execution.plan.model import CallStep, NestedStep, Plan
from hypernodes.execution.plan.needs import COMPILED, COMPILED_ON_LOOP
from hypernodes.executors.loops import ASYNC_CALLER
from hypernodes.executors.settled import cancelled_inside

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence

    from hypernodes.execution.plan.model import Step

    Compute: TypeAlias = Callable[..., dict[str, Any]]
    ComputeOnLoop: TypeAlias = Callable[..., Coroutine[Any, Any, dict[str, Any]]]
    ComputeColumns: TypeAlias = Callable[..., dict[str, list[Any]]]

FAILED_NODES: ContextVar[list[FailedNode] | None] = ContextVar("hypernodes_failed_nodes", default=None)
"""Where a compiled plan notes which node has raised, then each nested pipeline around it."""


class FailedNode(NamedTuple):
    """A node or nested pipeline that has raised in a compiled plan."""

    error: BaseException
    owner: object  # the marker of its plan: a node may run other pipelines, whose errors it handles itself
    scope: Scope
    completed: int  # how many steps of its plan were completed before it
    name: str


# Compiled code refers to the steps of its plan, and never to the plan itself: else no entry would ever go.
_compiled: WeakKeyDictionary[Plan, dict[object, Any]] = WeakKeyDictionary()


def compiled(plan: Plan) -> Compute | None:
    """Return a function ``(inputs, items=()) -> outputs``, or ``None`` if the plan needs more than calls."""
    return _form(plan, "plain") if plan.needs <= COMPILED else None


def compiled_on_loop(plan: Plan) -> ComputeOnLoop | None:
    """Return the same as a coroutine function; ``None`` unless the plan needs nothing but awaited calls."""
    return _form(plan, "on loop", on_loop=True) if plan.needs <= COMPILED_ON_LOOP else None


def compiled_over_columns(plan: Plan, names: Sequence[str]) -> ComputeColumns | None:
    """Return a function ``(columns, inputs, items=(), numbers=None) -> columns``, as `compiled` does."""
    names = tuple(names)
    return _form(plan, names, over=names) if plan.needs <= COMPILED else None


def markers_of(plan: Plan) -> Iterator[tuple[Plan, object]]:
    """Yield a plan and those nested in it, each with the marker that is the owner of its failed nodes."""
    for inner in plan.tree():
        yield inner, _forms_of(inner)[_MARKER]


_MARKER = "marker"


def _forms_of(plan: Plan) -> dict[object, Any]:
    if (forms := _compiled.get(plan)) is None:
        forms = _compiled.setdefault(plan, {_MARKER: object()})
    return forms


def _form(plan: Plan, form: object, **options: Any) -> Callable[..., Any]:
    forms, is_awaited = _forms_of(plan), ASYNC_CALLER.get() is not None
    if (form, is_awaited) not in forms:
        forms[form, is_awaited] = _compile(plan, forms[_MARKER], is_awaited=is_awaited, **options)
    compute: Callable[..., Any] = forms[form, is_awaited]
    return compute


def _compile(
    plan: Plan, marker: object, *, is_awaited: bool, on_loop: bool = False, over: Sequence[str] = ()
) -> Callable[..., Any]:
    """Write a plan out as source, one call a line, and compile it."""
    variable: dict[str, str] = {}
    namespace: dict[str, Any] = {
        "blame": _blame(marker, plan, variable),
        "count": count,
        "final_value": final_value_on_loop if on_loop else final_value,
        "collected": collected,
        "take": _taker(plan.path, plan.steps, on_loop=on_loop),
        "FINAL_TYPES": FINAL_TYPES,
        "async_caller": ASYNC_CALLER.get,
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
            namespace[f"bound_{variable[name]}"] = plan.bound[name]
        source = f"bound_{variable[name]}" if name in plan.bound else f"inputs[{name!r}]"
        lines.append(f"    {variable[name]} = {source}")
    checks = is_awaited and not on_loop
    if checks:
        lines.append("    caller = async_caller()")
    head, lines = lines, ["        at = 0"]
    item = "(*items, number)" if over else "items"
    for step in plan.steps:
        if step.index:
            lines.append(f"        at = {step.index}")
        if checks:
            lines.append("        if caller.is_cancelled: caller.stop()")
        function = f"f{step.index}"
        match step:
            case CallStep():
                namespace[function] = step.function
                passed = _passed(step, namespace, variable)
                lines += _assign(step, f"{function}({passed})", variable, on_loop=on_loop)
            case NestedStep():
                namespace[function] = _nested(step)
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
            f"    all{target} = []; put{target} = all{target}.append"
            for target in dict.fromkeys(result.values())
        ]
        lines = [
            f"        for number, ({each},) in zip(count() if numbers is None else numbers, zip({drawn})):",
            *(f"    {line}" for line in lines),
        ]
        result = {name: f"all{target}" for name, target in result.items()}
    lines = [
        *head,
        "    at = 0",
        "    try:",
        *lines,
        "    except BaseException as error:",
        f"        if (other := blame(error, at, {item}, locals())) is not None:",
        "            raise other",
        "        raise",
        f"    return {{{', '.join(f'{name!r}: {target}' for name, target in result.items())}}}",
    ]
    exec(compile("\n".join(lines), f"<plan of {plan.label}>", "exec"), namespace)  # noqa: S102
    compute: Callable[..., Any] = namespace["compute"]
    return compute


def _passed(step: CallStep, namespace: dict[str, Any], variable: dict[str, str]) -> str:
    """Write the arguments of a call."""
    names = dict(step.arguments)
    parts = []
    for parameter, default in step.positional:
        if parameter in names:
            parts.append(variable[names[parameter]])
        else:
            namespace[f"default{step.index}_{parameter}"] = default
            parts.append(f"default{step.index}_{parameter}")
    return ", ".join(parts + [f"{parameter}={variable[names[parameter]]}" for parameter in step.named])


def _assign(step: CallStep, call: str, variable: dict[str, str], *, on_loop: bool) -> list[str]:
    """Write one call: its value, settled unless its type is final, and unpacked into several outputs."""
    targets = []
    for position, name in enumerate(step.outputs):
        variable[name or f"{step.index}.{position}"] = target = f"v{len(variable)}"
        targets.append(target)
    first = targets[0]
    awaiting = "await " if on_loop else ""
    if on_loop and inspect.iscoroutinefunction(step.function):
        call, final = f"await {call}", f"collected({first})"
    else:
        final = f"{awaiting}final_value({first})"
    lines = [
        f"        {first} = {call}",
        f"        if type({first}) not in FINAL_TYPES: {first} = {final}",
    ]
    if len(targets) > 1:
        lines.append(f"        {', '.join(targets)} = {awaiting}take({step.index}, {first})")
    return lines


def _taker(path: tuple[str, ...], steps: Sequence[Step], *, on_loop: bool) -> Callable[[int, Any], Any]:
    unpacked: Callable[..., Any] = unpack_on_loop if on_loop else unpack

    def take(index: int, value: Any) -> Any:
        return unpacked(value, steps[index], path)

    return take


def _nested(step: NestedStep) -> Callable[[dict[str, Any], tuple[int, ...]], tuple[Any, ...]]:
    results = [inner for inner, _ in step.results]
    if not step.map_over:
        compute = _form(step.inner, "plain")
        return lambda inputs, items: tuple(map(compute(inputs, items).__getitem__, results))

    names = step.map_over
    compute_columns = _form(step.inner, names, over=names)

    def compute_all(inputs: dict[str, Any], items: tuple[int, ...]) -> tuple[Any, ...]:
        columns = step.items(inputs).columns
        return tuple(map(compute_columns(columns, inputs, items).__getitem__, results))

    return compute_all


def _blame(
    marker: object, plan: Plan, variable: Mapping[str, str]
) -> Callable[[BaseException, int, tuple[int, ...], dict[str, Any]], BaseException | None]:
    key, path, steps = plan.key, plan.path, plan.steps

    def blame(
        raised: BaseException, at: int, items: tuple[int, ...], local: dict[str, Any]
    ) -> BaseException | None:
        """Note on an error where it happened; return the one that is to be raised in its place."""
        error = cancelled_inside(raised)
        # The frame keeps these variables, and the traceback keeps the frame: the error must not be one of
        # them.
        local.pop("error", None)
        step = steps[at]
        scope = Scope(key, path, items)
        locate(error, step, scope, {parameter: local[variable[name]] for parameter, name in step.arguments})
        if (failed := FAILED_NODES.get()) is not None:
            failed.append(FailedNode(error, marker, scope, at, step.name))
        return None if error is raised else error

    return blame
