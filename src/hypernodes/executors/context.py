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
    is copied as well.
    """
    context = copy_context() if of is None else of.copy()
    if "decimal" in sys.modules and (variable := _decimal_variable()) in context:
        context.run(variable.set, context[variable].copy())
    return context


def isolated(function: Callable[P, T]) -> Callable[P, T]:
    """Return a function that runs in a context of its own each time, which what it sets does not leave."""

    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return own_context().run(function, *args, **kwargs)

    return call


@cache
def _decimal_variable() -> ContextVar[Any]:
    import decimal

    context = Context()
    context.run(decimal.getcontext)
    return next(variable for variable, value in context.items() if isinstance(value, decimal.Context))
