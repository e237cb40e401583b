"""A nested pipeline whose engine works in a way of its own, as the function of a call."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hypernodes.callbacks.base import CallbackContext
from hypernodes.callbacks.event import Event
from hypernodes.execution.current import CURRENT_CALL
from hypernodes.expansion import check_shared, expand
from hypernodes.mapping import collect

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class EngineCall:
    """Runs a nested pipeline by its own engine; called with the inner inputs as keywords."""

    engine: Any
    pipeline: Any  # with the cache and the callbacks that hold for it
    outputs: tuple[str, ...]
    map_over: tuple[str, ...]
    map_mode: Any
    beside: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    on_error: Any = "raise"

    def __call__(self, **inputs: Any) -> Any:
        """Run the pipeline, and return the values of its outputs."""
        context = _context_around()
        if self.map_over:
            where = f"pipeline {self.pipeline.pipeline_id!r}"
            check_shared(
                {self.labels[name]: inputs[name] for name in inputs if name not in self.map_over}, where
            )
            items = expand(
                inputs, self.map_over, self.map_mode, where, beside=self.beside, labels=self.labels
            )
            fixed = {name: value for name, value in inputs.items() if name not in self.map_over}
            # An engine that was written before `on_error` is not given what is its default.
            options = {} if self.on_error == "raise" else {"on_error": self.on_error}
            rows: Any = []
            if len(items):
                rows = self.engine.map(self.pipeline, items, fixed, self.outputs, context, **options)
            values = tuple(collect(rows, self.outputs).values())
        else:
            outputs = self.engine.run(self.pipeline, inputs, self.outputs, context)
            values = tuple(outputs[name] for name in self.outputs)
        return values[0] if len(values) == 1 else values


def _context_around() -> CallbackContext | None:
    """Return the context of the pipeline that makes this call."""
    scope = CURRENT_CALL.get()
    return None if scope is None else CallbackContext(Event.now("on_node_start", (), scope), scope.run)
