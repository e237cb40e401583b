"""What `PlanRun` and `MapRun` have in common: a plan, a place in the tree of pipelines, and a parent."""

from __future__ import annotations

from abc import ABC, abstractmethod
from time import time
from typing import TYPE_CHECKING, Any

from hypernodes.callbacks.event import Event, current_worker

if TYPE_CHECKING:
    from hypernodes.callbacks.event import About, Scope, Worker
    from hypernodes.execution.plan.model import Plan
    from hypernodes.execution.scheduler.state import Parent, RunState


class PlanExecution(ABC):
    """A plan that is being executed as a part of a run.

    The parent, which is told how it ended, knows it by `about`: the nested step, or the position of an item.
    """

    def __init__(self, run: RunState, plan: Plan, scope: Scope, parent: Parent, about: Any = None) -> None:
        self.run = run
        self.plan = plan
        self.scope = scope
        self.parent = parent
        self.about = about
        self.over = False  # it has ended; the parts below end with it
        self.started = run.clock()
        self.executed = 0  # calls that were made here and in the parts below that have ended
        self.hits = 0  # results that came from a cache, likewise
        self.emitted_as: str | None = None  # the pipeline id of its start event; items of a map have none

    def emit(
        self,
        hook: str,
        *arguments: Any,
        signature: bytes | None = None,
        ended: tuple[float, Worker] | None = None,
        about: About = "node",
        seconds: float = 0.0,
    ) -> None:
        """Record an event, if a callback subscribes to it.

        `ended` says when and where it happened, if not now and here; `seconds` how long what failed had been
        under way.
        """
        if hook in self.plan.subscribed:
            when, worker = (time(), current_worker()) if ended is None else ended
            signed = None if signature is None else signature.hex()
            self.run.events.append(Event(hook, arguments, self.scope, when, worker, signed, about, seconds))

    def count_of(self, child: PlanExecution) -> None:
        """Count the calls and hits of a part below that has ended."""
        self.executed += child.executed
        self.hits += child.hits

    def fail(self, error: BaseException) -> None:
        """End with an error."""
        if self.over:
            return
        self._end_with(error)
        self.parent.child_failed(self, error)

    def abandon(self, error: BaseException) -> None:
        """End without a result, since something else has ended the run or a part above with an error."""
        if not self.over:
            self._end_with(error)

    def _end_with(self, error: BaseException) -> None:
        self.over = True
        self._abandon_children(error)
        if self.emitted_as is not None:
            self.emit("on_error", self.emitted_as, error, about="pipeline")

    @abstractmethod
    def _abandon_children(self, error: BaseException) -> None:
        """Emit errors for all that has started below and will not end."""
