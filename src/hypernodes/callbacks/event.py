"""Events as values: the hook to call, its arguments, and where and when it happened.

Workers record events and return them to the driver with their results.
"""

from __future__ import annotations

import os
import socket
import threading
from dataclasses import dataclass, field
from time import time
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from hypernodes.callbacks.node_context import NodeContext

About: TypeAlias = Literal["node", "item", "pipeline"]


class Worker(NamedTuple):
    """A thread of a process of a host."""

    host: str
    pid: int
    thread: str


class _PerThread(threading.local):
    worker: Worker | None = None


_per_thread = _PerThread()


def current_worker() -> Worker:
    """Return the worker that this code runs in: this thread, its process and its host."""
    if (worker := _per_thread.worker) is None:
        worker = _per_thread.worker = Worker(
            socket.gethostname(), os.getpid(), threading.current_thread().name
        )
    return worker


def _forget_worker() -> None:
    _per_thread.worker = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_worker)  # a forked process has a process id of its own


@dataclass(frozen=True, slots=True, eq=False)
class RunContext:
    """What all parts of one run share. In another process only the node contexts are there."""

    pipelines: Mapping[tuple[str, ...], dict[str, Any]] = field(default_factory=dict)  # metadata, by path
    state: dict[Hashable, Any] = field(default_factory=dict)  # what callbacks have set
    node_contexts: dict[int, tuple[NodeContext, ...]] = field(default_factory=dict)  # by the key of the plan

    def __reduce__(self) -> tuple[Any, ...]:
        return (RunContext, ({}, {}, self.node_contexts)) if self.node_contexts else (RunContext, ())


@dataclass(slots=True, unsafe_hash=True)  # making a frozen one takes three times as long
class Scope:
    """A place in the tree of pipelines and map items of a run, which never changes."""

    plan: int  # its key
    path: tuple[str, ...]  # the ids of the pipelines, the outermost first
    items: tuple[int, ...] = ()  # the item indices of the enclosing maps, the outermost first
    run: RunContext = field(default_factory=RunContext, compare=False, repr=False)

    def of_item(self, item_index: int) -> Scope:
        """Return the scope of an item of the map in this scope."""
        return Scope(self.plan, self.path, (*self.items, item_index), self.run)

    def of_nested(self, plan: int, path: tuple[str, ...]) -> Scope:
        """Return the scope of a plan that is nested in the plan of this scope."""
        return Scope(plan, path, self.items, self.run)

    @property
    def node_contexts(self) -> tuple[NodeContext, ...]:
        """The node contexts that apply to the calls in this scope."""
        return self.run.node_contexts.get(self.plan, ())


class Event(NamedTuple):
    """One call of a hook, without the context argument."""

    hook: str
    arguments: tuple[Any, ...]
    scope: Scope
    time: float  # in seconds since the epoch, by the clock of the host where it happened
    worker: Worker
    signature: str | None = None  # of the node's computation, if it can be cached
    about: About = "node"  # for an error, what failed
    seconds: float = 0.0  # for the error of a node, how long it had been under way

    @classmethod
    def now(
        cls,
        hook: str,
        arguments: tuple[Any, ...],
        scope: Scope,
        *,
        about: About = "node",
        seconds: float = 0.0,
    ) -> Event:
        """Return an event with the current time and worker."""
        return cls(hook, arguments, scope, time(), current_worker(), None, about, seconds)


@dataclass(frozen=True, slots=True)
class NotSent:
    """Placeholder in an event for a value that stayed on its worker."""

    type: str
    length: int | None = None  # ``None`` if it has none
    nbytes: int | None = None  # of the value's data; ``None`` if it has no ``nbytes``

    @classmethod
    def of(cls, value: object) -> NotSent:
        """Return the placeholder for a value."""
        return cls(type(value).__qualname__, *sizes(value))

    def __repr__(self) -> str:
        return f"<{self.type}, not sent>"


def sizes(value: Any) -> tuple[int | None, int | None]:
    """Return the length of a value and the bytes of its data, each ``None`` where it has none.

    >>> sizes([1, 2]), sizes(3), sizes(b"abc")
    ((2, None), (None, None), (3, None))
    """
    if type(value) is NotSent:
        return value.length, value.nbytes
    if type(value) in (int, float, bool, type(None)):
        return None, None
    try:
        length: int | None = len(value)
    except Exception:  # most values have no length, and the `__len__` of a user's class may raise anything
        length = None
    try:
        nbytes = getattr(value, "nbytes", None)
    except Exception:  # so may a property of it
        nbytes = None
    return length, nbytes if isinstance(nbytes, int) else None
