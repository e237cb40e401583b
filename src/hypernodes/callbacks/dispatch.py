"""From events to the hooks of callbacks: in the driver, one call at a time, also for concurrent runs."""

from __future__ import annotations

import logging
import threading
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias

from hypernodes.callbacks.base import CallbackContext, PipelineCallback, Shared, hooks_of
from hypernodes.callbacks.event import Event, NotSent, Scope
from hypernodes.serialization.remote import RemoteList, RemoteValue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from hypernodes.callbacks.node_context import NodeContext

_Lock: TypeAlias = Any  # threading.RLock is a function

_logger = logging.getLogger("hypernodes")


class EventDispatcher:
    """Calls, for each event, the hooks of the callbacks that its pipeline has.

    Args:
        callbacks: The callbacks of each plan, by where it is.
        pipelines: Metadata by the path of the pipeline.

    Attributes:
        node_contexts: The contexts that callbacks put around calls, by the key of their plan.
    """

    def __init__(
        self,
        callbacks: Mapping[Scope, Iterable[PipelineCallback]],
        pipelines: Mapping[tuple[str, ...], dict[str, Any]],
    ) -> None:
        self.node_contexts: dict[int, tuple[NodeContext, ...]] = {}
        self._shared = Shared(pipelines)
        self._hooks: dict[tuple[int, str], list[tuple[Callable[..., None], _Lock]]] = {}
        self._reported: set[Callable[..., Any]] = set()
        self._outermost: set[tuple[int, int]] = set()  # plans, and callbacks that no plan around has
        contexts: dict[int, NodeContext | None] = {}
        by_path = {scope.path: {id(callback) for callback in own} for scope, own in callbacks.items()}
        for scope, own in callbacks.items():
            for callback in own:
                hooks = hooks_of(callback)
                if id(callback) not in by_path.get(scope.path[:-1], ()):
                    self._outermost.add((scope.plan, id(callback)))
                for hook in hooks:
                    called = (getattr(callback, hook), _lock_of(callback))
                    self._hooks.setdefault((scope.plan, hook), []).append(called)
                if "node_context" not in hooks:
                    continue
                if id(callback) not in contexts:
                    begin = Event.now("node_context", (), scope)
                    with _lock_of(callback):
                        contexts[id(callback)] = self._call(callback.node_context, (), begin)
                context = contexts[id(callback)]
                if context is not None:
                    self.node_contexts[scope.plan] = (*self.node_contexts.get(scope.plan, ()), context)

    def __call__(self, events: list[Event]) -> None:
        """Call the subscribed hooks, in order, and empty the list."""
        for event in events:
            hooks = self._hooks.get((event.scope.plan, event.hook))
            if hooks is not None:
                arguments = tuple(map(_placeholders, event.arguments))
                for hook, lock in hooks:
                    # Callbacks of the pipeline around get the failure of a nested one as that of a node.
                    if event.about == "pipeline":
                        owner = event.scope.plan, id(getattr(hook, "__self__", hook))
                        if owner not in self._outermost:
                            continue
                    with lock:
                        self._call(hook, arguments, event)
        events.clear()

    def _call(self, hook: Callable[..., Any], arguments: tuple[Any, ...], event: Event) -> Any:
        try:
            return hook(*arguments, CallbackContext(event, self._shared))
        except Exception:
            if hook not in self._reported:
                self._reported.add(hook)
                _logger.exception(
                    "hook %s of %r raised in pipeline %r; the run goes on, and this is reported once",
                    event.hook,
                    getattr(hook, "__self__", hook),
                    "/".join(event.scope.path),
                )
            return None


_guard = threading.Lock()
_locks: dict[int, _Lock] = {}


def _lock_of(callback: PipelineCallback) -> _Lock:
    """Return the lock under which the hooks of a callback are called, for all runs that have it."""
    with _guard:
        lock = _locks.get(id(callback))
        if lock is None:
            lock = threading.RLock()  # a hook may run a pipeline that has the same callback
            with suppress(TypeError):  # a callback without weak references has a lock for each run
                weakref.finalize(callback, _locks.pop, id(callback), None)
                _locks[id(callback)] = lock
        return lock


def _placeholders(argument: Any) -> Any:
    """Return values as callbacks get them: a value that has stayed with its worker is not brought here."""
    if argument.__class__ is not dict:
        return argument
    return {
        name: NotSent(value.kind)
        if isinstance(value, RemoteValue)
        else NotSent("list")
        if value.__class__ is RemoteList
        else value
        for name, value in argument.items()
    }
