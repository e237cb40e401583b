"""A program of a user, for type checkers: `make types` has mypy read it, and test_types_of_nodes pyright.

Each line that a checker must refuse is one to ignore: mypy reports an ignored line that has no error.
"""

from collections.abc import Coroutine
from typing import Any, assert_type

from hypernodes import DiskCache, HyperNodesEngine, Pipeline, node


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


def call_nodes() -> None:
    assert_type(split("a b"), list[str])
    assert_type(measure(["a"], least=3), int)
    assert_type(join(["a"]), str)
    assert_type(Model().classify(["a"]), str)
    assert_type(node(shout, output_name="loud")("a"), str)
    assert_type(split.rename(outputs={"split": "words"})("a b"), list[str])


async def await_nodes() -> None:
    page: Coroutine[Any, Any, bytes] = fetch("u")
    assert_type(await page, bytes)
    assert_type(await fetch("u"), bytes)
    assert_type(await Model().ask(["a"]), float)


def run_pipelines(engine: HyperNodesEngine) -> None:
    pipeline = Pipeline([split, Model().classify, fetch], engine=engine, cache=DiskCache("c"))
    assert_type(pipeline.run({"text": "a"}), dict[str, Any])
    assert_type(pipeline.map({"text": ["a"]}, "text"), dict[str, list[Any]])


def make_mistakes(pipeline: Pipeline) -> None:
    from hypernodes import SeqEngine  # type: ignore
    from hypernodes.engines import DaskEngine  # type: ignore

    print(SeqEngine, DaskEngine)
    pipeline.effective_backend  # type: ignore
    pipeline.map({"text": ["a"]}, map_over="text", map_mode="outer")  # type: ignore
    Pipeline([split], backend=1)  # type: ignore
    node(shout, retry=3)  # type: ignore
    split(3, 4, 5)  # type: ignore
    measure(words=3)  # type: ignore
    measure(["a"], most=3)  # type: ignore
    Model().classify("a")  # type: ignore
