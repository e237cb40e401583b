"""The note on an error that says where it happened: node, pipeline, item, and what the call was given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from hypernodes.execution.calls.failed_call import record
from hypernodes.execution.plan.model import NestedStep
from hypernodes.raw_errors import METHOD_ERRORS, attributes_of
from hypernodes.text import notes_of, short

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hypernodes.callbacks.event import Scope
    from hypernodes.execution.plan.model import Plan, Step

_BEGINNINGS: Final = ("in node ", "in item ", "in items ")
_ARGUMENT_LENGTH: Final = 60  # characters of each argument in a note

UNKNOWN: Final = -1
"""Stands for the index of an item where rows stream from one storage to another and have none."""


def locate(
    error: BaseException, step: Step, scope: Scope, arguments: Mapping[str, Any], suffix: str = ""
) -> None:
    """Note on an error where it happened, once; the suffix ends the note."""
    if not isinstance(step, NestedStep) and not any(value is _NOT_HERE for value in arguments.values()):
        record(error, step, scope, arguments)
    node, index = step.name, item_of(scope)
    item = f", item {index}" if index else ""
    given = shown(arguments) or "nothing"
    note(error, f"in node {node!r} of pipeline {'/'.join(scope.path)!r}{item}, called with {given}{suffix}")


def locate_output(
    error: BaseException, plan: Plan, name: str, scope: Scope, values: Mapping[str, Any]
) -> None:
    """Note on an error of an output which node has made it, and of which arguments, if they are here."""
    step = plan.producers.get(name)
    if step is None:
        note(error, f"in output {name!r} of pipeline {'/'.join(scope.path)!r}")
        return
    arguments = {parameter: values.get(argument, _NOT_HERE) for parameter, argument in step.arguments}
    known = {argument: values[argument] for argument in plan.inputs if argument in values}
    is_complete = not any(value is _NOT_HERE for value in arguments.values())
    locate(error, step, scope, arguments, "" if is_complete else f", in a run given {shown(known)}")


class _NotHere:
    """Stands for an argument that another process has."""

    def __repr__(self) -> str:
        return "…"


_NOT_HERE: Final = _NotHere()


def item_of(scope: Scope) -> str:
    """Return the indices of the item of a scope, in all maps around it, as far as they are known."""
    return ".".join(str(number) for number in scope.items if number != UNKNOWN)


def shown(values: Mapping[str, Any]) -> str:
    """Return values by name, in short.

    >>> shown({"x": 1, "words": ["a", "b"]})
    "x=1, words=['a', 'b']"
    """
    return ", ".join(f"{name}={short(value, _ARGUMENT_LENGTH)}" for name, value in values.items())


def note(error: BaseException, text: str) -> None:
    """Add a note to an error, unless one of its notes says already where it happened.

    An error whose class has an attribute ``__notes__`` of its own stays without.
    """
    if is_located(error):
        return
    try:
        error.add_note(text)
    except METHOD_ERRORS:  # Its class refuses what is set, as a frozen dataclass does.
        if type(notes := attributes_of(error).setdefault("__notes__", [])) is list:
            notes.append(text)


def is_located(error: BaseException) -> bool:
    """Whether a note on an error says where it happened."""
    return any(known.startswith(_BEGINNINGS) for known in notes_of(error))
