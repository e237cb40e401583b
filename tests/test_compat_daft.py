"""What `hypernodes._compat.daft` uses of Daft is there, and does what it is used for.

A test that fails with a new version of Daft says what to change.
"""

import inspect
import os
from pathlib import Path

import daft
import pyarrow as pa
import pytest
from daft import DataType, Series, col

from hypernodes._compat import daft as compat

ON_RAY = os.environ["DAFT_RUNNER"] == "ray"
native_only = pytest.mark.skipif(ON_RAY, reason="is about this process")

pytestmark = pytest.mark.usefixtures("daft_runner")

CHECKED_VERSION = "0.7"


def changed(what, todo):
    """Return the message of a failing test."""
    return f"Daft {daft.__version__}: {what} {todo} (hypernodes/_compat/daft.py)"


@daft.func.batch(return_dtype=DataType.int64(), use_process=False)
def double(x: Series) -> Series:
    return Series.from_arrow(pa.array([2 * value for value in x.to_pylist()]))


# ------------------------------------------------------------------------------------------ runner


def test_the_chosen_runner_can_be_seen():
    todo = changed("daft.runners._get_runner is gone.", "See has_runner for what to use instead.")
    assert hasattr(daft.runners, "_get_runner"), todo
    daft.from_pydict({"x": [1]}).collect()
    assert compat.has_runner(), changed(
        "_get_runner does not return the chosen runner.", "Change has_runner."
    )


def test_the_environment_names_the_runner(monkeypatch):
    monkeypatch.setenv("DAFT_RUNNER", "unset")
    compat.select_runner("ray")
    assert os.environ["DAFT_RUNNER"] == "ray"
    documented = inspect.getdoc(daft.set_runner_ray) or ""
    assert "DAFT_RUNNER=ray" in documented, changed(
        "the environment variable DAFT_RUNNER is no longer documented.",
        "Call daft.set_runner_ray in select_runner.",
    )


# ------------------------------------------------------------------------------------ rows and columns


def test_rows_of_the_first_partition_are_numbered_from_zero():
    from daft.functions import monotonically_increasing_id

    todo = changed("row ids are numbered in another way.", "Correct ROWS_OF_FIRST_PARTITION.")
    frame = daft.from_pydict({"x": [1, 2, 3]}).with_column("id", monotonically_increasing_id())
    assert frame.to_pydict()["id"] == [0, 1, 2], todo
    assert "lower 36 bits" in inspect.getdoc(monotonically_increasing_id), todo
    assert compat.ROWS_OF_FIRST_PARTITION == 1 << 36


def test_columns_become_one_column_of_structs_that_keeps_their_types():
    typed = Series.from_arrow(pa.array([1, None]), name="a")
    objects = Series.from_pylist([(1, 2), {3}], dtype=DataType.python())
    try:
        struct = compat.struct_series({"a": typed, "b": objects})
    except (ImportError, AttributeError, TypeError) as error:
        pytest.fail(
            changed(f"struct_series fails: {error!r}.", "Build the structs in another way, see there.")
        )
    assert struct.datatype() == DataType.struct({"a": DataType.int64(), "b": DataType.python()})
    assert struct.to_pylist() == [{"a": 1, "b": (1, 2)}, {"a": None, "b": {3}}]


def test_partitions_are_arrow_tables_or_references_to_them():
    frame = daft.from_pydict({"x": [1, 2]}).select(double(col("x")).alias("y"), "x")
    partitions = frame.iter_partitions()
    columns = [compat.partition_columns(partition) for partition in partitions]
    assert [[column.to_pylist() for column in part] for part in columns] == [[[2, 4], [1, 2]]], changed(
        "iter_partitions yields something else.", "Change partition_columns."
    )


def test_a_query_ends_when_its_partitions_are_closed():
    partitions = daft.from_pydict({"x": [1, 2]}).select(double(col("x"))).iter_partitions()
    assert inspect.isgenerator(partitions), changed(
        "iter_partitions returns no generator.", "Find out how close_partitions can end a query."
    )
    next(partitions)
    compat.close_partitions(partitions)
    assert list(partitions) == []


# -------------------------------------------------------------------------------------------- UDFs


def test_a_udf_has_the_name_of_its_function_in_plans(capsys):
    def function(x):
        return x

    compat.name_udf(function, "pipeline", "stage")
    udf = daft.func.batch(return_dtype=DataType.int64(), use_process=False)(function)
    daft.from_pydict({"x": [1]}).select(udf(col("x"))).explain(show_all=True)
    assert "pipeline.stage" in capsys.readouterr().out, changed(
        "plans do not show module and name of a function.", "Change name_udf."
    )


def test_a_plain_udf_can_have_processes():
    todo = changed("Func.with_concurrency is gone.", "Use daft.cls in in_processes.")
    assert hasattr(double, "with_concurrency"), todo
    assert compat.in_processes(double, 2).max_concurrency == 2, todo


def test_batch_udfs_take_the_options_that_the_engine_sets():
    options = set(inspect.signature(daft.func.batch).parameters)
    assert options >= {"return_dtype", "cpus", "gpus", "use_process", "batch_size", "ray_options"}, changed(
        "daft.func.batch has lost an option.", "Change QueryBuilder._daft_udf in engines/daft/builder.py."
    )


@native_only
@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
def test_the_native_runner_raises_the_very_error_of_a_udf(is_async):
    error = LookupError("no such row")

    def fail(x):
        raise error

    async def fail_later(x):
        raise error

    udf = daft.func.batch(return_dtype=DataType.int64(), use_process=False)(fail_later if is_async else fail)
    with pytest.raises(LookupError) as caught:
        list(daft.from_pydict({"x": [1]}).select(udf(col("x"))).iter_partitions())
    assert caught.value is error, changed(
        "the error of a UDF arrives as another object.",
        "Keep the error in InProcessTransport.raise_error, and return it in original_error.",
    )


@native_only
def test_the_text_of_an_error_arrives_from_another_process():
    @daft.func.batch(return_dtype=DataType.int64(), use_process=False)
    def fail(x):
        raise LookupError("a <text> that stays as it is")

    frame = daft.from_pydict({"x": [1]}).select(compat.in_processes(fail, 1)(col("x")))
    with pytest.raises(Exception, match="a <text> that stays as it is"):  # PickledTransport parses it.
        list(frame.iter_partitions())


# ------------------------------------------------------------------------------------------ errors


def test_errors_of_daft_come_from_its_modules():
    with pytest.raises(Exception) as caught:
        daft.from_pydict({"x": [1]}).select("y").collect()
    assert compat.is_daft_error(caught.value), changed("errors have another module.", "Change is_daft_error.")
    assert not compat.is_daft_error(ValueError("x"))


@native_only
def test_too_few_resources_are_known_by_the_text_of_the_error():
    @daft.func.batch(return_dtype=DataType.int64(), use_process=False, cpus=512)
    def greedy(x):
        return x

    with pytest.raises(Exception) as caught:
        list(daft.from_pydict({"x": [1]}).select(greedy(col("x"))).iter_partitions())
    assert compat.is_too_few_resources(caught.value), changed(
        f"the error for too many CPUs reads {str(caught.value)!r}.", "Change _TOO_FEW_RESOURCES."
    )


# ------------------------------------------------------------------------------------- workarounds


@pytest.mark.parametrize(
    ("workaround", "todo"),
    [
        (
            "can_await_udfs",
            "Does Daft on Ray still lose rows behind an async UDF where a partition is empty?",
        ),
        ("MAX_UDFS", "Does a query with 100 UDFs still end the process?"),
        ("THREADS_END_TIME_S", "Do Daft's threads still abort a process that ends right after a query?"),
    ],
)
def test_workarounds_were_checked_with_this_version(workaround, todo):
    assert hasattr(compat, workaround)
    assert daft.__version__.startswith(f"{CHECKED_VERSION}."), changed(
        f"{workaround} works around a fault of Daft {CHECKED_VERSION}. {todo}",
        "If not, remove it; if so, raise CHECKED_VERSION in this test.",
    )


def test_the_process_waits_for_threads_once(monkeypatch):
    registered = []
    monkeypatch.setattr(compat.atexit, "register", registered.append)
    compat.wait_for_threads_at_exit.cache_clear()
    compat.wait_for_threads_at_exit()
    compat.wait_for_threads_at_exit()
    assert registered == [compat.wait_for_threads]


def test_the_process_of_a_udf_can_be_told_from_others(tmp_path):
    todo = changed(
        "the processes of UDFs run another module, or have no socket.",
        "Change is_udf_process and udf_process_socket.",
    )

    @daft.func.batch(return_dtype=DataType.string(), use_process=True)
    def look(x: Series) -> Series:
        seen = f"{compat.is_udf_process()} {Path(compat.udf_process_socket()).is_socket()}"
        return Series.from_pylist([seen])

    assert not compat.is_udf_process()
    if not ON_RAY:
        frame = daft.from_pydict({"x": [1]}).select(look(col("x")).alias("seen"))
        assert frame.to_pydict() == {"seen": ["True True"]}, todo
