"""A diagram in the language of Graphviz."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any, Final

from hypernodes.visualization.run_overlay import fill_colour

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hypernodes.visualization.diagram import Box, Diagram, Value

_FONT: Final = "Helvetica,Arial,sans-serif"
LIGHT: Final = {
    "text": "#1f2933",
    "faint": "#5b6672",
    "arrow": "#7a8594",
    "failed": "#c0392b",
    "input": ("#f3f4f6", "#9aa4b2"),
    "node": ("#e6effd", "#3f73c8"),
    "pipeline": ("#fdf1dc", "#bf8520"),
    "group": ("#fdf8ee", "#d9b46a"),
}
DARK: Final = {
    "text": "#e6e9ee",
    "faint": "#a3adba",
    "arrow": "#8b97a6",
    "failed": "#ff7b6b",
    "input": ("#262c36", "#6b7685"),
    "node": ("#1c3050", "#6c9bf0"),
    "pipeline": ("#3b2f17", "#dba94c"),
    "group": ("#1f1d18", "#7d6838"),
}
_LEGEND: Final = (("input", "input: type = default"), ("node", "function → output"), ("pipeline", "pipeline"))


def dot(
    diagram: Diagram,
    *,
    orient: str = "TB",
    show_types: bool = True,
    show_legend: bool = False,
    colours: dict[str, Any] = LIGHT,
) -> str:
    """Return a diagram as a Graphviz source.

    >>> from hypernodes import Pipeline, node
    >>> from hypernodes.visualization.diagram import build_diagram
    >>> source = dot(build_diagram(Pipeline([node(abs, output_name="size")])))
    >>> source.splitlines()[0], '"i0" -> "0"' in source
    ('digraph "pipeline-size" {', True)
    """
    text = colours["text"]
    lines = [
        f"digraph {_quoted(diagram.name)} {{",
        f'  graph [rankdir={orient} bgcolor="transparent" nodesep=0.3 ranksep=0.45 pad=0.15 tooltip=" "]',
        '  node [shape=box style="filled,rounded" margin="0.12,0.06" penwidth=1.2 height=0.3]',
        f'  edge [color="{colours["arrow"]}" arrowsize=0.7 penwidth=1.1]',
        f'  graph [fontname="{_FONT}" fontsize=11 fontcolor="{text}"]',
        f'  node [fontname="{_FONT}" fontsize=11 fontcolor="{text}"]',
        f'  edge [fontname="{_FONT}" fontsize=9 fontcolor="{colours["faint"]}"]',
    ]
    for box in diagram.boxes:
        lines += _lines(box, "  ", colours, show_types=show_types)
    for arrow in diagram.arrows:
        label = f" [label={_quoted(' ' + ', '.join(arrow.names))}]" if arrow.names else ""
        lines.append(f"  {_quoted(arrow.source)} -> {_quoted(arrow.target)}{label}")
    if show_legend:
        lines += _legend(colours)
    return "\n".join([*lines, "}", ""])


def _lines(box: Box, indent: str, colours: dict[str, Any], *, show_types: bool) -> Iterator[str]:
    fill, line = colours[box.kind]
    fill = fill_colour(box, fill, dark=colours is DARK)
    line = colours["failed"] if box.failed else line
    attributes = f'class="{box.kind}" fillcolor="{fill}" color="{line}" tooltip={_quoted(_tooltip(box))}'
    if box.kind == "group":
        yield f"{indent}subgraph {_quoted('cluster_' + box.id)} {{"
        rows = [_bold(box.name), *(_small(remark, colours) for remark in box.remarks)]
        label = _table(rows, align="left")
        yield f'{indent}  graph [{attributes} style="filled,rounded" penwidth=1.2 labeljust=l label={label}]'
        for inner in box.boxes:
            yield from _lines(inner, indent + "  ", colours, show_types=show_types)
        yield f"{indent}}}"
        return
    values = [_value(value, colours, show_types=show_types) for value in box.values]
    if box.kind != "input":
        values = [f'<font color="{colours["faint"]}">→</font> {value}' for value in values]
        values = [_bold(box.name), *values, *(_small(remark, colours) for remark in box.remarks)]
    border = "" if box.kind != "pipeline" else " peripheries=2"
    yield f"{indent}{_quoted(box.id)} [{attributes}{border} label={_table(values)}]"


def _legend(colours: dict[str, Any]) -> Iterator[str]:
    yield '  subgraph "cluster_legend" {'
    yield f'    graph [class="legend" label="" color="{colours["arrow"]}" style="rounded" penwidth=0.8]'
    for kind, description in _LEGEND:
        fill, line = colours[kind]
        border = " peripheries=2" if kind == "pipeline" else ""
        yield (
            f'    "legend {kind}" [class="{kind}" fillcolor="{fill}" color="{line}" fontsize=9 '
            f"label={_quoted(description)}{border}]"
        )
    yield "  }"


def _tooltip(box: Box) -> str:
    parts = [box.signature, box.doc] if box.kind != "input" else [value.name for value in box.values]
    return "\n".join(part for part in parts if part) or box.name


def _value(value: Value, colours: dict[str, Any], *, show_types: bool) -> str:
    text = _text(value.name)
    if value.type and show_types:
        text += f'<font color="{colours["faint"]}">: {_text(value.type)}</font>'
    if value.default:
        text += f'<font color="{colours["faint"]}"> = {_text(value.default)}</font>'
    return text


def _table(rows: list[str], *, align: str = "center") -> str:
    cells = "".join(f'<tr><td align="{align}">{row}</td></tr>' for row in rows)
    return f'<<table border="0" cellborder="0" cellspacing="0" cellpadding="1">{cells}</table>>'


def _bold(text: str) -> str:
    return f"<b>{_text(text)}</b>"


def _small(text: str, colours: dict[str, Any]) -> str:
    return f'<font point-size="9" color="{colours["faint"]}">{_text(text)}</font>'


def _text(text: str) -> str:
    return escape("".join(letter if letter.isprintable() else " " for letter in text), quote=False) or " "


def _quoted(text: str) -> str:
    kept = "".join(letter if letter.isprintable() or letter == "\n" else " " for letter in text)
    return '"' + kept.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
