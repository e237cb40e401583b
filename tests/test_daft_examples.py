"""The examples in examples/daft, as a newcomer runs them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples" / "daft"


def printed(name, *options, runner=None, environment=os.environ):
    environment = {name: value for name, value in environment.items() if name != "DAFT_RUNNER"}
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *options, *(["--runner", runner] if runner else [])],
        capture_output=True,
        encoding="utf-8",
        env=environment,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_first_query():
    output = printed("first_query.py", "--rows", "1000", runner="native")
    assert "all 1,000 results are the same, the last is 3,000" in output


@pytest.mark.parametrize("runner", ["native", "ray"])
def test_models(runner):
    assert printed("models.py", runner=runner).splitlines() == [
        "Ada: 60.50 (Invoice, of an Order)",
        "Grace: 98.09, reduced (Invoice, of an Order)",
        "item 2 refused: prices: List should have at least 1 item after validation, not 0",
        "Barbara: 225.00, reduced (Invoice, of an Order)",
    ]


def test_retrieval_finds_the_same_from_the_cache_and_on_ray(tmp_path, environment_on_ray):
    first = printed("retrieval.py", "--cache", tmp_path / "cache", runner="native")
    assert "time.strptime" in first
    options = ("--cache", tmp_path / "cache")
    assert printed("retrieval.py", *options, runner="ray", environment=environment_on_ray) == first


def test_debugging_a_plan():
    output = printed("debug_a_plan.py")
    assert "UDF texts.split_count" in output
    assert "in node 'take_first' of pipeline 'texts', item 3, called with words=[]" in output
    assert "take_first at 'return words[0]'" in output
    assert "['one', 'two', 'now', IndexError('list index out of range')]" in output


def test_from_storage_to_storage_within_a_limit():
    output = printed("larger_than_memory.py", "--megabytes", "40", "--limit", "6144")
    assert "50,000 rows in 49 MB of Parquet files" in output
    assert "'longest': ['nobody', 'quick', 'while']" not in output  # every text has the longest word
    assert "of 6,144 that were allowed" in output
