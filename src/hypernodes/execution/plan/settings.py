"""What a plan must know of pipelines and engines, and the settings that hold for a nested pipeline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from hypernodes.config import INHERIT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hypernodes.callbacks.base import PipelineCallback
    from hypernodes.config import Cache
    from hypernodes.execution.plan.placement import Placement
    from hypernodes.graph import Graph


class PlannedEngine(Protocol):
    """What a plan must know of an engine."""

    def placement(self) -> Placement | None:
        """Return where its work goes; ``None`` for an engine that runs pipelines in a way of its own."""


class Plannable(Protocol):
    """What an engine must know of a pipeline; ``None`` and ``INHERIT`` leave an aspect to its parent."""

    @property
    def token(self) -> object:
        """Stands for this pipeline in keys, without keeping it alive."""

    @property
    def pipeline_id(self) -> str:
        """Its name, or a generated one."""

    @property
    def wiring(self) -> Graph:
        """Its members, wired."""

    @property
    def bound(self) -> Mapping[str, Any]:
        """The inputs that it fixes."""

    @property
    def engine(self) -> Any:
        """The engine that it names."""

    @property
    def cache(self) -> Any:
        """The cache that it names."""

    @property
    def callbacks(self) -> Any:
        """The callbacks that it names."""

    @property
    def strict(self) -> bool:
        """Whether its nodes, and those nested in it, must leave their inputs as they are."""

    def remember_compiled(self, engine: Any, key: tuple[Any, ...], compute: Callable[..., Any]) -> None:
        """Call a compiled plan directly from now on."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The configuration that holds for a pipeline, its parent's included."""

    placement: Placement
    cache: Cache | None = None
    callbacks: tuple[PipelineCallback, ...] = ()
    strict: bool = False
    engine: str = ""

    def of(self, pipeline: Plannable) -> Settings:
        """Return the settings of a pipeline that is nested where these hold."""
        engine = pipeline.engine
        placement = None if engine is None else engine.placement()
        return Settings(
            placement=self.placement if placement is None else placement,
            cache=self.cache if pipeline.cache is INHERIT else pipeline.cache,
            callbacks=self.callbacks if pipeline.callbacks is INHERIT else tuple(pipeline.callbacks),
            strict=self.strict or pipeline.strict,
            engine=self.engine if engine is None else repr(engine),
        )
