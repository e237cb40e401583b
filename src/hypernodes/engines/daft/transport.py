"""The columns between the stages of a Daft query, and the interface of the transports that carry them.

    driver ── source columns ──▶ stage ── OutputColumn ─▶ InputColumn ── stage ──▶ ...
       ▲                           │                                       │
       └───────── Report ──────────┴───────────────── Report ──────────────┘

A value goes in a column of the type of its hint, if that column gives it back exactly. Otherwise it is a
misfit: it goes as an object in a second column, beside the typed one. Values without a hint go as objects.
The transports differ in how objects go:

    InProcessTransport  objects stay in the memory of this process; Daft gets columns of nulls
    PickledTransport    objects are pickled, since other processes compute the stages
    StreamedTransport   objects are Python objects of Daft, for a lazy data frame; there are no reports
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NoReturn

from daft import DataType, Series

from hypernodes.engines.daft.columns import array_of, typed_series
from hypernodes.exceptions import HintError
from hypernodes.execution.calls.batch import values

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hypernodes.engines.daft.lifeline import Lifeline
    from hypernodes.execution.jobs import Chunk, ChunkOutcome

CANCEL_TIMEOUT_S: Final = 5.0
"""How long `InProcessTransport.close` waits for running calls, in seconds.

A thread that runs Python code while the program ends would abort the process. A cancelled call ends with the
item that it is computing, so a longer timeout would only let one slow node delay Ctrl-C.
"""


@dataclass(frozen=True, slots=True)
class InputColumn:
    """A value that a stage takes for each item."""

    name: str
    dtype: DataType | None  # ``None`` for objects
    is_output: bool  # of another stage, so that it may have misfits


@dataclass(frozen=True, slots=True)
class OutputColumn:
    """A value that a stage computes for each item, and that other stages or the data frame need."""

    name: str
    dtype: DataType | None  # the type that the hint says; ``None`` for objects
    node_name: str  # for messages

    @property
    def label(self) -> str:
        """The output and its node, for messages."""
        return f"output {self.name!r} of node {self.node_name!r}"


@dataclass(frozen=True, slots=True)
class Report:
    """What one call of a UDF sends to the driver."""

    positions: Sequence[int]  # the positions of the items in the query
    outputs: dict[str, list[Any]] = field(default_factory=dict)  # a value for each item
    outcome: ChunkOutcome | None = None  # the outcome of items that were executed as a chunk
    hint_errors: Mapping[str, HintError] = field(default_factory=dict)
    error: BaseException | None = None  # the error that has ended the query


def misfit_column(name: str) -> str:
    """Return the name of the column for the misfits of a typed column."""
    return f"{name} (misfits)"


class Transport(ABC):
    """Carries values between the stages of one query."""

    @property
    def reporting(self) -> ReportingTransport | None:
        """This transport, if it brings reports to the driver; ``None`` if rows go on to a data frame."""
        return None

    # ------------------------------------------------------------------------------------- columns

    @property
    @abstractmethod
    def object_type(self) -> DataType:
        """The type of a column of objects."""

    @abstractmethod
    def write_objects(self, name: str, column: Sequence[Any], positions: Sequence[int]) -> Series:
        """Return a column of objects."""

    @abstractmethod
    def read_objects(self, name: str, series: Series, positions: Sequence[int]) -> list[Any]:
        """Return the values of a column of objects."""

    @abstractmethod
    def read_inputs(
        self, inputs: Sequence[InputColumn], series: Sequence[Series], positions: Sequence[int]
    ) -> dict[str, Any]:
        """Return the inputs of a stage as lists or Arrow arrays; misfits follow their typed columns."""

    @abstractmethod
    def write_outputs(
        self, outputs: Sequence[OutputColumn], columns: Mapping[str, Any], positions: Sequence[int]
    ) -> tuple[dict[str, Series], dict[str, HintError]]:
        """Return the columns for the outputs of a stage, and an error for each that contradicts its hint."""

    @property
    def lifeline(self) -> Lifeline | None:
        """What ends the processes of the query, in these processes; ``None`` if nothing can cancel it."""
        return None

    # -------------------------------------------------------------------------------------- errors

    @abstractmethod
    def raise_error(self, error: BaseException) -> NoReturn:
        """Raise the error of a UDF, in a form that Daft hands on without loss."""

    # ---------------------------------------------------------------------------------- cancelling

    @contextmanager
    def watched(self, udf: int, first: Series, computes: str) -> Iterator[None]:
        """Return a context for a call of a UDF in another process, which may end the process."""
        del udf, first, computes
        yield

    def begin_call(self) -> None:
        """Register that a call of a UDF begins; raise a DaftError if the query was cancelled."""
        self.check_cancelled()

    def check_cancelled(self) -> None:
        """Raise a DaftError if the query was cancelled."""
        return

    def end_call(self) -> None:
        """Register that a call of a UDF ends."""
        return


class ReportingTransport(Transport):
    """Carries values between the stages of a query, and reports from its UDFs to the driver."""

    @property
    def reporting(self) -> ReportingTransport:
        """This transport."""
        return self

    def stop(self) -> None:
        """Have the calls of UDFs end that are running, as far as this process can reach them."""
        return

    @abstractmethod
    def close(self, timeout: float | None = CANCEL_TIMEOUT_S) -> None:
        """End the processes of the query; if it was stopped, wait for running calls, at most so long."""

    def release(self) -> None:
        """Let go of all values: the query has ended."""
        return

    @abstractmethod
    def write_misfits(self, name: str, column: Sequence[Any] | None, positions: Sequence[int]) -> Series:
        """Return the column for the misfits of a typed column: ``None`` means that there are none."""

    @abstractmethod
    def read_misfits(self, name: str, series: Series, positions: Sequence[int]) -> dict[int, Any]:
        """Return the misfits of a typed column, by row."""

    @abstractmethod
    def write_report(self, report: Report) -> Series:
        """Return a column that brings a report to the driver."""

    @abstractmethod
    def write_outcome(self, positions: Sequence[int], chunk: Chunk, outcome: ChunkOutcome) -> Series:
        """Return a column that brings the outcome of a chunk to the driver."""

    @abstractmethod
    def read_reports(self, partition: Any = None) -> Iterator[Report]:
        """Yield the reports that have arrived in a partition of the result, or else after the last one."""

    @abstractmethod
    def original_error(self, error: BaseException) -> BaseException:
        """Return the error that a UDF has passed to `raise_error`, from the one that Daft has raised."""

    def read_inputs(
        self, inputs: Sequence[InputColumn], series: Sequence[Series], positions: Sequence[int]
    ) -> dict[str, Any]:
        """Return the inputs of a stage as lists or Arrow arrays, by name. See `Transport.read_inputs`."""
        columns: dict[str, Any] = {}
        remaining = iter(series)
        for value in inputs:
            column = next(remaining)
            if value.dtype is None:
                columns[value.name] = self.read_objects(value.name, column, positions)
                continue
            columns[value.name] = array_of(column)
            if value.is_output and (misfits := self.read_misfits(value.name, next(remaining), positions)):
                fitting = values(columns[value.name])
                columns[value.name] = [misfits.get(row, found) for row, found in enumerate(fitting)]
        return columns

    def write_outputs(
        self, outputs: Sequence[OutputColumn], columns: Mapping[str, Any], positions: Sequence[int]
    ) -> tuple[dict[str, Series], dict[str, HintError]]:
        """Return the columns for the outputs of a stage. See `Transport.write_outputs`."""
        written: dict[str, Series] = {}
        errors: dict[str, HintError] = {}
        for output in outputs:
            name, dtype, column = output.name, output.dtype, columns[output.name]
            if dtype is None:
                written[name] = self.write_objects(name, values(column), positions)
                continue
            misfits: list[Any] | None = None
            try:
                written[name] = typed_series(column, dtype, output.label)
            except HintError as error:
                misfits = values(column)
                if not _is_accepted_by_typing(misfits, dtype):
                    errors[name] = error
                written[name] = typed_series([None] * len(column), dtype, output.label)
            written[misfit_column(name)] = self.write_misfits(name, misfits, positions)
        return written, errors


def _is_accepted_by_typing(column: list[Any], dtype: DataType) -> bool:
    """Whether a type checker would accept all values, though a typed column would change them."""
    try:
        typed_series(column, dtype, "", exactly=False)
    except HintError:
        return False
    return True
