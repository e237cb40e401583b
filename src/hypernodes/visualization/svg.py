"""From Graphviz's language to SVG, in colours that follow the page."""

from __future__ import annotations

import shutil
import subprocess
import sys
from copy import deepcopy
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, Literal
from xml.etree import ElementTree as ET

from hypernodes.exceptions import ExtraMissingError
from hypernodes.visualization import heat
from hypernodes.visualization.dot import DARK, LIGHT, dot

if TYPE_CHECKING:
    from hypernodes.visualization.scheme import Scheme

Theme = Literal["auto", "light", "dark"]

_SVG: Final = "http://www.w3.org/2000/svg"
_TIMEOUT: Final = 120  # seconds
# In a process of its own: the package's fontconfig complains of newer systems' files to whoever reads
# standard error, a notebook's cell among them.
_CARRIED: Final = """
import sys
import pygraphviz
drawn = pygraphviz.AGraph(string=sys.stdin.read()).draw(format="svg", prog="dot")
sys.stdout.buffer.write(drawn)
"""


def svg(scheme: Scheme, *, theme: Theme = "auto", **options: Any) -> str:
    """Return a picture as SVG.

    Args:
        scheme: What it shows.
        theme: ``"auto"`` follows the page, or the system, that shows it.
        options: What `dot` takes.

    Raises:
        ExtraMissingError: There is no Graphviz, neither as a program nor as a package.
    """
    drawn = _laid_out(dot(scheme, colours=DARK if theme == "dark" else LIGHT, **options))
    drawn = _legible(drawn)
    if theme == "auto":
        start = drawn.index(">", drawn.index("<svg ")) + 1
        drawn = drawn[:start] + f"\n<style>{_style()}</style>" + drawn[start:]
    return drawn


def _laid_out(source: str) -> str:
    """Have Graphviz place and draw: the program if it is there, else the package that carries it."""
    program = shutil.which("dot")
    if program is None and find_spec("pygraphviz") is None:
        raise ExtraMissingError(
            "an SVG is drawn by Graphviz, which is not here: pip install 'hypernodes[viz]', or install "
            "Graphviz itself. visualize(return_type='mermaid') needs neither."
        )
    command = [program, "-Tsvg"] if program is not None else [sys.executable, "-c", _CARRIED]
    done = subprocess.run(  # noqa: S603  a fixed program, with what we have written as its input
        command, input=source, capture_output=True, encoding="utf-8", timeout=_TIMEOUT, check=True
    )
    return done.stdout


def _legible(drawn: str) -> str:
    """Lay the titles of open pipelines over the arrows that cross them."""
    ET.register_namespace("", _SVG)
    ET.register_namespace("xlink", "http://www.w3.org/1999/xlink")
    root = ET.fromstring(drawn)  # noqa: S314  Graphviz has just written it
    graph = root.find(f"{{{_SVG}}}g")
    assert graph is not None
    titles = ET.Element(f"{{{_SVG}}}g", {"class": "titles"})
    for cluster in graph.iterfind(f"{{{_SVG}}}g"):
        if "cluster" not in cluster.get("class", "").split():
            continue
        shape = cluster.find(f".//{{{_SVG}}}path")
        fill = "none" if shape is None else shape.get("fill", "none")
        for holder in list(cluster.iter()):
            for text in holder.findall(f"{{{_SVG}}}text"):
                holder.remove(text)
                halo = deepcopy(text)
                halo.attrib |= {"stroke": fill, "fill": fill, "stroke-width": "4", "stroke-linejoin": "round"}
                halo.set("aria-hidden", "true")
                titles.extend((halo, text))
    graph.append(titles)
    return ET.tostring(root, encoding="unicode")


def _style() -> str:
    """Return the dark colours, for pages that are dark; the light ones stand in the picture itself."""
    rules = [f"text{{fill:{DARK['text']}}}"]
    for light, dark in ((LIGHT["faint"], DARK["faint"]), (LIGHT["arrow"], DARK["arrow"])):
        rules += [f'[fill="{light}"]{{fill:{dark}}}', f'[stroke="{light}"]{{stroke:{dark}}}']
    for kind in ("input", "node", "pipeline", "group"):
        (fill, line), (dark_fill, dark_line) = LIGHT[kind], DARK[kind]
        rules += [f'[fill="{fill}"]{{fill:{dark_fill}}}', f'[stroke="{line}"]{{stroke:{dark_line}}}']
        rules.append(f'text[stroke="{fill}"]{{stroke:{dark_fill};fill:{dark_fill}}}')
    rules += [
        f'[fill="{light}"]{{fill:{dark}}}' for light, dark in zip(heat.LIGHT[1:], heat.DARK[1:], strict=True)
    ]
    rules.append(f'[stroke="{LIGHT["failed"]}"]{{stroke:{DARK["failed"]}}}')
    return f"@media (prefers-color-scheme: dark){{{''.join(rules)}}}"
