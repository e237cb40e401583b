"""A pipeline as an HTML table, for notebooks."""

from __future__ import annotations

from html import escape
from typing import Any


def pipeline_table(pipeline: Any) -> str:
    """Return an HTML table of the nodes of a pipeline with their inputs and outputs.

    >>> from hypernodes import Pipeline, node
    >>> "<td>abs</td><td>x</td><td>size</td>" in pipeline_table(Pipeline([node(abs, output_name="size")]))
    True
    """
    rows = "".join(
        f"<tr><td>{escape(member.name)}</td><td>{escape(', '.join(member.input_names))}</td>"
        f"<td>{escape(', '.join(member.output_names))}</td></tr>"
        for member in pipeline.execution_order
    )
    return (
        f"<table><caption>{escape(pipeline.pipeline_id)}</caption>"
        f"<tr><th>node</th><th>inputs</th><th>outputs</th></tr>{rows}</table>"
    )
