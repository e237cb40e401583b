"""A diagram as a self-contained page, in which nested pipelines expand and collapse by a click."""

from __future__ import annotations

import json
from dataclasses import asdict
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hypernodes.visualization.diagram import Diagram
    from hypernodes.visualization.svg import Theme

_BUTTONS = (
    ("all", "open all"),
    ("none", "close all"),
    ("in", "+"),
    ("out", "\N{MINUS SIGN}"),
    ("fit", "fit"),
    ("theme", "light / dark"),
)


def html(
    diagram: Diagram,
    *,
    orient: str = "TB",
    show_types: bool = True,
    show_legend: bool = False,
    depth: int | None = 1,
    theme: Theme = "auto",
) -> str:
    """Return a diagram, with all levels expanded, as an HTML page that shows some of them at first."""
    groups = [box.id for outer in diagram.boxes for box in outer.tree() if box.kind == "group"]
    expanded = [name for name in groups if depth is None or name.count(".") + 1 < depth]
    data: dict[str, Any] = {
        "boxes": [asdict(box) for box in diagram.boxes],
        "arrows": [asdict(arrow) for arrow in diagram.arrows],
        "expanded": expanded,
        "orient": orient,
        "types": show_types,
    }
    # A name that contains "</script>" would end the element that holds the data.
    text = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
    theme_attribute = f' data-theme="{theme}"' if theme != "auto" else ""
    buttons = "".join(
        f'<button type="button" data-action="{action}">{label}</button>' for action, label in _BUTTONS
    )
    legend = " grey: inputs, blue: functions → outputs, yellow: pipelines (click)" if show_legend else ""
    remarks = escape(" · ".join(diagram.remarks) + legend)
    return (
        f'<!doctype html>\n<html lang="en"{theme_attribute}>\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n'
        f"<title>{escape(diagram.name)}</title>\n<style>\n{_part('page.css')}</style>\n</head>\n<body>\n"
        f"<header><h1>{escape(diagram.name)}</h1><small>{remarks}</small>{buttons}</header>\n"
        f'<svg id="picture" role="img" aria-label="pipeline {escape(diagram.name)}"><defs>'
        f'<marker id="head" viewBox="0 0 10 10" refX="9" refY="5" '
        f'markerUnits="userSpaceOnUse" markerWidth="10" markerHeight="10" '
        f'orient="auto-start-reverse"><path d="M0,1 L10,5 L0,9 z"/></marker></defs></svg>\n'
        f'<div id="tip" role="tooltip" hidden></div>\n'
        f'<script type="application/json" id="diagram">{text}</script>\n'
        f"<script>{_part('dagre.min.js')}</script>\n<script>\n{_part('page.js')}</script>\n</body>\n</html>\n"
    )


def _part(name: str) -> str:
    return files("hypernodes.visualization").joinpath("page", name).read_text(encoding="utf-8")
