"""What `hypernodes._compat` uses of concurrent.futures and multiprocessing is there, and does its work.

A test that fails with a new version of Python says what to change.
"""

import subprocess
import sys
import threading
from concurrent.futures import (
    FIRST_COMPLETED,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    as_completed,
    wait,
)
from multiprocessing.process import current_process

from hypernodes import AsyncExecutor
from hypernodes._compat import concurrent_futures as compat
from hypernodes._compat import multiprocessing as compat_multiprocessing


def changed(what, todo):
    """Return the message of a failing test."""
    return f"Python {sys.version.split()[0]}: {what} {todo} (hypernodes/_compat/concurrent_futures.py)"


def test_functions_run_before_the_interpreter_joins_its_threads():
    assert hasattr(threading, "_register_atexit"), changed(
        "threading._register_atexit is gone.", "Change run_before_exit as concurrent/futures/thread.py does."
    )
    source = (
        "import atexit, threading\n"
        "from hypernodes._compat.concurrent_futures import run_before_exit\n"
        "stop = threading.Event()\n"
        "threading.Thread(target=lambda: (stop.wait(), print('thread'))).start()\n"
        "atexit.register(print, 'atexit')\n"
        "run_before_exit(lambda: (print('hook'), stop.set()))\n"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["hook", "thread", "atexit"], changed(
        f"the order at exit is another one: {done}.", "Change run_before_exit."
    )


def test_a_running_future_can_be_cancelled():
    future = Future()
    future.set_running_or_notify_cancel()
    assert not future.cancel(), changed("running futures can be cancelled.", "Remove cancel_running.")
    todo = changed("the private state of futures is another one.", "Change cancel_running.")
    compat.cancel_running(future)
    assert future.cancelled(), todo
    assert wait([future], timeout=5).done == {future}, todo
    finished = Future()
    finished.set_result(1)
    compat.cancel_running(finished)
    assert finished.result() == 1


def test_the_event_of_wait_and_as_completed_can_be_replaced():
    todo = changed("wait and as_completed do not use Future._waiters.", "Change replace_wait_events.")

    class Event(threading.Event):
        def wait(self, timeout=None):
            future.set_result(1)
            return super().wait(timeout)

    for wait_for in (
        lambda future: wait([future], timeout=10).done,
        lambda future: wait([future], timeout=10, return_when=FIRST_COMPLETED).done,
        lambda future: set(as_completed([future], timeout=10)),
    ):
        future = Future()

        def replacement(event):
            replaced = Event()
            assert isinstance(event, threading.Event), todo
            return replaced

        compat.replace_wait_events(future, replacement)
        assert wait_for(future) == {future}, todo
        assert future.done(), todo


def test_executors_tell_how_many_workers_they_have():
    for executor in (ThreadPoolExecutor(3), ProcessPoolExecutor(3), AsyncExecutor(3)):
        with executor:
            assert compat.worker_count(executor) == 3, changed(
                f"{type(executor).__name__}._max_workers is gone.", "Change worker_count."
            )
    assert compat.worker_count(object()) is None


def test_executors_tell_whether_they_are_broken():
    def fail():
        raise LookupError

    todo = changed("ThreadPoolExecutor._broken is gone.", "Change is_broken.")
    with ThreadPoolExecutor(1, initializer=fail) as executor:
        assert hasattr(executor, "_broken"), todo
        assert not compat.is_broken(executor)
        executor.submit(abs, -1).exception()
        assert compat.is_broken(executor), todo
    with ProcessPoolExecutor(1) as processes:
        assert hasattr(processes, "_broken"), todo
    assert not compat.is_broken(None)


def test_a_process_knows_that_it_imports_the_main_script(tmp_path):
    assert not compat_multiprocessing.is_importing_main()
    assert not getattr(current_process(), "_inheriting", False)
    script = tmp_path / "script.py"
    script.write_text(
        "import multiprocessing\n"
        "from hypernodes._compat.multiprocessing import is_importing_main\n"
        "print(is_importing_main(), flush=True)\n"
        "if __name__ == '__main__':\n"
        "    process = multiprocessing.get_context('spawn').Process(target=print)\n"
        "    process.start()\n"
        "    process.join()\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["False", "True"], changed(
        "multiprocessing.process.current_process()._inheriting is gone.",
        "Change is_importing_main in hypernodes/_compat/multiprocessing.py.",
    )
