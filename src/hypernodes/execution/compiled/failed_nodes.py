"""Which node of a compiled plan has raised: noted on its error, and for the events of a chunk."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

from hypernodes.callbacks.event import Scope
from hypernodes.execution.calls.location import locate
from hypernodes.execution.compiled.watched import emit_failed
from hypernodes.executors.settled import cancelled_inside

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hypernodes.execution.plan.model import Plan

FAILED_NODES: ContextVar[list[FailedNode] | None] = ContextVar("hypernodes_failed_nodes", default=None)
"""Where a compiled plan notes which node has raised, then each nested pipeline around it."""


class FailedNode(NamedTuple):
    """A node or nested pipeline that has raised in a compiled plan."""

    error: BaseException
    owner: object  # the marker of its plan: a node may run other pipelines, whose errors it handles itself
    scope: Scope
    completed: int  # how many steps of its plan were completed before it
    name: str


def blame_of(
    marker: object, plan: Plan, variable: Mapping[str, str]
) -> Callable[[BaseException, int, tuple[int, ...], dict[str, Any]], BaseException | None]:
    """Return a function that puts on an error which step of a plan has raised it, with its arguments.

    The plan's own code calls it with the index of the step, the indices of the item, and its variables, whose
    names by value are in `variable`.
    """
    key, path, steps = plan.key, plan.path, plan.steps
    subscribed = plan.subscribed if plan.is_watched else None

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
        if subscribed is not None:
            emit_failed(subscribed, step, error, local)
        return None if error is raised else error

    return blame
