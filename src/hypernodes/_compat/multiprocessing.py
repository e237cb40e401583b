"""What `ParallelExecutor` relies on in `multiprocessing` beyond its documented interface."""

from __future__ import annotations

from multiprocessing.process import current_process


def is_importing_main() -> bool:
    """Whether this process is a worker that imports the main script of the process that started it.

    Why: a script without a ``__main__`` guard starts processes while it is imported. Each of those would fail
    with a long text of the standard library; `MainGuardError` says what to change.
    When ``_inheriting`` is gone: see what ``multiprocessing/spawn.py`` checks before it starts a process.
    """
    return bool(getattr(current_process(), "_inheriting", False))
