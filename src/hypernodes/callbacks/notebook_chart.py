"""Charts of plotly in a notebook, which has one copy of the library however many charts there are."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_POLL_INTERVAL_MS: Final = 200
"""Time between two looks for the library: a notebook shows outputs when they are scrolled to."""
_PLACEHOLDER: Final = (
    "The chart needs plotly, which is in the output of the cell with the first chart. If that cell is gone, "
    "restart the kernel, and run this cell again."
)


@dataclass(slots=True)
class _Library:
    """Which cell of this kernel has the library in its output, and since which execution."""

    cell: str | None = None
    execution: str = ""

    def is_needed(self, cell: str | None, execution: str) -> bool:
        """Whether an output has to have the library: it is the first, or the first one's cell runs again."""
        is_first = not self.execution
        runs_again = cell is not None and cell == self.cell and execution != self.execution
        if is_first or runs_again:
            self.cell, self.execution = cell, execution
        return is_first or runs_again


_library: Final = _Library()


def chart_html(figure: Figure) -> str:
    """Return a chart as HTML: with the library if the notebook has none yet, or if this is no notebook."""
    place = _place()
    if place is None or "google.colab" in sys.modules:
        # In Colab, each output is a page of its own, with a network.
        text: str = figure.to_html(full_html=False, include_plotlyjs=True if place is None else "cdn")
        return text
    library = ""
    if _library.is_needed(*place):
        from plotly.offline import get_plotlyjs

        library = f"<script>{get_plotlyjs()}</script>"
    name = f"chart-{token_hex(8)}"
    content = figure.to_json().replace("</", "<\\/")
    return (
        f'{library}<div id="{name}" style="min-height: {figure.layout.height or 100}px">{_PLACEHOLDER}</div>'
        f"<script>(function draw() {{ const place = document.getElementById('{name}'); if (!place) return; "
        f"if (!window.Plotly) {{ setTimeout(draw, {_POLL_INTERVAL_MS}); return; }} "
        f"const figure = {content}; place.textContent = ''; "
        f"window.Plotly.newPlot(place, figure.data, figure.layout, {{responsive: true}}); }})();</script>"
    )


def _place() -> tuple[str | None, str] | None:
    """Return the cell that is running, if the notebook names it, and its execution; ``None`` elsewhere."""
    if (kernel := notebook_kernel()) is None:
        return None
    parent: dict[str, Any] = kernel.get_parent("shell")
    return parent.get("metadata", {}).get("cellId"), str(parent.get("header", {}).get("msg_id", "?"))


def notebook_kernel() -> Any:
    """Return the kernel of the notebook that this process runs for; ``None`` elsewhere."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None)
