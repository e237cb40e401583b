"""Events on their way from a worker to the driver: values stay behind, and a bad note costs nothing else."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from hypernodes.callbacks.event import NotSent, RunContext
from hypernodes.raw_errors import METHOD_ERRORS
from hypernodes.serialization.errors import SerializedError, deserialize_error, serialize_error
from hypernodes.serialization.pickling import dumps, loads
from hypernodes.text import described

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hypernodes.callbacks.event import Event

_logger = logging.getLogger("hypernodes")
_NO_RUN: Final = RunContext()


def portable_event(event: Event) -> Event:
    """Return an event whose values stay behind."""
    arguments: tuple[Any, ...] = tuple(map(_portable_argument, event.arguments))
    if event.hook == "on_node_notes":
        node, notes = event.arguments
        arguments = (node, _EventNotes(node, notes))
    return event._replace(arguments=arguments, scope=replace(event.scope, run=_NO_RUN))


def _portable_argument(argument: Any) -> Any:
    if issubclass(type(argument), BaseException):
        return _EventError(serialize_error(argument))
    if isinstance(argument, dict):
        return {name: NotSent.of(value) for name, value in argument.items()}
    return argument


class _EventError:
    """An error in an event on its way; unpickling gives the error."""

    __slots__ = ("serialized",)

    def __init__(self, serialized: SerializedError) -> None:
        self.serialized = serialized

    def __reduce__(self) -> tuple[Any, ...]:
        return deserialize_error, (self.serialized,)


class _EventNotes:
    """The notes of node contexts on their way; unpickling gives those that can be pickled and unpickled."""

    __slots__ = ("node", "notes")

    def __init__(self, node: str, notes: tuple[Any, ...]) -> None:
        self.node = node
        self.notes = notes

    def __reduce__(self) -> tuple[Any, ...]:
        pickles = []
        for note in self.notes:
            try:
                pickles.append(dumps(note))
            except Exception as error:
                _warn_of_lost_note(self.node, error)
        return _load_notes, (self.node, pickles)


def _load_notes(node: str, pickles: Sequence[bytes]) -> tuple[Any, ...]:
    notes = []
    for pickle in pickles:
        try:
            notes.append(loads(pickle))
        except METHOD_ERRORS as error:
            _warn_of_lost_note(node, error)
    return tuple(notes)


def _warn_of_lost_note(node: str, error: BaseException) -> None:
    _logger.warning("a note around node %r is lost, which cannot be pickled: %s", node, described(error))
