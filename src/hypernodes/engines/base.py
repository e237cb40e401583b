"""What an engine is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import count, islice
from typing import TYPE_CHECKING, Any, Final, Literal, Self

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hypernodes.callbacks import CallbackContext
    from hypernodes.execution.lane import Lanes
    from hypernodes.pipeline import Pipeline

_BLOCK: Final = 1000


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
    ) -> Sequence[Any]:
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

    def imap(
        self,
        pipeline: Pipeline,
        items: Iterator[Mapping[str, Any]],
        names: tuple[str, ...],
        inputs: Mapping[str, Any],
        output_name: tuple[str, ...] | None = None,
        *,
        on_error: Literal["raise", "return"] = "raise",
        ordered: bool = True,
    ) -> Iterator[tuple[int, Any]]:
        """Compute the outputs asked for, item by item, as they are taken; by default some at a time.

        Args:
            pipeline: The pipeline.
            items: The inputs that vary, item by item.
            names: Their names.
            inputs: The inputs that are the same for all items.
            output_name: The outputs wanted, or ``None`` for every one.
            on_error: With ``"return"``, an item that failed has its exception as its row.
            ordered: Whether rows come in the order of the items.

        Returns:
            The index and the outputs of each item.
        """
        del names, ordered
        return self._some_at_a_time(pipeline, items, inputs, output_name, on_error)

    def _some_at_a_time(
        self,
        pipeline: Pipeline,
        items: Iterator[Mapping[str, Any]],
        inputs: Mapping[str, Any],
        output_name: tuple[str, ...] | None,
        on_error: Literal["raise", "return"],
    ) -> Iterator[tuple[int, Any]]:
        numbers = count()
        while block := list(islice(items, _BLOCK)):
            rows = self.map(pipeline, block, inputs, output_name, on_error=on_error)
            for row in rows:
                yield next(numbers), row

    @property
    def is_lazy(self) -> bool:
        """Whether `map` returns something that is computed when somebody asks for its rows."""
        return False

    def map_frame(
        self,
        pipeline: Pipeline,
        frame: Any,
        names: tuple[str, ...],
        output_name: tuple[str, ...] | None = None,
        *,
        on_error: Literal["raise", "return"] = "raise",
    ) -> Any:
        """Compute the outputs asked for, for the rows of a table, where they are.

        Args:
            pipeline: The pipeline.
            frame: A table of whatever library.
            names: The columns that are inputs.
            output_name: The outputs wanted, or ``None`` for every one.
            on_error: As in `map`.

        Returns:
            The outputs by name, or something lazy; ``None`` where the table is not this engine's, so that its
            rows are given to `map`.
        """
        del pipeline, frame, names, output_name, on_error

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
