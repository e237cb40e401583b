"""The fingerprints of a plan, kept from run to run while all its functions are plain and unchanged."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from types import FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

from hypernodes.cache.plain_code import IMMUTABLE, kept_digest
from hypernodes.execution.signature import Fingerprints, Signer, fingerprint_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hypernodes.execution.plan.model import Plan


class _Kept(NamedTuple):
    """Fingerprints, and the functions that they stand for, with the digest of each."""

    fingerprints: Fingerprints
    functions: list[tuple[Callable[..., Any], bytes]]


_kept: WeakKeyDictionary[Plan, _Kept] = WeakKeyDictionary()


def fingerprints_of(plan: Plan) -> Fingerprints:
    """Return the fingerprints of the functions in a plan, as they stand now."""
    if (kept := _kept.get(plan)) is not None:
        if all(kept_digest(function, ()) == digest for function, digest in kept.functions):
            # The classes of inputs, which are not plain code, are looked at in each run.
            return replace(kept.fingerprints, reach=plan.code_reach())
        _kept.pop(plan, None)
    fingerprints = fingerprint_plan(plan)
    if plan.caches() and _is_fixed(plan):
        functions = list(_plain_functions(plan))
        if None not in functions:
            _kept[plan] = _Kept(fingerprints, [found for found in functions if found is not None])
    return fingerprints


_signers: WeakKeyDictionary[Plan, tuple[object, Signer]] = WeakKeyDictionary()


def signer_of(plan: Plan, fingerprints: Fingerprints) -> Signer:
    """Return what signs the steps of a plan; it is kept as long as the fingerprints are."""
    if (kept := _signers.get(plan)) is not None and kept[0] is fingerprints.calls:
        signer = copy(kept[1])
        signer.reach = fingerprints.reach  # The code may reach other classes than it did in another run.
        return signer
    signer = Signer(plan, fingerprints)
    _signers[plan] = fingerprints.calls, signer
    return signer


def _is_fixed(plan: Plan) -> bool:
    """Whether the values that a plan fixes itself never change."""
    return all(type(value) in IMMUTABLE for inner in plan.tree() for value in inner.bound.values())


def _plain_functions(plan: Plan) -> Iterator[tuple[Callable[..., Any], bytes] | None]:
    """Yield the functions that count, each with its digest; ``None`` for one that is not plain."""
    for step in plan.calls():
        options = step.options
        if options.cache_version is not None:
            yield None
        for function in (step.function, options.batch):
            if function is not None and options.cache:
                digest = kept_digest(function, ()) if isinstance(function, FunctionType) else None
                yield None if digest is None else (function, digest)
