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
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import WeakKeyDictionary

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
    emitting,
    end_of_item,
    end_of_node,
    start_of_item,
    start_of_node,
    within_contexts,
)
from hypernodes.execution.plan.model import CallStep, NestedStep, Plan
from hypernodes.execution.plan.needs import COMPILED_ON_LOOP
from hypernodes.execution.plan.variants import shared_part, without_shared
from hypernodes.executors.loops import ASYNC_CALLER
from hypernodes.iterators import can_be_shared

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence

    from hypernodes.execution.plan.model import Step

    Compute: TypeAlias = Callable[..., dict[str, Any]]
    ComputeOnLoop: TypeAlias = Callable[..., Coroutine[Any, Any, dict[str, Any]]]
    ComputeColumns: TypeAlias = Callable[..., dict[str, list[Any]]]


# Compiled code refers to the steps of its plan, and never to the plan itself: else no entry would ever go.
_compiled: WeakKeyDictionary[Plan, dict[object, Any]] = WeakKeyDictionary()


def compiled(plan: Plan) -> Compute | None:
    """Return a function ``(inputs, items=()) -> outputs``, or ``None`` if the plan needs more than calls."""
    return _form(plan, "plain") if plan.compiles and not plan.is_watched else None


def compiled_and_watched(plan: Plan) -> Compute | None:
    """Return a function ``(inputs, items, watch) -> outputs`` that emits all events of a run.

    It is ``None`` if the plan needs more than calls and events, or none of these.
    """
    return emitting(plan, _form(plan, "plain")) if plan.compiles and plan.is_watched else None


def compiled_on_loop(plan: Plan) -> ComputeOnLoop | None:
    """Return the same as a coroutine function; ``None`` unless the plan needs nothing but awaited calls."""
    return _form(plan, "on loop", on_loop=True) if plan.needs <= COMPILED_ON_LOOP else None


def compiled_over_columns(
    plan: Plan, names: Sequence[str], *, is_isolated: bool = False, emits: bool = False
) -> ComputeColumns | None:
    """Return a function ``(columns, inputs, items=(), numbers=None, made=None) -> columns``.

    It is for the items of one map: what they share is computed by its first call. Isolated, it stops after an
    item that has changed its context. If it emits, that of a plan with events takes a `Watch`, too.
    """
    if not plan.compiles or (plan.is_watched and not emits):
        return None
    return _over_columns(plan, tuple(names), [], is_isolated=is_isolated)


def compiled_for_items(plan: Plan) -> Compute | None:
    """Return what computes item after item of one map: what all items share is computed with the first."""
    if not plan.compiles or plan.is_watched:
        return None
    if not plan.shared:
        return _form(plan, "plain")
    shared, rest, whole = _Shared(plan, []), _form(without_shared(plan), "plain"), _form(plan, "plain")

    def compute(inputs: Mapping[str, Any], items: tuple[int, ...] = ()) -> dict[str, Any]:
        values = shared.get(inputs, items[:-1])
        outputs: dict[str, Any] = (
            whole(inputs, items) if values is None else rest({**inputs, **values}, items)
        )
        return outputs

    return compute


def _over_columns(
    plan: Plan,
    names: tuple[str, ...],
    known: list[dict[str, Any] | Exception] | None = None,
    *,
    is_isolated: bool = False,
) -> ComputeColumns:
    form, options = (names, is_isolated), {"over": names, "is_isolated": is_isolated}
    if not plan.shared:
        return _form(plan, form, **options)
    shared = _Shared(plan, known)
    rest, whole = _form(without_shared(plan), form, **options), _form(plan, form, **options)

    def compute(
        columns: Mapping[str, Any],
        inputs: Mapping[str, Any],
        items: tuple[int, ...] = (),
        numbers: Any = None,
        made: Any = None,
    ) -> dict[str, list[Any]]:
        is_empty = all(isinstance(column, list) and not column for column in columns.values())
        values = dict.fromkeys(plan.shared) if is_empty else shared.get(inputs, items)
        outputs: dict[str, list[Any]] = (
            whole(columns, inputs, items, numbers, made)
            if values is None
            else rest(columns, {**inputs, **values}, items, numbers, made)
        )
        return outputs

    return compute


class _Shared:
    """The values that all items share: computed by the first `get`, or by each if `known` is ``None``."""

    def __init__(self, plan: Plan, known: list[dict[str, Any] | Exception] | None) -> None:
        self._compute = _form(shared_part(plan), "plain")
        self._known = known

    def get(self, inputs: Mapping[str, Any], items: tuple[int, ...]) -> dict[str, Any] | None:
        """Return the values; ``None`` if an item would use them up."""
        known: list[dict[str, Any] | Exception] = [] if self._known is None else self._known
        if not known:
            try:
                known.append(self._compute(inputs, items))
            except Exception as error:
                known.append(error)
        (values,) = known
        if isinstance(values, Exception):
            try:
                raise values
            finally:
                del values, known  # the traceback of the error refers to this frame
        return values if can_be_shared(values.values()) else None


def markers_of(plan: Plan) -> Iterator[tuple[Plan, object]]:
    """Yield a plan and those nested in it, each with the marker that is the owner of its failed nodes."""
    for inner in plan.tree():
        yield inner, _forms_of(inner)[_MARKER]
        if inner.shared:
            yield from markers_of(shared_part(inner))
            yield from markers_of(without_shared(inner))


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
    plan: Plan,
    marker: object,
    *,
    is_awaited: bool,
    on_loop: bool = False,
    over: Sequence[str] = (),
    is_isolated: bool = False,
) -> Callable[..., Any]:
    """Write a plan out as source, one call a line, and compile it."""
    variable: dict[str, str] = {}
    watched = plan.is_watched
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
    if watched:
        namespace |= {"Event": Event, "Scope": Scope, "current_worker": current_worker, "new": tuple.__new__}
        namespace |= {"NodeContexts": NodeContexts}
        namespace |= {"perf_counter": perf_counter, "time": time, "key": plan.key, "path": plan.path}
    columns = "columns, " if over else ""
    numbers = ", numbers=None, made=None" if over else ""
    watch = ", watch=None" if watched else ""
    lines = [f"{'async ' if on_loop else ''}def compute({columns}inputs, items=(){numbers}{watch}):"]
    if watched:
        lines += ["    put, run, started = watch.put, watch.run, None", "    worker = current_worker()"]
        if not over:
            lines.append("    scope = Scope(key, path, items, run)")
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
    head, lines = lines, [] if len(plan.steps) == 1 else ["        at = 0"]
    item = "(*items, number)" if over else "items"
    for step in plan.steps:
        if step.index:
            lines.append(f"        at = {step.index}")
        if checks:
            lines.append("        if caller.is_cancelled: caller.stop()")
        function = f"f{step.index}"
        if watched:
            lines += (f"        {line}" for line in start_of_node(plan, step, variable))
        match step:
            case CallStep():
                namespace[function] = step.function
                passed = _passed(step, namespace, variable)
                called = _assign(step, f"{function}({passed})", variable, on_loop=on_loop)
                has_contexts = "node_context" in plan.subscribed
                lines += within_contexts(called, step.name) if has_contexts else called
            case NestedStep():
                namespace[function] = _nested(step)
                passed = ", ".join(f"{inner!r}: {variable[name]}" for inner, name in step.arguments)
                targets = []
                for _, name in step.results:
                    variable[name] = f"v{len(variable)}"
                    targets.append(variable[name])
                watch = ", watch" if step.inner.is_watched else ""
                lines.append(f"        {', '.join(targets)}, = {function}({{{passed}}}, {item}{watch})")
        if watched:
            lines += (f"        {line}" for line in end_of_node(plan, step, variable))
    result = {name: variable[name] for name in plan.outputs}
    if over:
        if watched:
            lines = [f"        {line}" for line in start_of_item(plan)] + lines
            lines += [f"        {line}" for line in end_of_item(plan)]
        lines += [f"        put{target}({target})" for target in result.values()]
        if is_isolated:
            head.append("    before = copy_context()")
            lines += ["        try:", "            if copy_context() != before: break"]
            lines += ["        except Exception: break"]  # Values in it cannot be compared.
        each = ", ".join(variable[name] for name in over)
        drawn = ", ".join(f"columns[{name!r}]" for name in over)
        empty = ", ".join(f"{name!r}: []" for name in result)
        head.append(f"    if made is None: made = {{{empty}}}")
        head += [f"    put{target} = made[{name!r}].append" for name, target in result.items()]
        lines = [
            f"        for number, {each} in zip(count() if numbers is None else numbers, {drawn}):",
            *(f"    {line}" for line in lines),
        ]
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


def _nested(step: NestedStep) -> Callable[..., tuple[Any, ...]]:
    results, inner, names = [inner for inner, _ in step.results], step.inner, step.map_over
    if not names:
        compute = _form(inner, "plain")
        if inner.is_watched:
            compute = emitting(inner, compute)
        return lambda inputs, items, *watch: tuple(map(compute(inputs, items, *watch).__getitem__, results))

    compute_columns = _over_columns(inner, names)
    compute_map = emitting(inner, compute_columns) if inner.is_watched else None

    def compute_all(inputs: dict[str, Any], items: tuple[int, ...], *watch: Any) -> tuple[Any, ...]:
        rows = step.items(inputs)
        if compute_map is None:
            return tuple(map(compute_columns(rows.columns, inputs, items).__getitem__, results))
        return tuple(map(compute_map(inputs, items, *watch, rows.columns, len(rows)).__getitem__, results))

    return compute_all
