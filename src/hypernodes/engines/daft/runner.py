"""Which of its runners Daft uses in this process: it chooses one with its first query, and keeps to it."""

from __future__ import annotations

import os
import re
from threading import RLock
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from hypernodes._compat.daft import has_runner, select_runner, wait_for_threads_at_exit
from hypernodes.exceptions import DaftError, ForkedProcessError

if TYPE_CHECKING:
    from types import ModuleType

Runner: TypeAlias = Literal["native", "ray"]

MIN_VERSION: Final = (0, 7, 26)
"""The oldest version of Daft that the engine was tested with."""

_processes_with_queries: Final[set[int]] = set()
"""The ids of this process, and of one that has forked it, if Daft has computed something there."""


_choosing: Final = (
    RLock()
)  # Daft raises an error if its runner is chosen twice, and several threads may make engines.


def import_daft() -> ModuleType:
    """Import Daft, and check its version."""
    needed = ".".join(map(str, MIN_VERSION))
    try:
        import daft
    except ImportError as error:
        raise DaftError(
            f"DaftEngine needs Daft, which cannot be imported: {error}. Install it: pip install "
            f"'daft>={needed}'."
        ) from error
    found = tuple(map(int, re.findall(r"\d+", daft.__version__)[:3]))
    if found < MIN_VERSION:
        raise DaftError(
            f"DaftEngine needs Daft {needed} or later; this is {daft.__version__}. Install it: "
            f"pip install -U 'daft>={needed}'."
        )
    return daft


def request_runner(wanted: Runner) -> None:
    """Have Daft use a runner in this process; a Ray runner connects when a pipeline first runs."""
    daft = import_daft()
    with _choosing:
        if not has_runner():
            if wanted == "native":
                daft.set_runner_native()
            else:
                select_runner(wanted)
            return
    chosen: str = daft.get_or_infer_runner_type()
    if wanted != chosen:
        raise DaftError(
            f"DaftEngine(runner={wanted!r}): this process uses Daft's {chosen!r} runner already, and Daft "
            f"keeps to its first one as long as a process lives. Make the engine before anything else of "
            f"Daft (or set DAFT_RUNNER={wanted} before Python starts), use another process, or leave runner "
            f"out to go with {chosen!r}."
        )


def ensure_runner(address: str | None = None) -> Runner:
    """Have Daft choose its runner, if it has none yet, and return it; for Ray's, connect to the cluster."""
    daft = import_daft()
    with _choosing:
        runner: Runner = daft.get_or_infer_runner_type()
        if runner == "ray":
            from hypernodes.executors.ray.connection import join

            join(address)
            if not has_runner():
                daft.set_runner_ray(noop_if_initialized=True)
            return runner
        if not has_runner():
            daft.set_runner_native()
    wait_for_threads_at_exit()
    return runner


def check_process() -> None:
    """Refuse a query in a forked child of a process in which Daft has computed something.

    Raises:
        ForkedProcessError: The threads of Daft are in the process that forked this one.
    """
    _processes_with_queries.add(os.getpid())
    if len(_processes_with_queries) > 1:
        _processes_with_queries.discard(os.getpid())
        raise ForkedProcessError(
            "this process was forked (os.fork, multiprocessing's 'fork') by one in which Daft has computed "
            "something, and the threads of Daft are there. Start processes by 'spawn', use Daft only after "
            "the fork (gunicorn without --preload), or take HyperNodesEngine or DaftEngine(debug=True) here."
        )
