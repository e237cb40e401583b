"""Which short calls go to a worker together: sending one by itself would take longer than making it.

A call is short if its function was short when this target has called it before. Short calls that are ready
are divided into groups of about `GROUP_S`. A group takes along what follows from it: calls whose arguments
are known, or are made in the group. So a chain of short calls is one group, and its values go from call to
call.
"""

from __future__ import annotations

from math import ceil, inf
from typing import TYPE_CHECKING, Any, Final, Protocol

from hypernodes.execution.durations import CALL_S
from hypernodes.execution.jobs import CallGroup
from hypernodes.execution.scheduler.sent_jobs import SentJobs
from hypernodes.serialization.remote import is_remote

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Mapping, Sequence

    from hypernodes.callbacks.event import Scope
    from hypernodes.execution.durations import CallDurations
    from hypernodes.execution.jobs import CommonValue, EntryKey, GroupOutcome, Outcome, Values
    from hypernodes.execution.plan.model import CallStep, Plan
    from hypernodes.execution.scheduler.state import RunState

GROUP_S: Final = 0.01
"""Seconds of work in a group. The results of a group arrive together, so others wait no longer for them."""


def grouped(
    ready: Sequence[CallStep],
    following: Iterable[CallStep],
    seconds: Callable[[CallStep], float | None],
    known: Container[str],
) -> list[list[CallStep]]:
    """Divide short calls into groups, each in an order in which they can be made.

    Args:
        ready: Short calls whose arguments are known.
        following: Calls that wait for values, in the order of the plan.
        seconds: How long a call takes; ``None`` if it is not short.
        known: The names of the values that are known.
    """
    times = {step.index: seconds(step) or CALL_S for step in ready}
    count = max(1, ceil(sum(times.values()) / GROUP_S))
    size = ceil(len(ready) / count)
    groups = [list(ready[start : start + size]) for start in range(0, len(ready), size)]
    left = [GROUP_S - sum(times[step.index] for step in group) for group in groups]
    made_by: dict[str | None, int] = {}
    for number, group in enumerate(groups):
        made_by |= {name: number for step in group for name in step.outputs}
    for step in following:
        needed = {made_by.get(name) for _, name in step.arguments if name not in known}
        target = needed.pop() if len(needed) == 1 else None
        if target is None or (takes := seconds(step)) is None or takes > left[target]:
            continue
        groups[target].append(step)
        left[target] -= takes
        made_by |= dict.fromkeys(step.outputs, target)
    return groups


class Caller(Protocol):
    """The run of a plan, as far as its groups must know it."""

    run: RunState
    plan: Plan
    scope: Scope
    over: bool
    values: Values
    common: Mapping[str, CommonValue]
    unmet: dict[int, int]  # how many values a step still waits for

    def call(self, step: CallStep) -> None:
        """Have a call made whose arguments are known."""

    def entry_of(self, step: CallStep) -> EntryKey | None:
        """Return where the result of a call is kept, if it is cached."""

    def emit_start(self, step: CallStep, outcome: Outcome) -> None:
        """Emit that a call was about to be made, now that its outcome is here."""

    def job_done(self, about: CallStep, outcome: Outcome) -> None:
        """Go on with the outcome of a call."""


class CallGroups(SentJobs[Caller]):
    """The short calls of one run of a plan: those that are ready, and those that were sent together."""

    def __init__(self, caller: Caller, durations: CallDurations) -> None:
        super().__init__(caller)
        self._grouped = caller.plan.grouped
        self._durations = durations
        self._ready: list[CallStep] = []
        self._sent: set[int] = set()
        self._alone: set[int] = set()  # what was in a group that could not be executed

    def takes(self, step: CallStep) -> bool:
        """Take a call that is ready, unless it has to go alone."""
        if step.index in self._sent:
            return True
        if self._seconds(step) is None:
            return False
        if not self._ready:
            self._part.run.senders.append(self._send)
        self._ready.append(step)
        return True

    def note(self, step: CallStep, outcome: Outcome) -> None:
        """Take note of how long a call took; one with large results goes alone, so that they stay there."""
        if step.index in self._grouped:
            is_large = any(map(is_remote, outcome.outputs))
            self._durations.note(step.function, inf if is_large else outcome.seconds)

    def _seconds(self, step: CallStep) -> float | None:
        if step.index in self._alone or step.index not in self._grouped:
            return None
        return self._durations.of_short(step.function)

    def _send(self) -> None:
        if self.over:
            return
        caller, ready = self._part, self._ready
        self._ready = []
        waiting = {index for index, unmet in caller.unmet.items() if unmet and index not in self._sent}
        following = [step for index, step in self._grouped.items() if index in waiting]
        for steps in grouped(ready, following, self._seconds, caller.values):
            if len(steps) == 1:
                self._alone.add(steps[0].index)
                caller.call(steps[0])
                continue
            self._sent.update(step.index for step in steps)
            made = {name for step in steps for name in step.outputs}
            taken = {name for step in steps for _, name in step.arguments if name not in made}
            entries = {step.index: caller.entry_of(step) for step in steps}
            group = CallGroup(
                caller.run.key_for(self, steps),
                tuple(steps),
                {name: caller.values[name] for name in taken},
                caller.scope,
                caller.plan.node_target,
                {name: caller.common[name] for name in taken if name in caller.common},
                {index: entry for index, entry in entries.items() if entry is not None},
            )
            caller.run.jobs.append(group)

    def job_begins(self, about: Any) -> None:
        """When the calls of a group begin is known only when they have ended."""

    def look_again(self, about: Sequence[CallStep]) -> None:
        """Go on with calls that were taken out of a group: each waits by itself for the equal one."""
        ready = self._take_back(about)
        self._alone.update(step.index for step in ready)
        self._call_again(ready)

    def job_done(self, about: Sequence[CallStep], outcome: GroupOutcome) -> None:
        """Go on with the outcomes of the calls that were made; the others are ready once more."""
        made = len(outcome.outcomes)
        remaining = self._take_back(about[made:])
        for step, result in zip(about, outcome.outcomes, strict=False):
            self._sent.discard(step.index)
            if not self.over:
                self._part.emit_start(step, result)
                self._part.job_done(step, result)
        self._call_again(remaining)

    def job_failed(self, about: Sequence[CallStep], error: BaseException) -> None:
        """Make the calls of a group one by one that could not be executed, so that only its culprit fails."""
        del error
        self._alone.update(step.index for step in about)
        self._call_again(self._take_back(about))

    def _take_back(self, steps: Sequence[CallStep]) -> list[CallStep]:
        """Take calls out of their group, and return those that wait for no value."""
        self._sent.difference_update(step.index for step in steps)
        return [step for step in steps if not self._part.unmet.get(step.index)]

    def _call_again(self, steps: Sequence[CallStep]) -> None:
        for step in steps:
            if not self.over:
                self._part.call(step)
