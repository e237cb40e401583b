"""The graph of a pipeline: its nodes, connected by the names of their inputs and outputs."""

from __future__ import annotations

from dataclasses import dataclass
from graphlib import CycleError as _GraphlibCycleError
from graphlib import TopologicalSorter
from itertools import count
from typing import TYPE_CHECKING, Any, TypeAlias

from hypernodes.exceptions import CycleError, DuplicateOutputError, listing
from hypernodes.nested import NestedPipeline
from hypernodes.node import Node

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    import networkx as nx

Member: TypeAlias = Node[..., Any] | NestedPipeline


@dataclass(frozen=True, slots=True)
class Graph:
    """The members of a pipeline, sorted so that each member comes after the members whose outputs it takes.

    Attributes:
        order: The members. Members that do not depend on each other keep the order in which they were given.
        producers: The member that produces each output.
        input_names: The inputs that no member produces, in the order of their first use.
        optional: The inputs that have a default in every member that takes them.
        output_names: The outputs of all members, in order.
    """

    order: tuple[Member, ...]
    producers: Mapping[str, Member]
    input_names: tuple[str, ...]
    optional: frozenset[str]
    output_names: tuple[str, ...]


def build_graph(members: Iterable[Member], pipeline_id: str) -> Graph:
    """Connect the members of a pipeline by name.

    Raises:
        DuplicateOutputError: Two members produce an output of the same name.
        CycleError: Members depend on each other; the message shows the cycle.
    """
    members = tuple(members)
    producers: dict[str, Member] = {}
    for member in members:
        for name in member.output_names:
            if (other := producers.get(name)) is not None:
                raise DuplicateOutputError(
                    f"pipeline {pipeline_id!r}: output {name!r} is produced twice, by {other!r} and by "
                    f"{member!r}. {_remedy(name, producers, member)}"
                )
            producers[name] = member
    order = _sorted(members, producers, pipeline_id)
    input_names = tuple(
        dict.fromkeys(name for member in order for name in member.input_names if name not in producers)
    )
    required = {name for member in order for name in member.input_names if name not in member.optional}
    return Graph(
        order=order,
        producers=producers,
        input_names=input_names,
        optional=frozenset(input_names) - required,
        output_names=tuple(name for member in order for name in member.output_names),
    )


def _remedy(name: str, taken: Mapping[str, Member], member: Member) -> str:
    """Say how an output gets another name."""
    free = next(new for new in (f"{name}_{number}" for number in count(2)) if new not in taken)
    if isinstance(member, Node):
        return f"Give one of them another name: rename(outputs={{{name!r}: {free!r}}})."
    inner = next(inner for inner, outer in member.results if outer == name)
    return (
        f"Give one of them another name where it is nested: as_node(output_mapping={{{inner!r}: {free!r}}}). "
        f"Under a name that no node takes, an output of a nested pipeline is hidden from the others."
    )


def _sorted(
    members: tuple[Member, ...], producers: Mapping[str, Member], pipeline_id: str
) -> tuple[Member, ...]:
    """Sort members topologically; members that are ready together keep the order in which they were given."""
    position = {id(member): index for index, member in enumerate(members)}
    sorter = TopologicalSorter(
        {
            index: [position[id(producers[name])] for name in member.input_names if name in producers]
            for index, member in enumerate(members)
        }
    )
    try:
        sorter.prepare()
    except _GraphlibCycleError as error:
        names = [member.name for member in members]
        # A name that several members have, as all lambdas have one, does not tell which is meant.
        cycle = " -> ".join(
            f"{name} (which makes {listing(members[index].output_names)})"
            if (name := names[index]) == "<lambda>" or names.count(name) > 1
            else name
            for index in error.args[1]
        )
        raise CycleError(
            f"pipeline {pipeline_id!r}: its nodes form a cycle: {cycle}. Rename an input or an output, so "
            f"that no node depends on its own output."
        ) from None
    order: list[Member] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        order.extend(members[index] for index in ready)
        sorter.done(*ready)
    return tuple(order)


def to_networkx(graph: Graph, bound: Collection[str]) -> nx.DiGraph:
    """Return a graph as a networkx DiGraph.

    Args:
        graph: The graph.
        bound: The inputs with a fixed value, which are left out.

    Returns:
        A DiGraph of inputs (their names, with ``kind="input"`` and ``optional``) and members (with ``kind``
        ``"node"`` or ``"pipeline"``). Each edge has the ``name`` of its value.
    """
    import networkx as nx

    drawn = nx.DiGraph()
    for name in graph.input_names:
        if name not in bound:
            drawn.add_node(name, kind="input", optional=name in graph.optional)
    for member in graph.order:
        drawn.add_node(member, kind="node" if isinstance(member, Node) else "pipeline")
        for name in member.input_names:
            if name not in bound:
                drawn.add_edge(graph.producers.get(name, name), member, name=name)
    return drawn
