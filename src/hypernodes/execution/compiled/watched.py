"""The events of a compiled plan: the same as those of the general path, emitted where the calls are made.

For ``a = inc(x)`` the source of a node is, in essence::

    put(new(Event, ('on_node_start', ('inc', {'x': v0}), scope, time(), worker, None, 'node', 0.0)))
    started = perf_counter()
    v1 = f0(v0)
    seconds, started = perf_counter() - started, None
    put(new(Event, ('on_node_end', ('inc', {'a': v1}, seconds), scope, time(), worker, None, 'node', 0.0)))

Only for the hooks that a callback has. While a call is made `started` is set, so that an error shows whether
a node or only the run around it has failed.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from hypernodes.callbacks.event import Event, Scope
from hypernodes.exceptions import NodeAbandonedError
from hypernodes.execution.plan.model import NestedStep
from hypernodes.raw_errors import is_a, without_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hypernodes.callbacks.event import About, RunContext
    from hypernodes.execution.plan.model import Plan, Step


class Watch(NamedTuple):
    """Where the events of a compiled plan go."""

    put: Callable[[Event], object]
    run: RunContext
    ends_failed: bool = False  # an item that fails has an end, too, since the map goes on


def start_of_node(plan: Plan, step: Step, variable: Mapping[str, str]) -> list[str]:
    """Write that a node is about to be called."""
    given = ", ".join(f"{parameter!r}: {variable[name]}" for parameter, name in step.arguments)
    lines = _put(plan, "on_node_start", f"{step.name!r}, {{{given}}}")
    if isinstance(step, NestedStep):
        lines += _put(plan, "on_nested_pipeline_start", f"{plan.path[-1]!r}, {step.name!r}")
    return [*lines, "started = perf_counter()"]


def end_of_node(plan: Plan, step: Step, variable: Mapping[str, str]) -> list[str]:
    """Write that a node was called."""
    made = ", ".join(f"{name!r}: {variable[name]}" for name in step.outputs if name is not None)
    lines = ["seconds, started = perf_counter() - started, None"]
    if isinstance(step, NestedStep):
        lines += _put(plan, "on_nested_pipeline_end", f"{plan.path[-1]!r}, {step.name!r}, seconds")
    return lines + _put(plan, "on_node_end", f"{step.name!r}, {{{made}}}, seconds")


def within_contexts(lines: Sequence[str], name: str) -> list[str]:
    """Write that the lines of a call are run within the contexts of callbacks."""
    return [
        f"        with NodeContexts({name!r}, scope) as leave:",
        "            try:",
        "                started = perf_counter()",
        *(f"        {line}" for line in lines),
        "            finally:",
        "                for event in leave(): put(event)",
    ]


def start_of_item(plan: Plan) -> list[str]:
    """Write that an item starts."""
    lines = ["scope = Scope(key, path, (*items, number), run)", "began = perf_counter()"]
    return lines + _put(plan, "on_map_item_start", "number,")


def end_of_item(plan: Plan) -> list[str]:
    """Write that an item is done."""
    return _put(plan, "on_map_item_end", "number, perf_counter() - began")


def _put(plan: Plan, hook: str, arguments: str) -> list[str]:
    if hook not in plan.subscribed:
        return []
    return [f"put(new(Event, ({hook!r}, ({arguments}), scope, time(), worker, None, 'node', 0.0)))"]


def emit_failed(
    subscribed: frozenset[str], step: Step, error: BaseException, local: Mapping[str, Any]
) -> None:
    """Emit that a node has failed, and the end of its item if the map goes on.

    `local` are the variables of the compiled plan, which must not refer to the plan itself.
    """
    watch: Watch = local["watch"]
    scope = local["scope"]
    if local["started"] is not None:
        is_failure = is_a(error, Exception)
        emitted = error if is_failure else NodeAbandonedError.of(step.name, "/".join(scope.path), error)
        seconds = perf_counter() - local["started"]
        _emit(subscribed, watch, "on_error", (step.name, emitted), scope, seconds=seconds)
    if watch.ends_failed and "began" in local and is_a(error, Exception):
        seconds = perf_counter() - local["began"]
        _emit(subscribed, watch, "on_map_item_end", (scope.items[-1], seconds), scope)


def emitting(plan: Plan, compute: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Return a compiled plan that emits its start, and its end or its error.

    Of a map, the function takes its columns, too, and how many items they are.
    """
    name, subscribed = plan.path[-1], plan.subscribed

    def run_plan(
        inputs: Mapping[str, Any],
        items: tuple[int, ...],
        watch: Watch,
        columns: Mapping[str, Any] | None = None,
        total: int = 0,
    ) -> dict[str, Any]:
        scope = Scope(plan.key, plan.path, items, watch.run)
        started = perf_counter()
        try:
            if columns is None:
                given = {**plan.bound, **inputs}
                given = {name: given[name] for name in plan.inputs}
                _emit(subscribed, watch, "on_pipeline_start", (name, given), scope)
                outputs = compute(inputs, items, watch)
            else:
                _emit(subscribed, watch, "on_pipeline_start", (name, inputs), scope)
                _emit(subscribed, watch, "on_map_start", (total,), scope)
                outputs = compute(columns, inputs, items, watch=watch._replace(ends_failed=False))
        except BaseException as error:
            # Callbacks may keep the error, and the frames know the callbacks.
            without_frame(without_frame(error))
            _emit(subscribed, watch, "on_error", (name, error), scope, about="pipeline")
            raise
        seconds = perf_counter() - started
        if columns is not None:
            _emit(subscribed, watch, "on_map_end", (seconds,), scope)
        _emit(subscribed, watch, "on_pipeline_end", (name, outputs, seconds), scope)
        return outputs

    return run_plan


def _emit(
    subscribed: frozenset[str],
    watch: Watch,
    hook: str,
    arguments: tuple[Any, ...],
    scope: Scope,
    about: About = "node",
    seconds: float = 0.0,
) -> None:
    if hook in subscribed:
        watch.put(Event.now(hook, arguments, scope, about=about, seconds=seconds))
