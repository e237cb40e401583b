"""What `ParallelExecutor` relies on in `multiprocessing` beyond its documented interface."""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager
from multiprocessing import process
from multiprocessing.process import current_process
from multiprocessing.util import Finalize
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_lock: Final = threading.Lock()


def is_importing_main() -> bool:
    """Whether this process is a worker that imports the main script of the process that started it.

    Why: a script without a ``__main__`` guard starts processes while it is imported. Each of those would fail
    with a long text of the standard library; `MainGuardError` says what to change.
    When ``_inheriting`` is gone: see what ``multiprocessing/spawn.py`` checks before it starts a process.
    """
    return bool(getattr(current_process(), "_inheriting", False))


def run_before_processes_are_joined(function: Callable[[], None]) -> None:
    """Have a function called when this process ends, before it waits for the processes that it has started.

    Why: a process of `multiprocessing` ends with waiting for those that it has started. The workers of an
    executor end when the executor is shut down, which happens later, at the end of the interpreter.
    When ``multiprocessing.util.Finalize`` is gone: see what ``multiprocessing/util.py`` calls at exit.
    """
    Finalize(None, function, exitpriority=0)


def forget_processes_of_parent() -> None:
    """Forget the processes that the parent of this forked child has started.

    Why: a child of `os.fork` would try to join them when it ends, and print an error. `multiprocessing`
    forgets them in its own children.
    When ``multiprocessing.process._children`` is gone: remove this function, and see what is printed.
    """
    getattr(process, "_children", set()).clear()


@contextmanager
def without_lost_main() -> Iterator[None]:
    """Have processes that are started meanwhile not import a main script which is no file.

    Why: a program that Python reads from its standard input has the file name ``<stdin>``. A worker would try
    to import that file. It needs nothing of it: cloudpickle sends what is defined there.
    When ``multiprocessing.spawn.get_preparation_data`` takes the path from elsewhere: hide it there.
    """
    main = vars(sys.modules["__main__"])
    with _lock:
        path = main.get("__file__")
        if path is not None and main.get("__spec__") is None and not Path(path).exists():
            del main["__file__"]
            try:
                yield
            finally:
                main["__file__"] = path
            return
    yield
