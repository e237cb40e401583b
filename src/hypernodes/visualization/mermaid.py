"""A diagram as a Mermaid flowchart, which GitHub and many notebooks render."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hypernodes.visualization.diagram import Box, Diagram, Value

_SHAPES: Final = {"input": ('(["', '"])'), "node": ('["', '"]'), "pipeline": ('[["', '"]]')}


def mermaid(diagram: Diagram, *, orient: str = "TB", show_types: bool = True) -> str:
    """Return a diagram as the source of a flowchart.

    >>> from hypernodes import Pipeline, node
    >>> from hypernodes.visualization.diagram import build_diagram
    >>> print(mermaid(build_diagram(Pipeline([node(abs, output_name="size")]))))
    flowchart TB
        i0(["x"])
        n0["abs → size"]
        i0 --> n0
    """
    lines = [f"flowchart {orient}"]
    for box in diagram.boxes:
        lines += _lines(box, "    ", show_types=show_types)
    for arrow in diagram.arrows:
        label = f"|{_text(', '.join(arrow.names))}|" if arrow.names else ""
        lines.append(f"    {_id(arrow.source)} -->{label} {_id(arrow.target)}")
    return "\n".join(lines)


def _lines(box: Box, indent: str, *, show_types: bool) -> Iterator[str]:
    if box.kind == "group":
        yield f'{indent}subgraph {_id(box.id)} ["{_text(", ".join((box.name, *box.remarks)))}"]'
        for inner in box.boxes:
            yield from _lines(inner, indent + "    ", show_types=show_types)
        yield f"{indent}end"
        return
    values = "<br/>".join(_text(_described(value, show_types=show_types)) for value in box.values)
    remarks = "".join(f"<br/>{_text(remark)}" for remark in box.remarks)
    before, after = _SHAPES[box.kind]
    label = values if box.kind == "input" else f"{_text(box.name)} → {values}{remarks}"
    yield f"{indent}{_id(box.id)}{before}{label}{after}"


def _described(value: Value, *, show_types: bool) -> str:
    hint = f": {value.type}" if value.type and show_types else ""
    return f"{value.name}{hint}{f' = {value.default}' if value.default else ''}"


def _id(name: str) -> str:
    """Return an id that is not a keyword of Mermaid."""
    return name if name.startswith("i") else "n" + name.replace(".", "_")


def _text(value: Any) -> str:
    # Quotes and backticks would end the label, so that they are written as entities, which Mermaid reads.
    return escape(str(value), quote=False).replace('"', "&quot;").replace("`", "&#96;")
