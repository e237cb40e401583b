"""Which node feeds which: checked once, when the pipeline is made."""

from __future__ import annotations

from dataclasses import dataclass
from graphlib import CycleError as _GraphlibCycleError
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, TypeAlias

from hypernodes.exceptions import CycleError, DuplicateOutputError
from hypernodes.nested import NestedPipeline
from hypernodes.node import Node

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Member: TypeAlias = Node | NestedPipeline


@dataclass(frozen=True, slots=True)
class Graph:
    """The members of a pipeline in an order in which each comes after what it needs.

    Attributes:
        order: The members; those that do not depend on each other stand as they were given.
        producers: The member that makes each output.
        input_names: What must or may come from outside, in the order of use.
        optional: Those inputs that every member which takes them can do without.
        output_names: Everything that is made, in order.
    """

    order: tuple[Member, ...]
    producers: Mapping[str, Member]
    input_names: tuple[str, ...]
    optional: frozenset[str]
    output_names: tuple[str, ...]


def build_graph(members: Iterable[Member], pipeline_id: str) -> Graph:
    """Wire members by name.

    Raises:
        DuplicateOutputError: Two members make the same output.
        CycleError: Members wait for each other; the message shows the round.
    """
    members = tuple(members)
    producers: dict[str, Member] = {}
    for member in members:
        for name in member.output_names:
            if (other := producers.get(name)) is not None:
                raise DuplicateOutputError(
                    f"pipeline {pipeline_id!r}: output {name!r} is made twice, by {other!r} and by "
                    f"{member!r}. Give one of them another name with rename(outputs=...) or output_mapping."
                )
            producers[name] = member

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
        round_trip = " -> ".join(members[index].name for index in error.args[1])
        raise CycleError(
            f"pipeline {pipeline_id!r}: nodes wait for each other: {round_trip}. "
            f"Rename an input or output so that the round is broken."
        ) from None
    order: list[Member] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        order.extend(members[index] for index in ready)
        sorter.done(*ready)

    inputs = tuple(
        dict.fromkeys(name for member in order for name in member.input_names if name not in producers)
    )
    required = {name for member in order for name in member.input_names if name not in member.optional}
    return Graph(
        order=tuple(order),
        producers=producers,
        input_names=inputs,
        optional=frozenset(inputs) - required,
        output_names=tuple(name for member in order for name in member.output_names),
    )
