"""What frames and sweeps have in common: a plan, a place, and somebody who waits for them."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter, time
from typing import TYPE_CHECKING, Any

from hypernodes.callbacks.event import Event, here

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypernodes.callbacks.event import About, Scope, Worker
    from hypernodes.execution.jobs import Values
    from hypernodes.execution.run import Run
    from hypernodes.execution.steps import Plan


@dataclass(frozen=True, slots=True)
class Waiter:
    """Who waits for a scene.

    Attributes:
        finish: Takes the result.
        fail: Takes the error.
        scene: The scene that this one is a part of.
    """

    finish: Callable[[Any], None]
    fail: Callable[[BaseException], None]
    scene: Scene | None = None


class Scene:
    """A part of a run: a plan that is being worked on at some place in the tree of pipelines."""

    is_chunk = False  # whether its items were sent here together
    fixed: Values = {}  # noqa: RUF012  what all items of a map have in common

    def __init__(self, run: Run, plan: Plan, scope: Scope, waiter: Waiter) -> None:
        self.run = run
        self.plan = plan
        self.scope = scope
        self.waiter = waiter
        self.over = False
        self.started = perf_counter()
        self.executed = 0  # calls made here, and in the scenes that are a part of this one
        self.told_as: str | None = None  # the pipeline id under which it is told; items have none

    @property
    def is_alive(self) -> bool:
        """Whether anybody still waits for what is done here."""
        scene: Scene | None = self
        while scene is not None:
            if scene.over:
                return False
            scene = scene.waiter.scene
        return True

    def emit(
        self,
        hook: str,
        *arguments: Any,
        signature: bytes | None = None,
        ended: tuple[float, Worker] | None = None,
        about: About = "node",
    ) -> None:
        """Put an event down, if anybody wants to hear of it.

        Args:
            hook: The hook.
            arguments: What it is called with.
            signature: The signature of the node it is about.
            ended: When and where it happened, if not now and here.
            about: What an error is of.
        """
        if hook in self.plan.hears:
            when, worker = (time(), here()) if ended is None else ended
            signed = None if signature is None else signature.hex()
            self.run.events.append(Event(hook, arguments, self.scope, when, worker, signed, about))

    def count_call(self) -> None:
        """Note that something was computed here, and so in every scene around."""
        scene: Scene | None = self
        while scene is not None:
            scene.executed += 1
            scene = scene.waiter.scene

    def fail(self, error: BaseException) -> None:
        """End with an error."""
        if self.over:
            return
        self.over = True
        if self.told_as is not None:
            self.emit("on_error", self.told_as, error, about="pipeline")
        self.waiter.fail(error)
