"""What happened, where and when: what travels from a worker to the driver."""

from __future__ import annotations

import os
import socket
import threading
from dataclasses import dataclass, field
from time import time
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hypernodes.callbacks.node_context import NodeContext


About: TypeAlias = Literal["node", "item", "pipeline"]


class Worker(NamedTuple):
    """Who has computed something: a thread of a process of a host."""

    host: str
    pid: int
    thread: str


class _Known(threading.local):
    worker: Worker | None = None


_known = _Known()


def here() -> Worker:
    """Return the thread that asks."""
    worker = _known.worker
    if worker is None:
        worker = _known.worker = Worker(socket.gethostname(), os.getpid(), threading.current_thread().name)
    return worker


def _forget() -> None:
    _known.worker = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)  # a process that was forked is another one


@dataclass(frozen=True, slots=True)
class Scope:
    """Where in the pipelines an event happened.

    Attributes:
        plan: The key of the plan that was being run.
        path: The ids of the pipelines, from the outermost to the one it happened in.
        items: The item indices of the maps around, from the outermost to the innermost.
        around: What callbacks put around the calls of nodes, by the key of their plan.
    """

    plan: int
    path: tuple[str, ...]
    items: tuple[int, ...] = ()
    around: Mapping[int, tuple[NodeContext, ...]] = field(default_factory=dict, compare=False, repr=False)

    def of_item(self, number: int) -> Scope:
        """Return the place of an item of a map that is here."""
        return Scope(self.plan, self.path, (*self.items, number), self.around)

    def of_nested(self, plan: int, path: tuple[str, ...]) -> Scope:
        """Return the place of a plan that is nested in the one here."""
        return Scope(plan, path, self.items, self.around)

    @property
    def node_contexts(self) -> tuple[NodeContext, ...]:
        """What is put around the calls of nodes here."""
        return self.around.get(self.plan, ())


class Event(NamedTuple):
    """One call of a hook, less its context.

    Attributes:
        hook: The hook's name.
        arguments: What it is called with.
        scope: Where in the pipelines it happened.
        time: When, in seconds since the epoch, by the clock of the host where it happened.
        worker: Who computed.
        signature: What identifies the computation, if it can be cached.
        about: What an error is of: a node, an item as a whole, or the pipeline.
    """

    hook: str
    arguments: tuple[Any, ...]
    scope: Scope
    time: float
    worker: Worker
    signature: str | None = None
    about: About = "node"

    @classmethod
    def now(cls, hook: str, arguments: tuple[Any, ...], scope: Scope, *, about: About = "node") -> Event:
        """Return an event that happens now and here."""
        return cls(hook, arguments, scope, time(), here(), None, about)


@dataclass(frozen=True, slots=True)
class NotSent:
    """Stands in an event for a value that stayed with its worker.

    Attributes:
        type: The name of its type.
        length: How many things it holds, or ``None`` if that is nothing it can say.
        nbytes: How many bytes of memory its data take, if it says so.
    """

    type: str
    length: int | None = None
    nbytes: int | None = None

    @classmethod
    def of(cls, value: object) -> NotSent:
        """Return what stands for a value."""
        return cls(type(value).__qualname__, *sizes(value))

    def __repr__(self) -> str:
        return f"<{self.type}, not sent>"


def sizes(value: object) -> tuple[int | None, int | None]:
    """Return how long a value is, and how many bytes its data take, as far as it says so.

    Example:
        >>> sizes([1, 2]), sizes(3), sizes(b"abc")
        ((2, None), (None, None), (3, None))
    """
    if isinstance(value, NotSent):
        return value.length, value.nbytes
    if isinstance(value, int | float | bool | None):
        return None, None
    try:
        length: Any = len(value)  # type: ignore[arg-type]
    except Exception:
        length = None
    nbytes = getattr(value, "nbytes", None)
    return length, nbytes if isinstance(nbytes, int) else None
