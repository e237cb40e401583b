"""The aliases of executors, such as ``"threaded"``."""

from __future__ import annotations

import os
from concurrent.futures import Executor, ThreadPoolExecutor
from importlib import import_module
from typing import TYPE_CHECKING, Final

from hypernodes.exceptions import UnknownExecutorError, did_you_mean, listing

if TYPE_CHECKING:
    from collections.abc import Callable

SEQUENTIAL: Final = "sequential"


def _threaded(workers: int | None = None) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers or os.cpu_count() or 4, thread_name_prefix="hypernodes")


def _of_class(module: str, name: str) -> Callable[..., Executor]:
    """Return a function that imports a class and makes an executor of it."""

    def make_executor(workers: int | None = None) -> Executor:
        executor_type = getattr(import_module(f"hypernodes.executors.{module}"), name)
        executor: Executor = executor_type() if workers is None else executor_type(workers)
        return executor

    return make_executor


ALIASES: Final[dict[str, Callable[..., Executor] | None]] = {
    SEQUENTIAL: None,
    "async": _of_class("asynchronous", "AsyncExecutor"),
    "threaded": _threaded,
    "parallel": _of_class("parallel", "ParallelExecutor"),
    "ray": _of_class("ray", "RayExecutor"),
}
"""The function that makes the executor of an alias; ``"sequential"`` has no executor."""


def make(alias: str, workers: int | None = None) -> Executor:
    """Make the executor of an alias, with a number of workers or the default of the executor."""
    if (maker := ALIASES[alias]) is None:
        raise ValueError(f"{alias!r} stands for no executor")
    return maker(workers)


def check_executor(executor: object, option: str) -> None:
    """Refuse a value that is neither an alias nor an executor."""
    if isinstance(executor, str):
        if executor not in ALIASES:
            raise UnknownExecutorError(
                f"{option}={executor!r} is no executor. Known: {listing(ALIASES)}, or any object with the "
                f"concurrent.futures.Executor protocol.{did_you_mean(executor, ALIASES)}"
            )
    elif isinstance(executor, type) or not callable(getattr(executor, "submit", None)):
        raise UnknownExecutorError(
            f"{option}={executor!r} has no submit(...). Give one of {listing(ALIASES)}, or an object (not a "
            f"class) with the concurrent.futures.Executor protocol."
        )


def check_count(option: str, count: object) -> None:
    """Refuse a value of an option that is neither ``None`` nor an int of 1 or more."""
    if count is None:
        return
    if not isinstance(count, int) or isinstance(count, bool):
        raise TypeError(f"{option} must be an int of 1 or more, or None, not {count!r}")
    if count < 1:
        raise ValueError(f"{option} must be 1 or more, or None, not {count!r}")
