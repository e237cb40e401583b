"""The types of a pipeline's inputs, and values of files and of the command line converted to them."""

from __future__ import annotations

import json
import types
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Union

from hypernodes.cache.file import File
from hypernodes.hints import hints_of_function
from hypernodes.nested import NestedPipeline

if TYPE_CHECKING:
    from hypernodes.definition import PipelineDefinition

_TRUTH: Final = {"true": True, "false": False, "1": True, "0": False}
_PATHS: Final = (File, Path)
_KNOWN: Final = {"File": File, "Path": Path}


def input_hints(pipeline: PipelineDefinition) -> dict[str, Any]:
    """Return the type hints of the inputs of a pipeline, as far as there are any."""
    found: dict[str, Any] = {}
    for member in pipeline.execution_order:
        if isinstance(member, NestedPipeline):
            hints = input_hints(member.pipeline)
            for parameter, outer in member.arguments:
                if outer in member.map_over and parameter in hints:
                    hints[parameter] = types.GenericAlias(list, (hints[parameter],))
        else:
            hints = hints_of_function(member.function, _KNOWN)
        for parameter, name in member.arguments:
            if parameter in hints:
                found.setdefault(name, hints[parameter])
    return found


def is_optional(hint: Any) -> bool:
    """Whether a hint allows ``None``."""
    return type(None) in _members(hint)


def kind_of(hint: Any) -> type | None:
    """Return the one class of a hint beside ``None``, if that is what the hint says."""
    members = [member for member in _members(hint) if member is not type(None)]
    return members[0] if len(members) == 1 and isinstance(members[0], type) else None


def _members(hint: Any) -> tuple[Any, ...]:
    hint = _plain(hint)
    if typing.get_origin(hint) in (Union, types.UnionType):
        return typing.get_args(hint)
    return (hint,)


def _plain(hint: Any) -> Any:
    """Return a hint without what `Annotated` adds to it."""
    return typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint


def converted(value: Any, hint: Any) -> Any:
    """Return a value of a file as its input takes it: texts become files or paths if the hint says so.

    >>> converted("a.txt", File), converted(["a.txt"], list[File]), converted("a.txt", str)
    (File('a.txt'), [File('a.txt')], 'a.txt')
    """
    if isinstance(value, str) and (kind := kind_of(hint)) in _PATHS and kind is not None:
        return kind(value)
    if isinstance(value, list):
        hint = _plain(hint)
        part_hint = typing.get_args(hint)[0] if typing.get_origin(hint) is list else hint
        return [converted(part, part_hint) for part in value]
    return value


def parsed(text: str, hint: Any) -> Any:
    """Return the value of a cell of a CSV file as its input takes it.

    Raises:
        ValueError: The text is no value of this type.

    >>> parsed("1", int), parsed("1", str), parsed("", int | None), parsed("[1]", list[int])
    (1, '1', None, [1])
    """
    if not text and is_optional(hint):
        return None
    kind = kind_of(hint)
    if kind is bool:
        if (truth := _TRUTH.get(text.lower())) is None:
            raise ValueError(f"{text!r} is not true or false")
        return truth
    if kind in (int, float) and kind is not None:
        try:
            return kind(text)
        except ValueError:
            raise ValueError(f"{text!r} is not of type {kind.__name__}") from None
    if text[:1] in ("[", "{") and kind is not str:
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return text
    return text


def says_type(hint: Any) -> bool:
    """Whether a hint says what the cells of a CSV file are."""
    return kind_of(hint) in (str, int, float, bool, File, Path, list, dict)
