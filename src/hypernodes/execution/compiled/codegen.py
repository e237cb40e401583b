"""A plan compiled to a Python function: for one run, on an event loop, over columns.

`hypernodes.execution.compiled.source` writes the function. It is kept for as long as its plan lives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import WeakKeyDictionary

from hypernodes.execution.compiled.source import compile_plan
from hypernodes.execution.compiled.watched import emitting
from hypernodes.execution.plan.needs import COMPILED_ON_LOOP
from hypernodes.execution.plan.variants import shared_part, without_shared
from hypernodes.executors.loops import ASYNC_CALLER
from hypernodes.iterators import can_be_shared

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence

    from hypernodes.execution.plan.model import NestedStep, Plan

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
        forms[form, is_awaited] = compile_plan(
            plan, forms[_MARKER], _nested, is_awaited=is_awaited, **options
        )
    compute: Callable[..., Any] = forms[form, is_awaited]
    return compute


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
