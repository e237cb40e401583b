"""From the reports of a query to columns of results, in the order of the items."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hypernodes.engines.daft.spec import QuerySpec
from hypernodes.engines.daft.transport import Report
from hypernodes.exceptions import DaftError, HintWarning


class Results:
    """Collects the outputs of a query from its reports, which arrive in any order."""

    def __init__(self, spec: QuerySpec, inputs: Mapping[str, list[Any]] | None = None) -> None:
        self._spec = spec
        self._inputs = inputs or {}
        self._parts: dict[str, list[tuple[Sequence[int], list[Any]]]] = {
            name: [] for name in spec.outputs if name in spec.computed
        }
        self._warned: set[str] = set()

    def add_all(self, reports: Iterable[Report]) -> None:
        """Add reports; see `add`."""
        report = None
        try:
            for report in reports:
                self.add(report)
        finally:
            del report  # the traceback of an error refers to this frame

    def add(self, report: Report) -> None:
        """Add a report; warn of each output that contradicts its hint, once."""
        if report.error is not None:
            try:
                raise report.error
            finally:
                del report  # the traceback of the error refers to this frame
        for name, column in report.outputs.items():
            self._parts[name].append((report.positions, column))
        for name, error in report.hint_errors.items():
            if name not in self._warned:
                self._warned.add(name)
                warnings.warn(
                    f"{error} Until then, its values go as Python objects.", HintWarning, stacklevel=2
                )

    def columns(self, total: int | None = None) -> dict[str, list[Any]]:
        """Return all values of each output that was asked for."""
        computed = {name: _in_order(parts) for name, parts in self._parts.items()}
        if total is None:
            total = len(next(iter(computed.values()), ()))
        for name, column in computed.items():
            if len(column) != total:
                raise DaftError(
                    f"Daft returned output {name!r} for {len(column)} of {total} items, without an error. "
                    f"Please report it, with the pipeline; HyperNodesEngine runs the pipeline without Daft."
                )
        known = {**self._inputs, **computed}
        return {
            name: known[name] if name in known else [self._spec.fixed[name]] * total
            for name in self._spec.outputs
        }


def _in_order(parts: list[tuple[Sequence[int], list[Any]]]) -> list[Any]:
    """Return the values of all parts by position; each part has the positions of its values."""
    parts = sorted((part for part in parts if part[0]), key=lambda part: part[0][0])
    if len(parts) == 1 and isinstance(parts[0][0], range):
        return parts[0][1]
    ends = [positions[-1] for positions, _ in parts[:-1]]
    is_sorted = all(isinstance(positions, range) for positions, _ in parts) and all(
        end < positions[0] for end, (positions, _) in zip(ends, parts[1:], strict=True)
    )
    if is_sorted:
        return [value for _, column in parts for value in column]
    pairs = [pair for positions, column in parts for pair in zip(positions, column, strict=True)]
    return [value for _, value in sorted(pairs, key=lambda pair: pair[0])]
