"""The aliases of executors, such as ``"threaded"``."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from hypernodes.exceptions import UnknownExecutorError, did_you_mean, listing

if TYPE_CHECKING:
    from hypernodes.executors.asynchronous import AsyncExecutor
    from hypernodes.executors.parallel import ParallelExecutor
    from hypernodes.executors.ray import RayExecutor

SEQUENTIAL: Final = "sequential"


def _async(workers: int | None = None) -> AsyncExecutor:
    from hypernodes.executors.asynchronous import AsyncExecutor

    return AsyncExecutor() if workers is None else AsyncExecutor(workers)


def _threaded(workers: int | None = None) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers or os.cpu_count() or 4, thread_name_prefix="hypernodes")


def _parallel(workers: int | None = None) -> ParallelExecutor:
    from hypernodes.executors.parallel import ParallelExecutor

    return ParallelExecutor(workers)


def _ray(workers: int | None = None) -> RayExecutor:
    from hypernodes.executors.ray import RayExecutor

    return RayExecutor(workers)


ALIASES: Final[dict[str, Callable[..., Executor] | None]] = {
    SEQUENTIAL: None,
    "async": _async,
    "threaded": _threaded,
    "parallel": _parallel,
    "ray": _ray,
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
