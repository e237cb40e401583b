"""Outcomes on their way back from another process.

outcome ◀─ deserialize_any_outcome ◀─ Serialized…Outcome ◀─ serialize_…outcome ◀─ worker
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hypernodes.exceptions import UnpackError
from hypernodes.execution.calls.location import locate, locate_output
from hypernodes.execution.jobs import Call, Chunk, ChunkOutcome, Failure, GroupOutcome, Outcome
from hypernodes.execution.targets.diagnose import unreturned
from hypernodes.execution.targets.events import portable_event
from hypernodes.mapping import Columns
from hypernodes.raw_errors import METHOD_ERRORS
from hypernodes.serialization.errors import SerializedError, deserialize_error, serialize_error
from hypernodes.serialization.pickling import Serialized, is_serializable, serialize
from hypernodes.serialization.salvage import find_lost
from hypernodes.text import described

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hypernodes.callbacks.event import Event, Worker


@dataclass(frozen=True, slots=True)
class SerializedOutcome:
    """The outcome of a call on its way back, with events less values."""

    outputs: Serialized | None  # ``None`` where there is an error, and where they travel by themselves
    error: SerializedError | None
    seconds: float
    events: tuple[Event, ...]
    is_stored: bool
    retry_in: float | None
    ended: tuple[float, Worker] | None


@dataclass(frozen=True, slots=True)
class SerializedGroupOutcome:
    """The outcomes of a group of calls on their way back."""

    outcomes: tuple[SerializedOutcome, ...]


@dataclass(frozen=True, slots=True)
class SerializedChunkOutcome:
    """The outcome of a chunk on its way back, with serialized errors, and events less values."""

    rows: Serialized
    events: tuple[Event, ...]
    seconds: float
    nbytes: int
    executed: int
    hits: int


def serialize_outcome(job: Call, outcome: Outcome) -> SerializedOutcome:
    """Serialize the outcome of a call, in a worker; a result that cannot be pickled is its error."""
    outputs, error = None, outcome.error
    if error is None:
        try:
            outputs = serialize(outcome.outputs)
        except Exception as failure:
            error = unreturned_outputs(job, outcome.outputs, failure)
    return portable_outcome(outcome, outputs, error)


def portable_outcome(
    outcome: Outcome, outputs: Serialized | None, error: BaseException | None
) -> SerializedOutcome:
    """Return the envelope of an outcome, with these outputs or this error."""
    return SerializedOutcome(
        outputs,
        None if error is None else serialize_error(error),
        outcome.seconds,
        tuple(map(portable_event, outcome.events)),
        outcome.is_stored,
        outcome.retry_in,
        outcome.ended,
    )


def unreturned_outputs(job: Call, outputs: Sequence[Any], failure: Exception) -> BaseException:
    """Return the error of a call whose result cannot be pickled."""
    error = unreturned(dict(zip(job.step.outputs, outputs, strict=True)), failure)
    locate(error, job.step, job.scope, job.arguments)
    return error


def deserialize_outcome(serialized: SerializedOutcome, outputs: tuple[Any, ...] | None = None) -> Outcome:
    """Return the outcome of a call, in the driver."""
    if serialized.error is None and outputs is None and serialized.outputs is not None:
        try:
            outputs = serialized.outputs.deserialize()
        except METHOD_ERRORS as error:
            raise unreadable_result("the result", error) from error
    return Outcome(
        outputs or (),
        None if serialized.error is None else deserialize_error(serialized.error),
        serialized.seconds,
        serialized.events,
        serialized.is_stored,
        serialized.retry_in,
        serialized.ended,
    )


def deserialize_any_outcome(
    serialized: SerializedOutcome | SerializedGroupOutcome | SerializedChunkOutcome,
) -> Outcome | GroupOutcome | ChunkOutcome:
    """Return the outcome of a job, in the driver."""
    match serialized:
        case SerializedOutcome():
            return deserialize_outcome(serialized)
        case SerializedGroupOutcome():
            return GroupOutcome(tuple(map(_outcome_in_group, serialized.outcomes)))
        case SerializedChunkOutcome():
            return deserialize_chunk_outcome(serialized)


def _outcome_in_group(serialized: SerializedOutcome) -> Outcome:
    try:
        return deserialize_outcome(serialized)
    except UnpackError as error:  # Only this call fails.
        return Outcome(error=error, seconds=serialized.seconds)


def serialize_chunk_outcome(job: Chunk, outcome: ChunkOutcome, nbytes: int) -> SerializedChunkOutcome:
    """Serialize the outcome of a chunk, in a worker; an error replaces a row that cannot be pickled."""
    rows: Any = outcome.rows
    if isinstance(rows, Columns):
        rows = rows.columns
    else:
        rows = [serialize_error(row.error) if isinstance(row, Failure) else row for row in rows]
    try:
        serialized = serialize(rows)
    except Exception:
        serialized = serialize(_portable_rows(job, outcome.rows))
    return SerializedChunkOutcome(
        serialized,
        tuple(map(portable_event, outcome.events)),
        outcome.seconds,
        nbytes + serialized.size,
        outcome.executed,
        outcome.hits,
    )


def _portable_rows(job: Chunk, rows: Sequence[Any]) -> list[Any]:
    """Put an error in the place of each row that cannot be pickled."""
    portable: list[Any] = []
    plan, scope = job.context.plan, job.context.scope
    for index, item, row in zip(job.indices, job.items, rows, strict=False):
        if isinstance(row, Failure):
            portable.append(serialize_error(row.error))
            continue
        try:
            serialize(row)
            portable.append(row)
        except Exception as failure:
            error = unreturned(row, failure)
            name = next((name for name in row if not is_serializable(row[name])), plan.outputs[0])
            values = {**job.context.fixed, **item, **row}
            locate_output(error, plan, name, scope.of_item(index), values)
            portable.append(serialize_error(error))
            if job.context.on_error == "raise":
                break
    return portable


def deserialize_chunk_outcome(serialized: SerializedChunkOutcome) -> ChunkOutcome:
    """Return the outcome of a chunk, in the driver; a row that cannot be unpickled is a failure."""
    try:
        rows = serialized.rows.deserialize()
    except METHOD_ERRORS:
        rows = serialized.rows.salvage()
        rows = list(map(_failure_if_lost, Columns(rows) if isinstance(rows, dict) else rows))
    if isinstance(rows, dict):
        rows = Columns(rows)
    else:
        rows = [Failure(deserialize_error(row)) if isinstance(row, SerializedError) else row for row in rows]
    return ChunkOutcome(
        rows,
        serialized.events,
        serialized.seconds,
        serialized.nbytes,
        serialized.executed,
        serialized.hits,
    )


def _failure_if_lost(row: Any) -> Any:
    for name, value in row.items() if isinstance(row, dict) else ():
        if (lost := find_lost(value)) is not None:
            return Failure(unreadable_output(name, lost.error))
    return row


def unreadable_output(name: str, error: BaseException) -> UnpackError:
    """Return the error of an output that cannot be unpickled in the driver."""
    unreadable = unreadable_result(f"the result {name!r}", error)
    unreadable.output = name
    unreadable.__cause__ = error
    return unreadable


def unreadable_result(what: str, error: BaseException) -> UnpackError:
    """Return the error of a result that cannot be unpickled in the driver."""
    return UnpackError(
        f"{what} came back from a worker process but cannot be unpickled here ({described(error)})"
    )
