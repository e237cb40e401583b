"""LoggingCallback: a run as lines of the standard library's logging."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from hypernodes.callbacks.base import PipelineCallback
from hypernodes.portable import seconds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hypernodes.callbacks.base import CallbackContext


class LoggingCallback(PipelineCallback):
    """Log what happens: nodes and pipelines at `level`, single items one step below it, errors as errors.

    Each record carries ``pipeline_path``, ``item_path`` and ``depth``, for formatters and filters.

    Args:
        logger: Where to log; the logger ``hypernodes.run`` by default.
        level: The level of ordinary records.

    Example:
        >>> import logging, sys
        >>> logger = logging.Logger("example")
        >>> logger.addHandler(logging.StreamHandler(sys.stdout))
        >>> from hypernodes import Pipeline, node
        >>> told = [LoggingCallback(logger)]
        >>> sizes = Pipeline([node(abs, output_name="size")], callbacks=told, name="sizes")
        >>> sizes.run({"x": -1})  # doctest: +ELLIPSIS
        pipeline sizes: started
          node abs: started
          node abs: done in ...
        pipeline sizes: done in ...
        {'size': 1}
    """

    def __init__(self, logger: logging.Logger | None = None, level: int = logging.INFO) -> None:
        self._logger = logger or logging.getLogger("hypernodes.run")
        self._level = level
        self._item_level = max(level - 10, 1)

    def _log(self, level: int, ctx: CallbackContext, inward: int, message: str, *args: Any) -> None:
        if self._logger.isEnabledFor(level):
            extra = {
                "pipeline_path": "/".join(ctx.hierarchy_path),
                "item_path": ctx.item_path,
                "depth": ctx.depth,
            }
            self._logger.log(level, f"{'  ' * (ctx.depth + inward)}{message}", *args, extra=extra)  # noqa: G004

    def on_pipeline_start(self, pipeline_id: str, inputs: Mapping[str, Any], ctx: CallbackContext) -> None:
        self._log(self._level_in(ctx), ctx, 0, "pipeline %s: started", pipeline_id)

    def on_pipeline_end(
        self, pipeline_id: str, outputs: Mapping[str, Any], duration: float, ctx: CallbackContext
    ) -> None:
        self._log(self._level_in(ctx), ctx, 0, "pipeline %s: done in %s", pipeline_id, seconds(duration))

    def on_node_start(self, node_id: str, inputs: Mapping[str, Any], ctx: CallbackContext) -> None:
        self._log(self._level_in(ctx), ctx, 1, "node %s%s: started", node_id, _item(ctx))

    def on_node_end(
        self, node_id: str, outputs: Mapping[str, Any], duration: float, ctx: CallbackContext
    ) -> None:
        self._log(
            self._level_in(ctx), ctx, 1, "node %s%s: done in %s", node_id, _item(ctx), seconds(duration)
        )

    def on_node_cached(self, node_id: str, signature: str, ctx: CallbackContext) -> None:
        self._log(self._level_in(ctx), ctx, 1, "node %s%s: cached", node_id, _item(ctx))

    def on_node_retry(self, node_id: str, attempt: int, error: BaseException, ctx: CallbackContext) -> None:
        self._log(
            logging.WARNING, ctx, 1, "node %s%s: attempt %d failed: %r", node_id, _item(ctx), attempt, error
        )

    def on_map_start(self, total_items: int | None, ctx: CallbackContext) -> None:
        many = "items" if total_items is None else f"{total_items} items"
        self._log(self._level_in(ctx), ctx, 1, "map over %s", many)

    def on_map_end(self, total_duration: float, ctx: CallbackContext) -> None:
        self._log(self._level_in(ctx), ctx, 1, "map done in %s", seconds(total_duration))

    def on_error(self, node_id: str, error: BaseException, ctx: CallbackContext) -> None:
        self._log(logging.ERROR, ctx, 1, "%s%s: failed: %r", node_id, _item(ctx), error)

    def _level_in(self, ctx: CallbackContext) -> int:
        return self._item_level if ctx.item_path else self._level


def _item(ctx: CallbackContext) -> str:
    return f" [{'.'.join(map(str, ctx.item_path))}]" if ctx.item_path else ""
