"""Which of Daft's runners this process uses. Daft decides that once, with its first query."""

from __future__ import annotations

import atexit
import os
import re
import time
from functools import cache
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from hypernodes.exceptions import DaftError

if TYPE_CHECKING:
    from types import ModuleType

Runner: TypeAlias = Literal["native", "ray"]

_OLDEST: Final = (0, 7, 26)


def imported() -> ModuleType:
    """Return Daft.

    Raises:
        DaftError: It is not installed, or older than what this was written for.
    """
    needed = ".".join(map(str, _OLDEST))
    try:
        import daft
    except ImportError as error:
        raise DaftError(
            f"DaftEngine needs Daft, which cannot be imported: {error}. Install it: pip install "
            f"'daft>={needed}'."
        ) from error
    found = tuple(map(int, re.findall(r"\d+", daft.__version__)[:3]))
    if found < _OLDEST:
        raise DaftError(
            f"DaftEngine needs Daft {needed} or later; this is {daft.__version__}. Install it: "
            f"pip install -U 'daft>={needed}'."
        )
    return daft


def claim(wanted: Runner) -> None:
    """Have Daft take a runner when it takes one, which may be before a pipeline runs.

    Raises:
        DaftError: It has taken the other one.
    """
    daft = imported()
    from daft.runners import _get_runner

    if _get_runner() is None:
        if wanted == "native":
            daft.set_runner_native()
        else:  # which makes no connection yet
            os.environ["DAFT_RUNNER"] = wanted
        return
    bound: str = daft.get_or_infer_runner_type()
    if wanted != bound:
        raise DaftError(
            f"DaftEngine(runner={wanted!r}): this process uses Daft's {bound!r} runner already, and Daft "
            f"keeps to its first one as long as a process lives. Make the engine before anything else of "
            f"Daft (or set DAFT_RUNNER={wanted} before Python starts), use another process, or leave runner "
            f"out to go with {bound!r}."
        )


def bind(address: str | None = None) -> Runner:
    """Have Daft take its runner, if it has taken none yet.

    Args:
        address: The Ray cluster to connect to, if the process is connected to none yet.

    Returns:
        The runner that is used.

    Raises:
        ClusterConnectionError: There is no connection to the Ray cluster.
    """
    daft = imported()
    from daft.runners import _get_runner

    kind: Runner = daft.get_or_infer_runner_type()
    if kind == "ray":
        _connect(address)
        if _get_runner() is None:
            daft.set_runner_ray(noop_if_initialized=True)
        return kind
    if _get_runner() is None:
        daft.set_runner_native()
    _end_in_peace()
    return kind


@cache
def _end_in_peace() -> None:
    """Give Daft's threads a moment when the program ends.

    They may still be giving back what they held of Python when the last result is there. One that does
    so while Python ends takes the program down, which happened to one of ten programs.
    """
    atexit.register(time.sleep, 0.1)


def _connect(address: str | None) -> None:
    from hypernodes.executors.ray.connection import join

    join(address)
