"""Which items of a map are known already? Looked up in bulk, before any of them is started.

An item of which every output that is asked for is in the cache needs no frame, no executor and no
worker. Equal items have equal signatures, so one of them is computed and the others wait for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hypernodes.config import MISS
from hypernodes.execution.signature import identify, identity_of_output
from hypernodes.execution.steps import CallStep

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hypernodes.execution.jobs import Values
    from hypernodes.execution.run import Run
    from hypernodes.execution.steps import Plan, Step


@dataclass(frozen=True, slots=True, eq=False)
class Signed:
    """An item before it is started.

    Attributes:
        identities: What identifies its inputs, and what is made of them, by name.
        signatures: The signatures of its steps.
    """

    identities: dict[str, bytes | None]
    signatures: dict[int, bytes | None]


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What a look-up says of an item.

    Attributes:
        wanted: The signatures of the steps that make its outputs.
        outputs: All its outputs, or ``None`` where one of them is missing.
        signed: All that is known of it, for whoever goes on with it.
    """

    wanted: tuple[bytes, ...]
    outputs: Values | None
    signed: Signed


class Prober:
    """Looks up items of one map.

    Args:
        run: The run that the map is a part of.
        plan: The plan that is run for each item.
        fixed: The values that all items have in common.
        identities: What identifies them.
    """

    def __init__(
        self, run: Run, plan: Plan, fixed: Mapping[str, Any], identities: Mapping[str, bytes | None]
    ) -> None:
        self._run = run
        self._plan = plan
        self._signer = run.signer(plan)
        self._fixed = fixed
        self._identities = identities
        producers = [plan.producers[name] for name in plan.outputs if name in plan.producers]
        self.steps: tuple[Step, ...] = tuple({step.index: step for step in producers}.values())
        self._varying = [name for name in self._signer.inputs if name not in fixed]

    @property
    def can_find(self) -> bool:
        """Whether all that is asked for has entries of its own."""
        return (
            self._plan.cache is not None
            and bool(self.steps)
            and all(isinstance(step, CallStep) and step.index in self._signer.steps for step in self.steps)
        )

    def signature_of(self, found: Found) -> bytes:
        """Return the identity of an item's first output that was computed."""
        name = next(name for name in self._plan.outputs if name in self._plan.producers)
        step = self._plan.producers[name]
        return identity_of_output(found.wanted[self.steps.index(step)], step, step.outputs.index(name))

    def look_up(self, items: Iterable[Mapping[str, Any]]) -> list[Found | None]:
        """Look items up.

        Returns:
            What was found of each item; ``None`` for one that has no signature.
        """
        assert self._plan.cache is not None  # noqa: S101  else nothing can be found
        cache, items = self._plan.cache, list(items)
        signed = list(map(self._sign, items))
        wanted = [self._wanted(of_item.signatures) for of_item in signed]
        keys = dict.fromkeys(signature.hex() for of_item in wanted for signature in of_item or ())
        values = cache.get_many(keys) if keys else {}
        known = frozenset(values)
        found: list[Found | None] = []
        absent: set[bytes] = set()
        for item, signatures, of_item in zip(items, wanted, signed, strict=True):
            if signatures is None:
                found.append(None)
                continue
            outputs = self._outputs(item, signatures, values, known)
            found.append(Found(signatures, outputs, of_item))
            if outputs is None:
                absent.update(signature for signature in of_item.signatures.values() if signature is not None)
        if absent:
            behind = cache.contains([signature.hex() for signature in absent])
            self._run.note_absent(signature for signature in absent if signature.hex() not in behind)
        return found

    def _wanted(self, signatures: dict[int, bytes | None]) -> tuple[bytes, ...] | None:
        """Return the signatures that are asked for; ``None`` where one is missing."""
        wanted = []
        for step in self.steps:
            signature = signatures.get(step.index)
            if signature is None:
                return None
            wanted.append(signature)
        return tuple(wanted)

    def _sign(self, item: Mapping[str, Any]) -> Signed:
        identities = dict(self._identities)
        for name in self._varying:
            identities[name] = identify(item[name], name, self._plan, self._run.codes)
        signatures: dict[int, bytes | None] = {}
        self._signer.sign(identities, signatures)
        return Signed(identities, signatures)

    def _outputs(
        self,
        item: Mapping[str, Any],
        signatures: tuple[bytes, ...],
        values: dict[str, Any],
        known: frozenset[str],
    ) -> Values | None:
        assert self._plan.cache is not None  # noqa: S101
        made: Values = {}
        for step, signature in zip(self.steps, signatures, strict=True):
            key = signature.hex()
            if key not in known:
                return None
            outputs = values.pop(key, MISS)
            if outputs is MISS:  # given to an equal item; what one does to its value is no matter to others
                outputs = self._plan.cache.get(key)
            if outputs is MISS:
                return None
            made.update(zip(step.outputs, outputs, strict=True))  # type: ignore[arg-type]
        given = {**self._fixed, **item}
        return {name: made[name] if name in made else given[name] for name in self._plan.outputs}
