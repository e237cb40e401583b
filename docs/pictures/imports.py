"""Draws docs/pictures/imports.svg: which package imports which, by the code (`make docs-pictures`)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import grimp
import networkx as nx

HERE = Path(__file__).parent
OPENED = {"hypernodes.execution"}  # packages whose parts are boxes of their own
LEFT_OUT = {"hypernodes", "hypernodes.__main__"}
DARK = (
    "@media (prefers-color-scheme: dark) { text { fill: #e6e9ee } path[stroke=black] { stroke: #6b7685 } "
    '[fill="#f4f6f8"] { fill: #262c36 } [fill="#e3eefc"] { fill: #1c3050 } }'
)


def box_of(module: str) -> str:
    """Return the box that a module is drawn in: its package, or a part of an opened one."""
    parts = module.split(".")
    depth = 3 if ".".join(parts[:2]) in OPENED and len(parts) > 2 else 2
    return ".".join(parts[:depth])


def imports() -> nx.DiGraph:
    """Return the boxes, and how many imports go from one to another, type-only ones included."""
    modules = grimp.build_graph("hypernodes")
    counted: Counter[tuple[str, str]] = Counter()
    for module in modules.modules - LEFT_OUT:
        for imported in modules.find_modules_directly_imported_by(module) - LEFT_OUT:
            if box_of(module) != box_of(imported):
                counted[box_of(module), box_of(imported)] += 1
    graph = nx.DiGraph()
    for (start, end), number in counted.items():
        graph.add_edge(start, end, imports=number)
    return graph


def draw(path: Path) -> None:
    """Draw the boxes from the top layer down; an arrow that others imply is left out."""
    import pygraphviz

    graph = imports()
    picture = pygraphviz.AGraph(
        directed=True, rankdir="TB", nodesep="0.25", ranksep="0.45", bgcolor="transparent"
    )
    picture.node_attr.update(shape="box", style="rounded,filled", fillcolor="#f4f6f8", fontname="Helvetica")
    picture.edge_attr.update(color="#8895a5", arrowsize="0.7")
    for name in sorted(graph):
        short = name.removeprefix("hypernodes.")
        is_inside = short.startswith("execution.")
        picture.add_node(name, label=short, fillcolor="#e3eefc" if is_inside else "#f4f6f8")
    for start, end in sorted(nx.transitive_reduction(graph).edges):
        picture.add_edge(start, end)
    drawn = picture.draw(prog="dot", format="svg").decode()
    path.write_text(drawn.replace("<g ", f"<style>{DARK}</style>\n<g ", 1), encoding="utf-8")


if __name__ == "__main__":
    draw(HERE / "imports.svg")
