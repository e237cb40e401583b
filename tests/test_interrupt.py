"""Ctrl-C and SIGTERM end a run soon, and leave nothing behind."""

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


WITH_CHILDREN = """
import os, signal, subprocess, sys
from pathlib import Path
import numpy as np
from hypernodes import DaftEngine, HyperNodesEngine, Pipeline, node

def main(name, marks):
    def work(x, table):
        child = subprocess.Popen(["sleep", "100"])
        for pid in (os.getpid(), child.pid):
            Path(marks, str(pid)).touch()
        child.wait()

    engines = {
        "parallel": lambda: HyperNodesEngine(map_executor="parallel"),
        "nodes": lambda: HyperNodesEngine(node_executor="parallel"),
        "daft": lambda: DaftEngine(runner="native", concurrency=1),
    }
    pipeline = Pipeline([node(work, output_name="y")], engine=engines[name]())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
    try:
        pipeline.map({"x": range(20), "table": np.zeros(100_000)}, map_over="x")
    except KeyboardInterrupt:
        sys.exit(2)

if __name__ == "__main__":
    main(*sys.argv[1:])
"""

END_CODES = {"SIGKILL": -9, "SIGTERM": 3, "SIGINT": 2}


@pytest.mark.parametrize(
    ("engine", "number"),
    [
        ("parallel", "SIGKILL"),
        ("parallel", "SIGTERM"),
        ("parallel", "SIGINT"),
        ("nodes", "SIGKILL"),
        ("daft", "SIGKILL"),
        ("daft", "SIGINT"),
    ],
)
def test_a_signal_to_the_driver_alone_leaves_no_process_and_no_file(engine, number, tmp_path):
    (tmp_path / "script.py").write_text(WITH_CHILDREN)
    marks, files = tmp_path / "marks", tmp_path / "files"
    marks.mkdir()
    files.mkdir()
    process = subprocess.Popen(
        [sys.executable, "script.py", engine, str(marks)],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(files)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    # Each worker has a child; Daft may begin with one worker.
    while len([*marks.iterdir()]) < (4 if engine == "parallel" else 2):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.Signals[number])
    output, _ = process.communicate(timeout=30)  # Its output is open as long as a worker has it.
    assert process.returncode == END_CODES[number], output
    pids = [int(mark.name) for mark in marks.iterdir()]
    deadline = time.monotonic() + 20
    while (any(map(is_running, pids)) or any(files.iterdir())) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [pid for pid in pids if is_running(pid)] == []
    assert [*files.iterdir()] == []


NODES = """
import os, subprocess
from pathlib import Path
from hypernodes import Pipeline, node

@node
def work(x, marks):
    child = subprocess.Popen(["sh", "-c", "sleep 100; true"])
    for pid in (os.getpid(), child.pid):
        Path(marks, str(pid)).touch()
    child.wait()
    subprocess.run(["sleep", "100"])  # a thread goes on with its call

pipeline = Pipeline([work])
"""
COMMAND = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it in the background
from hypernodes.cli import main
main()
"""


def end_when_marked(process, marks, number):
    """Send a signal when a node has started its program, and return the pids of those that are left."""
    while len([*marks.iterdir()]) < 2:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)  # Its output is open as long as a program has it.
    pids = [int(mark.name) for mark in marks.iterdir()]
    deadline = time.monotonic() + 20
    while any(map(is_running, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return output, [pid for pid in pids if is_running(pid)]


@pytest.mark.parametrize(
    ("options", "number", "code"),
    [
        (["sequential"], signal.SIGTERM, 143),
        (["threaded"], signal.SIGTERM, 143),
        (["async"], signal.SIGTERM, 143),
        (["parallel", "--max-workers", "1"], signal.SIGTERM, 143),
        (["sequential"], signal.SIGINT, 1),
        (["threaded"], signal.SIGINT, 1),
        (["threaded"], signal.SIGHUP, 129),
    ],
    ids=str,
)
def test_a_command_that_is_ended_ends_the_programs_of_its_nodes(options, number, code, tmp_path):
    (tmp_path / "nodes.py").write_text(NODES)
    marks = tmp_path / "marks"
    marks.mkdir()
    given = ["--map-over", "x", "--set", "x=[1, 2, 3]", "--set", f"marks={marks}"]
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, "run", "nodes.py:pipeline", *given, "--executor", *options],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    output, left = end_when_marked(process, marks, number)
    assert left == []
    assert process.returncode == code, output


REMEDY = "signal.signal(signal.SIGTERM, lambda *_: os.killpg(0, signal.SIGKILL))"
DRIVER = f"""
import os, signal, sys
from hypernodes import HyperNodesEngine
import nodes
{REMEDY}
pipeline = nodes.pipeline.with_engine(HyperNodesEngine(map_executor=sys.argv[1]))
pipeline.map({{"x": range(5), "marks": sys.argv[2]}}, map_over="x")
"""


@pytest.mark.parametrize("executor", ["sequential", "threaded", "async"])
def test_a_program_with_the_line_of_the_docs_leaves_no_program_of_its_nodes(executor, tmp_path):
    assert REMEDY in Path(__file__).parent.parent.joinpath("docs/reliability.md").read_text()
    (tmp_path / "nodes.py").write_text(NODES)
    (tmp_path / "driver.py").write_text(DRIVER)
    marks = tmp_path / "marks"
    marks.mkdir()
    process = subprocess.Popen(
        [sys.executable, "driver.py", executor, str(marks)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert end_when_marked(process, marks, signal.SIGTERM)[1] == []
    assert process.returncode == -signal.SIGKILL
