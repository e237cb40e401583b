"""The event dispatcher: calls the hooks of callbacks in the driver.

Hooks of one callback are called one at a time, also where concurrent runs share the callback.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias

from hypernodes.callbacks.base import CallbackContext, PipelineCallback, hooks_of
from hypernodes.callbacks.event import Event, NotSent, RunContext, Scope
from hypernodes.serialization.remote import RemoteList, RemoteValue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from hypernodes.callbacks.node_context import NodeContext

_Lock: TypeAlias = Any  # threading.RLock is a function

_logger = logging.getLogger("hypernodes")


class Subscriptions:
    """Which callbacks have which hooks, in the pipelines of a plan: the same for all runs of the plan."""

    def __init__(self, callbacks: Mapping[Scope, Iterable[PipelineCallback]]) -> None:
        self.hooks: list[tuple[Scope, PipelineCallback, frozenset[str]]] = []
        # Keys of plans with the ids of those of their callbacks that the parent plan does not have.
        self.outermost: set[tuple[int, int]] = set()
        by_path = {scope.path: {id(callback) for callback in own} for scope, own in callbacks.items()}
        for scope, own in callbacks.items():
            for callback in own:
                self.hooks.append((scope, callback, hooks_of(callback)))
                if id(callback) not in by_path.get(scope.path[:-1], ()):
                    self.outermost.add((scope.plan, id(callback)))


class EventDispatcher:
    """Calls, for each event, the hooks of the callbacks that its pipeline has.

    It puts the node contexts of the callbacks into the run.
    """

    def __init__(self, subscriptions: Subscriptions, run: RunContext) -> None:
        self.run = run
        self._hooks: dict[tuple[int, str], list[tuple[Callable[..., None], _Lock]]] = {}
        self._reported: set[Callable[..., Any]] = set()
        self._outermost = subscriptions.outermost
        contexts: dict[int, NodeContext | None] = {}
        for scope, callback, hooks in subscriptions.hooks:
            lock = _lock_of(callback)
            for hook in hooks:
                self._hooks.setdefault((scope.plan, hook), []).append((getattr(callback, hook), lock))
            if "node_context" not in hooks:
                continue
            if id(callback) not in contexts:
                event = Event.now("node_context", (), scope)
                with lock:
                    try:
                        contexts[id(callback)] = callback.node_context(CallbackContext(event, run))
                    except Exception as error:
                        contexts[id(callback)] = None
                        self._report(callback.node_context, event, error)
            if (context := contexts[id(callback)]) is not None:
                own_contexts = run.node_contexts.get(scope.plan, ())
                run.node_contexts[scope.plan] = (*own_contexts, context)

    def __call__(self, events: list[Event]) -> None:
        """Call the subscribed hooks, in order, and empty the list."""
        for event in events:
            if (event.scope.plan, event.hook) in self._hooks and _has_remote_values(event.arguments):
                self.put(event._replace(arguments=tuple(map(_placeholders, event.arguments))))
            else:
                self.put(event)
        events.clear()

    def put(self, event: Event) -> None:
        """Call the hooks that are subscribed to an event whose values are all here."""
        scope = event.scope
        for hook, lock in self._hooks.get((scope.plan, event.hook), ()):
            # The failure of a nested pipeline is that of a node for callbacks of its parent.
            if event.about == "pipeline":
                owner = scope.plan, id(getattr(hook, "__self__", hook))
                if owner not in self._outermost:
                    continue
            with lock:
                try:
                    hook(*event.arguments, CallbackContext(event, self.run))
                except Exception as error:
                    self._report(hook, event, error)

    def _report(self, hook: Callable[..., Any], event: Event, error: Exception) -> None:
        if hook not in self._reported:
            self._reported.add(hook)
            _logger.error(
                "hook %s of %r raised in pipeline %r; the run continues, and this is reported once",
                event.hook,
                getattr(hook, "__self__", hook),
                "/".join(event.scope.path),
                exc_info=error,
            )


_guard = threading.Lock()
_locks: dict[int, _Lock] = {}


def _lock_of(callback: PipelineCallback) -> _Lock:
    """Return the lock that is held while a hook of a callback is called; all runs share it."""
    with _guard:
        if (lock := _locks.get(id(callback))) is None:
            lock = threading.RLock()  # reentrant: a hook may run a pipeline that has the same callback
            with suppress(TypeError):  # a callback that has no weak references gets a lock for each run
                weakref.finalize(callback, _locks.pop, id(callback), None)
                _locks[id(callback)] = lock
        return lock


if hasattr(os, "register_at_fork"):
    # In a forked child, a hook that another thread of its parent was calling would hold its lock forever.
    os.register_at_fork(after_in_child=_locks.clear)


def _has_remote_values(arguments: tuple[Any, ...]) -> bool:
    for argument in arguments:
        if type(argument) is dict:
            for value in argument.values():
                if type(value) is RemoteList or issubclass(type(value), RemoteValue):
                    return True
    return False


def _placeholders(argument: Any) -> Any:
    """Return the inputs or outputs of an event with placeholders for values that stay on their workers."""
    if type(argument) is not dict:
        return argument
    return {
        name: NotSent(value.kind)
        if issubclass(type(value), RemoteValue)
        else NotSent("list")
        if type(value) is RemoteList
        else value
        for name, value in argument.items()
    }
