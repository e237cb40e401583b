"""A pipeline as a Mermaid flowchart."""

from __future__ import annotations

from html import escape
from itertools import count
from typing import TYPE_CHECKING, Any

from hypernodes.nested import NestedPipeline

if TYPE_CHECKING:
    from collections.abc import Iterator


def mermaid(pipeline: Any) -> str:
    """Return the flowchart's source; nested pipelines are boxes around their nodes.

    Example:
        >>> from hypernodes import Pipeline, node
        >>> print(mermaid(Pipeline([node(abs, output_name="size")])))
        flowchart TD
            n1(["x"])
            n2["abs → size"]
            n1 --> n2
    """
    numbers = count(1)
    lines = ["flowchart TD"]
    source = {}
    for name in pipeline.input_names:
        source[name] = f"n{next(numbers)}"
        lines.append(f'    {source[name]}(["{escape(name)}"])')
    lines += _members(pipeline, source, numbers, "    ")
    return "\n".join(lines)


def _members(pipeline: Any, source: dict[str, str], numbers: Iterator[int], indent: str) -> list[str]:
    boxes, edges = [], []
    for member in pipeline.execution_order:
        number = f"n{next(numbers)}"
        if isinstance(member, NestedPipeline):
            over = f" over {', '.join(member.map_over)}" if member.map_over else ""
            inner = {
                name: source[outer]
                for name, outer in member.arguments
                if outer in source and name not in member.pipeline.bound
            }
            boxes.append(f'{indent}subgraph {number} ["{escape(member.name + over)}"]')
            boxes += _members(member.pipeline, inner, numbers, indent + "    ")
            boxes.append(f"{indent}end")
            for name, outer in member.results:
                source[outer] = inner[name]
            continue
        made = ", ".join(member.output_names)
        boxes.append(f'{indent}{number}["{escape(member.name)} → {escape(made)}"]')
        edges += [f"{indent}{source[name]} --> {number}" for name in member.input_names if name in source]
        source |= dict.fromkeys(member.output_names, number)
    return boxes + edges
