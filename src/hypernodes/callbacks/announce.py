"""From events to the hooks of callbacks, in the driver, one at a time."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from hypernodes.callbacks.base import CallbackContext, Event, NotSent, PipelineCallback, Shared, hooks_of
from hypernodes.portable import Gathered, Kept

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_logger = logging.getLogger("hypernodes")


class Announcer:
    """Calls, for each event, the hooks of the callbacks that its pipeline has.

    Args:
        callbacks: The callbacks of each plan, by the plan's key.
        pipelines: Metadata by pipeline id.
    """

    def __init__(
        self, callbacks: Mapping[int, Iterable[PipelineCallback]], pipelines: Mapping[str, dict[str, Any]]
    ) -> None:
        self._shared = Shared(pipelines)
        self._hooks: dict[tuple[int, str], list[Callable[..., None]]] = {}
        self._reported: set[Callable[..., None]] = set()
        for plan, listeners in callbacks.items():
            for callback in listeners:
                for hook in hooks_of(callback):
                    self._hooks.setdefault((plan, hook), []).append(getattr(callback, hook))

    def __call__(self, events: list[Event]) -> None:
        """Tell these events, in order, and empty the list."""
        for event in events:
            arguments: tuple[Any, ...] | None = None
            for hook in self._hooks.get((event.scope.plan, event.hook), ()):
                if arguments is None:
                    arguments = tuple(map(_told, event.arguments))
                try:
                    hook(*arguments, CallbackContext(event.scope, self._shared))
                except Exception:
                    if hook not in self._reported:
                        self._reported.add(hook)
                        _logger.exception(
                            "hook %s of %r raised in pipeline %r; the run goes on, and this is told once",
                            event.hook,
                            getattr(hook, "__self__", hook),
                            "/".join(event.scope.path),
                        )
        events.clear()


def _told(argument: Any) -> Any:
    """Return values as callbacks get them: those that have stayed elsewhere are not brought here for them."""
    if not isinstance(argument, dict):
        return argument
    return {
        name: NotSent(value.kind)
        if isinstance(value, Kept)
        else NotSent("list")
        if value.__class__ is Gathered
        else value
        for name, value in argument.items()
    }
