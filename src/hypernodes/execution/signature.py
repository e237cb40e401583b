"""When are two calls the same? When their code is, and all that they take.

An output is identified by how it is made: by the code of its node and the identities of what the
node takes. Inputs are identified by their content; so is what an uncached node returns. Code is
fingerprinted once a run (`read_codes`), as things stand when it starts; then a `Signer` a plan turns
identities of what a plan takes into signatures of what it does.
"""

from __future__ import annotations

import multiprocessing
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from hypernodes.cache.content import digest, digest_and_gaps
from hypernodes.cache.hashing import combine, digest_of, joined
from hypernodes.cache.reach import NO_REACH, Reach
from hypernodes.exceptions import CacheWarning, SignatureError
from hypernodes.execution.steps import CallStep, NestedStep

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from hypernodes.cache.content import LeftOut
    from hypernodes.execution.steps import Plan, Step

    Identities = MutableMapping[str, bytes | None]


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
        reach: What all this code reaches: it decides which private attributes of inputs are effects.
    """

    calls: dict[tuple[int, int], bytes] = field(default_factory=dict)
    nested: dict[tuple[int, int], tuple[_Lineage | None, ...]] = field(default_factory=dict)
    bound: dict[int, dict[str, bytes | None]] = field(default_factory=dict)
    reach: Reach = NO_REACH


NO_CODES = Codes()


def read_codes(plan: Plan) -> Codes:
    """Fingerprint the functions in a plan, and in those nested in it.

    A function that cannot be fingerprinted is left out, with a warning, and so is not cached.
    """
    if all(inner.cache is None for inner in plan.tree()):
        return NO_CODES
    codes = Codes(reach=plan.code_reach())
    _read(plan, codes)
    return codes


def _read(plan: Plan, codes: Codes) -> dict[str, _Lineage | None]:
    made: dict[str, _Lineage | None] = {}
    for name in plan.inputs:
        if name in plan.bound:
            fixed = identify(plan.bound[name], name, plan, codes)
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
                            identity_of_output(lineage.digest, step, position), lineage.inputs
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
    # How many outputs it has decides on what form an entry has.
    version = () if step.version is None else (digest(step.version),)
    try:
        both = (step.function,) if step.batch is None else (step.function, step.batch)
        # What it reaches itself, and not what the plan does: it is the same in any other pipeline.
        reach = Reach(step.function, step.batch)
        found = [digest_and_gaps(function, reach) for function in both]
        for _, left_out in found:
            _tell_of_gaps(left_out)
        return combine(b"call %d" % len(step.outputs), (*(code for code, _ in found), *version))
    except SignatureError as error:
        if version:  # stands for what cannot be read, as its author has said
            named = (getattr(step.function, name, step.name) for name in ("__module__", "__qualname__"))
            return combine(b"versioned call %d" % len(step.outputs), (*map(digest, named), *version))
        _tell(
            plan,
            f"node {step.name!r} of pipeline {plan.label!r} is not cached, since its code cannot be "
            f"fingerprinted: {error}. A version that you change with the code, @node(cache_version=...), "
            f"would do instead.",
        )
        return None


def _tell(plan: Plan, message: str) -> None:
    """Warn of something once."""
    if message not in plan.told:
        plan.told.add(message)
        warnings.warn(message, CacheWarning, stacklevel=2)


def _tell_of_gaps(left_out: LeftOut) -> None:
    """Warn, once for each class, of private attributes that do not count since they cannot.

    Processes that were started for a pool are silent: the one that started them does the same work.
    """
    for kind, attributes in left_out.items():
        name = f"{kind.__module__}.{kind.__qualname__}"
        if name in _TOLD or multiprocessing.parent_process() is not None:
            continue
        _TOLD.add(name)
        listed = " and ".join(map(repr, attributes))
        reasons = "; ".join(dict.fromkeys(attributes.values()))
        warnings.warn(
            f"objects of class {kind.__qualname__!r} count without their private attribute {listed}, which "
            f"cannot be fingerprinted: {reasons}. If results depend on it, say what it stands for: define a "
            f"method __cache_key__(self) that returns all that counts of the object.",
            CacheWarning,
            stacklevel=2,
        )


_TOLD: Final[set[str]] = set()
"""The classes of which users of this process were warned."""


class Signer:
    """Identifies what the steps of one plan make, from the identities of what they take.

    Attributes:
        inputs: The inputs whose identity matters.
        steps: The indices of the steps that are identified by how they work, and not by content.
    """

    def __init__(self, plan: Plan, codes: Codes) -> None:
        self._ways: list[tuple[Step, list[tuple[bytes, str]], bytes | tuple[_Lineage | None, ...]]] = []
        for step in plan.steps:
            key = (plan.key, step.index)
            match step:
                case CallStep() if key in codes.calls:
                    # Before each identity stands what is always the same, as `combine` would join it.
                    names = [
                        (joined((parameter.encode(),)) + _SIZE, name) for parameter, name in step.arguments
                    ]
                    self._ways.append((step, names, joined((codes.calls[key],))))
                case NestedStep() if any(codes.nested.get(key, ())):
                    used = frozenset().union(*(way.inputs for way in codes.nested[key] if way is not None))
                    names = [(inner.encode(), name) for inner, name in step.arguments if inner in used]
                    self._ways.append((step, names, codes.nested[key]))
        self.steps = frozenset(step.index for step, *_ in self._ways)
        taken = dict.fromkeys(name for _, names, _ in self._ways for _, name in names)
        self.inputs = tuple(name for name in taken if name in plan.inputs)

    def sign(self, identities: Identities, signatures: dict[int, bytes | None]) -> list[Step]:
        """Sign every step that can be signed by now, and identify what it makes.

        Args:
            identities: What is known of each name, ``None`` for what has no identity; added to.
            signatures: The signatures by step index, ``None`` for a step without; added to.

        Returns:
            The steps that were signed.
        """
        signed = []
        for step, names, ways in self._ways:
            if step.index in signatures:
                continue
            try:
                taken = [(before, identities[name]) for before, name in names]
            except KeyError:  # known by content only, once it is made
                continue
            signed.append(step)
            if isinstance(ways, bytes):
                signatures[step.index] = _sign_call(step, ways, taken, identities)
            else:
                signatures[step.index] = None  # a nested pipeline has no entry of its own; its nodes have
                _identify_nested(step, ways, taken, identities)
        return signed


_SIZE: Final = joined((bytes(20),))[:-20]  # what stands before an identity, which is always as long


def _sign_call(
    step: Step, code: bytes, taken: list[tuple[bytes, bytes | None]], identities: Identities
) -> bytes | None:
    parts = [code]
    for before, identity in taken:
        if identity is None:
            return None
        parts += (before, identity)
    signature = digest_of(b"".join(parts))
    if len(step.outputs) == 1:
        if step.outputs[0] is not None:
            identities[step.outputs[0]] = signature
        return signature
    for position, name in enumerate(step.outputs):
        if name is not None:
            identities[name] = identity_of_output(signature, step, position)
    return signature


def _identify_nested(
    step: Step,
    ways: tuple[_Lineage | None, ...],
    taken: list[tuple[bytes, bytes | None]],
    identities: Identities,
) -> None:
    known = {parameter: identity for parameter, identity in taken if identity is not None}
    for name, way in zip(step.outputs, ways, strict=True):
        used = () if way is None else [inner.encode() for inner in sorted(way.inputs)]
        if name is not None and way is not None and all(inner in known for inner in used):
            identities[name] = combine(way.digest, [part for inner in used for part in (inner, known[inner])])


def identity_of_output(signature: bytes, step: Step, position: int) -> bytes:
    """Return the identity of one of the outputs of a call."""
    return signature if len(step.outputs) == 1 else combine(signature, (b"%d" % position,))


def identify(value: Any, name: str, plan: Plan, codes: Codes) -> bytes | None:
    """Return the identity of a value that is known by its content, or ``None`` where it has none."""
    try:
        identity, left_out = digest_and_gaps(value, codes.reach)
    except SignatureError as error:
        _tell(
            plan,
            f"{name!r} in pipeline {plan.label!r} cannot be fingerprinted, so that what depends on it is not "
            f"cached: {error}.",
        )
        return None
    if left_out:
        _tell_of_gaps(left_out)
    return identity
