"""The differences between two computations of a node, found from the provenance of their entries."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hypernodes.cache.provenance import ArgumentProvenance, CodePart, Provenance


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between a computation and an earlier one."""

    what: str  # ``own code``, ``helper tokenize``, ``input k``, ``upstream embed``
    before: str = ""  # a short description of its earlier value, if there is one
    after: str = ""

    def __str__(self) -> str:
        if self.before == self.after:
            return f"{self.what} changed"
        return f"{self.what} {self.before} → {self.after}"


class Candidates:
    """Earlier computations of a node, indexed by their code and arguments."""

    def __init__(self, provenances: Iterable[Provenance]) -> None:
        self._all = list(provenances)
        self._with_code: dict[str, list[int]] = {}
        self._with_argument: dict[tuple[str, str], list[int]] = {}
        for position, provenance in enumerate(self._all):
            self._with_code.setdefault(provenance.code, []).append(position)
            for name, argument in provenance.arguments.items():
                self._with_argument.setdefault((name, argument.identity), []).append(position)

    def most_similar(self, provenance: Provenance) -> Provenance | None:
        """Return the one that has most arguments, and the code, in common with a computation.

        Of equally similar ones, those with the same code win: another item of the same map explains more than
        an old version of the code. After that, the first one wins.
        """
        equal: Counter[int] = Counter()
        for name, argument in provenance.arguments.items():
            equal.update(self._with_argument.get((name, argument.identity), ()))
        most = max(equal.values(), default=0)
        # One with the same code may have an argument less in common.
        for count in (most, most - 1):
            for position in self._with_code.get(provenance.code, ()):
                if equal.get(position, 0) == count:
                    return self._all[position]
        if not most:
            return self._all[0] if self._all else None
        return self._all[min(position for position, count in equal.items() if count == most)]


def differences(
    after: Provenance,
    before: Provenance,
    code_after: Mapping[str, CodePart],
    code_before: Mapping[str, CodePart],
) -> list[Change]:
    """Return the differences between a computation and an earlier one."""
    changes = code_changes(code_after, code_before) if after.code != before.code else []
    return [*changes, *argument_changes(after.arguments, before.arguments).values()]


def argument_changes(
    after: Mapping[str, ArgumentProvenance], before: Mapping[str, ArgumentProvenance]
) -> dict[str, Change]:
    """Return the differences between the arguments of a computation and those of an earlier one."""
    changes = {}
    for name in dict.fromkeys((*after, *before)):
        new, old = after.get(name), before.get(name)
        if new is None or old is None:
            changes[name] = Change(f"input {name}", _argument_text(old), _argument_text(new))
        elif new.identity != old.identity:
            if new.producer:
                changes[name] = Change(f"upstream {new.producer}")
            else:
                changes[name] = Change(f"input {name}", *_texts(old.summary, new.summary))
    return changes


def code_changes(after: Mapping[str, CodePart], before: Mapping[str, CodePart]) -> list[Change]:
    """Return the differences between the parts of some code and those of an earlier version."""
    if not before or not after:
        return [Change("code")]
    changes = []
    for name in sorted(after.keys() | before.keys(), key=_own_code_first):
        new, old = after.get(name), before.get(name)
        if new is None or old is None:
            changes.append(Change(name, _part_text(old), _part_text(new)))
        elif new.digest != old.digest:
            changes.append(Change(name, *_texts(old.summary, new.summary)))
    return _most_specific(changes) or [Change("code")]


def _most_specific(changes: list[Change]) -> list[Change]:
    """Leave out values of which an attribute is named, too."""
    owners = {change.what.partition(" of ")[2] for change in changes if change.what.startswith("attribute ")}
    return [change for change in changes if change.what.removeprefix("state of ") not in owners]


def _texts(before: str, after: str) -> tuple[str, str]:
    """Return two descriptions if both are known, and they differ."""
    return (before, after) if before and after and before != after else ("", "")


def _own_code_first(name: str) -> tuple[bool, str]:
    return name != "own code", name


def _argument_text(argument: ArgumentProvenance | None) -> str:
    return "not given" if argument is None else argument.summary or "given"


def _part_text(part: CodePart | None) -> str:
    return "absent" if part is None else part.summary or "present"
