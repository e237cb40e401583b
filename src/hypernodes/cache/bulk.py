"""A cache as a run uses it: many look-ups at once, writes that may wait, notes on how entries were made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from hypernodes.config import MISS, Cache

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hypernodes.cache.about import About, Part


@runtime_checkable
class BulkCache(Cache, Protocol):
    """What `DiskCache` offers beyond get and put.

    Attributes:
        has_quick_contains: Whether `contains` fetches no values, so that asking it is worth while.
    """

    has_quick_contains: bool

    def get_many(self, signatures: Iterable[str]) -> dict[str, Any]:
        """Return the values of those signatures that have one."""

    def put(self, signature: str, value: Any, about: About | None = None) -> None:
        """Store a value, perhaps a little later."""

    def flush(self) -> None:
        """Store now what was put."""

    def contains(self, signatures: Iterable[str]) -> set[str]:
        """Return those signatures that have a value."""

    def computations(self, node: str) -> Iterable[About]:
        """Walk how the entries of a node were made, the latest first."""

    def code(self, code: str) -> dict[str, Part]:
        """Return what a node's code is made of; nothing where that is not known."""

    def has_code(self, code: str) -> bool:
        """Whether it is known what a node's code is made of."""

    def keep_code(self, code: str, parts: Mapping[str, Part]) -> None:
        """Store what a node's code is made of."""


class _OneByOne:
    """A cache that has get and put only."""

    has_quick_contains = False

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    def get(self, signature: str) -> Any:
        return self._cache.get(signature)

    def get_many(self, signatures: Iterable[str]) -> dict[str, Any]:
        found = {signature: self._cache.get(signature) for signature in signatures}
        return {signature: value for signature, value in found.items() if value is not MISS}

    def put(self, signature: str, value: Any, about: About | None = None) -> None:  # noqa: ARG002
        self._cache.put(signature, value)

    def flush(self) -> None:
        pass

    def contains(self, signatures: Iterable[str]) -> set[str]:
        return set(self.get_many(signatures))

    def computations(self, node: str) -> Iterable[About]:  # noqa: ARG002
        return ()

    def code(self, code: str) -> dict[str, Part]:  # noqa: ARG002
        return {}

    def has_code(self, code: str) -> bool:  # noqa: ARG002
        return True

    def keep_code(self, code: str, parts: Mapping[str, Part]) -> None:
        pass

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _OneByOne) and self._cache is other._cache

    def __hash__(self) -> int:
        return id(self._cache)


def in_bulk(cache: Cache | None) -> BulkCache | None:
    """Return a cache with all that a run uses; one that has get and put only is asked one by one."""
    return cache if cache is None or isinstance(cache, BulkCache) else _OneByOne(cache)
