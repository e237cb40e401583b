"""The tests of DaftEngine once more, in a process whose Daft uses Ray: a cluster of two hosts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

MODULES = ("test_daft_matrix.py", "test_daft_values.py", "test_daft_engine.py")


@pytest.mark.timeout(600)
@pytest.mark.skipif(os.environ["DAFT_RUNNER"] == "ray", reason="this is that process")
def test_all_of_it_on_daft_with_ray():
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
        start_new_session=True,  # a signal to its group, as Ray may send one, is not for this process
    )
    assert ended.returncode == 0, ended.stdout[-8000:] + ended.stderr[-2000:]
