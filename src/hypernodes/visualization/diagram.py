"""The diagram of a pipeline: boxes, nested boxes and arrows, without colours and positions."""

from __future__ import annotations

import inspect
import typing
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, Final, Literal, TypeAlias

from hypernodes.config import INHERIT
from hypernodes.nested import NestedPipeline
from hypernodes.text import short

if typing.TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Kind: TypeAlias = Literal["input", "node", "pipeline", "group"]

MAX_LABEL_LENGTH: Final = 40
"""Characters of a type or a default value; longer ones would make boxes wider than pages."""


@dataclass(frozen=True, slots=True)
class Value:
    """An input or an output."""

    name: str
    type: str = ""  # the type hint of the function, or an empty text
    default: str = ""  # as text, or an empty text


@dataclass(slots=True)
class Box:
    """One or more inputs, a node, or a nested pipeline: collapsed, or expanded with boxes inside."""

    id: str  # depends on the position of the node in the pipeline only
    kind: Kind  # a pipeline is collapsed, a group is an expanded pipeline
    name: str = ""  # empty for inputs
    values: tuple[Value, ...] = ()  # the inputs, or the outputs of the node or pipeline
    remarks: tuple[str, ...] = ()  # the engine, the cache, the inputs that are mapped over
    doc: str = ""  # the first paragraph of the docstring
    signature: str = ""
    path: tuple[str, ...] = ()  # the enclosing pipelines and the name, as in events
    heat: int | None = None  # the share of the run's duration, from 0 to 4; ``None`` if no run is shown
    failed: bool = False
    boxes: list[Box] = field(default_factory=list)

    def tree(self) -> Iterator[Box]:
        """Yield this box and all boxes inside it."""
        yield self
        for box in self.boxes:
            yield from box.tree()


@dataclass(frozen=True, slots=True)
class Arrow:
    """An arrow for the values that one box passes to another."""

    source: str
    target: str
    names: tuple[str, ...] = ()  # of the values; empty if they are all the values of the source


@dataclass(slots=True)
class Diagram:
    """The content of a picture."""

    name: str
    remarks: tuple[str, ...]  # its own engine, cache and bound inputs
    boxes: list[Box]
    arrows: list[Arrow]  # they may connect boxes of different depths


def build_diagram(
    pipeline: Any, *, depth: int | None = 1, flatten: bool = False, min_arg_group_size: int = 2
) -> Diagram:
    """Return the diagram of a pipeline to a depth: 1 is the pipeline's own level, ``None`` is all levels.

    Flattened, expanded pipelines have no box around their nodes. The inputs that only one node takes share a
    box if they are `min_arg_group_size` or more.

    >>> from hypernodes import Pipeline, node
    >>> diagram = build_diagram(Pipeline([node(pow, output_name="power")]))
    >>> [box.kind for box in diagram.boxes], [value.name for value in diagram.boxes[0].values]
    (['input', 'node'], ['base', 'exp', 'mod'])
    """
    builder = _DiagramBuilder(depth, min_arg_group_size, flatten=flatten)
    boxes, _ = builder.member_boxes(pipeline, {}, "", (pipeline.pipeline_id,))
    inputs = builder.input_boxes(pipeline)
    return Diagram(pipeline.pipeline_id, _pipeline_settings(pipeline), inputs + boxes, builder.arrows())


@dataclass(frozen=True, slots=True)
class _Source:
    """The source of a value: a box, or an input of the outermost pipeline."""

    name: str  # the id of the box, or the name of the input
    is_input: bool = False
    map_depth: int = 0  # the maps between the source and the node that takes an item of it


class _DiagramBuilder:
    """Collects boxes, and the connections between them."""

    def __init__(self, depth: int | None, min_arg_group_size: int, *, flatten: bool) -> None:
        self._depth = depth
        self._min_group_size = min_arg_group_size
        self._flatten = flatten
        # Triples of the box that has a value, the name of the value, and the box that takes it.
        self._connections: list[tuple[str, str, str]] = []
        # The boxes that take each input, and the input as their nodes describe it.
        self._input_uses: dict[str, list[tuple[str, Value]]] = {}
        self._value_counts: dict[str, int] = {}

    def member_boxes(
        self, pipeline: Any, outer_sources: dict[str, _Source], prefix: str, path: tuple[str, ...]
    ) -> tuple[list[Box], dict[str, _Source]]:
        """Return the boxes of the members of a pipeline, and the source of each value."""
        boxes: list[Box] = []
        sources = dict(outer_sources)
        for index, member in enumerate(pipeline.execution_order):
            box_id = f"{prefix}{index}"
            is_nested = isinstance(member, NestedPipeline)
            if is_nested and (self._depth is None or len(path) < self._depth):
                boxes += self._expanded_boxes(box_id, member, sources, path)
                continue
            make_box = self._collapsed_box if is_nested else self._node_box
            boxes.append(make_box(box_id, member, path))
            values = _nested_inputs(member) if is_nested else _parameters(member)
            self._connect(member.arguments, sources, box_id, values, pipeline)
            sources |= dict.fromkeys(member.output_names, _Source(box_id))
        return boxes, sources

    def _expanded_boxes(
        self, box_id: str, member: NestedPipeline, sources: dict[str, _Source], path: tuple[str, ...]
    ) -> list[Box]:
        inner_sources: dict[str, _Source] = {}
        for name, outer in member.arguments:
            if name not in member.pipeline.bound:
                source = sources.get(outer, _Source(outer, is_input=True))
                inner_sources[name] = replace(source, map_depth=source.map_depth + (outer in member.map_over))
        boxes, inner_sources = self.member_boxes(
            member.pipeline, inner_sources, f"{box_id}.", (*path, member.name)
        )
        for name, outer in member.results:
            sources[outer] = inner_sources[name]
        if self._flatten:
            return boxes
        # The page collapses this box by a click and then needs its outputs.
        group = self._collapsed_box(box_id, member, path)
        group.kind, group.boxes = "group", boxes
        return [group]

    def _node_box(self, box_id: str, member: Any, path: tuple[str, ...]) -> Box:
        self._value_counts[box_id] = len(member.output_names)
        types = _return_types(member.function, len(member.output_names))
        return Box(
            box_id,
            "node",
            member.name,
            tuple(map(Value, member.output_names, types)),
            _node_settings(member),
            _doc(member.function),
            _signature(member),
            (*path, member.name),
        )

    def _collapsed_box(self, box_id: str, member: NestedPipeline, path: tuple[str, ...]) -> Box:
        self._value_counts[box_id] = len(member.output_names)
        types = _output_types(member.pipeline)
        values = tuple(
            Value(outer, f"list[{types[inner]}]" if member.map_over and types[inner] else types[inner])
            for inner, outer in member.results
        )
        remarks = (*_map_remarks(member), *_pipeline_settings(member.pipeline))
        return Box(box_id, "pipeline", member.name, values, remarks, path=(*path, member.name))

    def _connect(
        self,
        arguments: Sequence[tuple[str, str]],
        sources: dict[str, _Source],
        target: str,
        values: dict[str, Value],
        pipeline: Any,
    ) -> None:
        for parameter, name in arguments:
            if name in pipeline.bound and name not in sources:
                continue
            source = sources.get(name, _Source(name, is_input=True))
            if not source.is_input:
                self._connections.append((source.name, name, target))
                continue
            value = values.get(parameter, Value(parameter))
            depth = source.map_depth
            hint = "list[" * depth + value.type + "]" * depth if value.type else ""
            default = "" if depth else value.default
            self._input_uses.setdefault(source.name, []).append((target, Value(source.name, hint, default)))

    def input_boxes(self, pipeline: Any) -> list[Box]:
        """Return the boxes of the inputs. Inputs that only one node takes share a box if they are many."""
        groups: dict[tuple[str, ...], list[Value]] = {}
        for name, uses in self._input_uses.items():
            targets = tuple(dict.fromkeys(target for target, _ in uses))
            types = {value.type for _, value in uses if value.type}
            required = any(not value.default for _, value in uses)
            default = "" if required else uses[0][1].default
            value = Value(name, types.pop() if len(types) == 1 else "", default)
            groups.setdefault(targets, []).append(value)
        order = {name: position for position, name in enumerate(pipeline.input_names)}
        boxes = []
        numbers = count()
        for targets, values in groups.items():
            values.sort(key=lambda value: order.get(value.name, len(order)))
            share_box = len(targets) == 1 and len(values) >= self._min_group_size
            for group in [values] if share_box else [[value] for value in values]:
                box_id = f"i{next(numbers)}"
                boxes.append(Box(box_id, "input", values=tuple(group)))
                self._value_counts[box_id] = 1
                self._connections += [(box_id, group[0].name, target) for target in targets]
        return boxes

    def arrows(self) -> list[Arrow]:
        """Return the arrows, one for each pair of boxes."""
        names_by_pair: dict[tuple[str, str], list[str]] = {}
        for source, name, target in self._connections:
            names = names_by_pair.setdefault((source, target), [])
            if name not in names:
                names.append(name)
        return [
            Arrow(source, target, tuple(names) if len(names) < self._value_counts[source] else ())
            for (source, target), names in names_by_pair.items()
        ]


# ---------------------------------------------------------------------------------- remarks in boxes


def _map_remarks(member: NestedPipeline) -> tuple[str, ...]:
    if not member.map_over:
        return ()
    product = ", every combination" if len(member.map_over) > 1 and member.map_mode == "product" else ""
    errors = ("errors are results",) if member.on_error == "return" else ()
    return (f"for each of {', '.join(member.map_over)}{product}", *errors)


def _pipeline_settings(pipeline: Any) -> tuple[str, ...]:
    """Return the settings that a pipeline has itself; those that it inherits are not shown."""
    remarks = []
    if pipeline.engine is not None:
        remarks.append(f"engine: {short(pipeline.engine, 60)}")
    if pipeline.cache is not INHERIT:
        remarks.append("cache: off" if pipeline.cache is None else f"cache: {short(pipeline.cache, 60)}")
    if pipeline.bound:
        bound = ", ".join(f"{name}={short(value, 20)}" for name, value in pipeline.bound.items())
        remarks.append(f"bound: {bound}")
    return tuple(remarks)


def _node_settings(member: Any) -> tuple[str, ...]:
    remarks = []
    if not member.cache:
        remarks.append("not cached")
    if member.retries:
        remarks.append(f"up to {member.retries} retr{'y' if member.retries == 1 else 'ies'}")
    if member.timeout is not None:
        remarks.append(f"at most {member.timeout:g} s")
    if member.batch is not None:
        remarks.append("has a batch function")
    remarks += [f"{amount:g} {name}" for name, amount in member.resources.demand.items()]
    return tuple(remarks)


# ------------------------------------------------------------------------------- types and defaults


def _parameters(member: Any) -> dict[str, Value]:
    """Return the parameters of a node with their types and defaults."""
    hints = _hints(member.function)
    found = {}
    for name, parameter in inspect.signature(member.function).parameters.items():
        empty = parameter.default is inspect.Parameter.empty
        default = "" if empty else short(parameter.default, MAX_LABEL_LENGTH)
        found[name] = Value(name, _type_name(hints.get(name, parameter.annotation)), default)
    return found


def _pipeline_inputs(pipeline: Any) -> dict[str, Value]:
    """Return the inputs of a pipeline with the types and defaults of its nodes."""
    found: dict[str, Value] = {}
    for member in pipeline.execution_order:
        is_nested = isinstance(member, NestedPipeline)
        values = _nested_inputs(member) if is_nested else _parameters(member)
        for parameter, name in member.arguments:
            value = values.get(parameter, Value(parameter))
            default = value.default if name in pipeline.optional else ""
            found.setdefault(name, Value(name, value.type, default))
    return found


def _nested_inputs(member: NestedPipeline) -> dict[str, Value]:
    """Return the inputs of a nested pipeline by their inner names; those that are mapped over are lists."""
    found = _pipeline_inputs(member.pipeline)
    for name, outer in member.arguments:
        if outer in member.map_over and name in found:
            hint = found[name].type
            found[name] = Value(name, f"list[{hint}]" if hint else "")
    return found


def _output_types(pipeline: Any) -> dict[str, str]:
    """Return the types of the outputs of a pipeline."""
    found: dict[str, str] = {}
    for member in pipeline.execution_order:
        if isinstance(member, NestedPipeline):
            inner = _output_types(member.pipeline)
            for name, outer in member.results:
                found[outer] = f"list[{inner[name]}]" if member.map_over and inner[name] else inner[name]
        else:
            types = _return_types(member.function, len(member.output_names))
            found |= dict(zip(member.output_names, types, strict=True))
    return found


def _return_types(function: Any, outputs: int) -> list[str]:
    """Return the type of each output, from the return type of a function."""
    hint = _hints(function).get("return", inspect.Parameter.empty)
    if outputs == 1:
        return [_type_name(hint)]
    parts = typing.get_args(hint)
    if typing.get_origin(hint) is not tuple or len(parts) != outputs or ... in parts:
        return [""] * outputs
    return list(map(_type_name, parts))


def _hints(function: Any) -> dict[str, Any]:
    called = inspect.unwrap(getattr(function, "func", function))
    if not inspect.isroutine(called) and not inspect.isclass(called):
        called = type(called).__call__
    try:
        return typing.get_type_hints(called)
    except Exception:
        # A hint may be a text that refers to names which cannot be resolved; it is shown as it is.
        return dict(getattr(called, "__annotations__", {}))


def _type_name(hint: Any) -> str:
    """Return a type hint as short text."""
    if hint is inspect.Parameter.empty or hint is None:
        return ""
    if isinstance(hint, str):
        text = hint
    elif hint is type(None):
        text = "None"
    elif isinstance(hint, type) and not typing.get_args(hint):
        text = hint.__qualname__.rpartition(".")[2]
    else:
        text = inspect.formatannotation(hint).replace("typing.", "").replace("collections.abc.", "")
    return text if len(text) <= MAX_LABEL_LENGTH else text[: MAX_LABEL_LENGTH - 1] + "…"


def _signature(member: Any) -> str:
    parameters = []
    for value in _parameters(member).values():
        hint = f": {value.type}" if value.type else ""
        equals = " = " if hint else "="
        default = f"{equals}{value.default}" if value.default else ""
        parameters.append(f"{value.name}{hint}{default}")
    returned = _type_name(_hints(member.function).get("return", inspect.Parameter.empty))
    return f"{member.name}({', '.join(parameters)})" + (f" -> {returned}" if returned else "")


def _doc(function: Any) -> str:
    """Return the first paragraph of a docstring; that of a callable object describes its class."""
    if not inspect.isroutine(function):
        return ""
    return (inspect.getdoc(function) or "").partition("\n\n")[0]
