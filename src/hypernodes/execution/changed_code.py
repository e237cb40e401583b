"""Has a run changed what the code of its nodes reads? Then the next run does not find their results.

The code itself may have changed it, in a way that is not recognized as an effect. Without a warning, the user
would not notice that a node is never found in the cache.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypernodes.exceptions import SignatureError
from hypernodes.execution.cache_warnings import warn_once
from hypernodes.execution.plan.model import CallStep
from hypernodes.execution.signature import fingerprint_step
from hypernodes.execution.step_code import note_unchanged, noted_values

if TYPE_CHECKING:
    from hypernodes.execution.plan.model import Plan
    from hypernodes.execution.signature import Fingerprints
    from hypernodes.execution.step_code import Values


def warn_of_changed_code(plan: Plan, fingerprints: Fingerprints) -> None:
    """Warn of nodes whose code has another fingerprint after a run than before."""
    for inner in plan.tree():
        for step in inner.steps:
            code = fingerprints.calls.get((inner.key, step.index))
            if code is None or not isinstance(step, CallStep) or (before := noted_values(code)) is None:
                continue
            try:
                after = fingerprint_step(step)
            except SignatureError:
                continue  # The next run warns of it.
            if after.digest == code:
                note_unchanged(code)
            else:
                warn_once(
                    inner,
                    f"the next run will compute node {step.name!r} of pipeline {inner.label!r} again: this "
                    f"run has changed {_changed(before, after.values)}, which the code of the node reads. "
                    f"Make the value within the node, or pass it as an input. If no result depends on it, "
                    f"give its class a method __cache_key__(self) that leaves out what changes. If each run "
                    f"is to compute the node, mark it cache=False.",
                    cause=f"changed by step {step.index}",
                )


def _changed(before: Values, after: Values) -> str:
    names = [name for name in before if after.get(name, before[name]) != before[name]]
    return " and ".join(names) or "a value"
