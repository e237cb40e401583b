"""Which outputs does a run compute if it is asked for none in particular?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypernodes.nested import NestedPipeline

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from hypernodes.graph import Graph


def every_output(graph: Graph, given: Collection[str]) -> tuple[str, ...]:
    """Return every output, less those that only lead up to values that are given.

    Nodes of nested pipelines count one by one, so that it is the same whether nodes are nested or not.
    """
    known = set(given)
    nodes = list(_nodes(graph, None, known))
    users: dict[str, list[int]] = {}
    for index, (inputs, _) in enumerate(nodes):
        for name in inputs:
            users.setdefault(name, []).append(index)
    is_cut = [False] * len(nodes)
    for index in reversed(range(len(nodes))):
        outputs = nodes[index][1]
        if known.isdisjoint(outputs):
            taken_by = [user for name in outputs for user in users.get(name, ())]
            is_cut[index] = bool(taken_by) and all(is_cut[user] for user in taken_by)
        else:
            is_cut[index] = known.issuperset(outputs)
    cut = {name for index, (_, outputs) in enumerate(nodes) if is_cut[index] for name in outputs}
    return tuple(name for name in graph.output_names if name not in cut or name in known)


def _nodes(
    graph: Graph, names: Mapping[str, str] | None, known: set[str]
) -> Iterator[tuple[list[str], list[str]]]:
    """Yield the inputs and outputs of all nodes by their outermost names, and note what pipelines fix."""
    for member in graph.order:
        if isinstance(member, NestedPipeline):
            inner: Any = member.pipeline
            outer = dict((*member.arguments, *member.results))
            if names is not None:
                outer = {name: names[of] for name, of in outer.items() if of in names}
            known.update(outer[name] for name in inner.bound if name in outer)
            yield from _nodes(inner.wiring, outer, known)
        elif names is None:
            yield list(member.input_names), list(member.output_names)
        else:
            # An input that a pipeline fixes has no name outside.
            inputs = [names[name] for name in member.input_names if name in names]
            yield inputs, [names[name] for name in member.output_names]
