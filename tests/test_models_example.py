"""examples/models, as a newcomer runs it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

CLASSIFY = Path(__file__).parents[1] / "examples" / "models" / "classify.py"


@pytest.mark.parametrize("executor", ["sequential", "threaded", "parallel"])
def test_each_way_loads_the_model_once_and_not_for_each_text(executor):
    ended = subprocess.run(
        [sys.executable, CLASSIFY, "--executor", executor],
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=100,
    )
    assert ended.returncode == 0, ended.stderr
    counts = dict(
        re.findall(
            r"^(.*?): \{'news': 8, 'sport': 8, 'science': 8\}, loaded (\d+) times$", ended.stdout, re.M
        )
    )
    assert counts["a node of fixed inputs"] == "1"
    assert counts["@stateful, from the cache"] == "0"
    assert 1 <= int(counts["@stateful"]) < 24
    assert 1 <= int(counts["functools.cache"]) < 24
