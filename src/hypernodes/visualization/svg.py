"""A diagram as SVG, rendered by Graphviz, in colours that follow the page."""

from __future__ import annotations

import shutil
import subprocess
import sys
from copy import deepcopy
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, Literal
from xml.etree import ElementTree as ET

from hypernodes.exceptions import ExtraMissingError
from hypernodes.visualization.dot import DARK, LIGHT, dot
from hypernodes.visualization.run_overlay import DARK_FILLS, LIGHT_FILLS

if TYPE_CHECKING:
    from hypernodes.visualization.diagram import Diagram

Theme = Literal["auto", "light", "dark"]

IMAGES: Final = (".png", ".pdf")
"""The suffixes of pictures that are no text."""
IMAGE_DPI: Final = 192
"""Dots per inch of a PNG: twice those of a screen, for dense screens and print."""

_SVG: Final = "http://www.w3.org/2000/svg"
RENDER_TIMEOUT_S: Final = 120
"""Seconds that Graphviz may take; a pipeline of 500 nodes takes a few."""

# The package runs in a process of its own: its fontconfig warns of the font files of newer systems on
# standard error, which a notebook would show in the cell.
_PYGRAPHVIZ_SCRIPT: Final = """
import sys
import pygraphviz
drawn = pygraphviz.AGraph(string=sys.stdin.read()).draw(format=sys.argv[1], prog="dot")
sys.stdout.buffer.write(drawn)
"""


def svg(diagram: Diagram, *, theme: Theme = "auto", **options: Any) -> str:
    """Return a diagram as SVG, with the options of `dot`. The theme "auto" follows the page or system."""
    source = dot(diagram, colours=DARK if theme == "dark" else LIGHT, **options)
    drawn = _titles_on_top(_render(source, "svg").decode())
    if theme == "auto":
        start = drawn.index(">", drawn.index("<svg ")) + 1
        drawn = drawn[:start] + f"\n<style>{_dark_style()}</style>" + drawn[start:]
    return drawn


def image(diagram: Diagram, form: str, *, theme: Theme = "auto", **options: Any) -> bytes:
    """Return a diagram as PNG or PDF, with the options of `dot`. The theme "auto" is the light one."""
    colours = DARK if theme == "dark" else LIGHT
    source = dot(diagram, colours=colours, **options)
    return _render(source.replace("graph [", f"graph [dpi={IMAGE_DPI} ", 1), form)


def _render(source: str, form: str) -> bytes:
    """Render a Graphviz source in a format, with the program ``dot`` or the package that contains it."""
    if (program := shutil.which("dot")) is None and find_spec("pygraphviz") is None:
        raise ExtraMissingError(
            "Graphviz, which renders SVG, PNG and PDF, is not installed: pip install 'hypernodes-ray[viz]', "
            "or install Graphviz itself. visualize(return_type='mermaid') needs neither."
        )
    command = [program, f"-T{form}"] if program else [sys.executable, "-c", _PYGRAPHVIZ_SCRIPT, form]
    done = subprocess.run(  # noqa: S603  the program is fixed, and the source is made by `dot`
        command, input=source.encode(), capture_output=True, timeout=RENDER_TIMEOUT_S, check=True
    )
    return done.stdout


def _titles_on_top(drawn: str) -> str:
    """Move the titles of expanded pipelines above the arrows, which would otherwise cross them."""
    ET.register_namespace("", _SVG)
    ET.register_namespace("xlink", "http://www.w3.org/1999/xlink")
    root = ET.fromstring(drawn)  # noqa: S314  the text is Graphviz's output
    graph = next(root.iterfind(f"{{{_SVG}}}g"))
    titles = ET.Element(f"{{{_SVG}}}g", {"class": "titles"})
    for cluster in graph.iterfind(f"{{{_SVG}}}g"):
        if "cluster" not in cluster.get("class", "").split():
            continue
        shape = cluster.find(f".//{{{_SVG}}}path")
        fill = "none" if shape is None else shape.get("fill", "none")
        for holder in list(cluster.iter()):
            for text in holder.findall(f"{{{_SVG}}}text"):
                holder.remove(text)
                # A copy with a thick outline in the colour of the box covers the arrow behind the text.
                halo = deepcopy(text)
                halo.attrib |= {"stroke": fill, "fill": fill, "stroke-width": "4", "stroke-linejoin": "round"}
                halo.set("aria-hidden", "true")
                titles.extend((halo, text))
    graph.append(titles)
    return ET.tostring(root, encoding="unicode")


def _dark_style() -> str:
    """Return CSS that replaces the light colours of a picture on a dark page."""
    rules = [f"text{{fill:{DARK['text']}}}"]
    for light, dark in ((LIGHT["faint"], DARK["faint"]), (LIGHT["arrow"], DARK["arrow"])):
        rules += [f'[fill="{light}"]{{fill:{dark}}}', f'[stroke="{light}"]{{stroke:{dark}}}']
    for kind in ("input", "node", "pipeline", "group"):
        (fill, line), (dark_fill, dark_line) = LIGHT[kind], DARK[kind]
        rules += [f'[fill="{fill}"]{{fill:{dark_fill}}}', f'[stroke="{line}"]{{stroke:{dark_line}}}']
        rules.append(f'text[stroke="{fill}"]{{stroke:{dark_fill};fill:{dark_fill}}}')
    rules += [
        f'[fill="{light}"]{{fill:{dark}}}'
        for light, dark in zip(LIGHT_FILLS[1:], DARK_FILLS[1:], strict=True)
    ]
    rules.append(f'[stroke="{LIGHT["failed"]}"]{{stroke:{DARK["failed"]}}}')
    return f"@media (prefers-color-scheme: dark){{{''.join(rules)}}}"
