"""What type checkers, IDEs and `inspect` see of a node: the signature of its function."""

import inspect
import subprocess
import sys
import textwrap

from hypernodes import node

USERS_FILE = """
    from typing import assert_type
    from collections.abc import Coroutine
    from typing import Any
    from hypernodes import Pipeline, node

    @node
    def split(text: str) -> list[str]:
        return text.split()

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

    def shout(text: str) -> str:
        return text.upper()

    assert_type(split("a b"), list[str])
    assert_type(measure(["a"], least=3), int)
    page = assert_type(fetch("u"), Coroutine[Any, Any, bytes])
    assert_type(Model().classify(["a"]), str)
    assert_type(node(shout, output_name="loud")("a"), str)
    assert_type(split.rename(outputs={"split": "words"})("a b"), list[str])
    Pipeline([split, Model().classify, fetch])
    split(3, 4, 5)  # wrong
    measure(words=3)  # wrong
    measure(["a"], most=3)  # wrong
    Model().classify("a")  # wrong
"""


def test_a_type_checker_sees_the_signature_of_the_function(tmp_path):
    file = tmp_path / "users.py"
    file.write_text(textwrap.dedent(USERS_FILE))
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", str(file)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    wrong = [number for number, line in enumerate(file.read_text().splitlines(), 1) if "# wrong" in line]
    found = sorted({int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error:" in line})
    assert found == wrong, done.stdout + done.stderr


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
