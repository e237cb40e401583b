"""What a picture of a pipeline shows: boxes, boxes in boxes, and arrows. No colours, no places."""

from __future__ import annotations

import inspect
import typing
from dataclasses import dataclass, field, replace
from itertools import count
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from hypernodes.config import INHERIT
from hypernodes.nested import NestedPipeline
from hypernodes.text import short

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Kind: TypeAlias = Literal["input", "node", "pipeline", "group"]

_LONGEST: Final = 40  # characters of a type or a value


@dataclass(frozen=True, slots=True)
class Value:
    """An input or an output.

    Attributes:
        name: Its name.
        type: Its type, as the function says it; empty where it says none.
        default: The value that it has if none is given; empty where there is none.
    """

    name: str
    type: str = ""
    default: str = ""


@dataclass(slots=True)
class Box:
    """An input or several, a node, or a nested pipeline: closed, or open with its own boxes inside.

    Attributes:
        id: A name that no other box has, the same for the same place in the same pipeline.
        kind: ``"input"``, ``"node"``, ``"pipeline"`` (closed) or ``"group"`` (open).
        name: What it is called; empty for inputs.
        values: The inputs, or what a node or a pipeline makes.
        remarks: What else is to be known: the engine, the cache, what is mapped over.
        doc: The first paragraph of the docstring.
        signature: The function's signature.
        path: The pipelines around it and its name, as events have them.
        heat: How much of a run it took, from 0 to 4, if a run is shown.
        failed: Whether it failed in that run.
        boxes: What is inside, if it is open.
    """

    id: str
    kind: Kind
    name: str = ""
    values: tuple[Value, ...] = ()
    remarks: tuple[str, ...] = ()
    doc: str = ""
    signature: str = ""
    path: tuple[str, ...] = ()
    heat: int | None = None
    failed: bool = False
    boxes: list[Box] = field(default_factory=list)

    def tree(self) -> Iterator[Box]:
        """Walk this box and all boxes inside."""
        yield self
        for box in self.boxes:
            yield from box.tree()


@dataclass(frozen=True, slots=True)
class Arrow:
    """Values on their way from one box to another.

    Attributes:
        source: The id of the box that has them.
        target: The id of the box that takes them.
        names: Their names, where the source has others, too.
    """

    source: str
    target: str
    names: tuple[str, ...] = ()


@dataclass(slots=True)
class Scheme:
    """All of a picture.

    Attributes:
        name: The pipeline's name.
        remarks: Its engine and its cache, if it names them.
        boxes: The outermost boxes.
        arrows: The arrows between boxes of whatever depth.
    """

    name: str
    remarks: tuple[str, ...]
    boxes: list[Box]
    arrows: list[Arrow]


def scheme(
    pipeline: Any, *, depth: int | None = 1, flatten: bool = False, min_arg_group_size: int = 2
) -> Scheme:
    """Return what a picture shows.

    Args:
        pipeline: The pipeline.
        depth: How many levels are open: 1 is the pipeline's own, ``None`` is all.
        flatten: Whether the nodes of open pipelines stand among the others, without a box around them.
        min_arg_group_size: How many inputs of one node, which no other node takes, share a box.

    Example:
        >>> from hypernodes import Pipeline, node
        >>> shown = scheme(Pipeline([node(pow, output_name="power")]))
        >>> [box.kind for box in shown.boxes], [value.name for value in shown.boxes[0].values]
        (['input', 'node'], ['base', 'exp', 'mod'])
    """
    drawing = _Drawing(depth, min_arg_group_size, flatten=flatten)
    boxes, _ = drawing.members(pipeline, {}, "", (pipeline.pipeline_id,))
    inputs = drawing.inputs(pipeline)
    return Scheme(pipeline.pipeline_id, _settings(pipeline), inputs + boxes, drawing.joined())


def depth_of(pipeline: Any) -> int:
    """Return how many levels a pipeline has: 1 if nothing is nested in it."""
    inner = [depth_of(member.pipeline) for member in pipeline.nodes if isinstance(member, NestedPipeline)]
    return 1 + max(inner, default=0)


class _Drawing:
    def __init__(self, depth: int | None, min_arg_group_size: int, *, flatten: bool) -> None:
        self._depth = depth
        self._least = min_arg_group_size
        self._flatten = flatten
        self._uses: list[tuple[str, str, str]] = []  # source, value, target
        self._taken: dict[str, list[tuple[str, Value]]] = {}  # by input: who takes it, and as what
        self._makes: dict[str, int] = {}  # how many values a box has

    def members(
        self, pipeline: Any, around: dict[str, _Origin], prefix: str, path: tuple[str, ...]
    ) -> tuple[list[Box], dict[str, _Origin]]:
        """Return the boxes of a pipeline's members, and where each value comes from.

        Args:
            pipeline: The pipeline.
            around: Where each value comes from that comes from outside.
            prefix: What the ids of its boxes begin with.
            path: The pipelines around, and its own name.
        """
        boxes: list[Box] = []
        source = dict(around)
        for number, member in enumerate(pipeline.execution_order):
            own = f"{prefix}{number}"
            if not isinstance(member, NestedPipeline):
                boxes.append(self._node(own, member, path))
                self._take(member.arguments, source, own, _parameters(member), pipeline)
                source |= dict.fromkeys(member.output_names, _Origin(own))
            elif self._depth is not None and len(path) >= self._depth:
                boxes.append(self._closed(own, member, path))
                self._take(member.arguments, source, own, _inputs_of_nested(member), pipeline)
                source |= dict.fromkeys(member.output_names, _Origin(own))
            else:
                boxes += self._opened(own, member, source, path)
        return boxes, source

    def _opened(
        self, own: str, member: NestedPipeline, source: dict[str, _Origin], path: tuple[str, ...]
    ) -> list[Box]:
        inside: dict[str, _Origin] = {}
        for name, outer in member.arguments:
            if name not in member.pipeline.bound:
                origin = source.get(outer, _Origin(outer, is_input=True))
                inside[name] = replace(origin, walks=origin.walks + (outer in member.map_over))
        inner, made = self.members(member.pipeline, inside, f"{own}.", (*path, member.name))
        for name, outer in member.results:
            source[outer] = made[name]
        if self._flatten:
            return inner
        group = self._closed(own, member, path)  # whoever closes it sees what it makes
        group.kind, group.boxes = "group", inner
        return [group]

    def _node(self, own: str, member: Any, path: tuple[str, ...]) -> Box:
        self._makes[own] = len(member.output_names)
        types = _returned(member.function, len(member.output_names))
        values = tuple(map(Value, member.output_names, types))
        return Box(
            own,
            "node",
            member.name,
            values,
            _of_node(member),
            _doc(member.function),
            _signature(member),
            (*path, member.name),
        )

    def _closed(self, own: str, member: NestedPipeline, path: tuple[str, ...]) -> Box:
        self._makes[own] = len(member.output_names)
        types = _outputs_of(member.pipeline)
        values = tuple(
            Value(outer, f"list[{types[inner]}]" if member.map_over and types[inner] else types[inner])
            for inner, outer in member.results
        )
        return Box(own, "pipeline", member.name, values, _remarks(member), path=(*path, member.name))

    def _take(
        self,
        arguments: Sequence[tuple[str, str]],
        source: dict[str, _Origin],
        target: str,
        values: dict[str, Value],
        pipeline: Any,
    ) -> None:
        for parameter, name in arguments:
            if name in pipeline.bound and name not in source:
                continue
            origin = source.get(name, _Origin(name, is_input=True))
            value = values.get(parameter, Value(parameter))
            if not origin.is_input:
                self._uses.append((origin.name, name, target))
                continue
            kind = "list[" * origin.walks + value.type + "]" * origin.walks if value.type else ""
            default = "" if origin.walks else value.default
            self._taken.setdefault(origin.name, []).append((target, Value(origin.name, kind, default)))

    def inputs(self, pipeline: Any) -> list[Box]:
        """Return the boxes of the inputs, those of one node together."""
        groups: dict[tuple[str, ...], list[Value]] = {}
        for name, uses in self._taken.items():
            targets = tuple(dict.fromkeys(target for target, _ in uses))
            types = {value.type for _, value in uses if value.type}
            required = any(not value.default for _, value in uses)
            default = "" if required else uses[0][1].default
            value = Value(name, types.pop() if len(types) == 1 else "", default)
            groups.setdefault(targets, []).append(value)
        order = {name: at for at, name in enumerate(pipeline.input_names)}
        boxes = []
        numbers = count()
        for targets, values in groups.items():
            values.sort(key=lambda value: order.get(value.name, len(order)))
            together = len(targets) == 1 and len(values) >= self._least
            for part in [values] if together else [[value] for value in values]:
                own = f"i{next(numbers)}"
                boxes.append(Box(own, "input", values=tuple(part)))
                self._makes[own] = 1
                self._uses += [(own, part[0].name, target) for target in targets]
        return boxes

    def joined(self) -> list[Arrow]:
        """Return the arrows, one for each pair of boxes."""
        between: dict[tuple[str, str], list[str]] = {}
        for source, name, target in self._uses:
            names = between.setdefault((source, target), [])
            if name not in names:
                names.append(name)
        return [
            Arrow(source, target, tuple(names) if len(names) < self._makes[source] else ())
            for (source, target), names in between.items()
        ]


@dataclass(frozen=True, slots=True)
class _Origin:
    """Where a value comes from: a box, or an input of the outermost pipeline, maybe through maps."""

    name: str
    is_input: bool = False
    walks: int = 0


def _remarks(member: NestedPipeline) -> tuple[str, ...]:
    over = f"for each of {', '.join(member.map_over)}" if member.map_over else ""
    product = ", every combination" if len(member.map_over) > 1 and member.map_mode == "product" else ""
    own = _settings(member.pipeline)
    return (*((over + product,) if over else ()), *own)


def _settings(pipeline: Any) -> tuple[str, ...]:
    """Return what a pipeline says of itself; what it leaves out is that of the pipeline around."""
    told = []
    if pipeline.engine is not None:
        told.append(f"engine: {short(pipeline.engine, 60)}")
    if pipeline.cache is not INHERIT:
        told.append("cache: off" if pipeline.cache is None else f"cache: {short(pipeline.cache, 60)}")
    if pipeline.bound:
        told.append(
            "bound: " + ", ".join(f"{name}={short(value, 20)}" for name, value in pipeline.bound.items())
        )
    return tuple(told)


def _of_node(member: Any) -> tuple[str, ...]:
    told = []
    if not member.cache:
        told.append("not cached")
    if member.retries:
        told.append(f"up to {member.retries} retr{'y' if member.retries == 1 else 'ies'}")
    if member.timeout is not None:
        told.append(f"at most {member.timeout:g} s")
    if member.batch is not None:
        told.append("has a batch function")
    told += [f"{amount:g} {name}" for name, amount in member.resources.demand.items()]
    return tuple(told)


# ------------------------------------------------------------------------------- types and defaults


def _parameters(member: Any) -> dict[str, Value]:
    hints = _hints(member.function)
    found = {}
    for name, parameter in inspect.signature(member.function).parameters.items():
        empty = parameter.default is inspect.Parameter.empty
        default = "" if empty else short(parameter.default, _LONGEST)
        found[name] = Value(name, _named(hints.get(name, parameter.annotation)), default)
    return found


def _inputs_of(pipeline: Any) -> dict[str, Value]:
    """Return what a pipeline takes, as its nodes say it."""
    found: dict[str, Value] = {}
    for member in pipeline.execution_order:
        nested = isinstance(member, NestedPipeline)
        values = _inputs_of_nested(member) if nested else _parameters(member)
        for parameter, name in member.arguments:
            value = values.get(parameter, Value(parameter))
            default = value.default if name in pipeline.optional else ""
            found.setdefault(name, Value(name, value.type, default))
    return found


def _inputs_of_nested(member: NestedPipeline) -> dict[str, Value]:
    """Return what a nested pipeline takes, by the names inside; lists of what is mapped over."""
    found = _inputs_of(member.pipeline)
    for name, outer in member.arguments:
        if outer in member.map_over and name in found:
            kind = found[name].type
            found[name] = Value(name, f"list[{kind}]" if kind else "")
    return found


def _outputs_of(pipeline: Any) -> dict[str, str]:
    found: dict[str, str] = {}
    for member in pipeline.execution_order:
        if isinstance(member, NestedPipeline):
            inner = _outputs_of(member.pipeline)
            for name, outer in member.results:
                found[outer] = f"list[{inner[name]}]" if member.map_over and inner[name] else inner[name]
        else:
            found |= dict(
                zip(member.output_names, _returned(member.function, len(member.output_names)), strict=True)
            )
    return found


def _returned(function: Any, outputs: int) -> list[str]:
    hint = _hints(function).get("return", inspect.Parameter.empty)
    if outputs == 1:
        return [_named(hint)]
    parts = typing.get_args(hint)
    if typing.get_origin(hint) is not tuple or len(parts) != outputs or ... in parts:
        return [""] * outputs
    return list(map(_named, parts))


def _hints(function: Any) -> dict[str, Any]:
    called = inspect.unwrap(getattr(function, "func", function))
    if not inspect.isroutine(called) and not inspect.isclass(called):
        called = type(called).__call__
    try:
        return typing.get_type_hints(called)
    except Exception:  # names that do not resolve here
        return dict(getattr(called, "__annotations__", {}))


def _named(hint: Any) -> str:
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
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _signature(member: Any) -> str:
    taken = []
    for value in _parameters(member).values():
        kind = f": {value.type}" if value.type else ""
        default = (
            f" = {value.default}" if kind and value.default else f"={value.default}" if value.default else ""
        )
        taken.append(f"{value.name}{kind}{default}")
    returned = _named(_hints(member.function).get("return", inspect.Parameter.empty))
    return f"{member.name}({', '.join(taken)})" + (f" -> {returned}" if returned else "")


def _doc(documented: Any) -> str:
    if not inspect.isroutine(documented):
        return ""
    return (inspect.getdoc(documented) or "").partition("\n\n")[0]
