"""The work that is measured, and the same work written by hand.

`peers.py` runs in an environment of its own and takes it from here, too: only the standard library.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Executor

RUNS = 20_000
ITEMS = list(range(10_000))


def increment(x: int) -> int:
    return x + 1


def double(a: int) -> int:
    return a * 2


def add(a: int, b: int) -> int:
    return a + b


def chain() -> dict[str, int]:
    """Call the three functions for one input after another; return the last result."""
    result: dict[str, int] = {}
    for x in range(RUNS):
        a = increment(x)
        b = double(a)
        result = {"a": a, "b": b, "c": add(a, b)}
    return result


def chain_over_items() -> dict[str, list[int]]:
    """Call the three functions for each item, and collect their results."""
    result: dict[str, list[int]] = {"a": [], "b": [], "c": []}
    for x in ITEMS:
        a = increment(x)
        b = double(a)
        result["a"].append(a)
        result["b"].append(b)
        result["c"].append(add(a, b))
    return result


async def nap(x: int) -> int:
    await asyncio.sleep(0.010)
    return x


async def naps(items: Sequence[int], at_once: int) -> dict[str, list[int]]:
    """Await `nap` for each item, so many at a time."""
    semaphore = asyncio.Semaphore(at_once)

    async def guarded(x: int) -> int:
        async with semaphore:
            return await nap(x)

    return {"rested": await asyncio.gather(*map(guarded, items))}


def block(x: int) -> int:
    time.sleep(0.005)
    return x


def blocks(items: Sequence[int], pool: Executor) -> dict[str, list[int]]:
    """Call `block` for each item in a thread pool."""
    return {"waited": list(pool.map(block, items))}


def burn(n: int) -> int:
    total = 0
    for i in range(n):
        total += i * i
    return total


def burns(items: Sequence[int], pool: Executor, chunk: int) -> dict[str, list[int]]:
    """Call `burn` for each item in a process pool, a chunk per submission."""
    return {"burnt": list(pool.map(burn, items, chunksize=chunk))}
