"""The nested pipeline: a pipeline that is a node of another pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from hypernodes.exceptions import InputError, MapError, MappingError, did_you_mean, listing
from hypernodes.text import names_in, renaming, short

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MapMode = Literal["zip", "product"]
OnError = Literal["raise", "return"]

_MAP_OPTIONS: Final = {
    "map_mode": {"zip": "element by element", "product": "every combination"},
    "on_error": {"raise": "stop at the first error", "return": "continue"},
}


class Nestable(Protocol):
    """The part of a pipeline's interface that nesting needs."""

    @property
    def pipeline_id(self) -> str:
        """The name that messages and events use."""

    @property
    def input_names(self) -> tuple[str, ...]:
        """The inputs that no node of it produces."""

    @property
    def optional(self) -> frozenset[str]:
        """The inputs that have a default."""

    @property
    def output_names(self) -> tuple[str, ...]:
        """The outputs of all its nodes."""


class NestedPipeline:
    """A pipeline as a node, whose inputs and outputs have names of the outer pipeline.

    Made by ``pipeline.as_node(...)``, or by a pipeline in ``nodes=[...]``.

    Attributes:
        pipeline: The inner pipeline.
        name: The name that errors and events use.
        input_names: The outer names of the inputs.
        output_names: The outer names of the outputs.
        optional: The outer names of the inputs that have a default.
        arguments: Pairs of an inner input and its outer name.
        results: Pairs of an inner output and its outer name.
        map_over: The outer inputs that are mapped over; if empty, the inner pipeline runs once.
        map_mode: How several of them are combined.
        on_error: Whether the error of an item ends the map, or stands in the place of each of its outputs.
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
        on_error: OnError = "raise",
        name: str | None = None,
    ) -> None:
        self.pipeline: Any = pipeline
        if name is not None and not isinstance(name, str):
            raise MappingError(
                f"nested pipeline {pipeline.pipeline_id!r}: name must be a text, not {short(name)}."
            )
        self.name: str = name or pipeline.pipeline_id
        to_inner = self._names("input_mapping", input_mapping)
        to_outer = self._names("output_mapping", output_mapping)
        self._check_known("input_mapping", to_inner.values(), pipeline.input_names)
        self._check_known("output_mapping", to_outer, pipeline.output_names)
        if len(set(to_inner.values())) != len(to_inner):
            raise MappingError(
                f"nested pipeline {self.name!r}: input_mapping maps two outer names to one inner input, "
                f"which would be filled twice: {to_inner}. Remove one of them."
            )

        outer_of = {inner: outer for outer, inner in to_inner.items()}
        self.arguments: tuple[tuple[str, str], ...] = tuple(
            (inner, outer_of.get(inner, inner)) for inner in pipeline.input_names
        )
        self.results: tuple[tuple[str, str], ...] = tuple(
            (inner, to_outer.get(inner, inner)) for inner in pipeline.output_names
        )
        self.input_names: tuple[str, ...] = tuple(dict.fromkeys(outer for _, outer in self.arguments))
        self.output_names: tuple[str, ...] = tuple(outer for _, outer in self.results)
        self.optional: frozenset[str] = frozenset(
            outer for inner, outer in self.arguments if inner in pipeline.optional
        )
        if len(set(self.output_names)) != len(self.output_names):
            raise MappingError(
                f"nested pipeline {self.name!r}: two outputs would have the same name: "
                f"{listing(self.output_names)}. Give one of them another name in output_mapping."
            )

        names = () if map_over is None else names_in(map_over)
        if names is None or len(set(names)) != len(names):
            raise MapError(
                f"nested pipeline {self.name!r}: map_over is the name of an input or a list of names, each "
                f"once, not {short(map_over)}."
            )
        self.map_over: tuple[str, ...] = names
        self.map_mode: MapMode = map_mode
        self.on_error: OnError = on_error
        where = f"nested pipeline {self.name!r}"
        check_map_options(map_mode, on_error, where, is_map=bool(self.map_over), kind=MapError)
        self._check_known("map_over", self.map_over, self.input_names)

    def _names(self, option: str, mapping: Mapping[str, str] | None) -> dict[str, str]:
        names = renaming(mapping)
        if names is None:
            raise MappingError(
                f"nested pipeline {self.name!r}: {option} is a mapping from names to names, as in "
                f"{{'x': 'y'}}, not {short(mapping)}."
            )
        return names

    def _check_known(self, option: str, names: Any, known: tuple[str, ...]) -> None:
        for name in names:
            if name not in known:
                raise MappingError(
                    f"nested pipeline {self.name!r}: {option} contains the unknown name {name!r}. "
                    f"Known: {listing(known)}.{did_you_mean(name, known)}"
                )

    def __cache_key__(self) -> object:
        """Return the parts that the results depend on, for signatures."""
        key = (self.pipeline, self.arguments, self.results, self.map_over, self.map_mode)
        return key if self.on_error == "raise" else (*key, self.on_error)

    def __repr__(self) -> str:
        over = f" over {', '.join(self.map_over)}" if self.map_over else ""
        return (
            f"<nested pipeline {self.name}({', '.join(self.input_names)}){over} "
            f"-> {', '.join(self.output_names)}>"
        )


def check_map_options(
    map_mode: object,
    on_error: object,
    where: str,
    *,
    is_map: bool = True,
    kind: type[InputError] = InputError,
) -> None:
    """Check the options of a map that have a fixed set of values.

    Raises:
        InputError: It names the option, its value, and the values that are possible with their meaning. Or an
            option is not the default, and there is no map.
    """
    for option, value in (("map_mode", map_mode), ("on_error", on_error)):
        known = _MAP_OPTIONS[option]
        if not isinstance(value, str) or value not in known:
            first, second = (f"{name!r} ({meaning})" for name, meaning in known.items())
            hint = did_you_mean(value, known) if isinstance(value, str) else ""
            raise kind(f"{where}: {option} must be {first} or {second}, not {short(value)}.{hint}")
        if not is_map and value != next(iter(known)):
            raise kind(
                f"{where}: {option}={value!r} is an option of a map. "
                f"Name the inputs that vary with map_over, or leave {option} out."
            )
