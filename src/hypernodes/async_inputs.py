"""Maps for callers in an event loop: over iterators and async iterables, and with rows that are awaited."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Collection, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypernodes.inputs import Inputs, MapOver


async def drawn_inputs(inputs: Inputs, map_over: MapOver) -> Any:
    """Return inputs of a map whose iterators have been drawn from in this thread, and awaited if async.

    Some iterators can be used in one thread only, such as the cursors of sqlite3.
    """
    found = dict(inputs) if isinstance(inputs, Mapping) else {}
    for name in _names(found, map_over):
        value = found[name]
        if isinstance(value, AsyncIterable):
            found[name] = [item async for item in value]
        elif isinstance(value, Iterator) and not isinstance(value, Collection):
            found[name] = list(value)
    return found or inputs


async def streamed_rows(
    imap: Callable[[Any], Iterator[tuple[int, Any]]], inputs: Inputs, map_over: MapOver
) -> AsyncGenerator[tuple[int, Any], None]:
    """Yield what `Pipeline.imap` yields, which other threads advance.

    It is called in a thread without an event loop. In this thread it would drive its coroutines on the
    caller's loop and block it.
    """
    from hypernodes.executors.loops import awaits_at_end, iterate_in_thread, run_in_thread

    given, sources = _sync_inputs(inputs, map_over)
    rows = iterate_in_thread(await run_in_thread(partial(imap, given)))
    can_await = True
    try:
        async for row in rows:
            yield row
    except GeneratorExit:
        can_await = awaits_at_end()
        raise
    finally:
        if can_await:
            for generator in (rows, *sources):
                await generator.aclose()


def _sync_inputs(inputs: Inputs, map_over: MapOver) -> tuple[Any, list[AsyncGenerator[Any, None]]]:
    """Return inputs of a stream whose async iterables other threads can draw from; and those to be closed."""
    found = dict(inputs) if isinstance(inputs, Mapping) else {}
    sources = []
    for name in _names(found, map_over):
        value = found[name]
        if isinstance(value, AsyncIterable):
            found[name] = _Drawn(aiter(value))
            if isinstance(value, AsyncGenerator):
                sources.append(value)
    return found or inputs, sources


def _names(inputs: Mapping[str, Any], map_over: MapOver) -> list[str]:
    named = (map_over,) if isinstance(map_over, str) else tuple(map_over or ())
    return [name for name in named if name in inputs]


class _Drawn(Iterator[Any]):
    """An async iterator that a thread draws from while its loop runs."""

    def __init__(self, source: AsyncIterator[Any]) -> None:
        self._source = source

    def __next__(self) -> Any:
        from hypernodes.executors.loops import run_awaitable

        try:
            return run_awaitable(anext(self._source))
        except StopAsyncIteration:
            raise StopIteration from None
