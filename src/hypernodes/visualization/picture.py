"""The picture of a pipeline, in the requested format, and its table for notebooks without Graphviz."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

from hypernodes.arguments import ErrorDetails, error_of, flag, path_text, whole_number
from hypernodes.callbacks.report import RunReport
from hypernodes.exceptions import ExtraMissingError, InputError, did_you_mean, listing
from hypernodes.text import short
from hypernodes.visualization.diagram import build_diagram
from hypernodes.visualization.dot import DARK, LIGHT, dot
from hypernodes.visualization.html import html
from hypernodes.visualization.mermaid import mermaid
from hypernodes.visualization.run_overlay import add_run
from hypernodes.visualization.svg import IMAGES, Theme, image, svg

if TYPE_CHECKING:
    import os

Form: TypeAlias = Literal["auto", "svg", "html", "mermaid", "graphviz"]
Orient: TypeAlias = Literal["TB", "LR", "BT", "RL"]

_SUFFIXES: Final[dict[str, Form]] = {
    ".svg": "svg",
    ".png": "svg",
    ".pdf": "svg",
    ".html": "html",
    ".mmd": "mermaid",
    ".mermaid": "mermaid",
    ".dot": "graphviz",
    ".gv": "graphviz",
}


class Picture(str):
    """The text of a picture. A notebook shows it as the picture."""

    __slots__ = ("form",)

    form: str

    @classmethod
    def of(cls, text: str, form: str) -> Picture:
        """Make a picture of its text and its format."""
        picture = cls(text)
        picture.form = form
        return picture

    def _repr_svg_(self) -> str | None:
        return str(self) if self.form == "svg" else None

    def _repr_html_(self) -> str | None:
        if self.form != "html":
            return None
        page = escape(str(self))
        return f'<iframe srcdoc="{page}" style="width: 100%; height: 480px; border: 0"></iframe>'

    def _repr_markdown_(self) -> str | None:
        return f"```mermaid\n{self}\n```" if self.form == "mermaid" else None


def picture(
    pipeline: Any,
    filename: str | os.PathLike[str] | None,
    *,
    orient: Orient,
    depth: int | None,
    flatten: bool,
    min_arg_group_size: int,
    show_legend: bool,
    show_types: bool,
    theme: Theme,
    return_type: Form,
    run: RunReport | None,
) -> Picture:
    """Draw a pipeline; see `Pipeline.visualize`."""
    where = f"pipeline {pipeline.pipeline_id!r}"
    _check(where, "orient", orient, get_args(Orient))
    _check(where, "theme", theme, get_args(Theme))
    _check(where, "return_type", return_type, get_args(Form))
    if depth is not None and (not isinstance(depth, int) or isinstance(depth, bool) or depth < 1):
        raise InputError(f"{where}: depth is a number of 1 or more, or None for all levels, not {depth!r}.")
    details: ErrorDetails = {"where": where, "kind": InputError}
    for name, value in (("flatten", flatten), ("show_legend", show_legend), ("show_types", show_types)):
        flag(name, value, **details)
    whole_number("min_arg_group_size", min_arg_group_size, 1, **details)
    if filename is not None:
        filename = path_text("filename", filename, **details)
    if run is not None and not isinstance(run, RunReport):
        raise error_of("run", "a RunReport, such as pipeline.last_run", run, **details)
    form = _form(where, filename, return_type)
    # A page contains all levels, and expands them itself.
    levels = None if form == "html" else depth
    if flatten and levels == 1:
        raise InputError(
            f"{where}: flatten=True draws no boxes around expanded pipelines, and depth=1 expands none. Give "
            f"depth=2 or more, or None for all levels."
        )
    diagram = build_diagram(pipeline, depth=levels, flatten=flatten, min_arg_group_size=min_arg_group_size)
    if run is not None:
        add_run(diagram, run.nodes)
    text = ""
    suffix = "" if filename is None else Path(filename).suffix.lower()
    if suffix in IMAGES and form != "svg":
        raise InputError(
            f"{where}: a file with the suffix {suffix!r} has no return_type {form!r}. Leave one out."
        )
    if form in ("svg", "auto"):
        try:
            text = svg(diagram, theme=theme, orient=orient, show_types=show_types, show_legend=show_legend)
            form = "svg"
        except ExtraMissingError:
            if form == "svg":
                raise
            # Mermaid is text that needs no program.
            form = "mermaid"
    if form == "mermaid":
        text = mermaid(diagram, orient=orient, show_types=show_types)
    elif form == "html":
        text = html(
            diagram,
            orient=orient,
            show_types=show_types,
            show_legend=show_legend,
            depth=depth,
            theme=theme,
        )
    elif form == "graphviz":
        colours = DARK if theme == "dark" else LIGHT
        text = dot(diagram, orient=orient, show_types=show_types, show_legend=show_legend, colours=colours)
    if filename is not None and suffix in IMAGES:
        options = {"orient": orient, "show_types": show_types, "show_legend": show_legend}
        Path(filename).write_bytes(image(diagram, suffix.removeprefix("."), theme=theme, **options))
    elif filename is not None:
        Path(filename).write_text(text, encoding="utf-8")
    return Picture.of(text, form)


def _form(where: str, filename: str | os.PathLike[str] | None, return_type: Form) -> Form:
    if filename is None or return_type != "auto":
        return return_type
    suffix = Path(filename).suffix.lower()
    if suffix not in _SUFFIXES:
        raise InputError(
            f"{where}: the suffix {suffix!r} of the file is not that of a picture. Use one of "
            f"{listing(_SUFFIXES)}, or name the format: return_type=..."
        )
    return _SUFFIXES[suffix]


def _check(where: str, option: str, value: Any, known: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in known:
        hint = did_you_mean(value, known) if isinstance(value, str) else ""
        raise InputError(f"{where}: {option} is one of {listing(known)}, not {short(value)}.{hint}")


def pipeline_table(pipeline: Any) -> str:
    """Return an HTML table of the nodes of a pipeline with their inputs and outputs.

    >>> from hypernodes import Pipeline, node
    >>> "<td>abs</td><td>x</td><td>size</td>" in pipeline_table(Pipeline([node(abs, output_name="size")]))
    True
    """
    rows = "".join(
        f"<tr><td>{escape(member.name)}</td><td>{escape(', '.join(member.input_names))}</td>"
        f"<td>{escape(', '.join(member.output_names))}</td></tr>"
        for member in pipeline.execution_order
    )
    return (
        f"<table><caption>{escape(pipeline.pipeline_id)}</caption>"
        f"<tr><th>node</th><th>inputs</th><th>outputs</th></tr>{rows}</table>"
    )
