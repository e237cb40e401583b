"""What type checkers, IDEs and `inspect` see of a node: the signature of its function."""

import inspect
import re
import subprocess
import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path

import pytest

from hypernodes import node

SETTINGS = Path(__file__).parents[1] / "pyproject.toml"

USERS_FILE = """
    from typing import assert_type
    from collections.abc import Coroutine
    from typing import Any
    from hypernodes import DiskCache, HyperNodesEngine, Pipeline, node
    from hypernodes import SeqEngine  # wrong
    from hypernodes.engines import DaskEngine  # wrong

    @node
    def split(text: str) -> list[str]:
        return text.split()

    @node()
    def join(words: list[str]) -> str:
        return " ".join(words)

    @node(output_name="size", retries=2)
    def measure(words: list[str], least: int = 0) -> int:
        return max(least, len(words))

    @node(output_name="page")
    async def fetch(url: str) -> bytes:
        return url.encode()

    class Model:
        @node(output_name="label")
        def classify(self, words: list[str]) -> str:
            return words[0]

        @node
        async def ask(self, words: list[str]) -> float:
            return 0.5

    def shout(text: str) -> str:
        return text.upper()

    assert_type(split("a b"), list[str])
    assert_type(measure(["a"], least=3), int)
    assert_type(join(["a"]), str)
    page: Coroutine[Any, Any, bytes] = fetch("u")
    async def wait() -> None:
        assert_type(await fetch("u"), bytes)
        assert_type(await Model().ask(["a"]), float)
    assert_type(Model().classify(["a"]), str)
    assert_type(node(shout, output_name="loud")("a"), str)
    assert_type(split.rename(outputs={"split": "words"})("a b"), list[str])
    engine = HyperNodesEngine("threaded")
    pipeline = Pipeline([split, Model().classify, fetch], engine=engine, cache=DiskCache("c"))
    assert_type(pipeline.run({"text": "a"}), dict[str, Any])
    assert_type(pipeline.map({"text": ["a"]}, "text"), dict[str, list[Any]])
    pipeline.effective_backend  # wrong
    pipeline.map({"text": ["a"]}, map_over="text", map_mode="outer")  # wrong
    Pipeline([split], backend=1)  # wrong
    node(shout, retry=3)  # wrong
    split(3, 4, 5)  # wrong
    measure(words=3)  # wrong
    measure(["a"], most=3)  # wrong
    Model().classify("a")  # wrong
"""


def errors_of(checker, file):
    """Return the lines of a file that have an error, and what the checker printed."""
    # The settings of the project have mypy skip the heavy libraries that hypernodes imports.
    mypy = ("mypy", "--strict", "--no-error-summary", "--config-file", str(SETTINGS))
    command = mypy if checker == "mypy" else ("pyright", "--pythonpath", sys.executable)
    done = subprocess.run(
        [sys.executable, "-m", *command, str(file)], capture_output=True, text=True, cwd=file.parent
    )
    if done.returncode not in (0, 1) or (checker == "pyright" and "error" not in done.stdout):
        pytest.skip(f"{checker} does not run here: {(done.stdout + done.stderr)[-200:]}")
    return sorted(set(map(int, re.findall(r"users\.py:(\d+):.* error:", done.stdout)))), done.stdout


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_a_type_checker_sees_the_signature_of_the_function(tmp_path, checker):
    if find_spec(checker) is None:
        pytest.skip(f"{checker} is not installed")
    file = tmp_path / "users.py"
    file.write_text(textwrap.dedent(USERS_FILE))
    wrong = [number for number, line in enumerate(file.read_text().splitlines(), 1) if "# wrong" in line]
    found, printed = errors_of(checker, file)
    assert found == wrong, printed


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
