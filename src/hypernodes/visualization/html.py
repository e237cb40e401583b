"""A picture as one page that needs nothing else: pipelines open and close by a click."""

from __future__ import annotations

import json
from dataclasses import asdict
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hypernodes.visualization.scheme import Scheme
    from hypernodes.visualization.svg import Theme

_BUTTONS = (
    ("all", "open all"),
    ("none", "close all"),
    ("in", "+"),
    ("out", "−"),  # noqa: RUF001  the sign that is as wide as the plus
    ("fit", "fit"),
    ("theme", "light / dark"),
)


def html(
    scheme: Scheme,
    *,
    orient: str = "TB",
    show_types: bool = True,
    show_legend: bool = False,
    depth: int | None = 1,
    theme: Theme = "auto",
) -> str:
    """Return the page.

    Args:
        scheme: What it shows, with all levels.
        orient: ``"TB"`` or ``"LR"``.
        show_types: Whether types are shown.
        show_legend: Whether it says what its colours mean.
        depth: How many levels are open at first.
        theme: ``"auto"`` follows the system.
    """
    groups = [box.id for outer in scheme.boxes for box in outer.tree() if box.kind == "group"]
    opened = [name for name in groups if depth is None or name.count(".") + 1 < depth]
    data: dict[str, Any] = {
        "boxes": [asdict(box) for box in scheme.boxes],
        "arrows": [asdict(arrow) for arrow in scheme.arrows],
        "open": opened,
        "orient": orient,
        "types": show_types,
    }
    # Nothing in a name may end the script that it stands in.
    text = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
    shown = f' data-theme="{theme}"' if theme != "auto" else ""
    buttons = "".join(
        f'<button type="button" data-action="{action}">{label}</button>' for action, label in _BUTTONS
    )
    legend = " grey: inputs, blue: functions → outputs, yellow: pipelines (click)" if show_legend else ""
    told = escape(" · ".join(scheme.remarks) + legend)
    return (
        f'<!doctype html>\n<html lang="en"{shown}>\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n'
        f"<title>{escape(scheme.name)}</title>\n<style>\n{_part('page.css')}</style>\n</head>\n<body>\n"
        f"<header><h1>{escape(scheme.name)}</h1><small>{told}</small>{buttons}</header>\n"
        f'<svg id="picture" role="img" aria-label="pipeline {escape(scheme.name)}"><defs>'
        f'<marker id="head" viewBox="0 0 10 10" refX="9" refY="5" '
        f'markerUnits="userSpaceOnUse" markerWidth="10" markerHeight="10" '
        f'orient="auto-start-reverse"><path d="M0,1 L10,5 L0,9 z"/></marker></defs></svg>\n'
        f'<div id="tip" role="tooltip" hidden></div>\n'
        f'<script type="application/json" id="scheme">{text}</script>\n'
        f"<script>{_part('dagre.min.js')}</script>\n<script>\n{_part('page.js')}</script>\n</body>\n</html>\n"
    )


def _part(name: str) -> str:
    return files("hypernodes.visualization").joinpath("page", name).read_text(encoding="utf-8")
