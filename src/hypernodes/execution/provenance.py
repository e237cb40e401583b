"""How a result came to be: kept beside it, so that a later miss can be explained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypernodes.cache.about import About, Part, Taken, shown
from hypernodes.cache.content import digest
from hypernodes.exceptions import SignatureError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hypernodes.execution.jobs import Store
    from hypernodes.execution.plan.model import CallStep, Plan


def taken(
    plan: Plan, step: CallStep, identities: Mapping[str, bytes | None], values: Mapping[str, Any]
) -> dict[str, Taken]:
    """Return how the arguments of a call came to be, by parameter."""
    takes = {}
    for parameter, name in step.arguments:
        identity = identities.get(name)
        maker = plan.producers.get(name)
        of_input = shown(values[name]) if maker is None and name in values else ""
        takes[parameter] = Taken(identity.hex() if identity else "", maker.name if maker else "", of_input)
    return takes


def store(job: Store) -> None:
    """Put a result into its cache, with how it came to be."""
    entry, step = job.entry, job.step
    about = About(step.name, entry.code, dict(job.takes), job.seconds)
    entry.cache.put(entry.signature.hex(), job.outputs, about)
    if not entry.cache.has_code(entry.code):
        entry.cache.keep_code(entry.code, code_parts(step))


def code_parts(step: CallStep) -> dict[str, Part]:
    """Return what the code of a node is made of, its version included."""
    from hypernodes.cache.parts import parts

    options = step.options
    try:
        found = parts(step.function)
    except SignatureError:  # only its version counts
        found = {}
    if options.batch is not None:
        found |= {f"batch {name}": part for name, part in parts(options.batch).items()}
    if options.cache_version is not None:
        found["cache_version"] = Part(digest(options.cache_version).hex(), repr(options.cache_version))
    return found
