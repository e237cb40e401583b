"""From reports to columns of results, in the order of the items."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from hypernodes.exceptions import DaftError, HintWarning

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hypernodes.engines.daft.query import Job
    from hypernodes.engines.daft.wire import Report


class Results:
    """Takes the reports of a query as they come, in whatever order.

    Args:
        job: What the query computes.
        given: The inputs that vary.
    """

    def __init__(self, job: Job, given: Mapping[str, list[Any]] | None = None) -> None:
        self._job = job
        self._given = given or {}
        self._parts: dict[str, list[tuple[Sequence[int], list[Any]]]] = {
            name: [] for name in job.outputs if name in job.made
        }
        self._told: set[str] = set()

    def add(self, report: Report) -> None:
        """Take a report, and tell what did not fit its hint, once.

        Raises:
            BaseException: What has ended the query.
        """
        if report.error is not None:
            raise report.error
        for name, column in report.outputs.items():
            self._parts[name].append((report.places, column))
        for misfit in report.misfits:
            what = str(misfit).partition(" is said")[0]
            if what not in self._told:
                self._told.add(what)
                warnings.warn(f"{misfit} Until then it goes as Python objects.", HintWarning, stacklevel=2)

    def columns(self, total: int | None = None) -> dict[str, list[Any]]:
        """Return all values of each output that was asked for.

        Args:
            total: How many items there are, if that is known.

        Raises:
            DaftError: Some have not come back.
        """
        made = {name: _ordered(parts) for name, parts in self._parts.items()}
        if total is None:
            total = len(next(iter(made.values()), ()))
        for name, column in made.items():
            if len(column) != total:
                raise DaftError(
                    f"Daft has computed output {name!r} for {len(column)} of {total} items, and said nothing "
                    f"of the others. Please report it, with the pipeline; HyperNodesEngine does without Daft."
                )
        known = {**self._given, **made}
        return {
            name: known[name] if name in known else [self._job.fixed[name]] * total
            for name in self._job.outputs
        }


def _ordered(parts: list[tuple[Sequence[int], list[Any]]]) -> list[Any]:
    parts = sorted((part for part in parts if part[0]), key=lambda part: part[0][0])
    if len(parts) == 1 and isinstance(parts[0][0], range):
        return parts[0][1]
    ends = [places[-1] for places, _ in parts[:-1]]
    in_order = all(isinstance(places, range) for places, _ in parts) and all(
        end < places[0] for end, (places, _) in zip(ends, parts[1:], strict=True)
    )
    if in_order:
        return [value for _, column in parts for value in column]
    pairs = [pair for places, column in parts for pair in zip(places, column, strict=True)]
    return [value for _, value in sorted(pairs, key=lambda pair: pair[0])]
