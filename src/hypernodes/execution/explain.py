"""What would a run find in the cache, and why not the rest? Nothing is computed to say so."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from hypernodes.cache.compare import Change, differences, most_similar
from hypernodes.cache.provenance import Provenance
from hypernodes.config import MISS
from hypernodes.execution.plan.model import CallStep, NestedStep
from hypernodes.execution.provenance import taken
from hypernodes.execution.scheduler.lookup import sign_item
from hypernodes.execution.signature import Signer
from hypernodes.execution.step_code import code_parts
from hypernodes.mapping import expand

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from hypernodes.execution.plan.model import Plan, Step
    from hypernodes.execution.signature import Fingerprints

Status: TypeAlias = Literal["hit", "miss", "not cached", "open"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a run would find of one node.

    Attributes:
        node: The name of the node.
        path: The ids of the pipelines around it, the outermost first.
        counts: How often it is a ``"hit"``, a ``"miss"``, ``"not cached"``, or ``"open"``: it is known
            only once something that it takes is computed. More than one in all within a map.
        is_needed: Whether the run would look at it at all; what a hit makes unnecessary is not.
        because: Why it is not a hit, the first time it is not.
        changes: In what it differs from the most similar entry, the first time it is a miss.
        signature: Its signature, the first time; empty where it has none.
    """

    node: str
    path: tuple[str, ...]
    counts: Mapping[Status, int]
    is_needed: bool
    because: str = ""
    changes: tuple[Change, ...] = ()
    signature: str = ""

    @property
    def kind(self) -> Status | Literal["mixed"]:
        """Its status, where it is the same each time."""
        return next(iter(self.counts)) if len(self.counts) == 1 else "mixed"

    @property
    def status(self) -> str:
        """In a word, or in numbers where there are several."""
        if sum(self.counts.values()) == 1:
            return self.kind
        return ", ".join(f"{times} {status}" for status, times in self.counts.items())


class Explanation:
    """What a run would find in the cache, node by node.

    It prints as a table, and shows as one in a notebook. ``explanation["embed"]`` is the verdict on a
    node; iterating gives all of them, in the order in which they run.
    """

    def __init__(self, verdicts: Iterable[Verdict]) -> None:
        self.verdicts = tuple(verdicts)

    def __iter__(self) -> Iterator[Verdict]:
        return iter(self.verdicts)

    def __len__(self) -> int:
        return len(self.verdicts)

    def __getitem__(self, node: str) -> Verdict:
        for verdict in self.verdicts:
            if node in (verdict.node, "/".join((*verdict.path, verdict.node))):
                return verdict
        raise KeyError(node)

    def __rich__(self) -> Any:
        from hypernodes.visualization.explanation_table import rich_table

        return rich_table(self.verdicts)

    def __repr__(self) -> str:
        from hypernodes.visualization.explanation_table import as_text

        return as_text(self.verdicts)

    def _repr_html_(self) -> str:
        from hypernodes.visualization.explanation_table import as_html

        return as_html(self.verdicts)


@dataclass(slots=True)
class _Tally:
    """What was found of a node so far; in a map it is met once an item."""

    counts: Counter[Status] = field(default_factory=Counter)
    is_needed: bool = False
    because: str = ""
    changes: tuple[Change, ...] = ()
    signature: str = ""


def explain(plan: Plan, items: Iterable[Mapping[str, Any]], fingerprints: Fingerprints) -> Explanation:
    """Say what a run would find in the cache.

    Args:
        plan: The plan.
        items: The values of its inputs; one set for a run, several for a map.
        fingerprints: The code of its steps.
    """
    explainer = _Explainer(fingerprints)
    explainer.add(plan)
    for values in items:
        explainer.visit(plan, {**plan.bound, **values}, {}, set(plan.outputs))
    return Explanation(explainer.verdicts())


class _Explainer:
    """Walks a tree of plans as a run would, but calls nothing."""

    def __init__(self, fingerprints: Fingerprints) -> None:
        self._fingerprints = fingerprints
        self._tallies: dict[tuple[int, int], tuple[Plan, CallStep, _Tally]] = {}

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

    def visit(
        self,
        plan: Plan,
        values: dict[str, Any],
        identities: dict[str, bytes | None],
        wanted: set[str],
    ) -> set[str]:
        """Look at every node of a plan, and return the inputs that a run would need the values of."""
        known = _Known(plan, self._fingerprints, values, identities)
        needed = set(wanted)
        for step in reversed(plan.steps):
            is_needed = any(name in needed for name in step.outputs)
            if isinstance(step, NestedStep):
                takes = self._nested(known, step, is_needed=is_needed)
            else:
                self._call(known, step, is_needed=is_needed)
                takes = set() if known.is_hit(step) else {name for _, name in step.arguments}
            needed |= takes if is_needed else set()
        return needed & set(plan.inputs)

    def _call(self, known: _Known, step: CallStep, *, is_needed: bool) -> None:
        *_, tally = self._tallies[known.plan.key, step.index]
        tally.is_needed |= is_needed
        signature = known.signatures.get(step.index)
        if signature is not None and not tally.signature:
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
        provenance = Provenance(step.name, code, taken(plan, step, known.identities, known.values))
        like = most_similar(provenance, cache.provenances(step.name))
        if like is None:
            return f"the cache has no entry of {step.name}", ()
        parts = code_parts(step) if like.code != code else {}
        changes = tuple(differences(provenance, like, parts, cache.code_parts(like.code) if parts else {}))
        return ", ".join(map(str, changes)) or "its entry is gone", changes

    def _nested(self, known: _Known, step: NestedStep, *, is_needed: bool) -> set[str]:
        """Look into a nested pipeline, and return the names here that it would need the values of."""
        inner, names = step.inner, dict(step.arguments)
        fixed = {parameter: name for parameter, name in step.arguments if parameter not in step.map_over}
        values = {parameter: known.values[name] for parameter, name in fixed.items() if name in known.values}
        identities = {
            parameter: known.identities[name] for parameter, name in fixed.items() if name in known.identities
        }
        collections = {parameter: known.value(names[parameter]) for parameter in step.map_over}
        if any(value is MISS for value in collections.values()):
            return set(names.values())
        items: list[dict[str, Any]] = [{}]
        if step.map_over:
            items = list(expand(collections, step.map_over, step.map_mode, f"pipeline {inner.label!r}"))
        wanted = {result for result, _ in step.results} if is_needed else set()
        needed = {names[parameter] for parameter in step.map_over}
        for item in items:
            inside = self.visit(inner, {**inner.bound, **values, **item}, dict(identities), wanted)
            needed |= {names[parameter] for parameter in inside if parameter in names}
        return needed


class _Known:
    """What can be said of the steps of one plan before it runs."""

    def __init__(
        self,
        plan: Plan,
        fingerprints: Fingerprints,
        values: dict[str, Any],
        identities: dict[str, bytes | None],
    ) -> None:
        self.plan = plan
        self.values = values
        bound = fingerprints.bound.get(plan.key, {})
        signed = sign_item(plan, Signer(plan, fingerprints), values, {**bound, **identities})
        self.identities, self.signatures = signed.identities, signed.signatures
        keys = [signature.hex() for signature in self.signatures.values() if signature is not None]
        self._found = plan.cache.contains(keys) if plan.cache is not None and keys else set()

    def is_hit(self, step: Step) -> bool:
        """Whether the cache has it."""
        signature = self.signatures.get(step.index)
        return signature is not None and signature.hex() in self._found

    def value(self, name: str) -> Any:
        """Return a value that is given, or in the cache; `MISS` for one that must be computed first."""
        if name in self.values:
            return self.values[name]
        step = self.plan.producers[name]
        signature = self.signatures.get(step.index)
        if self.plan.cache is None or signature is None or not self.is_hit(step):
            return MISS
        outputs = self.plan.cache.get(signature.hex())
        return MISS if outputs is MISS else outputs[step.outputs.index(name)]
