"""examples/watching, as a newcomer runs it."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

NIGHTLY = Path(__file__).parents[1] / "examples" / "watching" / "nightly.py"


EXECUTORS = ("threaded", "parallel")


def watch(executor, directory):
    page, log = directory / f"{executor}.html", directory / f"{executor}.jsonl"
    ended = subprocess.run(
        [sys.executable, NIGHTLY, "--executor", executor, "--report", page, "--log", log],
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=100,
    )
    return page, log, ended


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """The runs by executor, all at the same time, since each mostly waits."""
    directory = tmp_path_factory.mktemp("watched")
    with ThreadPoolExecutor() as pool:
        yield {executor: pool.submit(watch, executor, directory) for executor in EXECUTORS}


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_run_is_watched(watched, executor):
    page, log, ended = watched[executor].result()
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.splitlines()[-2].startswith("nightly: 24/24 ")
    assert "nightly/download, item 9, failed: ConnectionError('feed-09 is gone')" in ended.stdout
    assert ended.stdout.splitlines()[-1] == str(page)
    assert "Plotly.newPlot" in page.read_text(encoding="utf-8")
    logged = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert sum(line["event"] == "node_end" and line["node"] == "summarize" for line in logged) == 68
    assert [line["item_path"] for line in logged if line["event"] == "error"] == [[9]]
    assert {line["node"] for line in logged if line["event"] == "node_retry"} == {"download"}
