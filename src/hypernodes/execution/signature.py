"""Which code is in a plan? Fingerprinted once a run, as things stand when it starts.

An output is identified by how it is made: by the code of its node and the identities of what the
node takes. Inputs are identified by their content; so is what an uncached node returns.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hypernodes.cache.content import combine, digest
from hypernodes.exceptions import CacheWarning, SignatureError
from hypernodes.execution.steps import CallStep, NestedStep

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hypernodes.execution.steps import Plan


@dataclass(frozen=True, slots=True)
class _Lineage:
    """How a value is made, inputs left open: the digest of the way, and the inputs it starts from."""

    digest: bytes
    inputs: frozenset[str]


@dataclass(frozen=True, slots=True)
class Codes:
    """The code of every step of a tree of plans.

    Attributes:
        calls: The digest of each function that may be cached, by plan key and step index.
        nested: How each result of a nested plan is made; ``None`` for one that is identified by content.
        bound: The identities of the values that a pipeline fixes, by plan key.
    """

    calls: dict[tuple[int, int], bytes] = field(default_factory=dict)
    nested: dict[tuple[int, int], tuple[_Lineage | None, ...]] = field(default_factory=dict)
    bound: dict[int, dict[str, bytes | None]] = field(default_factory=dict)


NO_CODES = Codes()


def read_codes(plan: Plan) -> Codes:
    """Fingerprint the functions in a plan, and in those nested in it.

    A function that cannot be fingerprinted is left out, with a warning, and so is not cached.
    """
    if all(inner.cache is None for inner in plan.tree()):
        return NO_CODES
    codes = Codes()
    _read(plan, codes)
    return codes


def _read(plan: Plan, codes: Codes) -> dict[str, _Lineage | None]:
    made: dict[str, _Lineage | None] = {}
    for name in plan.inputs:
        if name in plan.bound:
            fixed = identify(plan.bound[name], name, plan)
            codes.bound.setdefault(plan.key, {})[name] = fixed
            made[name] = None if fixed is None else _Lineage(combine(b"bound", (fixed,)), frozenset())
        else:
            made[name] = _Lineage(combine(b"input", (name.encode(),)), frozenset((name,)))
    for step in plan.steps:
        match step:
            case CallStep():
                code = _code(step, plan) if plan.cache is not None and step.cache else None
                if code is not None:
                    codes.calls[plan.key, step.index] = code
                arguments = [(parameter, made[name]) for parameter, name in step.arguments]
                lineage = None if code is None else _made_of(code, arguments)
                for position, output in enumerate(step.outputs):
                    if output is not None:
                        made[output] = lineage and _Lineage(
                            output_identity(lineage.digest, step, position), lineage.inputs
                        )
            case NestedStep():
                inside = _read(step.inner, codes)
                results = tuple(inside[inner] for inner, _ in step.results)
                walked = "/".join((*step.map_over, step.map_mode if step.map_over else "")).encode()
                results = tuple(
                    way and _Lineage(combine(walked, (way.digest,)), way.inputs | set(step.map_over))
                    for way in results
                )
                codes.nested[plan.key, step.index] = results
                names = dict(step.arguments)
                for (_, outer), way in zip(step.results, results, strict=True):
                    made[outer] = way and _made_of(
                        way.digest, [(inner, made[names[inner]]) for inner in sorted(way.inputs)]
                    )
    return {name: made[name] for name in plan.outputs}


def _made_of(code: bytes, arguments: list[tuple[str, _Lineage | None]]) -> _Lineage | None:
    ways = [way for _, way in arguments if way is not None]
    if len(ways) != len(arguments):
        return None
    parts = [
        part for (name, _), way in zip(arguments, ways, strict=True) for part in (name.encode(), way.digest)
    ]
    return _Lineage(combine(code, parts), frozenset().union(*(way.inputs for way in ways)))


def _code(step: CallStep, plan: Plan) -> bytes | None:
    try:
        return digest(step.function)
    except SignatureError as error:
        _tell(
            plan,
            f"node {step.name!r} of pipeline {plan.label!r} is not cached, since its code cannot be "
            f"fingerprinted: {error}.",
        )
        return None


def _tell(plan: Plan, message: str) -> None:
    """Warn of something once."""
    if message not in plan.told:
        plan.told.add(message)
        warnings.warn(message, CacheWarning, stacklevel=2)


def sign(code: bytes, arguments: Mapping[str, bytes]) -> bytes:
    """Return the signature of a call: its code, and what it takes by parameter."""
    return combine(code, [part for name, identity in arguments.items() for part in (name.encode(), identity)])


def output_identity(signature: bytes, step: CallStep, position: int) -> bytes:
    """Return the identity of one of the outputs of a call."""
    return signature if len(step.outputs) == 1 else combine(signature, (str(position).encode(),))


def identify(value: Any, name: str, plan: Plan) -> bytes | None:
    """Return the identity of a value that is known by its content, or ``None`` where it has none."""
    try:
        return digest(value)
    except SignatureError as error:
        _tell(
            plan,
            f"{name!r} in pipeline {plan.label!r} cannot be fingerprinted, so that what depends on it is not "
            f"cached: {error}.",
        )
        return None
