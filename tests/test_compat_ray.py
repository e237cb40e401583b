"""What `hypernodes._compat.ray` uses of Ray is there, and does what it is used for.

A test that fails with a new version of Ray says what to change.
"""

import inspect
import logging
import os
import subprocess
import sys
import textwrap
import time

import pytest
import ray

from hypernodes._compat import ray as compat

pytestmark = pytest.mark.usefixtures("ray_cluster")


def changed(what, todo):
    """Return the message of a failing test."""
    return f"Ray {ray.__version__}: {what} {todo} (hypernodes/_compat/ray.py)"


@pytest.mark.timeout(120)
def test_a_task_knows_how_often_it_was_begun_before(tmp_path):
    from ray._private.worker import global_worker

    todo = changed("get_current_task_attempt_number is gone.", "Look for it in ray.get_runtime_context.")
    assert hasattr(global_worker.core_worker, "get_current_task_attempt_number"), todo

    @ray.remote(max_retries=1, num_cpus=0)
    def die_once(marker):
        from hypernodes._compat.ray import attempt_number

        if not marker.exists():
            marker.touch()
            os._exit(1)
        return attempt_number()

    assert ray.get(die_once.remote(tmp_path / "died"), timeout=100) == 1, todo


def test_a_process_knows_whether_it_is_a_worker():
    todo = changed(
        "RuntimeContext.worker or WORKER_MODE has changed.", "Look for the type of the worker elsewhere."
    )

    @ray.remote(num_cpus=0)
    def inside():
        from hypernodes._compat.ray import is_worker_process

        return is_worker_process()

    @ray.remote(num_cpus=0)
    class Actor:
        def inside(self):
            return compat.is_worker_process()

    try:
        assert not compat.is_worker_process(), todo
    except AttributeError:
        pytest.fail(todo)
    assert ray.get(inside.remote(), timeout=60), todo
    assert ray.get(Actor.remote().inside.remote(), timeout=60), todo


def test_directories_of_a_runtime_env_are_uploaded(tmp_path):
    (tmp_path / "module").mkdir()
    (tmp_path / "module" / "__init__.py").write_text("")
    env = {"working_dir": str(tmp_path), "py_modules": [str(tmp_path / "module")], "env_vars": {"A": "1"}}
    todo = changed("upload_working_dir_if_needed or upload_py_modules_if_needed has changed.", "See there.")
    try:
        uploaded = compat.upload_directories(env, logging.getLogger("hypernodes"))
    except (ImportError, TypeError) as error:
        pytest.fail(f"{todo} {error}")
    assert uploaded["working_dir"].startswith("gcs://"), todo
    assert uploaded["py_modules"][0].startswith("gcs://"), todo
    assert uploaded["env_vars"] == {"A": "1"}
    assert env["working_dir"] == str(tmp_path)


def test_the_message_of_a_version_mismatch_is_recognized():
    from ray._private import utils

    todo = changed("the message of a version mismatch is another one.", "Change is_version_mismatch.")
    assert compat.is_version_mismatch(inspect.getsource(utils.check_version_info)), todo
    assert not compat.is_version_mismatch("Connection refused")


def test_the_message_of_a_refused_token_is_recognized():
    todo = changed("ray.exceptions.AuthenticationError has changed.", "Change is_authentication_failure.")
    assert hasattr(ray.exceptions, "AuthenticationError"), todo
    assert compat.is_authentication_failure(str(ray.exceptions.AuthenticationError("refused"))), todo
    assert not compat.is_authentication_failure("Connection refused")


def test_the_error_of_a_result_is_discarded_without_waiting():
    @ray.remote(num_cpus=0, max_retries=0)
    def fail():
        raise LookupError

    ref = fail.remote()
    ray.wait([ref], timeout=60)
    assert compat.discard_error(ref) is None


def test_ray_reads_again_whether_it_sends_a_token():
    todo = changed(
        "Config.initialize or get_authentication_mode is gone.", "See authentication_token_setup.py."
    )
    script = """
        import os
        os.environ.pop("RAY_AUTH_MODE", None)
        import ray
        from hypernodes._compat.ray import sends_token
        before = sends_token()
        os.environ["RAY_AUTH_MODE"] = "token"
        print(before, sends_token())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "False True\n", todo + done.stderr


def test_a_cluster_that_asks_for_no_token_rejects_none(ray_cluster):
    address = ray_cluster.get_runtime_context().gcs_address
    assert not compat.rejects_token(address, 5)


def test_a_process_knows_that_it_is_no_client():
    """That a client knows it is a test of test_ray_client.py, which has a server for clients."""
    import ray.util.client

    todo = changed("ray.util.client.ray is gone.", "Look for another way to know of Ray Client.")
    assert callable(ray.util.client.ray.is_connected), todo
    assert not compat.is_client()


def test_data_sets_are_mapped_with_a_number_of_retries():
    import ray.data

    todo = changed(
        "Dataset.map_batches_internal has changed.", "See map_tables in hypernodes/_compat/ray_data.py."
    )
    methods = ("map_batches_internal", "_map_batches_without_batch_size_validation")
    present = [name for name in methods if hasattr(ray.data.Dataset, name)]
    assert present, todo
    taken = inspect.signature(getattr(ray.data.Dataset, present[0])).parameters
    assert {"fn", "batch_size", "compute", "fn_constructor_args", "ray_remote_args"} <= set(taken), todo


def test_processes_of_a_cluster_see_the_marks_of_others():
    todo = changed(
        "ray.experimental.internal_kv has changed.", "Find another store that all processes share."
    )

    @ray.remote(num_cpus=0)
    def marks():
        return compat.add_mark("one;")

    assert [ray.get(marks.remote()), compat.add_mark("one;"), compat.add_mark("oneself;")] == [0, 1, 0], todo
    compat.remove_marks("one;")
    assert [compat.add_mark("one;"), compat.add_mark("oneself;")] == [0, 1], todo
    compat.remove_marks("one")


@pytest.mark.timeout(120)
def test_tasks_are_killed_unless_they_are_about_to_end():
    @ray.remote(num_cpus=0, max_retries=0)
    def wait(seconds):
        time.sleep(seconds)
        return seconds

    short = wait.remote(0.1)
    compat.kill_tasks([short], seconds=60)
    assert ray.get(short) == 0.1
    long = wait.remote(600)
    compat.kill_tasks([long], seconds=0)
    with pytest.raises((ray.exceptions.TaskCancelledError, ray.exceptions.WorkerCrashedError)):
        ray.get(long)
    compat.kill_tasks([])
    assert "force" in inspect.signature(ray.cancel).parameters, changed(
        "ray.cancel has changed.", "See kill_tasks, and whether it still must wait."
    )
