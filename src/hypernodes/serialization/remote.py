"""Values that stay with the worker that computed them until another process needs them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from hypernodes.serialization.pickling import OutOfBand

if TYPE_CHECKING:
    from hypernodes.serialization.broadcast import PlacedValue

REMOTE_MIN_BYTES: Final = 64 * 1024
"""Bytes from which on a result stays with its worker; sending a smaller one at once costs less."""


class RemoteValue(OutOfBand):
    """A result that stays with its worker."""

    kind: str = ""  # the name of its type

    size: int = 0

    def get(self) -> Any:
        """Fetch the value into this process."""
        raise NotImplementedError

    def as_placed(self) -> tuple[bytes, PlacedValue]:
        """Return a name of the value, and how a worker process loads it."""
        raise NotImplementedError


class RemoteList(list[Any]):
    """A list with remote values; it is pickled as a plain list."""

    def __reduce__(self) -> tuple[Any, ...]:
        return list, ([*self],)


def is_remote(value: Any) -> bool:
    """Whether a value is remote, or a list with remote values."""
    return issubclass(type(value), RemoteValue) or type(value) is RemoteList


def resolve(value: Any) -> Any:
    """Return a value, which is fetched into this process if it is remote."""
    if issubclass(type(value), RemoteValue):
        return value.get()
    if type(value) is RemoteList:
        return [resolve(element) for element in value]
    return value


def can_resolve(value: Any) -> bool:
    """Whether a value can be fetched into this process; one that was asked before answers at once."""
    try:
        resolve(value)
    except Exception:
        return False
    return True


@dataclass(frozen=True, slots=True)
class SeparateResults:
    """The results of a call, each of which stays with the worker if it is large."""

    values: tuple[Any, ...]  # they may be serialized already
    kinds: tuple[str, ...]  # the names of their types
