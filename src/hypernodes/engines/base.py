"""What an engine is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Literal, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hypernodes.callbacks import CallbackContext
    from hypernodes.execution.lane import Lanes
    from hypernodes.pipeline import Pipeline


class Engine(ABC):
    """Runs pipelines.

    Subclass it to run them in a way of your own; `run` and `map` are all that it takes.
    """

    @abstractmethod
    def run(
        self,
        pipeline: Pipeline,
        inputs: Mapping[str, Any],
        output_name: tuple[str, ...] | None = None,
        _ctx: CallbackContext | None = None,
    ) -> dict[str, Any]:
        """Compute the outputs asked for, once.

        Args:
            pipeline: The pipeline.
            inputs: Values by name.
            output_name: The outputs wanted, or ``None`` for every one.

        Returns:
            The outputs by name.
        """

    @abstractmethod
    def map(
        self,
        pipeline: Pipeline,
        items: Sequence[Mapping[str, Any]],
        inputs: Mapping[str, Any],
        output_name: tuple[str, ...] | None = None,
        _ctx: CallbackContext | None = None,
        *,
        on_error: Literal["raise", "return"] = "raise",
    ) -> list[Any]:
        """Compute the outputs asked for, for each item.

        Args:
            pipeline: The pipeline.
            items: The inputs that vary, item by item; each has the same names.
            inputs: The inputs that are the same for all items.
            output_name: The outputs wanted, or ``None`` for every one.
            on_error: With ``"return"``, an item that failed has its exception as its row.

        Returns:
            The outputs of each item, in order.
        """

    def lanes(self) -> Lanes | None:
        """Return where nodes and items go; ``None`` for an engine that decides that in `run` and `map`."""
        return None

    def shutdown(self) -> None:
        """Release what the engine itself has made; by default there is nothing."""
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.shutdown()
