"""The main job, as `make run` runs it."""

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "semantic_search" / "main.py"


MODULES = ("datetime", "json", "shutil", "statistics", "subprocess", "time")


def search(cache, executor, environment):
    modules = [option for name in MODULES for option in ("--module", name)]
    options = ("--cache", cache, "--executor", executor, "--question", "parse a date", *modules)
    done = subprocess.run(
        [sys.executable, EXAMPLE, *options],
        capture_output=True,
        encoding="utf-8",
        env=environment,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    hits = re.findall(r"^  \d\.\d\d +\S+ +\S+$", done.stdout, re.MULTILINE)
    computed, cached = map(
        int, re.search(r"(\d+) nodes computed, (\d+) from the cache", done.stdout).groups()
    )
    return hits, computed, cached


@pytest.mark.timeout(500)
def test_the_search_finds_what_it_should_and_computes_nothing_twice_on_any_executor(
    tmp_path, environment_on_ray
):
    hits, computed, cached = search(tmp_path / "cache", "threaded", None)
    assert any("strptime" in hit for hit in hits)
    assert computed > 200
    assert cached == 0
    with ThreadPoolExecutor() as pool:
        again = pool.map(
            search,
            [tmp_path / "cache"] * 3,
            ["sequential", "parallel", "ray"],
            [None, None, environment_on_ray],
        )
        assert list(again) == [(hits, 0, 2)] * 3
