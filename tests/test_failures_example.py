"""examples/failures, as a newcomer runs it."""

import subprocess
import sys
from pathlib import Path

import pytest

FAILURES = Path(__file__).parents[1] / "examples" / "failures" / "main.py"


@pytest.mark.parametrize("executor", ["sequential", "parallel"])
def test_failures_are_saved_and_computed_again(tmp_path, executor):
    command = [sys.executable, FAILURES, "--executor", executor]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "{'amount': [2.0, KeyError('USD'), 3.0]}",
        "a nested map:  {'total': 5.0}",
        "saved:         failure.pkl {'price': '10 USD'}",
        "made again:    9.0",
        "only this one: {'amount': [2.0, 9.0, 3.0]}",
    ]
    replayed = [sys.executable, "-m", "hypernodes", "replay", "failure.pkl"]
    done = subprocess.run(replayed, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.stdout.endswith("returned 9.0\n"), done.stderr
