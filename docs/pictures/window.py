"""The screen of a terminal as an SVG that needs nothing else: no fonts, no network."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from itertools import groupby

WIDTH, HEIGHT = 8.4, 20  # of a cell
FONT, BASELINE = 14, 14.5
MARGIN, BAR = 18, 38
FAMILY = "ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', 'Liberation Mono', monospace"
COLOURS = {
    "default": "#e6edf3",
    "black": "#484f58",
    "red": "#ff7b72",
    "green": "#3fb950",
    "brown": "#d29922",
    "blue": "#58a6ff",
    "magenta": "#bc8cff",
    "cyan": "#39c5cf",
    "white": "#b1bac4",
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One character of a screen; the second cell of a wide one is empty."""

    text: str
    colour: str
    is_bold: bool = False

    @property
    def is_blank(self) -> bool:
        return self.text == " "


def window(rows: list[list[Cell]]) -> str:
    """Draw a screen, as far as anything is on it, in a window."""
    wide = max(at + 1 for row in rows for at, cell in enumerate(row) if not cell.is_blank)
    high = max(at + 1 for at, row in enumerate(rows) if not all(cell.is_blank for cell in row))
    width, height = 2 * MARGIN + wide * WIDTH, BAR + high * HEIGHT + MARGIN
    dots = "".join(
        f'<circle cx="{MARGIN + 6 + 20 * at}" cy="19" r="6" fill="{colour}"/>'
        for at, colour in enumerate(("#ff5f57", "#febc2e", "#28c840"))
    )
    words = "\n".join(word for at, row in enumerate(rows[:high]) for word in line(row, BAR + at * HEIGHT))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" height="{height:g}" font-family="{FAMILY}" font-size="{FONT}">\n'
        f'<rect x="0.5" y="0.5" width="{width - 1:g}" height="{height - 1:g}" rx="8" '
        f'fill="#0d1117" stroke="#30363d"/>\n{dots}\n{words}\n</svg>\n'
    )


def line(row: list[Cell], top: float) -> list[str]:
    """Draw the words of a row, each where its cells are, however wide the characters of the font."""
    texts, at = [], 0
    for (colour, is_bold, is_blank), group in groupby(
        row, key=lambda cell: (cell.colour, cell.is_bold, cell.is_blank)
    ):
        cells = list(group)
        if not is_blank:
            text = "".join(cell.text for cell in cells)
            bold = ' font-weight="bold"' if is_bold else ""
            # So bars have no gaps, and columns are straight, in every font; wide signs would look odd.
            length = f' textLength="{len(cells) * WIDTH:g}" lengthAdjust="spacingAndGlyphs"'
            texts.append(
                f'<text x="{MARGIN + at * WIDTH:g}" y="{top + BASELINE:g}" fill="{paint(colour)}"{bold}'
                f"{length if len(text) == len(cells) else ''}>{escape(text)}</text>"
            )
        at += len(cells)
    return texts


def paint(colour: str) -> str:
    """Return a colour of pyte, which is a name or six hex digits."""
    return COLOURS.get(colour.removeprefix("bright"), f"#{colour}")
