"""A program in a terminal, photographed in mid-run: a real one behind a pseudo-terminal, emulated by pyte."""

from __future__ import annotations

import fcntl
import os
import re
import select
import struct
import subprocess
import sys
import tempfile
import termios
from typing import TYPE_CHECKING

import pyte
from window import Cell, window

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COLUMNS, ROWS = 160, 24
QUIET = 0.03  # seconds: bars are redrawn ten times a second, so what is quiet is a whole picture
DIM = "8b949e"


class Screen(pyte.Screen):
    """A screen that knows faint text, which pyte does not."""

    def select_graphic_rendition(self, *attributes: int, **options: bool) -> None:
        if attributes and attributes[0] == 2:
            attributes = (*attributes[1:], 38, 2, *bytes.fromhex(DIM))
        super().select_graphic_rendition(*attributes, **options)

    def rows(self) -> list[list[Cell]]:
        """Return what is on it, a list of cells for each row."""
        return [
            [
                Cell(char.data, char.fg, is_bold=char.bold)
                for char in (self.buffer[row][column] for column in range(self.columns))
            ]
            for row in range(self.lines)
        ]


def photograph(script: Path, picture: Path) -> None:
    """Run a script that shows progress, and draw the fullest screen of its run."""
    best, most = None, (0, 0)
    for screen in screens(script):
        weight = weigh(screen.display)
        if weight > most:
            best, most = screen.rows(), weight
    if best is None:
        raise RuntimeError(f"{script.name} has shown no bar that was half full")
    picture.write_text(window(best), encoding="utf-8")


def weigh(lines: list[str]) -> tuple[int, int]:
    """Return how much there is to see: signs, and bars that are neither empty nor full."""
    counts = [re.search(r" (\d+)/~?(\d+) ", line) for line in lines]
    under_way = sum(0 < int(found[1]) < int(found[2]) for found in counts if found)
    return sum(any(sign in line for line in lines) for sign in "⚡↻✗"), under_way


def screens(script: Path) -> Iterator[Screen]:
    """Run a script, and give its screen whenever it is complete."""
    screen = Screen(COLUMNS, ROWS)
    stream = pyte.ByteStream(screen)
    stream.feed(f"$ python {script.name}\r\n".encode())
    outer, inner = os.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES"}}
    environment |= {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
    with (
        tempfile.TemporaryDirectory() as directory,
        subprocess.Popen(  # noqa: S603
            [sys.executable, script.resolve()],
            cwd=directory,
            env=environment,
            stdin=inner,
            stdout=inner,
            stderr=inner,
        ) as process,
    ):
        os.close(inner)
        while (written := read(outer)) is not None:
            stream.feed(written)
            if not select.select([outer], [], [], QUIET)[0]:
                yield screen
    os.close(outer)
    if process.returncode:
        raise RuntimeError(f"{script.name} has failed:\n" + "\n".join(screen.display).rstrip())


def read(terminal: int) -> bytes | None:
    """Return what was written; ``None`` at the end, which Linux tells by an error."""
    try:
        return os.read(terminal, 65536) or None
    except OSError:
        return None
