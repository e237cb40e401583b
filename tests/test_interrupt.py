"""Ctrl-C ends a run soon, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

SCRIPT = """
import os, sys, time
from pathlib import Path
from hypernodes import HyperNodesEngine, Pipeline, node

def main(executor, marks):
    def work(x):
        Path(marks, str(os.getpid())).touch()
        time.sleep(0.5 if executor == "threaded" else 60)
        return x

    pipeline = Pipeline([node(work, output_name="y")], engine=HyperNodesEngine(map_executor=executor))
    try:
        pipeline.map({"x": range(1000)}, map_over="x")
    except KeyboardInterrupt:
        print("interrupted", flush=True)

if __name__ == "__main__":
    if sys.argv[1] == "ray":
        import ray
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    main(*sys.argv[1:])
"""


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("executor", ["threaded", "parallel", "ray"])
def test_ctrl_c_ends_a_map_and_leaves_no_process(executor, tmp_path):
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    marks = tmp_path / "marks"
    marks.mkdir()
    process = subprocess.Popen(
        [sys.executable, "script.py", executor, str(marks)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not any(marks.iterdir()):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    # A terminal sends Ctrl-C to the whole group of processes.
    os.killpg(process.pid, signal.SIGINT)
    started = time.monotonic()
    assert process.stdout.readline() == "interrupted\n", process.communicate()[1]
    print(f"{executor}: returned after {time.monotonic() - started:.2f} s")
    process.communicate(timeout=30)
    workers = [int(mark.name) for mark in marks.iterdir()]
    deadline = time.monotonic() + 20
    while any(map(is_running, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [pid for pid in workers if is_running(pid)] == []
