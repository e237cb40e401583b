"""What `DaftEngine` relies on in Daft 0.7.26 beyond its documented interface.

``pyproject.toml`` keeps out versions of Daft with which the tests of this module have not passed.
"""

from __future__ import annotations

import atexit
import os
import socket
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import suppress
from functools import cache
from multiprocessing import AuthenticationError
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from types import FrameType

    from daft import Series

ROWS_OF_FIRST_PARTITION: Final = 1 << 36
"""The first row id that `daft.functions.monotonically_increasing_id` gives outside of the first partition.

Why: below it, the id of a row is its index in the data frame. From it on, the index is unknown, since nothing
says how many rows the earlier partitions have.
When it changes: the docstring of `monotonically_increasing_id` says how ids are made up of partition and row.
"""
MAX_UDFS: Final = 40
"""How many UDFs the plan of one query has at most.

Why: the planner of Daft 0.7 is recursive. At some 100 UDFs it overflows the stack, which ends the process.
When Daft plans in a loop: remove this limit, and `stages_of` in ``engines/daft/spec.py`` that observes it.
"""
THREADS_END_TIME_S: Final = 0.1
"""How long the process waits for Daft's threads when the program ends, in seconds.

Why: they release Python objects after the last result has arrived. A thread of Daft 0.7 that does so while
Python shuts down aborts the process (exit code 134), which happened to one of ten programs.
When Daft joins its threads at exit: remove `wait_for_threads_at_exit`.
"""
UDF_END_TIMEOUT_S: Final = 10.0
"""How long the process waits at most, in seconds, for threads that talk to the process of a UDF.

Why: such a thread runs code of ``daft/execution/udf.py`` until the process has ended. Daft 0.7 waits five
seconds for that, and the thread aborts the program as well.
When Daft joins its threads at exit: remove it, with `are_threads_in_udfs`.
"""

START_CHECK_INTERVAL_S: Final = 0.2
"""Seconds between checks whether a process of a UDF has ended before it was connected."""

_RUNNER_VARIABLE: Final = "DAFT_RUNNER"
_DEAD_PROCESS: Final = (
    "UDF process closed the connection",
    "UDF process has terminated",
    "ActorDiedError",
    "WorkerCrashedError",
)
_TOO_FEW_RESOURCES: Final = (" requested ", " found only ")


def has_runner() -> bool:
    """Whether Daft has chosen its runner in this process, which it does once.

    Why: choosing a second runner is an error of Daft, and `daft.get_or_infer_runner_type` does not tell a
    chosen runner from one that would be chosen.
    When ``daft.runners._get_runner`` is gone: call ``daft.set_runner_native()``, and take the error
    "Cannot set runner more than once" for an answer.
    """
    from daft.runners import _get_runner

    return _get_runner() is not None


def select_runner(name: str) -> None:
    """Have Daft choose a runner by this name when it first needs one.

    Why: `daft.set_runner_ray` connects to Ray at once, and an engine is often made before there is a cluster.
    When Daft no longer reads the environment variable: call `daft.set_runner_ray` here.
    """
    os.environ[_RUNNER_VARIABLE] = name


def can_await_udfs(runner: str) -> bool:
    """Whether coroutines can run in Daft's own async UDFs.

    Why: on Ray, Daft 0.7 loses rows behind an async UDF where a partition is empty. There coroutines run in a
    plain UDF, on an event loop of the worker's own.
    When Daft has corrected this: return ``True``. The test
    ``test_no_row_is_lost_behind_async_nodes_where_partitions_are_empty`` must pass 100 times on Ray.
    """
    return runner != "ray"


def name_udf(function: Callable[..., Any], pipeline: str, name: str) -> None:
    """Give a function the name under which Daft shows its UDF in plans: ``pipeline.name``.

    Why: Daft makes the name of a UDF of the module and the qualified name of its function, and
    `daft.func.batch` takes no name.
    When Daft shows another name: `daft.func.batch` may take one as an option by then.
    """
    function.__name__ = function.__qualname__ = name
    function.__module__ = pipeline


def in_processes(udf: Any, count: int) -> Any:
    """Return a UDF that runs in a number of processes of its own.

    Why: the option ``max_concurrency`` of `daft.func.batch` is refused for plain functions, though Daft runs
    them in that many processes.
    When ``Func.with_concurrency`` is gone: wrap the function in a class for `daft.cls`, whose
    ``max_concurrency`` is the number of its processes.
    """
    raise_for_processes_that_end_at_once()
    return udf.with_concurrency(count)


@cache
def raise_for_processes_that_end_at_once() -> None:
    """Have a query fail when a process of a UDF ends before it has connected to the driver.

    Why: Daft 0.7 waits for the connection without end. That happened where the system was out of memory while
    a process was starting.
    When ``daft.execution.udf.UdfHandle`` starts processes in another way: see what it does if one ends, and
    remove this if it raises. ``test_a_process_that_ends_while_it_starts_costs_no_item`` must pass without it.
    """
    from daft.execution.udf import UdfHandle

    start: Callable[..., None] = UdfHandle.__init__

    def start_or_raise(self: UdfHandle, *args: Any) -> None:
        is_connected = Event()
        watch = Thread(target=_end_wait_for_dead, args=(self, is_connected), name="daft-start", daemon=True)
        watch.start()
        try:
            start(self, *args)
        except (OSError, EOFError, AuthenticationError) as error:
            if (process := getattr(self, "process", None)) is None or process.poll() is None:
                raise  # The process could not be started, which an item is not to blame for.
            raise RuntimeError(f"{_DEAD_PROCESS[1]} before it was connected") from error
        finally:
            is_connected.set()

    UdfHandle.__init__ = start_or_raise  # type: ignore[method-assign, assignment]


def _end_wait_for_dead(handle: Any, is_connected: Event) -> None:
    """Connect in place of a process of a UDF that has ended, so that the wait for its connection ends."""
    while not is_connected.wait(START_CHECK_INTERVAL_S):
        process = getattr(handle, "process", None)
        if process is not None and process.poll() is not None:
            with suppress(OSError), socket.socket(socket.AF_UNIX) as stand_in:
                stand_in.connect(handle.socket_path)
            return


def is_udf_process() -> bool:
    """Whether Daft's native runner has started this process for a UDF.

    Why: such a process is to end with the driver, and Daft does not see to it.
    When the module ``daft.execution.udf_worker`` is gone: see what ``daft/execution/udf.py`` starts instead.
    """
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec is not None and spec.name == "daft.execution.udf_worker"


def udf_process_socket() -> str:
    """Return the path of the socket through which a process of a UDF is connected to the driver.

    Why: a driver that is killed leaves it behind.
    When it is no argument of ``daft.execution.udf_worker`` any longer: return an empty path.
    """
    return sys.argv[1] if len(sys.argv) > 1 else ""


def struct_series(columns: Mapping[str, Series]) -> Series:
    """Return one column of structs that has a field for each of several columns.

    Why: a UDF returns one column, and `daft.Series` has no constructor for structs that keeps the types of
    the fields, Python objects included.
    When ``RecordBatch`` or ``ExpressionsProjection`` is gone: build the column with
    ``daft.from_pydict(columns).select(to_struct(...)).to_pydict()``, which is slower, or with whatever
    replaces ``RecordBatch.eval_expression_list``.
    """
    from daft import col
    from daft.expressions import ExpressionsProjection
    from daft.functions import to_struct
    from daft.recordbatch import RecordBatch

    batch = RecordBatch.from_pydict(dict(columns))
    struct = ExpressionsProjection([to_struct(*map(col, columns))])
    return batch.eval_expression_list(struct).get_column(0)


def partition_columns(partition: Any) -> list[Any]:
    """Return the columns of a partition that `DataFrame.iter_partitions` has yielded, as Arrow arrays.

    Why: the partitions of the native runner are ``MicroPartition`` objects, those of the Ray runner are
    references to such objects.
    When either has changed: iterate over `DataFrame.to_arrow_iter`, which yields Arrow record batches with
    both runners.
    """
    if not hasattr(partition, "to_arrow"):
        import ray

        partition = ray.get(partition)
    columns: list[Any] = partition.to_arrow().columns
    return columns


def close_partitions(partitions: Iterator[Any]) -> None:
    """End a query whose further partitions are not wanted.

    Why: `DataFrame.iter_partitions` promises an iterator only. It is a generator, and closing it ends the
    query; otherwise that happens when the garbage collector finds it.
    When it is no generator any longer: look for the method of the new iterator that ends the query.
    """
    if isinstance(partitions, Generator):
        partitions.close()


def is_daft_error(error: BaseException) -> bool:
    """Whether Daft has raised an error by itself, and not the code of a UDF.

    Why: Daft raises errors of several classes that have no base class of their own.
    When they have one: use it here.
    """
    return type(error).__module__.partition(".")[0] == "daft"


def is_dead_process(error: BaseException) -> bool:
    """Whether an error that Daft has raised by itself says that a process or an actor of a UDF has ended.

    Why: it is a `RuntimeError`, or what Python raises for a broken connection, so that only the text and the
    type identify it.
    When the texts have changed: change ``_DEAD_PROCESS``. Until then users see a `RuntimeError` in place of a
    `WorkerDiedError`, and the items of the query are lost instead of computed again.
    """
    if isinstance(error, BrokenPipeError | ConnectionResetError | EOFError):
        return True
    return any(part in str(error) for part in _DEAD_PROCESS)


def is_too_few_resources(error: BaseException) -> bool:
    """Whether an error of Daft says that a UDF asks for more CPUs or GPUs than there are.

    Why: the error has a general class, so that only its text identifies it.
    When the text has changed: change ``_TOO_FEW_RESOURCES``. Until then users see a `DaftError` in place of a
    `ResourcesError`.
    """
    return all(part in str(error) for part in _TOO_FEW_RESOURCES)


@cache
def wait_for_threads_at_exit() -> None:
    """Have the program wait for Daft's threads when it ends; the reason is at `THREADS_END_TIME_S`."""
    atexit.register(wait_for_threads)


def wait_for_threads(timeout: float = UDF_END_TIMEOUT_S) -> None:
    """Wait until no thread talks to the process of a UDF, and `THREADS_END_TIME_S` seconds more."""
    deadline = time.monotonic() + timeout
    while are_threads_in_udfs() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(THREADS_END_TIME_S)


def are_threads_in_udfs() -> bool:
    """Whether a thread talks to the process of a UDF, or waits for the start or the end of one.

    Why: the reason is at `UDF_END_TIMEOUT_S`.
    When the module ``daft.execution.udf`` is gone: see what starts the processes of UDFs instead.
    """
    frames: list[FrameType | None] = [*sys._current_frames().values()]
    while frames:
        if (frame := frames.pop()) is None:
            continue
        if frame.f_globals.get("__name__") == "daft.execution.udf":
            return True
        frames.append(frame.f_back)
    return False
