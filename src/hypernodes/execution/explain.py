"""What would a run find in the cache, and why not the rest? Nothing is computed to say so."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from hypernodes.cache.compare import Candidates, Change, argument_changes, code_changes
from hypernodes.cache.provenance import Provenance
from hypernodes.config import MISS
from hypernodes.execution.explanation import Explanation, Status, Verdict
from hypernodes.execution.plan.model import CallStep, NestedStep
from hypernodes.execution.provenance import taken
from hypernodes.execution.scheduler.lookup import sign_item
from hypernodes.execution.signature import Signer
from hypernodes.execution.step_code import code_parts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from hypernodes.cache.bulk import BulkCache
    from hypernodes.execution.plan.model import Plan, Step
    from hypernodes.execution.signature import Fingerprints


@dataclass(slots=True)
class _Tally:
    """What was found of a node so far; in a map it is met once an item."""

    counts: Counter[Status] = field(default_factory=Counter)
    is_needed: bool = False
    because: str = ""
    changes: tuple[Change, ...] = ()
    signature: str = ""


def explain(plan: Plan, items: Iterable[Mapping[str, Any]], fingerprints: Fingerprints) -> Explanation:
    """Say what a run would find in the cache."""
    explainer = _Explainer(fingerprints)
    explainer.add(plan)
    for values in items:
        explainer.visit(_Known(plan, fingerprints, {**plan.bound, **values}, {}), set(plan.outputs))
    return Explanation(explainer.verdicts())


class _Explainer:
    """Walks a tree of plans as a run would, but calls nothing."""

    def __init__(self, fingerprints: Fingerprints) -> None:
        self._fingerprints = fingerprints
        self._tallies: dict[tuple[int, int], tuple[Plan, CallStep, _Tally]] = {}
        self._earlier: dict[tuple[BulkCache, str], Candidates] = {}  # the entries of nodes, by their names
        self._code_changes: dict[tuple[str, str], list[Change]] = {}

    def add(self, plan: Plan) -> None:
        """Note all nodes in their order, whether they are met or not."""
        for step in plan.steps:
            if isinstance(step, NestedStep):
                self.add(step.inner)
            else:
                self._tallies[plan.key, step.index] = (plan, step, _Tally())

    def verdicts(self) -> Iterator[Verdict]:
        """Walk what was found."""
        for plan, step, tally in self._tallies.values():
            counts = dict(tally.counts) or {"open": 1}
            because = tally.because or ("" if tally.counts else "the items are not known yet")
            yield Verdict(
                step.name, plan.path, counts, tally.is_needed, because, tally.changes, tally.signature
            )

    def visit(self, known: _Known, wanted: set[str]) -> set[str]:
        """Look at every node of a plan, and return the inputs that a run would need the values of."""
        needed = set(wanted)
        for step in reversed(known.plan.steps):
            is_needed = any(name in needed for name in step.outputs)
            if isinstance(step, NestedStep):
                takes = self._nested(known, step, is_needed=is_needed)
            else:
                self._call(known, step, is_needed=is_needed)
                takes = set() if known.is_hit(step) else {name for _, name in step.arguments}
            needed |= takes if is_needed else set()
        return needed & set(known.plan.inputs)

    def _call(self, known: _Known, step: CallStep, *, is_needed: bool) -> None:
        *_, tally = self._tallies[known.plan.key, step.index]
        tally.is_needed |= is_needed
        if (signature := known.signatures.get(step.index)) is not None and not tally.signature:
            tally.signature = signature.hex()
        if known.is_hit(step):
            tally.counts["hit"] += 1
            return
        status, because = self._why_not_cached(known, step)
        tally.counts[status] += 1
        if status == "miss" and tally.counts["miss"] == 1:
            because, tally.changes = self._why_missed(known, step)
        tally.because = tally.because or because

    def _why_not_cached(self, known: _Known, step: CallStep) -> tuple[Status, str]:
        if known.plan.cache is None:
            return "not cached", "its pipeline has no cache"
        if not step.options.cache:
            return "not cached", "marked cache=False"
        if (known.plan.key, step.index) not in self._fingerprints.calls:
            return "not cached", "its code cannot be fingerprinted"
        if step.index not in known.signatures:
            unknown = [name for _, name in step.arguments if name not in known.identities]
            return "open", f"it depends on what {' and '.join(unknown)} will be"
        if known.signatures[step.index] is None:
            lacking = [name for _, name in step.arguments if known.identities.get(name) is None]
            return "not cached", f"{' and '.join(lacking)} cannot be fingerprinted"
        return "miss", ""

    def _why_missed(self, known: _Known, step: CallStep) -> tuple[str, tuple[Change, ...]]:
        plan, cache = known.plan, known.plan.cache
        assert cache is not None
        code = self._fingerprints.calls[plan.key, step.index].hex()
        takes = taken(plan, step, known.identities, known.values)
        for parameter, name in step.arguments:
            if name in known.makers and name not in known.values:
                takes[parameter] = replace(takes[parameter], producer=known.makers[name].step.name)
        if (earlier := self._earlier.get((cache, step.name))) is None:
            earlier = self._earlier[cache, step.name] = Candidates(cache.provenances(step.name))
        if (like := earlier.most_similar(Provenance(step.name, code, takes))) is None:
            return f"the cache has no entry of {step.name}", ()
        changes = [] if like.code == code else self._changes_of_code(cache, step, code, like.code)
        of_arguments = argument_changes(takes, like.arguments)
        # What is in the cache has not changed, whatever other entries of the node were made of.
        as_before = {parameter for parameter, name in step.arguments if known.is_made(name)}
        changes += [change for parameter, change in of_arguments.items() if parameter not in as_before]
        if changes or not of_arguments:
            return ", ".join(map(str, changes)) or "its entry is gone", tuple(changes)
        makers = " and ".join(dict.fromkeys(takes[parameter].producer for parameter in of_arguments))
        return f"failed before, or was never computed, for this result of {makers}", ()

    def _changes_of_code(self, cache: BulkCache, step: CallStep, code: str, before: str) -> list[Change]:
        key = (code, before)
        if key not in self._code_changes:
            self._code_changes[key] = code_changes(code_parts(step), cache.code_parts(before))
        return list(self._code_changes[key])

    def _nested(self, known: _Known, step: NestedStep, *, is_needed: bool) -> set[str]:
        """Look into a nested pipeline, and return the names here that it would need the values of."""
        names = dict(step.arguments)
        if (items := known.inside(step)) is None:
            return set(names.values())
        wanted = {result for result, _ in step.results} if is_needed else set()
        needed = {names[parameter] for parameter in step.map_over}
        for item in items:
            needed |= {names[parameter] for parameter in self.visit(item, wanted) if parameter in names}
        return needed


@dataclass(frozen=True, slots=True)
class _Maker:
    """Where an input of a nested plan comes from: a step of the plan around, and its output."""

    known: _Known
    step: Step
    name: str


class _Known:
    """What can be said of the steps of one plan before it runs."""

    def __init__(
        self,
        plan: Plan,
        fingerprints: Fingerprints,
        values: dict[str, Any],
        identities: dict[str, bytes | None],
        makers: Mapping[str, _Maker] | None = None,
    ) -> None:
        self.plan = plan
        self.values = values
        self.makers = makers or {}
        self._fingerprints = fingerprints
        self._inside: dict[int, list[_Known] | None] = {}
        bound = fingerprints.bound.get(plan.key, {})
        signed = sign_item(plan, Signer(plan, fingerprints), values, {**bound, **identities})
        self.identities, self.signatures = signed.identities, signed.signatures
        keys = [signature.hex() for signature in self.signatures.values() if signature is not None]
        self._found = plan.cache.contains(keys) if plan.cache is not None and keys else set()

    def is_hit(self, step: Step) -> bool:
        """Whether the cache has it."""
        signature = self.signatures.get(step.index)
        return signature is not None and signature.hex() in self._found

    def is_made(self, name: str) -> bool:
        """Whether a value is the result of a node, and in the cache."""
        if (step := self.plan.producers.get(name)) is None:
            maker = self.makers.get(name)
            return maker is not None and maker.known.is_made(maker.name)
        if isinstance(step, CallStep):
            return self.is_hit(step)
        inner = next(inner for inner, outer in step.results if outer == name)
        items = self.inside(step)
        return items is not None and all(item.is_made(inner) for item in items)

    def value(self, name: str) -> Any:
        """Return a value that is given, or in the cache; `MISS` for one that must be computed first."""
        if name in self.values:
            return self.values[name]
        if (step := self.plan.producers.get(name)) is None:
            maker = self.makers.get(name)
            return MISS if maker is None else maker.known.value(maker.name)
        signature = self.signatures.get(step.index)
        if self.plan.cache is None or signature is None or not self.is_hit(step):
            return MISS
        outputs = self.plan.cache.get(signature.hex())
        return MISS if outputs is MISS else outputs[step.outputs.index(name)]

    def inside(self, step: NestedStep) -> list[_Known] | None:
        """Return what can be said of a nested plan, for each of its items; ``None`` if they are not known."""
        if step.index not in self._inside:
            self._inside[step.index] = self._look_inside(step)
        return self._inside[step.index]

    def _look_inside(self, step: NestedStep) -> list[_Known] | None:
        inner, names = step.inner, dict(step.arguments)
        fixed = {parameter: name for parameter, name in step.arguments if parameter not in step.map_over}
        values = {parameter: self.values[name] for parameter, name in fixed.items() if name in self.values}
        identities = {
            parameter: self.identities[name] for parameter, name in fixed.items() if name in self.identities
        }
        makers = {}
        for parameter, name in fixed.items():
            if name in self.plan.producers:
                makers[parameter] = _Maker(self, self.plan.producers[name], name)
            elif name in self.makers:
                makers[parameter] = self.makers[name]
        collections = {parameter: self.value(names[parameter]) for parameter in step.map_over}
        if any(value is MISS for value in collections.values()):
            return None
        items = list(step.items(collections)) if step.map_over else [{}]
        return [
            _Known(inner, self._fingerprints, {**inner.bound, **values, **item}, dict(identities), makers)
            for item in items
        ]
