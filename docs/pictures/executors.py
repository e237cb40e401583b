"""Draws docs/pictures/executors.svg: where items and nodes of a map run (`make docs-pictures`)."""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).parent
WIDTH, HEIGHT = 440, 236  # of one of the four panels
STYLE = """
text { font: 13px Helvetica, Arial, sans-serif; fill: #1f2933; }
.title { font-weight: bold; font-size: 15px; }
.faint { fill: #5b6672; font-size: 12px; }
.place { fill: #f3f4f6; stroke: #9aa4b2; }
.item { fill: #fdf1dc; stroke: #bf8520; }
.node { fill: #e6effd; stroke: #3f73c8; }
.threads { fill: none; stroke: #3f73c8; stroke-dasharray: 3 3; }
.arrow { stroke: #7a8594; stroke-width: 1.4; fill: none; marker-end: url(#head); }
#head path { fill: #7a8594; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6e9ee; }
  .faint { fill: #a3adba; }
  .place { fill: #262c36; stroke: #6b7685; }
  .item { fill: #3b2f17; stroke: #dba94c; }
  .node, .threads { fill: #1c3050; stroke: #6c9bf0; }
  .threads { fill: none; }
  .arrow { stroke: #8b97a6; }
  #head path { fill: #8b97a6; }
}
"""


def box(kind: str, left: int, top: int, width: int, height: int, label: str = "") -> str:
    """Return a box with a label in its upper left corner."""
    drawn = f'<rect class="{kind}" x="{left}" y="{top}" width="{width}" height="{height}" rx="6"/>'
    return drawn + (f'<text class="faint" x="{left + 8}" y="{top + 16}">{label}</text>' if label else "")


def node(left: int, top: int, label: str, width: int = 26) -> str:
    """Return the box of one call of a node."""
    text = f'<text x="{left + width / 2}" y="{top + 16}" text-anchor="middle">{label}</text>'
    return box("node", left, top, width, 22) + text


def item(left: int, top: int, number: int, *, threads: bool = False, nodes: bool = True) -> str:
    """Return the box of an item, with the nodes a and b that run where the item is."""
    drawn = box("item", left, top, 134, 34)
    drawn += f'<text x="{left + 10}" y="{top + 22}">item {number}</text>'
    if nodes:
        drawn += node(left + 66, top + 6, "a") + node(left + 98, top + 6, "b")
    if threads:
        drawn += box("threads", left + 61, top + 2, 68, 30)
    return drawn


def arrow(left: int, top: int, right: int, bottom: int, label: str) -> str:
    """Return an arrow with a label above it."""
    middle = (left + right) // 2
    line = f'<path class="arrow" d="M{left} {top} L{right} {bottom}"/>'
    return f'{line}<text class="faint" x="{middle}" y="{top - 8}" text-anchor="middle">{label}</text>'


def panel(column: int, row: int, title: str, condition: str, content: str) -> str:
    """Return one of the four panels, with its title."""
    head = (
        f'<text class="title" x="0" y="16">{title}</text><text class="faint" x="0" y="36">{condition}</text>'
    )
    place = f"translate({column * (WIDTH + 30) + 16} {row * (HEIGHT + 16) + 16})"
    return f'<g transform="{place}">{head}{content}</g>'


def workers(label: str, first: str, second: str) -> str:
    """Return two workers, with what runs in each."""
    drawn = "".join(box("place", 260, top, 166, 76, f"worker of {label}") for top in (50, 136))
    return f"{drawn}{first}{second}"


def draw(path: Path) -> None:
    """Write the picture."""
    driver = box("place", 0, 50, 170, 162, "driver")
    loop = driver + item(18, 76, 0, nodes=False) + item(18, 118, 1, nodes=False)
    later = '<text class="faint" x="18" y="176">one item after the other</text>'
    calls = [node(276, top, label, 80) for top, label in ((84, "a, item 0"), (170, "b, item 0"))]
    spread = [node(276, top, label, 80) for top, label in ((84, "a, item 1"), (170, "b, item 0"))]
    chunks = '<text class="faint" x="12" y="136">sends chunks of items</text>'
    on_workers = [item(276, 84, 0), item(276, 170, 1)]
    on_threads = [item(276, 84, 0, threads=True), item(276, 170, 1, threads=True)]
    both = '<text class="faint" x="18" y="176">several items at a time</text>'
    panels = (
        panel(
            0,
            0,
            "A. Plain loop",
            "map_executor: 'sequential'",
            loop + later + workers("node_executor", *calls) + arrow(176, 131, 254, 131, "calls"),
        ),
        panel(
            1,
            0,
            "B. Items on workers",
            "node_executor: 'sequential', or the same object",
            driver + chunks + workers("map_executor", *on_workers) + arrow(176, 131, 254, 131, "items"),
        ),
        panel(
            0,
            1,
            "C. Items on workers with threads",
            "map_executor: processes; node_executor: 'async', 'threaded'",
            driver + chunks + workers("map_executor", *on_threads) + arrow(176, 131, 254, 131, "items"),
        ),
        panel(
            1,
            1,
            "D. Items in the driver",
            "all other combinations",
            loop + both + workers("node_executor", *spread) + arrow(176, 131, 254, 131, "calls"),
        ),
    )
    width, height = 2 * WIDTH + 62, 2 * HEIGHT + 48
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}">\n<style>{STYLE}</style>\n'
        '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" '
        'orient="auto"><path d="M0 0 L10 5 L0 10 z"/></marker></defs>\n' + "\n".join(panels) + "\n</svg>\n",
        encoding="utf-8",
    )


if __name__ == "__main__":
    draw(HERE / "executors.svg")
