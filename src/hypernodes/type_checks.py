"""Which hints meet at a name of a pipeline, and do they fit? Nested pipelines count node by node."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from hypernodes.exceptions import InputTypeError, TypeHintError
from hypernodes.hints import element, fits, hints_of_function, is_of_hint, returned_hints, shown
from hypernodes.node import Node
from hypernodes.text import short

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hypernodes.graph import Graph, Member
    from hypernodes.nested import NestedPipeline


@dataclass(frozen=True, slots=True)
class Hint:
    """The hint of a value where it is made or taken."""

    node: str  # with the nested pipelines around it
    name: str  # of the parameter or output
    hint: Any
    maps: int = 0  # how many nested maps are around: the value is a list of lists ... of what the hint says


def check_types(graph: Graph, where: str) -> None:
    """Check that what each node returns is what the nodes that take it ask for.

    Raises:
        TypeHintError: It names both nodes, and both hints.
    """
    for member in graph.order:
        for name in dict.fromkeys(member.input_names):
            if (producer := graph.producers.get(name)) is None:
                continue
            made = _output_hint(producer, name)
            for taken in _input_hints(member, name):
                if made is not None and not _can_flow(made, taken):
                    raise TypeHintError(
                        f"{where}: node {made.node!r} returns {_shown(made)} as {name!r}, but node "
                        f"{taken.node!r} takes {_shown(taken)} as {taken.name!r}. Change one of the hints, "
                        f"or switch this check off by Pipeline(..., check_types=False)."
                    )


def check_values(graph: Graph, values: Mapping[str, Any], varying: Sequence[str], where: str) -> None:
    """Check values of inputs by the hints of the nodes that take them.

    Raises:
        InputTypeError: It names the input, its value, and the node and hint that it does not fit.
    """
    for member in graph.order:
        for name in dict.fromkeys(member.input_names):
            if name not in values:
                continue
            for taken in _input_hints(member, name):
                maps = taken.maps + (name in varying)
                if (wrong := _first_wrong(values[name], taken.hint, maps, name)) is not None:
                    place, value = wrong
                    raise InputTypeError(
                        f"{where}: {place} is {short(value)}, of type {type(value).__name__}, but node "
                        f"{taken.node!r} takes {shown(taken.hint)} as {taken.name!r}. Give another value, or "
                        f"change the hint."
                    )


def _first_wrong(value: Any, hint: Any, maps: int, place: str) -> tuple[str, Any] | None:
    """Return the first value that is not of the hint, with its place."""
    if not maps or not isinstance(value, list | tuple | set | frozenset):
        return None if maps or _stands_for_another(value) or is_of_hint(value, hint) else (place, value)
    for index, part in enumerate(value):
        if (wrong := _first_wrong(part, hint, maps - 1, f"{place}[{index}]")) is not None:
            return wrong
    return None


def _stands_for_another(value: Any) -> bool:
    """Whether a value is a holder, whose object need not be there."""
    return any(
        kind.__name__ == "Holder" and kind.__module__ == "hypernodes.holders" for kind in type(value).__mro__
    )


def _can_flow(made: Hint, taken: Hint) -> bool:
    """Whether a value of one hint can be taken by another, less the maps around both."""
    hint: Any = made.hint
    for _ in range(taken.maps - made.maps):
        if (hint := element(hint)) is None:
            return False
    if made.maps > taken.maps:
        for _ in range(made.maps - taken.maps):
            hint = list[hint]
    return fits(hint, taken.hint)


def _shown(hint: Hint) -> str:
    text = shown(hint.hint)
    return "list[" * hint.maps + text + "]" * hint.maps


def _output_hint(member: Member, name: str) -> Hint | None:
    """Return the hint of an output."""
    if isinstance(member, Node):
        return _hints(member)[1].get(name)
    inner = next(inner for inner, outer in member.results if outer == name)
    producer = member.pipeline.wiring.producers[inner]
    made = _output_hint(producer, inner)
    return made and _nested(made, member, is_mapped=bool(member.map_over))


def _input_hints(member: Member, name: str) -> Iterator[Hint]:
    """Yield the hints of all nodes that take an input of a member, in nested pipelines, too."""
    if isinstance(member, Node):
        yield from (hint for hint in _hints(member)[0].get(name, ()))
        return
    for inner, outer in member.arguments:
        if outer == name:
            for user in member.pipeline.wiring.order:
                if inner in user.input_names:
                    for taken in _input_hints(user, inner):
                        yield _nested(taken, member, is_mapped=name in member.map_over)


def _nested(hint: Hint, around: NestedPipeline, *, is_mapped: bool) -> Hint:
    return replace(hint, node=f"{around.name}/{hint.node}", maps=hint.maps + is_mapped)


_known: WeakKeyDictionary[Node[..., Any], tuple[dict[str, list[Hint]], dict[str, Hint]]] = WeakKeyDictionary()


def _hints(node: Node[..., Any]) -> tuple[dict[str, list[Hint]], dict[str, Hint]]:
    """Return the hints of a node's inputs and of its outputs, by name."""
    if (found := _known.get(node)) is None:
        hints = hints_of_function(node.function)
        taken = {
            name: [Hint(node.name, parameter, hints[parameter])]
            for parameter, name in node.arguments
            if parameter in hints
        }
        made: dict[str, Hint] = {}
        if "return" in hints:
            function = inspect.unwrap(node.function)
            is_generator = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
            parts = returned_hints(hints["return"], len(node.output_names), is_generator=is_generator)
            made = {
                name: Hint(node.name, name, part) for name, part in zip(node.output_names, parts, strict=True)
            }
        found = _known[node] = taken, made
    return found
