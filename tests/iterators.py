"""Iterators of the users' own. A module of its own, which workers import quickly."""

import asyncio
from collections.abc import Generator


class Countdown:
    """An iterator of the user's own."""

    def __init__(self, n):
        self.n = n

    def __iter__(self):
        return self

    def __next__(self):
        if not self.n:
            raise StopIteration
        self.n -= 1
        return self.n


class ByHand(Generator):
    """A generator that is not Python's."""

    def __init__(self, n):
        self.items = iter(range(n))

    def send(self, value):
        return next(self.items)

    def throw(self, kind, value=None, traceback=None):
        raise StopIteration


class Later:
    """An async iterator that is no generator."""

    def __init__(self, n):
        self.items = iter(range(n))

    def __aiter__(self):
        return self

    async def __anext__(self):
        await asyncio.sleep(0)
        for item in self.items:
            return item
        raise StopAsyncIteration


async def awaited_map(n):
    await asyncio.sleep(0)
    return map(str, range(n))


async def ticking(n):
    for number in range(n):
        yield number
