"""In what do two computations of a node differ? Told from what is kept of how entries were made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hypernodes.cache.about import About, Part, Taken


@dataclass(frozen=True, slots=True)
class Change:
    """One thing in which a computation differs from an earlier one.

    Attributes:
        what: What it is: ``own code``, ``helper tokenize``, ``input k``, ``upstream embed``.
        before: A short form of what it was, where it has one.
        after: A short form of what it is.
    """

    what: str
    before: str = ""
    after: str = ""

    def __str__(self) -> str:
        if self.before == self.after:
            return f"{self.what} changed"
        return f"{self.what} {self.before} → {self.after}"


def most_similar(about: About, others: Iterable[About]) -> About | None:
    """Return the computation that has most in common with this one; of equals, the first.

    Code weighs more than any one argument: an item of the same map says more than an old version.
    """

    def likeness(other: About) -> tuple[int, bool]:
        equal = sum(
            name in other.takes and other.takes[name].identity == taken.identity
            for name, taken in about.takes.items()
        )
        same_code = about.code == other.code
        return equal + same_code, same_code

    return max(others, key=likeness, default=None)


def differences(
    after: About,
    before: About,
    code_after: Mapping[str, Part],
    code_before: Mapping[str, Part],
) -> list[Change]:
    """Return in what a computation differs from an earlier one.

    Args:
        after: The computation.
        before: The earlier one.
        code_after: What its code is made of.
        code_before: What that of the earlier one was made of; empty if it is not known any more.
    """
    changes = []
    if after.code != before.code:
        changes += _of_code(code_after, code_before)
    for name in dict.fromkeys((*after.takes, *before.takes)):
        new, old = after.takes.get(name), before.takes.get(name)
        if new is None or old is None:
            changes.append(Change(f"input {name}", _given(old), _given(new)))
        elif new.identity != old.identity:
            maker = new.made_by
            what = f"upstream {maker}" if maker else f"input {name}"
            shown = (old.shown, new.shown) if not maker and old.shown != new.shown else ("", "")
            changes.append(Change(what, *shown))
    return changes


def _of_code(after: Mapping[str, Part], before: Mapping[str, Part]) -> list[Change]:
    if not before or not after:
        return [Change("code")]
    changes = []
    for name in sorted(after.keys() | before.keys(), key=_own_code_first):
        new, old = after.get(name), before.get(name)
        if new is None or old is None:
            changes.append(Change(name, _there(old), _there(new)))
        elif new.digest != old.digest:
            changes.append(Change(name, *((old.shown, new.shown) if old.shown != new.shown else ("", ""))))
    return changes or [Change("code")]


def _own_code_first(name: str) -> tuple[bool, str]:
    return name != "own code", name


def _given(taken: Taken | None) -> str:
    return "not given" if taken is None else taken.shown or "given"


def _there(part: Part | None) -> str:
    return "not there" if part is None else part.shown or "there"
