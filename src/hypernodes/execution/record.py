"""What is kept of a call: its outputs, and how they were made, so that a later miss can be explained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypernodes.cache.about import About, Part, Taken, shown
from hypernodes.cache.content import digest
from hypernodes.exceptions import SignatureError

if TYPE_CHECKING:
    from hypernodes.cache.bulk import BulkCache
    from hypernodes.execution.frame import Frame
    from hypernodes.execution.steps import CallStep, Plan


def keep(frame: Frame, step: CallStep, signature: bytes, outputs: tuple[Any, ...], seconds: float) -> None:
    """Put what a call returned into the cache of its plan."""
    plan, cache = frame.plan, frame.plan.cache
    if cache is None:
        return
    code = frame.run.codes.calls[plan.key, step.index].hex()
    takes = taken(plan, step, frame.identities, frame.values)
    frame.run.absent.discard(signature)
    cache.put(signature.hex(), outputs, About(step.name, code, takes, seconds))
    if not cache.has_code(code):
        keep_code(cache, code, step)


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
    if step.version is not None:
        found["cache_version"] = Part(digest(step.version).hex(), repr(step.version))
    return found
