"""What owns jobs for a part of a run, and lets go of that part when it ends."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar


class _Part(Protocol):
    over: bool


P = TypeVar("P", bound=_Part)


class SentJobs(Generic[P]):
    """Jobs that a part of a run has sent, and what follows from their outcomes."""

    def __init__(self, part: P) -> None:
        self._current: P | None = part  # until it ends: a cycle would outlive the run

    @property
    def _part(self) -> P:
        if self._current is None:
            raise LookupError("the part of the run has ended that sent these jobs")
        return self._current

    @property
    def over(self) -> bool:
        """Whether the part of the run has ended."""
        return self._current is None or self._current.over

    def close(self) -> None:
        """Let go of the part of the run, which has ended."""
        self._current = None
