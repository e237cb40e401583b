"""examples/services, as a newcomer runs it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

FETCH = Path(__file__).parents[1] / "examples" / "services" / "fetch.py"


@pytest.mark.parametrize("executor", ["threaded", "parallel"])
def test_the_polite_pipeline_loses_nothing(executor):
    ended = subprocess.run(
        [sys.executable, FETCH, "--executor", executor],
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=100,
    )
    assert ended.returncode == 0, ended.stderr
    found = re.findall(r"^(\w+): (\d+) requests, (\d+) of 60 calls lost", ended.stdout, re.MULTILINE)
    requests, lost = {name: (int(count), int(lost)) for name, count, lost in found}["polite"]
    assert lost == 0
    assert requests < 80
