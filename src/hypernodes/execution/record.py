"""What is kept of a call: its outputs, and how they were made, so that a later miss can be explained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hypernodes.cache.about import About, Part, Taken, shown
from hypernodes.cache.content import digest
from hypernodes.exceptions import SignatureError
from hypernodes.portable import fetched

if TYPE_CHECKING:
    from hypernodes.cache.bulk import BulkCache
    from hypernodes.execution.frame import Frame
    from hypernodes.execution.steps import CallStep, Plan


@dataclass(frozen=True, slots=True)
class Place:
    """Where a worker is to put what a call returns, if that stays with it.

    Attributes:
        cache: The cache.
        signature: Under which signature.
        code: The digest of the node's code.
        takes: What the call takes.
    """

    cache: BulkCache
    signature: bytes
    code: str
    takes: dict[str, Taken]

    @classmethod
    def of(cls, frame: Frame, step: CallStep) -> Place | None:
        """Return the place for the results of a call, if they may be cached."""
        plan, signature = frame.plan, frame.signatures.get(step.index)
        if plan.cache is None or signature is None:
            return None
        code = frame.run.codes.calls[plan.key, step.index].hex()
        return cls(plan.cache, signature, code, taken(plan, step, frame.identities, frame.values))

    def keep(self, step: CallStep, outputs: tuple[Any, ...], seconds: float) -> None:
        """Put down what was returned."""
        self.cache.put(self.signature.hex(), outputs, About(step.name, self.code, self.takes, seconds))
        if not self.cache.has_code(self.code):
            keep_code(self.cache, self.code, step)


def keep(frame: Frame, step: CallStep, outputs: tuple[Any, ...], seconds: float) -> None:
    """Put what a call returned into the cache of its plan."""
    place = Place.of(frame, step)
    if place is not None:
        frame.run.absent.discard(place.signature)
        place.keep(step, tuple(map(fetched, outputs)), seconds)


def taken(
    plan: Plan, step: CallStep, identities: dict[str, bytes | None], values: dict[str, Any]
) -> dict[str, Taken]:
    """Return what a call takes, by parameter."""
    takes = {}
    for parameter, name in step.arguments:
        identity = identities.get(name)
        maker = plan.producers.get(name)
        of_input = shown(values[name]) if maker is None and name in values else ""
        takes[parameter] = Taken(identity.hex() if identity else "", maker.name if maker else "", of_input)
    return takes


def keep_code(cache: BulkCache, code: str, step: CallStep) -> None:
    """Put down what the code of a node is made of."""
    cache.keep_code(code, code_parts(step))


def code_parts(step: CallStep) -> dict[str, Part]:
    """Return what the code of a node is made of, its version included."""
    from hypernodes.cache.parts import parts  # noqa: PLC0415  needed once for each new code

    try:
        found = parts(step.function)
    except SignatureError:  # only its version counts
        found = {}
    if step.batch is not None:
        found |= {f"batch {name}": part for name, part in parts(step.batch).items()}
    if step.version is not None:
        found["cache_version"] = Part(digest(step.version).hex(), repr(step.version))
    return found
