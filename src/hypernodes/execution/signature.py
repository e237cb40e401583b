"""When are two calls the same? When their code is, and all that they take.

An output is identified by how it is made: by the code of its node and the identities of its arguments. Inputs
are identified by their content; so is the output of a node that is not cached. Code is fingerprinted once a
run (`fingerprint_plan`), as it stands when the run starts. A `Signer` for each plan then turns the identities
of inputs into the signatures of steps.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hypernodes.cache.changed_places import ChangedPlaces
from hypernodes.cache.code import default_arguments
from hypernodes.cache.content import digest, digest_and_omissions, digest_within, fingerprint
from hypernodes.cache.hashing import combine, digest_of, joined
from hypernodes.cache.reach import NO_REACH, Reach
from hypernodes.exceptions import SignatureError
from hypernodes.execution.cache_warnings import warn_of_gaps, warn_once
from hypernodes.execution.plan.model import CallStep, NestedStep, Plan
from hypernodes.execution.step_code import note_values, remember_parts

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping, Sequence

    from hypernodes.cache.content import Omissions
    from hypernodes.execution.plan.model import Step

    Identities = MutableMapping[str, bytes | None]


@dataclass(frozen=True, slots=True)
class _Lineage:
    """How a value is made, its inputs left open."""

    digest: bytes  # of all steps on the way
    inputs: frozenset[str]  # that it starts from


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """The code of every step of a tree of plans."""

    # Of each function that may be cached, by plan key and step index.
    calls: dict[tuple[int, int], bytes] = field(default_factory=dict)
    # Of each result of a nested plan; ``None`` for one that is identified by content.
    nested: dict[tuple[int, int], tuple[_Lineage | None, ...]] = field(default_factory=dict)
    # The identities of the values that a pipeline fixes, by plan key.
    bound: dict[int, dict[str, bytes | None]] = field(default_factory=dict)
    defaults: dict[tuple[int, int], dict[str, bytes]] = field(default_factory=dict)
    open: dict[int, dict[str, bytes]] = field(default_factory=dict)
    reach: Reach = NO_REACH  # what this code reaches decides which private attributes of inputs are effects


NO_FINGERPRINTS: Final = Fingerprints()
"""Those of a tree of plans without a cache."""


def fingerprint_plan(plan: Plan) -> Fingerprints:
    """Fingerprint the functions in a plan, and in those nested in it.

    A function that cannot be fingerprinted is left out, with a warning, and so is not cached.
    """
    if all(inner.cache is None for inner in plan.tree()):
        return NO_FINGERPRINTS
    fingerprints = Fingerprints(reach=plan.code_reach())
    _read(plan, fingerprints)
    return fingerprints


def _read(plan: Plan, fingerprints: Fingerprints) -> dict[str, _Lineage | None]:
    made: dict[str, _Lineage | None] = {}
    for name in plan.inputs:
        if name in plan.bound:
            fixed = identify(plan.bound[name], name, plan, fingerprints.reach)
            fingerprints.bound.setdefault(plan.key, {})[name] = fixed
            made[name] = None if fixed is None else _Lineage(combine(b"bound", (fixed,)), frozenset())
        else:
            made[name] = _Lineage(combine(b"input", (name.encode(),)), frozenset((name,)))
    for step in plan.steps:
        match step:
            case CallStep():
                code = _code(step, plan) if plan.cache is not None and step.options.cache else None
                given: dict[str, _Lineage | None] = {
                    parameter: made[name] for parameter, name in step.arguments
                }
                if code is not None:
                    fingerprints.calls[plan.key, step.index] = code.digest
                    for parameter, identity in _defaults(step, plan, fingerprints, code.changed).items():
                        given[parameter] = _default_lineage(parameter, identity, plan, fingerprints)
                lineage = None if code is None else _made_of(code.digest, sorted(given.items()))
                for position, output in enumerate(step.outputs):
                    if output is not None:
                        made[output] = lineage and _Lineage(
                            identity_of_output(lineage.digest, step, position), lineage.inputs
                        )
            case NestedStep():
                inside = _read(step.inner, fingerprints)
                # An error may be gone in the next run, so that lists with errors are identified by content.
                by_content = step.on_error == "return"
                results = tuple(None if by_content else inside[inner] for inner, _ in step.results)
                # Lists given beside a product are not combined, as its other collections are.
                combined = (name for name in step.map_over if name not in step.beside)
                mode = step.map_mode if step.map_over else ""
                mapped = "/".join((*combined, mode, *step.beside)).encode()
                results = tuple(
                    lineage
                    and _Lineage(combine(mapped, (lineage.digest,)), lineage.inputs | set(step.map_over))
                    for lineage in results
                )
                fingerprints.nested[plan.key, step.index] = results
                taken = {inner: made[name] for inner, name in step.arguments}
                for inner, identity in fingerprints.open.get(step.inner.key, {}).items():
                    taken[inner] = _default_lineage(inner, identity, plan, fingerprints)
                for (_, outer), lineage in zip(step.results, results, strict=True):
                    made[outer] = lineage and _made_of(
                        lineage.digest, [(inner, taken[inner]) for inner in sorted(lineage.inputs)]
                    )
    return {name: made[name] for name in plan.outputs}


def _defaults(
    step: CallStep, plan: Plan, fingerprints: Fingerprints, changed: ChangedPlaces
) -> dict[str, bytes]:
    """Return the identities of the defaults that a call takes, so that one given explicitly is the same."""
    given = {parameter for parameter, _ in step.arguments}
    found = {
        parameter: default
        for parameter, default in default_arguments(step.function, changed).items()
        if parameter not in given
    }
    if step.options.batch is not None:
        of_batch = default_arguments(step.options.batch, changed)
        found = {name: value for name, value in found.items() if of_batch.get(name, _NO_DEFAULT) is value}
    identities = {}
    for parameter, default in found.items():
        if len(changed):  # The code may change a part of the default.
            identities[parameter] = digest_within(default, fingerprints.reach, changed)
        elif (identity := identify(default, parameter, plan, fingerprints.reach)) is not None:
            identities[parameter] = identity
    if identities:
        fingerprints.defaults[plan.key, step.index] = identities
    return identities


_NO_DEFAULT: Final = object()


def _default_lineage(parameter: str, identity: bytes, plan: Plan, fingerprints: Fingerprints) -> _Lineage:
    """Return the lineage of a default: that of an input, if each call of the plan has the same default."""
    of_plan = fingerprints.open.setdefault(plan.key, {})
    if parameter in plan.inputs or of_plan.setdefault(parameter, identity) != identity:
        return _Lineage(combine(b"default", (identity,)), frozenset())
    return _Lineage(combine(b"input", (parameter.encode(),)), frozenset((parameter,)))


def _made_of(code: bytes, arguments: list[tuple[str, _Lineage | None]]) -> _Lineage | None:
    parts: list[bytes] = []
    inputs: frozenset[str] = frozenset()
    for name, lineage in arguments:
        if lineage is None:
            return None
        parts += (name.encode(), lineage.digest)
        inputs |= lineage.inputs
    return _Lineage(combine(code, parts), inputs)


class _Code(NamedTuple):
    """The digest of the code of a call, what the code changes itself, and what was left out."""

    digest: bytes
    changed: ChangedPlaces
    omissions: Sequence[Omissions] = ()
    has_state: bool = False
    values: Mapping[str, Sequence[bytes]] = MappingProxyType({})  # that it reads


def fingerprint_step(step: CallStep) -> _Code:
    """Return the digest of the code of a step."""
    # The number of outputs decides on the form of an entry.
    options = step.options
    version = () if options.cache_version is None else (digest(options.cache_version),)
    both = (step.function,) if options.batch is None else (step.function, options.batch)
    # What the function itself reaches, and not what the plan does: it is the same in any other pipeline.
    reach, changed = Reach(*both), ChangedPlaces()
    try:
        found = [fingerprint(function, reach, changed) for function in both]
    except SignatureError:
        if not version:
            raise
        # The version stands for the code, as the author of the node has declared.
        named = (getattr(step.function, name, step.name) for name in ("__module__", "__qualname__"))
        code = combine(b"versioned call %d" % len(step.outputs), (*map(digest, named), *version))
        return _Code(code, changed)
    code = combine(b"call %d" % len(step.outputs), (*(one.digest for one in found), *version))
    values = {name: part for one in found for name, part in one.values.items()}
    has_state = any(one.has_state for one in found)
    return _Code(code, changed, [one.omissions for one in found], has_state, values)


def _code(step: CallStep, plan: Plan) -> _Code | None:
    try:
        code = fingerprint_step(step)
    except SignatureError as error:
        warn_once(
            plan,
            f"node {step.name!r} of pipeline {plan.label!r} is not cached, since its code cannot be "
            f"fingerprinted: {error}. A version that you change with the code, @node(cache_version=...), "
            f"would do instead.",
        )
        return None
    for left_out in code.omissions:
        warn_of_gaps(left_out)
    if code.has_state:
        remember_parts(code.digest, step)
    note_values(code.digest, code.values)
    return code


class _CallRecipe(NamedTuple):
    """The constant parts of a call's signature: before the first argument, and after the last one."""

    code: bytes
    end: bytes


class _NestedRecipe(NamedTuple):
    """How the results of a nested plan are made, and the identities of the defaults that it takes."""

    results: tuple[_Lineage | None, ...]
    defaults: Mapping[str, bytes]


def _recipe_of_call(
    step: CallStep, code: bytes, defaults: Mapping[str, bytes]
) -> tuple[list[tuple[bytes, str]], _CallRecipe]:
    """Return the names that a call takes, each with the constant part before its identity, and the rest.

    The constant parts are joined once, as `combine` would join them. Parameters are in the order of their
    names, so that it does not matter which of them were given.
    """
    names: list[tuple[bytes, str]] = []
    constant = b""
    for parameter, name in sorted((*step.arguments, *((parameter, "") for parameter in defaults))):
        constant += joined((parameter.encode(),))
        if parameter in defaults:
            constant += joined((defaults[parameter],))
        else:
            names.append((constant + _SIZE, name))
            constant = b""
    return names, _CallRecipe(joined((code,)), constant)


class Signer:
    """Signs the steps of one plan, from the identities of their arguments."""

    def __init__(self, plan: Plan, fingerprints: Fingerprints) -> None:
        self.reach = fingerprints.reach  # what the code of all plans reaches
        self._recipes: list[tuple[Step, list[tuple[bytes, str]], _CallRecipe | _NestedRecipe]] = []
        for step in plan.steps:
            key = (plan.key, step.index)
            match step:
                case CallStep() if key in fingerprints.calls:
                    names, recipe = _recipe_of_call(
                        step, fingerprints.calls[key], fingerprints.defaults.get(key, {})
                    )
                    self._recipes.append((step, names, recipe))
                case NestedStep() if any(fingerprints.nested.get(key, ())):
                    used = frozenset().union(
                        *(lineage.inputs for lineage in fingerprints.nested[key] if lineage is not None)
                    )
                    names = [(inner.encode(), name) for inner, name in step.arguments if inner in used]
                    recipe_of_nested = _NestedRecipe(
                        fingerprints.nested[key], fingerprints.open.get(step.inner.key, {})
                    )
                    self._recipes.append((step, names, recipe_of_nested))
        # Those whose outputs are identified by signature, and not by content.
        self.steps = frozenset(step.index for step, *_ in self._recipes)
        taken = dict.fromkeys(name for _, names, _ in self._recipes for _, name in names)
        self.inputs = tuple(name for name in taken if name in plan.inputs)  # those whose identity matters

    def identifies(self, name: str) -> bool:
        """Whether a value counts in the signature of a step."""
        return any(name == taken for step, *_ in self._recipes for _, taken in step.arguments)

    def sign(self, identities: Identities, signatures: dict[int, bytes | None]) -> list[Step]:
        """Sign every step that can be signed by now, identify its outputs, and return these steps.

        Identities and signatures are added to; they are ``None`` where there is none.
        """
        signed = []
        for step, names, recipe in self._recipes:
            if step.index in signatures:
                continue
            try:
                taken = [(before, identities[name]) for before, name in names]
            except KeyError:  # an argument is identified by its content, once it is there
                continue
            signed.append(step)
            if isinstance(recipe, _CallRecipe):
                signatures[step.index] = _sign_call(step, recipe, taken, identities)
            else:
                signatures[step.index] = None  # a nested pipeline has no entry of its own; its nodes have
                _identify_nested(step, recipe, taken, identities)
        return signed


_SIZE: Final = joined((bytes(20),))[:-20]  # the length prefix of an identity; all are equally long


def _sign_call(
    step: Step, recipe: _CallRecipe, taken: list[tuple[bytes, bytes | None]], identities: Identities
) -> bytes | None:
    parts = [recipe.code]
    for before, identity in taken:
        if identity is None:
            return None
        parts += (before, identity)
    parts.append(recipe.end)
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
    recipe: _NestedRecipe,
    taken: list[tuple[bytes, bytes | None]],
    identities: Identities,
) -> None:
    known = {name.encode(): identity for name, identity in recipe.defaults.items()}
    known |= {parameter: identity for parameter, identity in taken if identity is not None}
    for name, lineage in zip(step.outputs, recipe.results, strict=True):
        used = () if lineage is None else [inner.encode() for inner in sorted(lineage.inputs)]
        if name is not None and lineage is not None and all(inner in known for inner in used):
            parts = [part for inner in used for part in (inner, known[inner])]
            identities[name] = combine(lineage.digest, parts)


def identity_of_output(signature: bytes, step: Step, position: int) -> bytes:
    """Return the identity of one of the outputs of a call."""
    return signature if len(step.outputs) == 1 else combine(signature, (b"%d" % position,))


def identify(value: Any, name: str, plan: Plan, reach: Reach) -> bytes | None:
    """Return the identity of a value by its content, or ``None`` where it has none."""
    try:
        identity, left_out = digest_and_omissions(value, reach)
    except SignatureError as error:
        warn_once(
            plan,
            f"{name!r} in pipeline {plan.label!r} cannot be fingerprinted, so that what depends on it is not "
            f"cached: {error}.",
        )
        return None
    if left_out:
        warn_of_gaps(left_out)
    return identity
