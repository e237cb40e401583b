"""Values that stay with the worker that made them, until they are needed elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from hypernodes.serialization.pickling import OutOfBand

if TYPE_CHECKING:
    from hypernodes.serialization.broadcast import PlacedValue

REMOTE_MIN_BYTES: Final = 64 * 1024
"""Bytes from which on a result stays with its worker: a smaller one costs less within the answer."""


class RemoteValue(OutOfBand):
    """A result that has stayed with its worker.

    Attributes:
        kind: The name of its type.
        size: Bytes.
    """

    kind: str = ""

    size: int = 0

    def get(self) -> Any:
        """Bring it here."""
        raise NotImplementedError

    def as_placed(self) -> tuple[bytes, PlacedValue]:
        """Return a name for it, and how each worker process finds it."""
        raise NotImplementedError


class RemoteList(list[Any]):
    """A list of results, some of which may be remote; it travels as a plain list."""

    def __reduce__(self) -> tuple[Any, ...]:
        return list, ([*self],)


def is_remote(value: Any) -> bool:
    """Whether a value has stayed with its worker, or is a list of such."""
    return isinstance(value, RemoteValue) or value.__class__ is RemoteList


def resolve(value: Any) -> Any:
    """Return a value itself: one that has stayed with its worker is brought here."""
    if isinstance(value, RemoteValue):
        return value.get()
    if value.__class__ is RemoteList:
        return [resolve(element) for element in value]
    return value


@dataclass(frozen=True, slots=True)
class SeparateResults:
    """Returned by a function whose results stay apart, each with the worker if it is large.

    Attributes:
        values: The results; they may be serialized already.
        kinds: The names of their types.
    """

    values: tuple[Any, ...]
    kinds: tuple[str, ...]
