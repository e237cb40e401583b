"""LoggingCallback: the events of a run as records of the standard library's logging."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from hypernodes.arguments import error_of, flag, whole_number
from hypernodes.callbacks.base import CallbackContext, PipelineCallback, event_of
from hypernodes.callbacks.label import JsonFormatter
from hypernodes.callbacks.label_context import LabelContext
from hypernodes.exceptions import NodeAbandonedError
from hypernodes.text import seconds, short

if TYPE_CHECKING:
    from collections.abc import Mapping

_TEXT_FORMAT: Final = "%(asctime)s %(levelname)-7s %(message)s"


MAX_ERROR_LENGTH: Final = 1000  # characters of an error in a record


class LoggingCallback(PipelineCallback):
    """Log the events of a run: nodes and pipelines at `level`, items one step below it, errors as errors.

    Records carry ``event``, ``pipeline_path``, ``node``, ``item_path``, ``depth``, ``duration`` (in seconds),
    ``signature`` and ``host``, for formatters and filters; their time, process and thread are those of the
    event. What nodes print or log themselves, in the driver or in a worker, is labelled with the node and its
    item.

    Args:
        logger: The logger to log to; ``hypernodes.run`` by default.
        level: The level of ordinary records, as a number or by name.
        to: A file to append to, or a stream to write to, instead of a logger.
        json: Whether lines are JSON; without `to`, they go to standard error.
        items: Whether events within items are logged at `level`, too.
        label: Whether lines that nodes print or log are labelled.

    Raises:
        ValueError: There is a `logger` together with `to` or `json`, or `level` is unknown.
        TypeError: `logger` is not a ``logging.Logger``.
        OSError: The file `to` cannot be opened.

    Example:
        >>> import sys
        >>> from hypernodes import Pipeline, node
        >>> @node(output_name="size")
        ... def measure(x):
        ...     print("measuring")
        ...     return abs(x)
        >>> logger = logging.Logger("example")
        >>> logger.addHandler(logging.StreamHandler(sys.stdout))
        >>> sizes = Pipeline([measure], callbacks=[LoggingCallback(logger)], name="sizes")
        >>> sizes.run({"x": -1})  # doctest: +ELLIPSIS
        pipeline sizes: started
          node measure: started
        sizes/measure | measuring
          node measure: done in ...
        pipeline sizes: done in ...
        {'size': 1}
    """

    def __init__(
        self,
        logger: logging.Logger | None = None,
        level: int | str = logging.INFO,
        *,
        to: str | Path | TextIO | None = None,
        json: bool = False,
        items: bool = False,
        label: bool = True,
    ) -> None:
        if logger is not None and (to is not None or json):
            raise ValueError(
                "logger= cannot be combined with to= or json=, which write lines without a logger. Give the "
                "handler of the logger the formatter hypernodes.callbacks.JsonFormatter(), or omit logger=."
            )
        if logger is not None and not isinstance(logger, logging.Logger):
            raise TypeError(
                f"logger must be a logging.Logger, such as logging.getLogger({logger!r}) returns: {logger!r}"
            )
        if isinstance(level, str):
            names = logging.getLevelNamesMapping()
            if level not in names:
                raise ValueError(f"unknown level {level!r}; known levels: {', '.join(names)}")
            level = names[level]
        level = whole_number("level", level, where="LoggingCallback")
        for name, value in (("json", json), ("items", items), ("label", label)):
            flag(name, value, where="LoggingCallback")
        if to is not None and not isinstance(to, str | Path) and not callable(getattr(to, "write", None)):
            raise error_of("to", "a path or an open text file", to, where="LoggingCallback")
        self._as_json = json
        self._label = label
        self._level = level
        self._item_level = level if items else max(level - 10, 1)
        if to is not None or json:
            logger = _UnregisteredLogger(sys.stderr if to is None else to, level, as_json=json)
        self._logger = logger or logging.getLogger("hypernodes.run")

    def node_context(self, ctx: CallbackContext) -> LabelContext | None:
        return LabelContext.for_driver(as_json=self._as_json) if self._label else None

    def on_pipeline_start(self, pipeline_id: str, inputs: Mapping[str, Any], ctx: CallbackContext) -> None:
        self._log(ctx, 0, "pipeline_start", "pipeline %s: started", pipeline_id)

    def on_pipeline_end(
        self, pipeline_id: str, outputs: Mapping[str, Any], duration: float, ctx: CallbackContext
    ) -> None:
        message = "pipeline %s: done in %s"
        self._log(ctx, 0, "pipeline_end", message, pipeline_id, seconds(duration), duration=duration)

    def on_node_start(self, node_id: str, inputs: Mapping[str, Any], ctx: CallbackContext) -> None:
        if self._is_logged(ctx):
            self._log(ctx, 1, "node_start", "node %s%s: started", node_id, _item(ctx), node=node_id)

    def on_node_end(
        self, node_id: str, outputs: Mapping[str, Any], duration: float, ctx: CallbackContext
    ) -> None:
        if self._is_logged(ctx):
            arguments = node_id, _item(ctx), seconds(duration)
            self._log(
                ctx, 1, "node_end", "node %s%s: done in %s", *arguments, node=node_id, duration=duration
            )

    def on_node_cached(self, node_id: str, signature: str, ctx: CallbackContext) -> None:
        self._log(ctx, 1, "node_cached", "node %s%s: cached", node_id, _item(ctx), node=node_id)

    def on_node_retry(self, node_id: str, attempt: int, error: BaseException, ctx: CallbackContext) -> None:
        message = "node %s%s: attempt %d failed: %s"
        arguments = node_id, _item(ctx), attempt, short(error, MAX_ERROR_LENGTH)
        fields = {"node": node_id, "attempt": attempt}
        self._log(ctx, 1, "node_retry", message, *arguments, level=logging.WARNING, **fields)

    def on_map_start(self, total_items: int | None, ctx: CallbackContext) -> None:
        items = "items" if total_items is None else f"{total_items} items"
        self._log(ctx, 1, "map_start", "map over %s", items, items=total_items)

    def on_map_end(self, total_duration: float, ctx: CallbackContext) -> None:
        self._log(ctx, 1, "map_end", "map done in %s", seconds(total_duration), duration=total_duration)

    def on_error(self, node_id: str, error: BaseException, ctx: CallbackContext) -> None:
        if isinstance(error, NodeAbandonedError):
            # Not an error of this node: its record has the level of the one that logged its start.
            self._log(ctx, 1, "node_abandoned", "node %s%s: abandoned", node_id, _item(ctx), node=node_id)
            return
        arguments = node_id, _item(ctx), short(error, MAX_ERROR_LENGTH)
        self._log(ctx, 1, "error", "%s%s: failed: %s", *arguments, level=logging.ERROR, node=node_id)

    def _is_logged(self, ctx: CallbackContext) -> bool:
        """Whether an ordinary record is logged, so that no text is made of one that is not."""
        return self._logger.isEnabledFor(self._item_level if event_of(ctx).scope.items else self._level)

    def _log(
        self,
        ctx: CallbackContext,
        extra_depth: int,
        event: str,
        message: str,
        *args: Any,
        level: int | None = None,
        **fields: Any,
    ) -> None:
        """Make a record of an event and hand it to the logger."""
        if level is None:
            level = self._item_level if ctx.item_path else self._level
        if not self._logger.isEnabledFor(level):
            return
        extra = {
            "event": event,
            "pipeline_path": "/".join(ctx.hierarchy_path),
            "item_path": ctx.item_path,
            "depth": ctx.depth,
            "host": ctx.worker.host,
            **fields,
        }
        if ctx.signature is not None:
            extra["signature"] = ctx.signature
        indent = "" if self._as_json else "  " * (ctx.depth + extra_depth)
        name = self._logger.name
        # `Logger.log` with `extra` would refuse fields that the label of an enclosing node has set already.
        record = logging.LogRecord(name, level, "", 0, f"{indent}{message}", args, None)
        vars(record).update(extra)
        record.created, record.msecs = ctx.time, ctx.time % 1 * 1000
        record.process, record.threadName = ctx.worker.pid, ctx.worker.thread
        self._logger.handle(record)


class _UnregisteredLogger(logging.Logger):
    """A logger for one callback: it is not in the hierarchy of loggers, and has one handler."""

    def __init__(self, to: str | Path | TextIO, level: int, *, as_json: bool) -> None:
        super().__init__("hypernodes.run", level)
        handler = (
            logging.FileHandler(to, encoding="utf-8")
            if isinstance(to, str | Path)
            else logging.StreamHandler(to)
        )
        handler.setFormatter(JsonFormatter() if as_json else logging.Formatter(_TEXT_FORMAT))
        self.addHandler(handler)


def _item(ctx: CallbackContext) -> str:
    return f" [{'.'.join(map(str, ctx.item_path))}]" if ctx.item_path else ""
