"""The values that are the same for all rows of a lazy data frame."""

from __future__ import annotations

from dataclasses import replace
from threading import RLock
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4
from weakref import WeakValueDictionary

from hypernodes.execution.driver import drive
from hypernodes.execution.scheduler.run import Run, no_targets
from hypernodes.iterators import can_be_shared

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from hypernodes.execution.plan.model import Plan
    from hypernodes.execution.stages import Stage


class SharedValues:
    """What depends on fixed inputs only. Each process computes it once, when a stage first needs it.

    A lazy data frame has no driver that could compute it for all processes.
    """

    def __init__(self, plan: Plan, key: str | None = None) -> None:
        self._plan = plan
        self._key = key or uuid4().hex
        self._lock = RLock()
        self._values: dict[str, Any] = {}
        _of_this_process[self._key] = self

    @property
    def plan(self) -> Plan:
        """The plan that computes the values."""
        return self._plan

    def needed_by(self, stage: Stage) -> list[str]:
        """Return the names of the values that a stage takes, or hands on."""
        return [name for name in (*stage.plan.inputs, *stage.makes) if name in self._plan.outputs]

    def get(self, stage: Stage, fixed: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return what a stage needs; ``None`` if rows would use a value up, such as an open file."""
        names = self.needed_by(stage)
        with self._lock:
            if missing := [name for name in names if name not in self._values]:
                self._values |= self._compute(missing, {**fixed, **self._values})
            values = {name: self._values[name] for name in names}
        return values if can_be_shared(values.values()) else None

    def of_row(self, stage: Stage, fixed: Mapping[str, Any]) -> dict[str, Any]:
        """Compute what a stage needs for one row only."""
        return self._compute(self.needed_by(stage), fixed)

    def _compute(self, names: Collection[str], given: Mapping[str, Any]) -> dict[str, Any]:
        """Compute values, and return them with all that they are computed from."""
        needed: list[str] = []
        wanted = list(names)
        while wanted:
            name = wanted.pop()
            if name in given or name in needed or (step := self._plan.producers.get(name)) is None:
                continue
            needed.append(name)
            wanted += [taken for _, taken in step.arguments]
        run = Run.once(replace(self._plan, outputs=tuple(needed)), given)
        drive(run, no_targets)
        return dict(run.finish())

    def __reduce__(self) -> tuple[Any, ...]:
        return _shared_values, (self._plan, self._key)


_of_this_process: Final[WeakValueDictionary[str, SharedValues]] = WeakValueDictionary()
_lock: Final = RLock()


def _shared_values(plan: Plan, key: str) -> SharedValues:
    """Return the values of a data frame, which all its stages in a process have in common."""
    with _lock:
        known = _of_this_process.get(key)
        return SharedValues(plan, key) if known is None else known
