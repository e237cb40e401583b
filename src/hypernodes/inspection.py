"""What can be asked of a pipeline without a run: its picture, whether inputs fit, what the cache has."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any, Never

from hypernodes.arguments import unknown_option
from hypernodes.definition import PipelineDefinition
from hypernodes.engine import OutputName, output_names
from hypernodes.exceptions import MapError
from hypernodes.inputs import check_inputs, given_values, map_inputs, warn_of_unused_columns
from hypernodes.nested import MapMode, check_map_options
from hypernodes.tables import DataFrame, table_of
from hypernodes.type_checks import check_values

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from hypernodes.callbacks.report import RunReport
    from hypernodes.execution.explanation import Explanation
    from hypernodes.visualization.picture import Form, Orient, Picture
    from hypernodes.visualization.svg import Theme


class PipelineInspection(PipelineDefinition):
    """The methods of a pipeline that run nothing. See `hypernodes.Pipeline`.

    What they need is imported when they are called: most programs never do.
    """

    def validate(
        self,
        inputs: Mapping[str, Any] | DataFrame | None = None,
        output_name: OutputName = None,
        map_over: str | Sequence[str] | None = None,
        map_mode: MapMode = "zip",
    ) -> None:
        """Check the names and types of inputs, without running anything.

        Iterators are not consumed, and their items not checked; neither are those of a lazy table.

        Args:
            inputs: Values by name, as for `run` and `map`.
            output_name: The output or outputs of the run; by default all.
            map_over: The input or inputs that vary from item to item, to check the inputs of a `map`.
            map_mode: As for `map`.

        Raises:
            InputTypeError: A value is not of the type that the hint of a node asks for.
            MissingInputError: An input without a default was not given.
            UnknownInputError: A name is neither an input nor an output of the pipeline.
            UnknownOutputError: No node produces an output that was requested.
            MapError: As for `map`.

        Example:
            >>> from hypernodes import Pipeline, node
            >>> def double(x: int) -> int:
            ...     return 2 * x
            >>> pipeline = Pipeline([node(double)], name="p")
            >>> pipeline.validate({"x": [1, "2"]}, map_over="x")  # doctest: +ELLIPSIS
            Traceback (most recent call last):
            hypernodes.exceptions.InputTypeError: pipeline 'p': x[1] is '2', of type str, but node 'double'...
        """
        is_map = map_over is not None or table_of(inputs) is not None
        check_map_options(map_mode, "raise", self._where, is_map=is_map, kind=MapError)
        given = given_values(inputs, map_over, map_mode, graph=self.wiring, where=self._where, is_map=is_map)
        self._check_names(tuple(given.values), output_names(output_name), is_map=is_map)
        check_values(self.wiring, {**self.bound, **given.values}, given.varying, self._where)

    def _check_names(
        self, names: tuple[str, ...], wanted: tuple[str, ...] | None, *, is_map: bool
    ) -> tuple[str, ...]:
        """Return the names of the outputs that a run or map computes, or raise an error of the inputs."""
        from hypernodes.execution.plan.build import build_plan
        from hypernodes.execution.plan.placement import Placement

        return build_plan(self, names, wanted, Placement(), mapped=is_map).plan.outputs

    def explain(
        self,
        inputs: Mapping[str, Any] | DataFrame | None = None,
        output_name: OutputName = None,
        map_over: str | Sequence[str] | None = None,
        map_mode: MapMode = "zip",
    ) -> Explanation:
        """Report what a run would find in the cache, and why the rest is missing. Nothing is computed.

        Args:
            inputs: Values by name, as for `run` and `map`.
            output_name: The output or outputs of the run; by default all.
            map_over: The input or inputs that vary from item to item, to explain a `map`.
            map_mode: As for `map`.

        Returns:
            A verdict for each node, printed as a table. A miss is compared with the most similar entry.

        Example:
            >>> import tempfile
            >>> from hypernodes import DiskCache, Pipeline, node
            >>> with tempfile.TemporaryDirectory() as directory:
            ...     power = Pipeline([node(pow, output_name="power")], cache=DiskCache(directory))
            ...     _ = power.run({"base": 2, "exp": 5})
            ...     print(power.explain({"base": 2, "exp": 6}))
            node   cache   why
            ──────────────────────────────
            pow    miss    input exp 5 → 6
        """
        from hypernodes.execution.explain import explain
        from hypernodes.execution.plan.build import build_plan
        from hypernodes.execution.plan.placement import Placement
        from hypernodes.execution.signature import fingerprint_plan

        is_map = map_over is not None or table_of(inputs) is not None
        check_map_options(map_mode, "raise", self._where, is_map=is_map, kind=MapError)
        if is_map:
            warn_of_unused_columns(inputs, map_over, self.wiring, self._where)
            given = map_inputs(inputs, map_over, map_mode, graph=self.wiring, where=self._where)
            names = (*given.names, *given.fixed)
            items = [{**given.fixed, **item} for item in given.items]
        else:
            values = dict(check_inputs(inputs, self._where))
            names, items = tuple(values), [values]
        plan = build_plan(self, names, output_names(output_name), Placement(), mapped=is_map).plan
        return explain(plan, items, fingerprint_plan(plan))

    @property
    def last_run(self) -> RunReport | None:
        """A copy of the report of the last run, if there is a `RunReport` among the callbacks."""
        from hypernodes.callbacks.report import RunReport

        reports = (callback for callback in self.effective_callbacks if isinstance(callback, RunReport))
        return next(map(copy, reports), None)

    def visualize(
        self,
        filename: str | os.PathLike[str] | None = None,
        orient: Orient = "TB",
        depth: int | None = 1,
        *,
        flatten: bool = False,
        min_arg_group_size: int = 2,
        show_legend: bool = False,
        show_types: bool = True,
        theme: Theme = "auto",
        return_type: Form = "auto",
        run: RunReport | None = None,
        **_unknown: Never,
    ) -> Picture:
        """Draw the pipeline: inputs with types and defaults, nodes with outputs, nested pipelines.

        Args:
            filename: A file to write the picture to. Its suffix selects the format: ``.svg``, ``.png``,
                ``.pdf``, ``.html``, ``.mmd`` (Mermaid) or ``.dot`` (Graphviz).
            orient: ``"TB"`` from top to bottom, ``"LR"`` from left to right, ``"BT"``, or ``"RL"``.
            depth: How many levels of nested pipelines are expanded: 1 is the pipeline's own level, ``None``
                is all levels.
            flatten: Whether expanded pipelines are drawn without a box around their nodes.
            min_arg_group_size: The number of inputs from which on the inputs that only one node takes share a
                box.
            show_legend: Whether to explain the colours.
            show_types: Whether to show types.
            theme: ``"light"``, ``"dark"``, or ``"auto"``, which follows the page that shows the picture.
            return_type: ``"svg"``, ``"html"`` (a page in which nested pipelines expand by a click),
                ``"mermaid"`` (a flowchart for a README), ``"graphviz"`` (its source), or ``"auto"``: the
                format of the file, or SVG if Graphviz is installed, otherwise Mermaid.
            run: A report of a run, such as `last_run`: nodes that took longer get warmer colours, and the
                picture shows cache hits and failures.

        Returns:
            The text of the picture; of a file in PNG or PDF, as SVG. A notebook shows it as the picture.

        Raises:
            InputError: An option has a value that it does not take.
            ExtraMissingError: SVG, PNG or PDF was requested, and Graphviz is not installed.

        Example:
            >>> from hypernodes import Pipeline, node
            >>> print(Pipeline([node(abs, output_name="size")]).visualize(return_type="mermaid"))
            flowchart TB
                i0(["x"])
                n0["abs → size"]
                i0 --> n0
        """
        from hypernodes.visualization.picture import picture

        if _unknown:
            raise unknown_option("visualize", _unknown)
        return picture(
            self,
            filename,
            orient=orient,
            depth=depth,
            flatten=flatten,
            min_arg_group_size=min_arg_group_size,
            show_legend=show_legend,
            show_types=show_types,
            theme=theme,
            return_type=return_type,
            run=run,
        )

    def _repr_html_(self) -> str:
        from hypernodes.visualization.picture import pipeline_table

        drawn = self.visualize()
        return str(drawn) if drawn.form == "svg" else pipeline_table(self)
