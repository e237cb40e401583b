"""The transport of a query that this process computes: objects stay in its memory."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from itertools import count
from threading import Condition, Lock
from typing import TYPE_CHECKING, Any, NoReturn

import pyarrow as pa
from daft import DataType, Series

from hypernodes._compat.asyncio import running_loop
from hypernodes.engines.daft.transport import CANCEL_TIMEOUT_S, Report, ReportingTransport
from hypernodes.exceptions import DaftError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hypernodes.execution.jobs import Chunk, ChunkOutcome


class InProcessTransport(ReportingTransport):
    """Keeps objects in the memory of this process, under the positions of their items."""

    def __init__(self, readers: Mapping[str, int]) -> None:
        self._stores = {name: _ValueStore(count) for name, count in readers.items()}
        self._reports: deque[Report] = deque()
        self._errors: dict[int, BaseException] = {}  # of UDFs
        self._raised: list[_KeptError] = []  # in their place
        self._error_keys = count()
        self._is_cancelled = False
        self._running_calls = 0
        self._tasks: set[asyncio.Task[Any]] = set()  # of the running calls, those on an event loop
        self._call_ended = Condition()

    def begin_call(self) -> None:
        """Register that a call of a UDF begins."""
        with self._call_ended:
            self._running_calls += 1
        if running_loop() is not None and (task := asyncio.current_task()) is not None:
            self._tasks.add(task)
        self.check_cancelled()

    def check_cancelled(self) -> None:
        """Raise an error if the query was cancelled."""
        if self._is_cancelled:
            raise DaftError("this query was cancelled")

    def end_call(self) -> None:
        """Register that a call of a UDF ends."""
        if running_loop() is not None and (task := asyncio.current_task()) is not None:
            self._tasks.discard(task)
        with self._call_ended:
            self._running_calls -= 1
            self._call_ended.notify_all()

    def stop(self) -> None:
        """Have the running calls end, those on an event loop at once."""
        self._is_cancelled = True
        for task in list(self._tasks):
            task.get_loop().call_soon_threadsafe(task.cancel)

    def close(self, timeout: float | None = CANCEL_TIMEOUT_S) -> None:
        """Wait for running calls if the query was stopped, at most that many seconds."""
        if self._is_cancelled:
            with self._call_ended:
                self._call_ended.wait_for(lambda: not self._running_calls, timeout=timeout)

    def release(self) -> None:
        """Let go of all values.

        Daft keeps its functions and their errors for a while. The functions refer to this transport, and the
        errors to frames that have handled them, or an error beside them.
        """
        self._is_cancelled = True  # what comes later is not kept
        for store in self._stores.values():
            store.clear()
        self._reports.clear()
        self._errors.clear()
        while self._raised:
            raised = self._raised.pop()
            raised.__traceback__ = raised.__context__ = None

    @property
    def object_type(self) -> DataType:
        """The type of a column of nulls: the positions of its rows are all that is needed."""
        return DataType.bool()

    def write_objects(self, name: str, column: Sequence[Any], positions: Sequence[int]) -> Series:
        """Keep objects, and return a column of nulls."""
        self.check_cancelled()
        if positions:
            self._stores[name].put(positions, column if isinstance(column, list) else list(column))
        return _null_series(len(positions))

    def read_objects(self, name: str, series: Series, positions: Sequence[int]) -> list[Any]:
        """Return the objects of some positions."""
        return self._stores[name].get(positions) if positions else []

    def write_misfits(self, name: str, column: Sequence[Any] | None, positions: Sequence[int]) -> Series:
        """Keep a column that has misfits, and return a column that says so."""
        if column is None:
            return _null_series(len(positions))
        self.write_objects(name, column, positions)
        return Series.from_arrow(pa.array([True] * len(positions)))

    def read_misfits(self, name: str, series: Series, positions: Sequence[int]) -> dict[int, Any]:
        """Return the misfits of a typed column, by row."""
        marks = series.to_arrow()
        if marks.null_count == len(marks):
            return {}
        rows = [row for row, is_misfit in enumerate(marks.to_pylist()) if is_misfit]
        misfits = self._stores[name].get([positions[row] for row in rows])
        return dict(zip(rows, misfits, strict=True))

    def write_report(self, report: Report) -> Series:
        """Keep a report for the driver, and return a column of nulls."""
        self.check_cancelled()
        self._reports.append(report)
        return _null_series(len(report.positions))

    def write_outcome(self, positions: Sequence[int], chunk: Chunk, outcome: ChunkOutcome) -> Series:
        """Keep the outcome of a chunk for the driver, and return a column of nulls."""
        return self.write_report(Report(positions, outcome=outcome))

    def read_reports(self, partition: Any = None) -> Iterator[Report]:
        """Yield the reports that were kept since the last time."""
        while self._reports:
            yield self._reports.popleft()

    def raise_error(self, error: BaseException) -> NoReturn:
        """Keep an error, and raise one that says where it is.

        Daft hangs on a StopIteration, and keeps what is raised here for longer than the query.
        """
        raised = _KeptError(next(self._error_keys))
        self._errors[raised.key] = error
        self._raised.append(raised)
        try:
            raise raised from None
        finally:
            raised.__context__ = None
            del error, raised  # the traceback refers to this frame

    def original_error(self, error: BaseException) -> BaseException:
        """Return the error that was kept."""
        return self._errors[error.key] if isinstance(error, _KeptError) else error


class _KeptError(Exception):
    """Stands for an error of a UDF, which the transport keeps."""

    def __init__(self, key: int) -> None:
        super().__init__(key)
        self.key = key


def _null_series(count: int) -> Series:
    return Series.from_arrow(pa.nulls(count, pa.bool_()))


@dataclass(slots=True)
class _Part:
    """The values that one call has put into a store."""

    positions: Sequence[int]  # the positions of their items
    column: list[Any]
    pending_reads: int  # how many reads of single values are expected


class _ValueStore:
    """The values of one name; each is released once all of its readers have got it, if there are any.

    Daft may split and merge the batches of rows between two stages, so a reader may ask for positions that
    several calls have put, or for a part of those that one call has put.
    """

    def __init__(self, readers: int) -> None:
        self._readers = readers
        self._parts: dict[int, _Part] = {}
        self._lock = Lock()

    def put(self, positions: Sequence[int], column: list[Any]) -> None:
        """Keep the values of some positions."""
        with self._lock:
            self._parts[positions[0]] = _Part(positions, column, len(column) * self._readers)

    def get(self, positions: Sequence[int]) -> list[Any]:
        """Return the values of some positions."""
        with self._lock:
            same = self._parts.get(positions[0])
            if same is not None and same.positions == positions:
                self._count_reads(positions[0], len(positions))
                return same.column
            found: dict[int, Any] = {}
            wanted = set(positions)
            low, high = min(positions), max(positions)
            for part in list(self._parts.values()):
                if part.positions[0] > high or part.positions[-1] < low:
                    continue
                matching = {
                    position: value
                    for position, value in zip(part.positions, part.column, strict=True)
                    if position in wanted
                }
                found |= matching
                self._count_reads(part.positions[0], len(matching))
            return [found[position] for position in positions]

    def clear(self) -> None:
        """Release all values."""
        with self._lock:
            self._parts.clear()

    def _count_reads(self, first_position: int, count: int) -> None:
        part = self._parts[first_position]
        part.pending_reads -= count
        if self._readers and part.pending_reads <= 0:
            del self._parts[first_position]
