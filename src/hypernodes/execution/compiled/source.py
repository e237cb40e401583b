"""The source of a compiled plan: a Python function in which a node costs what its call costs.

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
                try: raise other
                finally: del other
            raise
        return {'a': v1, 'c': v2}

Over columns, the calls stand in a loop, ``for number, v0 in zip(count(), columns['x']):``, and each output is
appended to a list; the caller may give these lists, to have what was made before an error. If a coroutine
awaits the run, it is checked before each call if it still waits.
"""

from __future__ import annotations

import inspect
from contextvars import copy_context
from itertools import count
from time import perf_counter, time
from typing import TYPE_CHECKING, Any

from hypernodes.callbacks.event import Event, Scope, current_worker
from hypernodes.execution.calls.node_contexts import NodeContexts
from hypernodes.execution.calls.returned import (
    FINAL_TYPES,
    collected,
    final_value,
    final_value_on_loop,
    unpack,
    unpack_on_loop,
)
from hypernodes.execution.compiled.failed_nodes import blame_of
from hypernodes.execution.compiled.watched import (
    end_of_item,
    end_of_node,
    start_of_item,
    start_of_node,
    within_contexts,
)
from hypernodes.execution.plan.model import CallStep, NestedStep
from hypernodes.executors.loops import ASYNC_CALLER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from hypernodes.execution.plan.model import Plan, Step


def compile_plan(
    plan: Plan,
    marker: object,
    nested: Callable[[NestedStep], Callable[..., Any]],
    *,
    is_awaited: bool,
    on_loop: bool = False,
    over: Sequence[str] = (),
    is_isolated: bool = False,
) -> Callable[..., Any]:
    """Write a plan out as source, one call a line, and compile it.

    `nested` returns the function that computes a nested plan.
    """
    variable: dict[str, str] = {}
    namespace = _namespace(plan, marker, variable, on_loop=on_loop)
    head = _head(plan, over, namespace, variable, on_loop=on_loop)
    checks = is_awaited and not on_loop
    if checks:
        head.append("    caller = async_caller()")
    item = "(*items, number)" if over else "items"
    lines = [] if len(plan.steps) == 1 else ["        at = 0"]
    for step in plan.steps:
        if step.index:
            lines.append(f"        at = {step.index}")
        if checks:
            lines.append("        if caller.is_cancelled: caller.stop()")
        lines += _step(plan, step, item, nested, namespace, variable, on_loop=on_loop)
    result = {name: variable[name] for name in plan.outputs}
    if over:
        lines = _loop(plan, over, head, lines, variable, is_isolated=is_isolated)
        result = {name: f"made[{name!r}]" for name in result}
    lines = [
        *head,
        "    at = 0",
        "    try:",
        *lines,
        "    except BaseException as error:",
        f"        if (other := blame(error, at, {item}, locals())) is not None:",
        "            try: raise other",
        "            finally: del other",  # the traceback of the error refers to this frame
        "        raise",
        f"    return {{{', '.join(f'{name!r}: {target}' for name, target in result.items())}}}",
    ]
    exec(compile("\n".join(lines), f"<plan of {plan.label}>", "exec"), namespace)  # noqa: S102
    compute: Callable[..., Any] = namespace["compute"]
    return compute


def _namespace(plan: Plan, marker: object, variable: dict[str, str], *, on_loop: bool) -> dict[str, Any]:
    """Return the globals of the source."""
    namespace: dict[str, Any] = {
        "blame": blame_of(marker, plan, variable),
        "count": count,
        "copy_context": copy_context,
        "final_value": final_value_on_loop if on_loop else final_value,
        "collected": collected,
        "take": _taker(plan.path, plan.steps, on_loop=on_loop),
        "FINAL_TYPES": FINAL_TYPES,
        "async_caller": ASYNC_CALLER.get,
    }
    if plan.is_watched:
        namespace |= {"Event": Event, "Scope": Scope, "current_worker": current_worker, "new": tuple.__new__}
        namespace |= {"NodeContexts": NodeContexts}
        namespace |= {"perf_counter": perf_counter, "time": time, "key": plan.key, "path": plan.path}
    return namespace


def _head(
    plan: Plan,
    over: Sequence[str],
    namespace: dict[str, Any],
    variable: dict[str, str],
    *,
    on_loop: bool,
) -> list[str]:
    """Write the signature, and a variable for each input that is the same for all items."""
    columns, numbers = ("columns, ", ", numbers=None, made=None") if over else ("", "")
    watch = ", watch=None" if plan.is_watched else ""
    lines = [f"{'async ' if on_loop else ''}def compute({columns}inputs, items=(){numbers}{watch}):"]
    if plan.is_watched:
        lines += ["    put, run, started = watch.put, watch.run, None", "    worker = current_worker()"]
        if not over:
            lines.append("    scope = Scope(key, path, items, run)")
    for name in over:
        variable[name] = f"v{len(variable)}"
    for name in plan.inputs:
        if name in over:
            continue
        target = variable[name] = f"v{len(variable)}"
        if name in plan.bound:
            namespace[f"bound_{target}"] = plan.bound[name]
        source = f"bound_{target}" if name in plan.bound else f"inputs[{name!r}]"
        lines.append(f"    {target} = {source}")
    return lines


def _step(
    plan: Plan,
    step: Step,
    item: str,
    nested: Callable[[NestedStep], Callable[..., Any]],
    namespace: dict[str, Any],
    variable: dict[str, str],
    *,
    on_loop: bool,
) -> list[str]:
    """Write one step, with its events."""
    function = f"f{step.index}"
    before = start_of_node(plan, step, variable) if plan.is_watched else ()
    match step:
        case CallStep():
            namespace[function] = step.function
            passed = _passed(step, namespace, variable)
            lines = _assign(step, f"{function}({passed})", variable, on_loop=on_loop)
            if "node_context" in plan.subscribed:
                lines = within_contexts(lines, step.name)
        case NestedStep():
            namespace[function] = nested(step)
            passed = ", ".join(f"{inner!r}: {variable[name]}" for inner, name in step.arguments)
            targets = []
            for _, name in step.results:
                variable[name] = f"v{len(variable)}"
                targets.append(variable[name])
            watch = ", watch" if step.inner.is_watched else ""
            lines = [f"        {', '.join(targets)}, = {function}({{{passed}}}, {item}{watch})"]
    after = end_of_node(plan, step, variable) if plan.is_watched else ()
    return [*_indented(before), *lines, *_indented(after)]


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"        {line}" for line in lines]


def _loop(
    plan: Plan,
    over: Sequence[str],
    head: list[str],
    lines: list[str],
    variable: Mapping[str, str],
    *,
    is_isolated: bool,
) -> list[str]:
    """Write the steps in a loop over the items; what has to stand before the loop is added to the head."""
    if plan.is_watched:
        lines = [*_indented(start_of_item(plan)), *lines, *_indented(end_of_item(plan))]
    targets = {name: variable[name] for name in plan.outputs}
    lines = [*lines, *(f"        put{target}({target})" for target in targets.values())]
    if is_isolated:
        head.append("    before = copy_context()")
        lines += ["        try:", "            if copy_context() != before: break"]
        lines += ["        except Exception: break"]  # Values in it cannot be compared.
    empty = ", ".join(f"{name!r}: []" for name in targets)
    head.append(f"    if made is None: made = {{{empty}}}")
    head += [f"    put{target} = made[{name!r}].append" for name, target in targets.items()]
    each = ", ".join(variable[name] for name in over)
    drawn = ", ".join(f"columns[{name!r}]" for name in over)
    return [
        f"        for number, {each} in zip(count() if numbers is None else numbers, {drawn}):",
        *(f"    {line}" for line in lines),
    ]


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
