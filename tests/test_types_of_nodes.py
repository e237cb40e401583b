"""What type checkers, IDEs and `inspect` see of a node: the signature of its function."""

import inspect
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from hypernodes import node

PROGRAM = Path(__file__).parent / "typed_nodes.py"  # mypy reads it in `make types`


def test_pyright_sees_the_signature_of_the_function(tmp_path):
    if find_spec("pyright") is None:
        pytest.skip("pyright is not installed")
    file = tmp_path / "users.py"
    file.write_text(PROGRAM.read_text().replace("# type: ignore", "# wrong"))
    wrong = [number for number, line in enumerate(file.read_text().splitlines(), 1) if "# wrong" in line]
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    if done.returncode not in (0, 1) or "error" not in done.stdout:
        pytest.skip(f"pyright does not run here: {(done.stdout + done.stderr)[-200:]}")
    found = sorted(set(map(int, re.findall(r"users\.py:(\d+):.* error:", done.stdout))))
    assert found == wrong, done.stdout


def test_an_async_node_is_a_coroutine_function():
    @node(output_name="page")
    async def fetch(url):
        return url

    class Client:
        @node(output_name="page")
        async def fetch(self, url):
            return url

    @node(output_name="size")
    def measure(page):
        return len(page)

    assert inspect.iscoroutinefunction(fetch)
    assert inspect.iscoroutinefunction(Client().fetch)
    assert not inspect.iscoroutinefunction(measure)
    assert str(inspect.signature(fetch)) == "(url)"
