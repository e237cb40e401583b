"""The differences between two computations of a node, found from the provenance of their entries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hypernodes.cache.provenance import ArgumentProvenance, CodePart, Provenance


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between a computation and an earlier one.

    Attributes:
        what: What has changed: ``own code``, ``helper tokenize``, ``input k``, ``upstream embed``.
        before: A short description of its earlier value, if there is one.
        after: A short description of its present value.
    """

    what: str
    before: str = ""
    after: str = ""

    def __str__(self) -> str:
        if self.before == self.after:
            return f"{self.what} changed"
        return f"{self.what} {self.before} → {self.after}"


def most_similar(provenance: Provenance, candidates: Iterable[Provenance]) -> Provenance | None:
    """Return the candidate that has most arguments, and the code, in common with a computation.

    Of equally similar ones, those with the same code win: another item of the same map explains more than an
    old version of the code. After that, the first one wins.
    """

    def similarity(other: Provenance) -> tuple[int, bool]:
        equal = sum(
            name in other.arguments and other.arguments[name].identity == argument.identity
            for name, argument in provenance.arguments.items()
        )
        has_same_code = provenance.code == other.code
        return equal + has_same_code, has_same_code

    return max(candidates, key=similarity, default=None)


def differences(
    after: Provenance,
    before: Provenance,
    code_after: Mapping[str, CodePart],
    code_before: Mapping[str, CodePart],
) -> list[Change]:
    """Return the differences between a computation and an earlier one.

    Args:
        after: The computation.
        before: The earlier one.
        code_after: The parts of its code.
        code_before: The parts of the earlier code; empty if they are not known.
    """
    changes = []
    if after.code != before.code:
        changes += _code_changes(code_after, code_before)
    for name in dict.fromkeys((*after.arguments, *before.arguments)):
        new, old = after.arguments.get(name), before.arguments.get(name)
        if new is None or old is None:
            changes.append(Change(f"input {name}", _argument_text(old), _argument_text(new)))
        elif new.identity != old.identity:
            what = f"upstream {new.producer}" if new.producer else f"input {name}"
            has_texts = not new.producer and old.summary != new.summary
            changes.append(Change(what, *((old.summary, new.summary) if has_texts else ("", ""))))
    return changes


def _code_changes(after: Mapping[str, CodePart], before: Mapping[str, CodePart]) -> list[Change]:
    if not before or not after:
        return [Change("code")]
    changes = []
    for name in sorted(after.keys() | before.keys(), key=_own_code_first):
        new, old = after.get(name), before.get(name)
        if new is None or old is None:
            changes.append(Change(name, _part_text(old), _part_text(new)))
        elif new.digest != old.digest:
            has_texts = old.summary != new.summary
            changes.append(Change(name, *((old.summary, new.summary) if has_texts else ("", ""))))
    return _most_specific(changes) or [Change("code")]


def _most_specific(changes: list[Change]) -> list[Change]:
    """Leave out values of which an attribute is named, too."""
    owners = {change.what.partition(" of ")[2] for change in changes if change.what.startswith("attribute ")}
    return [change for change in changes if change.what.removeprefix("state of ") not in owners]


def _own_code_first(name: str) -> tuple[bool, str]:
    return name != "own code", name


def _argument_text(argument: ArgumentProvenance | None) -> str:
    return "not given" if argument is None else argument.summary or "given"


def _part_text(part: CodePart | None) -> str:
    return "absent" if part is None else part.summary or "present"
