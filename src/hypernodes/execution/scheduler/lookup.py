"""Look-up before execution: which signatures of an item are asked for, and what it means that they are found.

The same is asked for a single plan, for the items of a map before any of them is started, and by `explain`.
An item whose asked-for results are all in the cache needs no execution target; of any other, the results that
were found are used when it is executed, and not fetched again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hypernodes.execution.plan.model import CallStep
from hypernodes.execution.signature import identify, identity_of_output
from hypernodes.serialization.remote import is_remote

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hypernodes.execution.jobs import Values
    from hypernodes.execution.plan.model import Plan, Step
    from hypernodes.execution.signature import Signer


@dataclass(frozen=True, slots=True, eq=False)
class SignedItem:
    """What identifies an item and its steps, before it is executed."""

    identities: dict[str, bytes | None]  # of its inputs, and of what is made of them, by name
    signatures: dict[int, bytes | None]  # ``None`` for a step without
    # Results that were found in the cache, by step index.
    known: dict[int, tuple[Any, ...]] = field(default_factory=dict)


def sign_item(
    plan: Plan, signer: Signer, values: Mapping[str, Any], identities: Mapping[str, bytes | None]
) -> SignedItem:
    """Identify the inputs of an item, and sign every step that can be signed before anything is computed."""
    found = dict(identities)
    for name in signer.inputs:
        if name not in found and name in values and not is_remote(values[name]):
            found[name] = identify(values[name], name, plan, signer.reach)
    signatures: dict[int, bytes | None] = {}
    signer.sign(found, signatures)
    return SignedItem(found, signatures)


class CacheLookup:
    """What to look up for the items of one map."""

    def __init__(
        self,
        plan: Plan,
        signer: Signer,
        fixed: Mapping[str, Any],
        identities: Mapping[str, bytes | None],
    ) -> None:
        self._plan = plan
        self._signer = signer
        self._fixed = fixed
        self._identities = identities
        producers = [plan.producers[name] for name in plan.outputs if name in plan.producers]
        self.steps: tuple[Step, ...] = tuple({step.index: step for step in producers}.values())
        made = [name for step in self.steps for name in step.outputs if name is not None]
        self._makes_all = made == list(plan.outputs)

    @property
    def is_useful(self) -> bool:
        """Whether everything that is asked for has entries of its own."""
        return (
            self._plan.cache is not None
            and bool(self.steps)
            and all(isinstance(step, CallStep) and step.index in self._signer.steps for step in self.steps)
        )

    def sign(self, item: Mapping[str, Any]) -> SignedItem:
        """Sign an item."""
        return sign_item(self._plan, self._signer, item, self._identities)

    def wanted(self, signed: SignedItem) -> tuple[bytes, ...] | None:
        """Return the signatures that are asked for; ``None`` where one is missing."""
        wanted = []
        for step in self.steps:
            if (signature := signed.signatures.get(step.index)) is None:
                return None
            wanted.append(signature)
        return tuple(wanted)

    def outputs(self, item: Mapping[str, Any], results: Mapping[int, tuple[Any, ...]]) -> Values | None:
        """Return all outputs of an item, or ``None`` if the result of a step is missing."""
        made: Values = {}
        for step in self.steps:
            if (outputs := results.get(step.index)) is None:
                return None
            for name, value in zip(step.outputs, outputs, strict=True):
                if name is not None:
                    made[name] = value
        if self._makes_all:
            return made
        given = {**self._fixed, **item}
        return {name: made[name] if name in made else given[name] for name in self._plan.outputs}

    def signature_of(self, wanted: tuple[bytes, ...]) -> bytes:
        """Return the identity of an item's first output that was computed."""
        name = next(name for name in self._plan.outputs if name in self._plan.producers)
        step = self._plan.producers[name]
        return identity_of_output(wanted[self.steps.index(step)], step, step.outputs.index(name))
