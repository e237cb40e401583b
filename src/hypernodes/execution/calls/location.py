"""The note on an error that says where it happened: node, pipeline, item, and what the call was given."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from hypernodes.text import short

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hypernodes.callbacks.event import Scope

_BEGINNINGS: Final = ("in node ", "in item ", "in items ")
_ARGUMENT_LENGTH: Final = 60  # characters of each argument in a note

UNKNOWN: Final = -1
"""Stands for the index of an item where rows stream from one storage to another and have none."""


def locate(error: BaseException, node: str, scope: Scope, arguments: Mapping[str, Any]) -> None:
    """Note on an error where it happened, once."""
    index = ".".join(str(number) for number in scope.items if number != UNKNOWN)
    item = f", item {index}" if index else ""
    given = ", ".join(f"{key}={short(value, _ARGUMENT_LENGTH)}" for key, value in arguments.items())
    note(
        error,
        f"in node {node!r} of pipeline {'/'.join(scope.path)!r}{item}, called with {given or 'nothing'}",
    )


def note(error: BaseException, text: str) -> None:
    """Add a note to an error, unless one of its notes says already where it happened.

    An error that takes no note, such as that of a frozen dataclass, stays without.
    """
    with suppress(Exception):
        if not any(known.startswith(_BEGINNINGS) for known in getattr(error, "__notes__", ())):
            error.add_note(text)


def without_frame(error: BaseException) -> BaseException:
    """Return an error less the frame that caught it.

    A frame whose local variables hold the error would keep both alive until the garbage collector runs.
    """
    traceback = error.__traceback__
    return error if traceback is None else error.with_traceback(traceback.tb_next)
