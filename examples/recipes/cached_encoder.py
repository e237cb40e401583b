"""Encode texts with a model that is loaded once, keep the vectors in a cache, and show the progress.

The progress goes to standard error. It prints::

    the model is loaded
    first run: 6 vectors computed, 0 from the cache
    the model is loaded
    with two more texts: 2 vectors computed, 6 from the cache
    again: 0 vectors computed, 8 from the cache
"""

import tempfile

from hypernodes import DiskCache, Pipeline, PipelineCallback, ProgressCallback, node, stateful

TEXTS = ["plain functions", "wired by name", "run anywhere", "one item", "or many", "cached by content"]


@stateful
class Encoder:
    """A stand-in for a model: a vector counts the letters of a text."""

    def __init__(self, letters: str) -> None:
        print("the model is loaded")
        self.letters = letters

    def encode(self, text: str) -> list[int]:
        return [text.count(letter) for letter in self.letters]


@node(output_name="vector")
def encode(encoder: Encoder, text: str) -> list[int]:
    return encoder.encode(text)


class Count(PipelineCallback):
    """Counts what was computed, and what came from the cache."""

    def __init__(self) -> None:
        self.computed = self.cached = 0

    def on_node_end(self, *event: object) -> None:
        del event
        self.computed += 1

    def on_node_cached(self, *event: object) -> None:
        del event
        self.cached += 1


def run(label: str, texts: list[str], cache: DiskCache) -> None:
    count = Count()
    pipeline = Pipeline([encode], cache=cache, callbacks=[count, ProgressCallback()], name="encoding")
    pipeline.bind(encoder=Encoder("aeiou")).map({"text": texts}, map_over="text")
    print(f"{label}: {count.computed} vectors computed, {count.cached} from the cache")


def main() -> None:
    with tempfile.TemporaryDirectory() as directory, DiskCache(directory) as cache:
        run("first run", TEXTS, cache)
        run("with two more texts", [*TEXTS, "a new text", "another one"], cache)
        run("again", [*TEXTS, "a new text", "another one"], cache)


if __name__ == "__main__":
    main()
