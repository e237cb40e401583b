"""The tests of DaftEngine once more, in a process whose Daft uses Ray: a cluster of two hosts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

MODULES = ("test_compat_daft.py", "test_daft_matrix.py", "test_daft_values.py", "test_daft_engine.py")


@pytest.mark.timeout(600)
@pytest.mark.skipif(os.environ["DAFT_RUNNER"] == "ray", reason="this is that process")
def test_the_tests_of_daft_pass_with_its_ray_runner():
    here = Path(__file__).parent
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            *(str(here / name) for name in MODULES),
        ],
        env={**os.environ, "DAFT_RUNNER": "ray"},
        cwd=here.parent,
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,  # Ray may send a signal to the process group.
    )
    assert ended.returncode == 0, ended.stdout[-8000:] + ended.stderr[-2000:]
