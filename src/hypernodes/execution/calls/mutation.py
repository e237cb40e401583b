"""Does a call leave its arguments as they are? Checked by their content, before and after the call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hypernodes.cache.content import digest
from hypernodes.cache.reach import Reach
from hypernodes.exceptions import MutationError, SignatureError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hypernodes.callbacks.event import Scope
    from hypernodes.execution.plan.model import CallStep


@dataclass(frozen=True, slots=True)
class Watched:
    """The arguments of a call, what they were before it, and what the code of the call reaches."""

    arguments: Mapping[str, Any]
    before: Mapping[str, bytes]
    reach: Reach

    def check(self, step: CallStep, scope: Scope) -> None:
        """See whether all are as they were."""
        after = _digests(self.arguments, self.reach)
        changed = [name for name, known in self.before.items() if after.get(name) != known]
        if changed:
            names = " and ".join(
                f"{name!r} (a {type(self.arguments[name]).__qualname__})" for name in changed
            )
            raise MutationError(
                f"node {step.name!r} of pipeline {'/'.join(scope.path)!r} has changed its input {names} in "
                f"place. Others may use the same object, and a cached result would not change it: work on a "
                f"copy, and return it."
            )


def watch(step: CallStep, arguments: Mapping[str, Any]) -> Watched:
    """Note what arguments are; those without stable content (a generator, say) cannot be watched."""
    reach = Reach(step.function, step.options.batch)
    return Watched(dict(arguments), _digests(arguments, reach), reach)


def _digests(arguments: Mapping[str, Any], reach: Reach) -> dict[str, bytes]:
    found = {}
    for name, value in arguments.items():
        try:
            found[name] = digest(value, reach)
        except SignatureError:
            continue
    return found
