"""Which values can be consumed only once? Iterators, less those that are open resources."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_OF_RESOURCES: Final = ("__enter__", "__aenter__", "close", "aclose", "read")
"""Methods of open files, cursors and connections. Of other iterators, only generators have one of them."""


def is_consumed_once(value: Any) -> bool:
    """Whether a value is an iterator, and no resource.

    >>> is_consumed_once(map(abs, [1])), is_consumed_once([1])
    (True, False)
    """
    kind = type(value)
    if not (has_method(kind, "__next__") and has_method(kind, "__iter__")):
        return False
    return isinstance(value, Generator) or not _is_resource(kind)


def is_async_and_consumed_once(value: Any) -> bool:
    """Whether a value is an async iterator, and no resource."""
    kind = type(value)
    if not (has_method(kind, "__anext__") and has_method(kind, "__aiter__")):
        return False
    return isinstance(value, AsyncGenerator) or not _is_resource(kind)


def can_be_shared(values: Iterable[Any]) -> bool:
    """Whether items can take the same values: none is an open file or a cursor, which one item would use up.

    >>> can_be_shared([[1], "a"]), can_be_shared([iter([1])])
    (True, False)
    """
    return not any(has_method(type(value), name) for value in values for name in ("__next__", "__anext__"))


def _is_resource(kind: type) -> bool:
    return any(has_method(kind, name) for name in _OF_RESOURCES)


def has_method(kind: type, name: str) -> bool:
    """Return whether a class has a method; its metaclass may answer by code, which may raise anything."""
    try:
        return hasattr(kind, name)
    except Exception:
        return False
