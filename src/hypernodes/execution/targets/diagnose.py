"""Which part of a job or of a result cannot be pickled, and whose it is?"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

from hypernodes.exceptions import TransportError
from hypernodes.execution.jobs import Call, CallGroup, Chunk
from hypernodes.executors.unpicklable import describe_unpicklable_part
from hypernodes.serialization.pickling import is_serializable
from hypernodes.serialization.remote import resolve
from hypernodes.text import message_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hypernodes.execution.jobs import RemoteJob
    from hypernodes.execution.plan.model import CallStep


def unsent_job(job: RemoteJob, failure: Exception) -> TransportError:
    """Return the error that says which part of a job cannot be pickled, and whose it is."""
    scope = job.context.scope if isinstance(job, Chunk) else job.scope
    for context in dict.fromkeys(chain(*scope.run.node_contexts.values())):
        if not is_serializable(context):
            return TransportError(
                f"not picklable: the node_context of a callback, {context!r}, cannot be pickled on its way "
                f"to a worker process: {message_of(failure)}. Return a function of a module, or an instance "
                f"of a class that pickles."
            )
    if isinstance(job, Call):
        return unsent([job.step], job.arguments, repr("/".join(scope.path)), failure)
    if isinstance(job, CallGroup):
        return unsent(job.steps, job.values, repr("/".join(scope.path)), failure)
    values = dict(job.context.fixed)
    for index, item in zip(job.indices, job.items, strict=True):
        values |= {f"{name}[{index}]": value for name, value in item.items()}
    label = repr("/".join(scope.path))
    if job.indices:
        label += f", item {job.indices[0]}"
    return unsent(job.context.plan.calls(), values, label, failure)


def unsent(
    steps: Iterable[CallStep], values: Mapping[str, Any], label: str, failure: Exception
) -> TransportError:
    """Return the error that says which functions and inputs cannot be pickled."""
    steps = list(steps)
    parts = [
        f"the function of node {step.name!r}{_holding(step.function)}"
        for step in steps
        if not is_serializable(step.function)
    ]
    parts += [
        f"input {name!r} (a {type(value).__qualname__}{_holding(value)})"
        for name, value in values.items()
        if not is_serializable(resolve(value))
    ]
    what = ", ".join(parts) or "its work"
    names = " or ".join(repr(step.name) for step in steps)
    return TransportError(
        f"not picklable: {what} cannot be pickled on its way to a worker process: {message_of(failure)}. It "
        f"belongs to node {names} of pipeline {label}. Make it in the node itself, or run the node in this "
        f"process (executor 'sequential' or 'threaded')."
    )


def unreturned(values: Mapping[Any, Any], failure: Exception) -> TransportError:
    """Return the error that says which results cannot be pickled."""
    names = [name for name in values if not is_serializable(values[name])]
    kinds = ", ".join(f"{name!r}, a {type(values[name]).__qualname__}," for name in names)
    return TransportError(
        f"not picklable: the result {kinds} cannot be pickled on its way back from a worker process: "
        f"{message_of(failure)}. Return something that pickles, or run this node in this process (executor "
        f"'sequential' or 'threaded')."
    )


def _holding(value: object) -> str:
    found = describe_unpicklable_part(value)
    return f", {found}," if found else ""
