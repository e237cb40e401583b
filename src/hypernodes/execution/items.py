"""Execute the items of a chunk in a worker whose rows go on as columns: those of Daft and of Ray Data."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from hypernodes.execution.execute import run_chunk, run_chunk_on_loop
from hypernodes.execution.jobs import ChunkOutcome, Failure
from hypernodes.execution.targets.in_process import target_in_worker
from hypernodes.execution.targets.same_code import unreadable_input
from hypernodes.executors.context import own_context
from hypernodes.executors.loops import in_thread
from hypernodes.mapping import column_lists
from hypernodes.serialization.errors import ExceptionWrapper
from hypernodes.serialization.salvage import Lost

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hypernodes.execution.jobs import Chunk


def columns_of_rows(rows: Sequence[Any], names: Sequence[str]) -> dict[str, list[Any]]:
    """Return the columns of the rows of a chunk, or raise the error of the first item that failed."""
    if (failure := next((row for row in rows if isinstance(row, Failure)), None)) is not None:
        raise failure.error
    return column_lists(rows, names)


def execute_chunk(chunk: Chunk) -> ChunkOutcome:
    """Execute a chunk in this thread; an item with an input that cannot be unpickled here fails."""
    if not any(map(_lost_input, chunk.items)):
        return run_chunk(chunk, target_in_worker)
    parts = (chunk.part(position, position + 1) for position in range(len(chunk.items)))
    return merged([_lost_input(part.items[0]) or execute_chunk(part) for part in parts])


async def execute_items_on_loop(chunk: Chunk, max_concurrent: int) -> list[ChunkOutcome]:
    """Execute the items of a chunk on this event loop, several at once, each in a context of its own."""
    slots = asyncio.Semaphore(max_concurrent)
    loop = asyncio.get_running_loop()
    items = [chunk.part(position, position + 1) for position in range(len(chunk.indices))]
    return await asyncio.gather(
        *(loop.create_task(_execute_on_loop(item, slots), context=own_context()) for item in items)
    )


def merged(outcomes: Sequence[ChunkOutcome]) -> ChunkOutcome:
    """Return the outcomes of parts of a chunk as one."""
    return ChunkOutcome(
        [row for outcome in outcomes for row in outcome.rows],
        [event for outcome in outcomes for event in outcome.events],
        sum(outcome.seconds for outcome in outcomes),
        executed=sum(outcome.executed for outcome in outcomes),
        hits=sum(outcome.hits for outcome in outcomes),
    )


def _lost_input(item: Mapping[str, Any]) -> ChunkOutcome | None:
    """Return the outcome of an item that has an input which cannot be unpickled here."""
    for name, value in item.items():
        if type(value) is Lost:
            return ChunkOutcome([Failure(unreadable_input(name, value.error))])
    return None


async def _execute_on_loop(chunk: Chunk, slots: asyncio.Semaphore) -> ChunkOutcome:
    if (lost := _lost_input(chunk.items[0])) is not None:
        return lost
    async with slots:
        try:
            return await run_chunk_on_loop(chunk, in_thread, target_in_worker)
        except (KeyboardInterrupt, SystemExit, GeneratorExit) as error:
            raise ExceptionWrapper(error) from None  # Unwrapped, it would end the event loop.
