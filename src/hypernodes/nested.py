"""A pipeline used as a node of another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol

from hypernodes.exceptions import MapError, MappingError, did_you_mean, listing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MapMode = Literal["zip", "product"]


class Nestable(Protocol):
    """What a nested pipeline must answer; `hypernodes.Pipeline` does."""

    @property
    def pipeline_id(self) -> str:
        """Its name, or a generated one."""

    @property
    def input_names(self) -> tuple[str, ...]:
        """Everything it takes."""

    @property
    def optional(self) -> frozenset[str]:
        """The inputs that may be left out."""

    @property
    def output_names(self) -> tuple[str, ...]:
        """Everything it makes."""


class NestedPipeline:
    """A pipeline seen as a node: it takes inputs and makes outputs, under names of the outer pipeline.

    Made by ``pipeline.as_node(...)``, or by placing a pipeline in ``nodes=[...]``.

    Attributes:
        pipeline: The pipeline inside.
        name: What errors and events call it.
        arguments: Pairs of an input of the inner pipeline and the outer name that fills it.
        results: Pairs of an output of the inner pipeline and the outer name it gets.
        map_over: The outer inputs that are walked; with none the inner pipeline runs once.
        map_mode: How several of them are walked.
    """

    cache = True

    def __init__(
        self,
        pipeline: Nestable,
        *,
        input_mapping: Mapping[str, str] | None = None,
        output_mapping: Mapping[str, str] | None = None,
        map_over: str | Sequence[str] | None = None,
        map_mode: MapMode = "zip",
        name: str | None = None,
    ) -> None:
        self.pipeline: Any = pipeline
        self.name = name or pipeline.pipeline_id
        to_inner, to_outer = dict(input_mapping or {}), dict(output_mapping or {})
        self._check_known("input_mapping", to_inner.values(), pipeline.input_names)
        self._check_known("output_mapping", to_outer, pipeline.output_names)
        if len(set(to_inner.values())) != len(to_inner):
            raise MappingError(
                f"nested pipeline {self.name!r}: input_mapping fills one inner input twice: {to_inner}."
            )

        outer_of = {inner: outer for outer, inner in to_inner.items()}
        self.arguments = tuple((inner, outer_of.get(inner, inner)) for inner in pipeline.input_names)
        self.results = tuple((inner, to_outer.get(inner, inner)) for inner in pipeline.output_names)
        self.input_names = tuple(dict.fromkeys(outer for _, outer in self.arguments))
        self.output_names = tuple(outer for _, outer in self.results)
        self.optional = frozenset(outer for inner, outer in self.arguments if inner in pipeline.optional)
        if len(set(self.output_names)) != len(self.output_names):
            raise MappingError(
                f"nested pipeline {self.name!r}: two outputs would have the same name: "
                f"{listing(self.output_names)}."
            )

        self.map_over: tuple[str, ...] = (
            () if map_over is None else (map_over,) if isinstance(map_over, str) else tuple(map_over)
        )
        self.map_mode: MapMode = map_mode
        if map_mode not in ("zip", "product"):
            raise MapError(
                f"nested pipeline {self.name!r}: map_mode is 'zip' or 'product', not {map_mode!r}."
            )
        self._check_known("map_over", self.map_over, self.input_names)

    def _check_known(self, option: str, names: Any, known: tuple[str, ...]) -> None:
        for name in names:
            if name not in known:
                raise MappingError(
                    f"nested pipeline {self.name!r}: {option} names {name!r}, which it lacks. "
                    f"Known: {listing(known)}.{did_you_mean(name, known)}"
                )

    def __cache_key__(self) -> object:
        """Return what its results depend on."""
        return (self.pipeline, self.arguments, self.results, self.map_over, self.map_mode)

    def __repr__(self) -> str:
        over = f" over {', '.join(self.map_over)}" if self.map_over else ""
        return (
            f"<nested pipeline {self.name}({', '.join(self.input_names)}){over} "
            f"-> {', '.join(self.output_names)}>"
        )
