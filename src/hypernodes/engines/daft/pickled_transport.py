"""The transport of a query that other processes compute: objects, reports and errors are pickled."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NoReturn

from daft import DataType, Series

from hypernodes._compat.daft import partition_columns
from hypernodes.engines.daft.lifeline import Lifeline
from hypernodes.engines.daft.transport import CANCEL_TIMEOUT_S, Report, ReportingTransport
from hypernodes.exceptions import RemoteError, WorkerDiedError
from hypernodes.execution.targets.serialize_outcomes import (
    deserialize_chunk_outcome,
    serialize_chunk_outcome,
    unreadable_output,
)
from hypernodes.raw_errors import METHOD_ERRORS
from hypernodes.serialization.errors import deserialize_error, serialize_error
from hypernodes.serialization.pickling import dumps, dumps_each, loads
from hypernodes.serialization.salvage import Lost, find_lost, load_what_is_left

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hypernodes.engines.daft.call_marks import CallMarks
    from hypernodes.exceptions import HintError
    from hypernodes.execution.jobs import Chunk, ChunkOutcome

_ERROR_TEXT: Final = re.compile(r"pickled error <([A-Za-z0-9+/=]+)>")


class PickledTransport(ReportingTransport):
    """Pickles objects into binary columns.

    Daft's own column type for objects is not used: it pickles, too, but takes longer, and a class that is
    defined in a script comes back from it as another class.
    """

    def __init__(self, marks: CallMarks | None = None) -> None:
        self._lifeline = Lifeline()
        self._marks = marks

    @property
    def lifeline(self) -> Lifeline:
        """What ends the processes of the query."""
        return self._lifeline

    def stop(self) -> None:
        """End the processes of the query with their calls."""
        self._lifeline.cut()

    def close(self, timeout: float | None = CANCEL_TIMEOUT_S) -> None:
        """Wait for the processes of the query if it was stopped, at most that many seconds."""
        self._lifeline.close(timeout)

    def release(self) -> None:
        """Remove the marks of the calls of the query."""
        if self._marks is not None:
            self._marks.clear()

    @contextmanager
    def watched(self, udf: int, first: Series, computes: str) -> Iterator[None]:
        """Return a context for a call of a UDF, which is not made if processes have died of its rows."""
        if self._marks is None:
            yield
            return
        with self._marks.around(udf, first) as may_run:
            if not may_run:
                self.raise_error(WorkerDiedError(f"a process of Daft has ended that computed {computes}"))
            yield

    @property
    def object_type(self) -> DataType:
        """The type of a column of pickles."""
        return DataType.binary()

    def write_objects(self, name: str, column: Sequence[Any], positions: Sequence[int]) -> Series:
        """Pickle objects."""
        return _binary_series(list(dumps_each(column)))

    def read_objects(self, name: str, series: Series, positions: Sequence[int]) -> list[Any]:
        """Unpickle objects; one that raises an error is lost."""
        pickles = series.to_arrow().to_pylist()
        try:
            return list(map(loads, pickles))
        except METHOD_ERRORS:
            return list(map(_loaded_or_lost, pickles))

    def write_misfits(self, name: str, column: Sequence[Any] | None, positions: Sequence[int]) -> Series:
        """Pickle a column that has misfits."""
        if column is None:
            return _binary_series([None] * len(positions))
        return self.write_objects(name, column, positions)

    def read_misfits(self, name: str, series: Series, positions: Sequence[int]) -> dict[int, Any]:
        """Unpickle the misfits of a typed column."""
        pickles = series.to_arrow()
        if pickles.null_count == len(pickles):
            return {}
        return {row: loads(pickle) for row, pickle in enumerate(pickles.to_pylist()) if pickle is not None}

    def write_report(self, report: Report) -> Series:
        """Return a column that has the pickle of a report in its first row."""
        # In parts: of a report itself, nothing could be read if one value cannot be unpickled.
        parts = [report.positions, report.outputs, report.hint_errors]
        return _in_first_row(parts, len(report.positions))

    def write_outcome(self, positions: Sequence[int], chunk: Chunk, outcome: ChunkOutcome) -> Series:
        """Return a column that has the pickle of an outcome in its first row."""
        return _in_first_row((positions, serialize_chunk_outcome(chunk, outcome, 0)), len(positions))

    def read_reports(self, partition: Any = None) -> Iterator[Report]:
        """Unpickle the reports in the columns of a partition."""
        if partition is None:
            return
        for column in partition_columns(partition):
            for pickle in column.drop_null().to_pylist():
                try:
                    received = loads(pickle)
                except METHOD_ERRORS:
                    received = load_what_is_left(pickle, ())
                if isinstance(received, list):
                    yield _report_of(*received)
                else:
                    positions, outcome = received
                    yield Report(positions, outcome=deserialize_chunk_outcome(outcome))

    def raise_error(self, error: BaseException) -> NoReturn:
        """Raise an error with the pickle of this one as its text: Daft brings only texts to the driver.

        Ray unpickles the error on the way. So it is one that stays what it is: Daft hangs on a SystemExit.
        """
        pickle = b64encode(dumps(serialize_error(error))).decode()
        raise RemoteError(f"pickled error <{pickle}>") from None

    def original_error(self, error: BaseException) -> BaseException:
        """Unpickle the error that the text of this one has."""
        found = _ERROR_TEXT.search(str(error))
        return error if found is None else deserialize_error(loads(b64decode(found[1])))


def _report_of(
    positions: Sequence[int], outputs: dict[str, list[Any]], hint_errors: Mapping[str, HintError]
) -> Report:
    """Return a report of outputs, or of the error of the first one that cannot be unpickled."""
    if find_lost(outputs) is not None:
        for name, column in outputs.items():
            for position, value in zip(positions, column, strict=True):
                if (lost := find_lost(value)) is not None:
                    return Report((position,), error=unreadable_output(name, lost.error))
    return Report(positions, outputs, hint_errors=hint_errors)


def _loaded_or_lost(pickle: bytes) -> Any:
    try:
        return loads(pickle)
    except METHOD_ERRORS as error:
        return Lost(error)


def _in_first_row(value: object, count: int) -> Series:
    return _binary_series([dumps(value), *[None] * (count - 1)] if count else [])


def _binary_series(column: list[bytes | None]) -> Series:
    # `pyarrow.array` would import pandas, which takes a third of the start of a process.
    return Series.from_pylist(column, dtype=DataType.binary())
