"""examples/watching, as a newcomer runs it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

NIGHTLY = Path(__file__).parents[1] / "examples" / "watching" / "nightly.py"


@pytest.mark.parametrize("executor", ["threaded", "parallel"])
def test_a_run_is_watched(tmp_path, executor):
    page, log = tmp_path / "report.html", tmp_path / "run.jsonl"
    ended = subprocess.run(
        [sys.executable, NIGHTLY, "--executor", executor, "--report", page, "--log", log],
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=100,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.splitlines()[-2].startswith("nightly: 24/24 ")
    assert "nightly/download, item 9, failed: ConnectionError('feed-09 is gone')" in ended.stdout
    assert ended.stdout.splitlines()[-1] == str(page)
    assert "Plotly.newPlot" in page.read_text(encoding="utf-8")
    logged = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert sum(line["event"] == "node_end" and line["node"] == "summarize" for line in logged) == 68
    assert [line["item_path"] for line in logged if line["event"] == "error"] == [[9]]
    assert {line["node"] for line in logged if line["event"] == "node_retry"} == {"download"}
