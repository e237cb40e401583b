"""The items of a map that are looked up in a cache before any of them is started.

Equal items have equal signatures: one of them is started, and the others are looked up again when it is done.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from hypernodes.execution.scheduler.items import Positions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from hypernodes.execution.jobs import Found, Values
    from hypernodes.execution.plan.model import Step
    from hypernodes.execution.scheduler.items import ItemSource
    from hypernodes.execution.scheduler.lookup import CacheLookup, SignedItem

    Results = Mapping[int, tuple[Any, ...]]

FIRST_BLOCK: Final = 32
"""Items that are looked up together at first; twice as many each time, while a look-up is quick."""

MAX_BLOCK: Final = 512

LOOK_UP_S: Final = 0.05
"""Seconds that a look-up may take before blocks stop growing: no item is started meanwhile."""


@dataclass(frozen=True, slots=True)
class Block:
    """Items that are looked up together."""

    positions: Sequence[int]
    signed: Sequence[SignedItem]
    asked: Sequence[tuple[bytes, ...]]  # the signatures that are asked for
    wanted: Sequence[Sequence[bytes]]  # those of them whose results are not known already
    # Of all their steps; they matter if one of `wanted` is missing.
    upstream: Sequence[Iterable[bytes | None]]
    started: float  # when they were signed


@dataclass(frozen=True, slots=True)
class KnownItem:
    """An item whose outputs are all in the cache."""

    position: int
    outputs: Values
    signatures: tuple[bytes, ...]  # of the steps that make the outputs
    seconds: float  # how long its look-up took


class ItemLookup:
    """Which items of a map are looked up, which are known, and which wait to be started.

    The items of a chunk were looked up by whoever sent it.
    """

    def __init__(self, known: Mapping[int, Results], clock: Callable[[], float], *, is_chunk: bool) -> None:
        self._clock = clock
        self.unknown = Positions()  # of items to be looked up before they are started
        self.waiting = Positions()  # of items to be started
        self._lookup: CacheLookup | None = None
        self.is_looking_up = False
        self._block = MAX_BLOCK if is_chunk else FIRST_BLOCK
        self._found = {position: dict(results) for position, results in known.items()}
        self._signed: dict[int, SignedItem] = {}  # of items that wait
        self._wanted: dict[int, tuple[bytes, ...]] = {}  # the signatures of items that were started
        self._duplicates: dict[tuple[bytes, ...], list[int]] = {}  # items equal to one that was started
        self._has_waited: set[int] = set()  # items that have waited for an equal one already

    def use(self, lookup: CacheLookup) -> None:
        """Look items up from now on, if everything that is asked for has entries of its own."""
        self._lookup = lookup if lookup.is_useful else None

    @property
    def is_used(self) -> bool:
        """Whether items are looked up."""
        return self._lookup is not None

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps that make the outputs asked for."""
        return () if self._lookup is None else self._lookup.steps

    def add(self, positions: Iterable[int]) -> None:
        """Take further items."""
        self.unknown.add(positions)

    def start_all(self) -> None:
        """Let all items wait to be started."""
        if self.waiting:
            self.waiting.add(self.unknown.take(len(self.unknown)))
        else:
            self.waiting, self.unknown = self.unknown, self.waiting

    def next_block(self, items: ItemSource) -> Block | None:
        """Sign the items that are looked up next; ``None`` if there is none.

        Items that cannot be signed before something is computed wait to be started.
        """
        if (lookup := self._lookup) is None:
            return None
        started = self._clock()
        positions, all_signed, asked, upstream = [], [], [], []
        wanted: list[Sequence[bytes]] = []
        for position in self.unknown.take(self._block):
            signed = lookup.sign(items[position])
            if (signatures := lookup.wanted(signed)) is None:
                self._signed[position] = signed
                self.waiting.add((position,))
                continue
            positions.append(position)
            all_signed.append(signed)
            asked.append(signatures)
            if known := self._found.get(position):
                wanted.append(
                    [s for s, step in zip(signatures, lookup.steps, strict=True) if step.index not in known]
                )
            else:
                wanted.append(signatures)
            upstream.append(signed.signatures.values())
        if not positions:
            return None
        self.is_looking_up = True
        return Block(positions, all_signed, asked, wanted, upstream, started)

    def take(self, block: Block, found: Found, items: ItemSource) -> Iterator[KnownItem]:
        """Yield the items of a block that are known; the others wait to be started."""
        seconds = self._clock() - block.started
        self.is_looking_up = False
        if seconds < LOOK_UP_S:
            self._block = min(MAX_BLOCK, self._block * 2)
        lookup: Any = self._lookup
        for position, signed, wanted, values in zip(
            block.positions, block.signed, block.asked, found.values, strict=True
        ):
            results = self._found.pop(position, None) or {}
            for step, signature in zip(lookup.steps, wanted, strict=True):
                if signature in values:
                    results[step.index] = values[signature]
            if (outputs := lookup.outputs(items[position], results)) is not None:
                yield KnownItem(position, outputs, wanted, seconds / len(block.positions))
            elif wanted in self._duplicates and position not in self._has_waited:
                self._duplicates[wanted].append(position)
            else:
                self._signed[position] = replace(signed, known=results)
                self._wanted[position] = wanted
                self._duplicates.setdefault(wanted, [])
                self.waiting.add((position,))

    def signature_of(self, item: KnownItem) -> bytes:
        """Return the identity of a known item's first output that was computed."""
        lookup: Any = self._lookup
        signature: bytes = lookup.signature_of(item.signatures)
        return signature

    def signed(self, position: int) -> SignedItem | None:
        """Return what is known of an item that is started, once."""
        return self._signed.pop(position, None)

    def waiting_item(self, position: int) -> SignedItem | None:
        """Return what is known of an item that waits to be started."""
        return self._signed.get(position)

    def done(self, position: int) -> None:
        """Look up the items that are equal to an item which is done."""
        wanted = self._wanted.pop(position, None)
        duplicates = self._duplicates.pop(wanted, None) if wanted is not None else None
        if duplicates:
            self.unknown.add_first(duplicates)
            self._has_waited.update(duplicates)
