"""The context of a call in a thread: a copy of the caller's, so that what the call sets stays its own.

A context holds the values of all `contextvars.ContextVar` objects: the precision of ``decimal``, NumPy's
``errstate``, the id of a web request.
"""

from __future__ import annotations

import sys
from contextvars import Context, ContextVar, copy_context
from functools import cache
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")


def own_context(of: Context | None = None) -> Context:
    """Return a copy of a context, by default of the current one.

    `decimal` changes the object in its context variable in place (``getcontext().prec = 3``), so that object
    is copied as well. One in its initial state is left out, since libraries such as pyarrow leave one behind:
    `decimal` makes another when it needs it.
    """
    context = copy_context() if of is None else of.copy()
    if not _has_decimal(context):
        return context
    variable = _decimal_variable()
    found = context[variable]
    if _state(found) != _state(sys.modules["decimal"].DefaultContext):
        context.run(variable.set, found.copy())
        return context
    without = Context()
    for other, value in context.items():
        if other is not variable:
            without.run(other.set, value)
    return without


def isolated(function: Callable[P, T]) -> Callable[P, T]:
    """Return a function that runs in a context of its own each time, which what it sets does not leave.

    A context that a call has left as it was serves the next call, too: a copy costs as much as a small call.
    """
    unchanged: list[tuple[Context, Context]] = []

    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        context, before = unchanged.pop() if unchanged else _copies()
        try:
            return context.run(function, *args, **kwargs)
        finally:
            if _is_same(context, before) and not _has_decimal(before):
                unchanged.append((context, before))

    return call


def can_share(context: Context) -> bool:
    """Whether several calls may run in a context, as long as it equals a copy that was made before."""
    return not _has_decimal(context)


def _copies() -> tuple[Context, Context]:
    context = own_context()
    return context, context.copy()


def _is_same(context: Context, before: Context) -> bool:
    try:
        return context == before
    except Exception:  # Values in it cannot be compared, so it has other ones.
        return False


def _has_decimal(context: Context) -> bool:
    return "decimal" in sys.modules and _decimal_variable() in context


def _state(context: Any) -> tuple[Any, ...]:
    """Return what `decimal.getcontext` shows of its context."""
    limits = (context.Emin, context.Emax, context.capitals, context.clamp)
    return context.prec, context.rounding, *limits, dict(context.traps), dict(context.flags)


@cache
def _decimal_variable() -> ContextVar[Any]:
    import decimal

    context = Context()
    context.run(decimal.getcontext)
    return next(variable for variable, value in context.items() if isinstance(value, decimal.Context))
