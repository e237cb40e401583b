"""What an engine is: it runs pipelines, and decides what runs when."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import import_module
from itertools import count, islice
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeAlias

from hypernodes.exceptions import InputError
from hypernodes.text import identifier, short

if TYPE_CHECKING:
    from hypernodes.callbacks.base import CallbackContext
    from hypernodes.execution.plan.placement import Placement
    from hypernodes.execution.plan.settings import Plannable

OutputName: TypeAlias = str | Sequence[str] | None

_BLOCK: Final = 1000
"""Items that `Engine.imap` takes at a time, for an engine that has only `run` and `map`."""


def output_names(output_name: OutputName) -> tuple[str, ...] | None:
    """Return the outputs asked for as a tuple; ``None`` for every one.

    >>> output_names("x"), output_names(["x", "y"]), output_names(None)
    (('x',), ('x', 'y'), None)
    """
    if output_name is None:
        return None
    names = (output_name,) if isinstance(output_name, str) else output_name
    try:
        found = tuple(names)
        return found if "".join(found).isascii() else tuple(map(identifier, found))
    except TypeError:
        raise InputError(
            f"output_name is the name of an output or a list of names, not {short(output_name)}."
        ) from None


class Engine(ABC):
    """Runs pipelines.

    Subclass it to run them in a way of your own; `run` and `map` are all that it takes.
    """

    @abstractmethod
    def run(
        self,
        pipeline: Plannable,
        inputs: Mapping[str, Any],
        output_name: OutputName = None,
        _ctx: CallbackContext | None = None,
    ) -> dict[str, Any]:
        """Compute the outputs asked for, once.

        Args:
            pipeline: The pipeline.
            inputs: Values by name.
            output_name: The output or outputs wanted, or ``None`` for every one.
            _ctx: The context of the pipeline around, where this one is nested; its path is the beginning of
                the paths of this run's events.

        Returns:
            The outputs by name.
        """

    @abstractmethod
    def map(
        self,
        pipeline: Plannable,
        items: Sequence[Mapping[str, Any]],
        inputs: Mapping[str, Any],
        output_name: OutputName = None,
        _ctx: CallbackContext | None = None,
        *,
        on_error: Literal["raise", "return"] = "raise",
    ) -> Sequence[Any]:
        """Compute the outputs asked for, for each item.

        Args:
            pipeline: The pipeline.
            items: The inputs that vary, item by item; each has the same names.
            inputs: The inputs that are the same for all items.
            output_name: The output or outputs wanted, or ``None`` for every one.
            _ctx: The context of the pipeline around, as in `run`.
            on_error: With ``"return"``, an item that failed has its exception as its row.

        Returns:
            The outputs of each item, in order.
        """

    def imap(
        self,
        pipeline: Plannable,
        items: Iterator[Mapping[str, Any]],
        names: tuple[str, ...],
        inputs: Mapping[str, Any],
        output_name: OutputName = None,
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
            output_name: The output or outputs wanted, or ``None`` for every one.
            on_error: With ``"return"``, an item that failed has its exception as its row.
            ordered: Whether rows come in the order of the items.

        Returns:
            The index and the outputs of each item.
        """
        del names, ordered
        return self._some_at_a_time(pipeline, items, inputs, output_name, on_error)

    def _some_at_a_time(
        self,
        pipeline: Plannable,
        items: Iterator[Mapping[str, Any]],
        inputs: Mapping[str, Any],
        output_name: OutputName,
        on_error: Literal["raise", "return"],
    ) -> Iterator[tuple[int, Any]]:
        indices, error = count(), None
        while error is None:
            block: list[Mapping[str, Any]] = []
            try:
                block.extend(islice(items, _BLOCK))
            except Exception as raised:  # It is raised after the rows of the items before it.
                error = raised
            if not block:
                break
            for row in self.map(pipeline, block, inputs, output_name, on_error=on_error):
                yield next(indices), row
        if error is not None:
            raise error

    @property
    def is_lazy(self) -> bool:
        """Whether `map` returns something that is computed when its rows are asked for."""
        return False

    def map_frame(
        self,
        pipeline: Plannable,
        frame: Any,
        names: tuple[str, ...],
        output_name: OutputName = None,
        *,
        on_error: Literal["raise", "return"] = "raise",
    ) -> Any:
        """Compute the outputs asked for, for the rows of a table, where they are.

        Args:
            pipeline: The pipeline.
            frame: A table of any library.
            names: The columns that are inputs.
            output_name: The output or outputs wanted, or ``None`` for every one.
            on_error: As in `map`.

        Returns:
            The outputs by name, or something lazy; ``None`` where the table is not this engine's, so that its
            rows are given to `map`.
        """
        del pipeline, frame, names, output_name, on_error

    def placement(self) -> Placement | None:
        """Return where calls and map items go; ``None`` for an engine that decides it in `run` and `map`."""
        return None

    def shutdown(self, wait: bool = True) -> None:  # noqa: FBT001, FBT002  as `concurrent.futures.Executor` has it
        """Release what the engine itself has made; by default there is nothing.

        Args:
            wait: Whether to wait until running work has ended.
        """
        del wait

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.shutdown()


_registered: Final[dict[str, tuple[str, str]]] = {}


def register_engine(name: str, module: str, kind: str) -> None:
    """Say how an engine is made that pipelines use by default.

    Pipelines do not know the engines, so the package introduces them to each other when it is imported.

    Args:
        name: ``"default"`` for pipelines that name no engine, ``"daft"`` for `Pipeline.to_daft`.
        module: The module of the engine's class, which is imported when the engine is first needed.
        kind: The name of the class.
    """
    _registered[name] = (module, kind)


@cache
def registered_engine(name: str) -> Engine:
    """Return the engine of a name, which is made once."""
    module, kind = _registered[name]
    engine: Engine = getattr(import_module(module), kind)()
    return engine
