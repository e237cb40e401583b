"""What a plan needs of whatever executes it, computed when the plan is made; and which path supports what.

The general path (`hypernodes.execution.scheduler` with `hypernodes.execution.calls`) supports every need. A
faster path executes a plan only if it supports all that the plan needs. So a new need, and a new option of a
node, goes the general way until a faster path is taught about it: an option that is not its default is a need
by its name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hypernodes.options import DEFAULTS, NodeOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

CACHE: Final = "cache"
EVENTS: Final = "events"
AGGREGATED_EVENTS: Final = "aggregated events"
NODE_CONTEXTS: Final = "node contexts"
STRICT: Final = "strict"
PLAIN: Final = "plain functions"
ASYNC: Final = "async functions"
NESTED: Final = "nested plans"
NESTED_MAP: Final = "nested maps"
ENGINE_CALL: Final = "a nested pipeline run by its own engine"
NODE_TARGET: Final = "a target for calls"
MAP_TARGET: Final = "a target for the items of a nested map"
RETURNED_ERRORS: Final = "errors of items as results of a nested map"

SILENT: Final = frozenset(("cache", "cache_version", "readonly", "retry_on"))
"""Options that count only together with another need: a cache, a target in other processes, or retries."""
COMPILED: Final = frozenset((AGGREGATED_EVENTS, PLAIN, NESTED, NESTED_MAP, "resources", "batch"))
"""What a plan compiled to a Python function supports: nothing but calls, one after the other."""
COMPILED_ON_LOOP: Final = frozenset((AGGREGATED_EVENTS, ASYNC, "resources", "batch"))
"""What a plan compiled to a coroutine function supports: nothing but awaited calls."""
WATCHED: Final = COMPILED - {AGGREGATED_EVENTS, "batch"} | {EVENTS, NODE_CONTEXTS}
"""What a compiled plan supports that emits an event wherever the general path does."""
GROUPED: Final = frozenset((PLAIN,))
"""What a call supports that goes to a worker together with others."""
STAGES: Final = frozenset(
    (PLAIN, ASYNC, NESTED, NESTED_MAP, "resources", "batch", "retries", "timeout", STRICT)
)
"""What going over columns, stage by stage, supports: everything within a call, nothing between calls."""
BATCH_CALLS: Final = frozenset((PLAIN, ASYNC, STRICT, "batch", "resources", "retries", "timeout"))
"""What the call of a batch function supports; a node that needs more is called for each item."""
AGGREGATED: Final = frozenset(("on_map_items_end",))
"""The hooks that are subscribed where the items of a map are only counted."""


def needs_of_plan(*, cache: bool, subscribed: frozenset[str], node_target: bool) -> Iterator[str]:
    """Yield what a plan needs beside its steps."""
    if cache:
        yield CACHE
    if subscribed == AGGREGATED:
        yield AGGREGATED_EVENTS
    elif subscribed:
        yield EVENTS
    if "node_context" in subscribed:
        yield NODE_CONTEXTS
    if node_target:
        yield NODE_TARGET


def needs_of_call(
    options: NodeOptions, *, is_async: bool, strict: bool, is_engine_call: bool
) -> Iterator[str]:
    """Yield what the call of a node needs."""
    if is_engine_call:
        yield ENGINE_CALL
    yield ASYNC if is_async else PLAIN
    if strict:
        yield STRICT
    if options is not DEFAULTS:
        for name in NodeOptions.__dataclass_fields__:
            if name not in SILENT and getattr(options, name) != getattr(DEFAULTS, name):
                yield name


def needs_of_nested(
    inner: frozenset[str], *, is_mapped: bool, map_target: bool, returns_errors: bool
) -> Iterator[str]:
    """Yield what a nested plan needs."""
    yield NESTED
    yield from inner
    if is_mapped:
        yield NESTED_MAP
        if map_target:
            yield MAP_TARGET
        if returns_errors:
            yield RETURNED_ERRORS
