"""The interface of a cache towards a run: bulk look-ups, delayed writes, and the provenance of entries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from hypernodes.cache.bytecode import is_tested_python, python_version
from hypernodes.config import MISS, Cache
from hypernodes.exceptions import CacheWarning
from hypernodes.user_warnings import warn_user

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hypernodes.cache.provenance import CodePart, Provenance


@runtime_checkable
class BulkCache(Cache, Protocol):
    """A cache with all methods that a run uses; `DiskCache` is one.

    Attributes:
        has_quick_contains: Whether `contains` fetches no values, so that asking it is worth while.
    """

    has_quick_contains: bool

    def get_many(self, signatures: Iterable[str]) -> dict[str, Any]:
        """Return the values of those signatures that have an entry."""

    def put(self, signature: str, value: Any, provenance: Provenance | None = None) -> None:
        """Store a value, now or within a short delay."""

    def write_delayed(self) -> None:
        """Write all delayed entries, so that other processes which use the same cache find them."""

    def flush(self) -> None:
        """Write all delayed entries, wherever they are kept, since a run is over."""

    def contains(self, signatures: Iterable[str]) -> set[str]:
        """Return those signatures that have an entry."""

    def provenances(self, node: str) -> Iterable[Provenance]:
        """Iterate over the provenance of a node's entries, the latest first."""

    def code_parts(self, code: str) -> dict[str, CodePart]:
        """Return the parts of the code with a fingerprint; empty if the cache does not know them."""

    def has_code_parts(self, code: str) -> bool:
        """Return whether the cache knows the parts of the code with a fingerprint."""

    def put_code_parts(self, code: str, parts: Mapping[str, CodePart]) -> None:
        """Store the parts of the code with a fingerprint."""


class _BulkAdapter:
    """Gives a cache that has only `get` and `put` the methods of a `BulkCache`."""

    has_quick_contains = False

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self.store_id = id(cache)  # each plan has an adapter of its own

    def get(self, signature: str) -> Any:
        value = self._cache.get(signature)
        if value is None:  # What a run puts is never None: it is a tuple of the outputs of a node.
            _warn_of_none(type(self._cache))
            return MISS
        return value

    def get_many(self, signatures: Iterable[str]) -> dict[str, Any]:
        found = {signature: self.get(signature) for signature in signatures}
        return {signature: value for signature, value in found.items() if value is not MISS}

    def put(self, signature: str, value: Any, provenance: Provenance | None = None) -> None:
        del provenance  # The cache has no place for it.
        self._cache.put(signature, value)

    def write_delayed(self) -> None:
        pass

    def flush(self) -> None:
        pass

    def contains(self, signatures: Iterable[str]) -> set[str]:
        return set(self.get_many(signatures))

    def provenances(self, node: str) -> Iterable[Provenance]:
        del node
        return ()

    def code_parts(self, code: str) -> dict[str, CodePart]:
        del code
        return {}

    def has_code_parts(self, code: str) -> bool:
        del code
        return True  # `put_code_parts` would not store them.

    def put_code_parts(self, code: str, parts: Mapping[str, CodePart]) -> None:
        pass

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BulkAdapter) and self._cache is other._cache

    def __hash__(self) -> int:
        return id(self._cache)


def as_bulk_cache(cache: Cache | None) -> BulkCache | None:
    """Return the cache that a run uses, with all methods of a `BulkCache`; ``None`` if there is none.

    It is ``None``, too, if the library is not tested with the bytecode of this version of Python: without
    reliable fingerprints of code, a look-up could return a wrong result.
    """
    if cache is None:
        return None
    if not is_tested_python():
        _warn_of_untested_python()
        return None
    return cache if isinstance(cache, BulkCache) else _BulkAdapter(cache)


_classes_warned_of: set[type] = set()


def _warn_of_none(kind: type) -> None:
    if kind in _classes_warned_of:
        return
    _classes_warned_of.add(kind)
    warn_user(
        f"a cache of class {kind.__qualname__!r} returns None, which counts as a miss. Its get is "
        f"to return hypernodes.config.MISS for a miss.",
        CacheWarning,
    )


_versions_warned_of: set[str] = set()


def _warn_of_untested_python() -> None:
    version = python_version()
    if version in _versions_warned_of:
        return
    _versions_warned_of.add(version)
    warn_user(
        f"nothing is cached: the fingerprints of code are read from Python's bytecode, which this version of "
        f"hypernodes is not tested with on Python {version}. Install a later version of hypernodes, or use a "
        f"version of Python that it supports.",
        CacheWarning,
    )
