"""The jobs that are done where the run is: look-ups in a cache, and chunks of a compiled plan."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

from hypernodes.config import MISS
from hypernodes.execution.compiled.rows import compute_rows
from hypernodes.execution.in_flight import look_up_again
from hypernodes.execution.jobs import Chunk, ChunkOutcome, Found, LookUp

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypernodes.callbacks.event import Event


def execute_compiled(chunk: Chunk, put: Callable[[Event], object] | None) -> ChunkOutcome:
    """Run a chunk here whose plan compiles; with `put`, its events are emitted as they happen."""
    started, executed = perf_counter(), len(chunk.context.plan.steps)
    # No local variable holds the rows: the frame of a function that has raised refers to this one.
    return ChunkOutcome(
        *compute_rows(chunk, is_isolated=False, put=put), perf_counter() - started, executed=executed
    )


def look_up(job: LookUp) -> Found:
    """Look signatures up in a cache."""
    cache, wanted = job.cache, job.wanted
    if len(wanted) == 1 and not job.upstream:  # a single step of a plan
        (signature,) = wanted[0]
        outputs = look_up_again(cache, signature) if job.is_again else cache.get(signature.hex())
        return Found(({} if outputs is MISS else {signature: outputs},))
    keys = {signature: signature.hex() for item in wanted for signature in item}
    values = cache.get_many(keys.values()) if keys else {}
    there = frozenset(values)
    found: list[dict[bytes, tuple[Any, ...]]] = []
    upstream: dict[bytes, str] = {}
    for position, item in enumerate(wanted):
        results = {}
        for signature in item:
            key = keys[signature]
            outputs = values.pop(key, MISS)
            # An equal item has taken the value. Each item gets a value of its own, which it may change.
            if outputs is MISS and key in there:
                outputs = cache.get(key)
            if outputs is not MISS:
                results[signature] = outputs
        found.append(results)
        if len(results) < len(item) and job.upstream:
            upstream |= {
                signature: signature.hex() for signature in job.upstream[position] if signature is not None
            }
    if not upstream or not cache.has_quick_contains:
        return Found(found)
    present = cache.contains(upstream.values())
    return Found(found, frozenset(signature for signature, key in upstream.items() if key not in present))
