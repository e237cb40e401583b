"""How a result came to be: kept beside it, so that a later miss can be explained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypernodes.cache.provenance import ArgumentProvenance, Provenance
from hypernodes.cache.summary import summarize
from hypernodes.execution.step_code import remembered_parts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hypernodes.execution.jobs import Store
    from hypernodes.execution.plan.model import CallStep, Plan


def taken(
    plan: Plan, step: CallStep, identities: Mapping[str, bytes | None], values: Mapping[str, Any]
) -> dict[str, ArgumentProvenance]:
    """Return how the arguments of a call came to be, by parameter."""
    takes = {}
    for parameter, name in step.arguments:
        identity = identities.get(name)
        maker = plan.producers.get(name)
        of_input = summarize(values[name]) if maker is None and name in values else ""
        takes[parameter] = ArgumentProvenance(
            identity.hex() if identity else "", maker.name if maker else "", of_input
        )
    return takes


def store(job: Store) -> None:
    """Put a result into its cache, with how it came to be."""
    entry, step = job.entry, job.step
    provenance = Provenance(step.name, entry.code, dict(job.takes), job.seconds)
    entry.cache.put(entry.signature.hex(), job.outputs, provenance)
    if not entry.cache.has_code_parts(entry.code):
        entry.cache.put_code_parts(entry.code, remembered_parts(entry.code, step))
