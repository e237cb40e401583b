"""Load a model once: as a node of fixed inputs, as a stateful class, and with functools.cache.

    python examples/models/classify.py
    python examples/models/classify.py --executor parallel

The "model" takes a quarter of a second to load. The last lines say how often it was loaded, and where.
"""

from __future__ import annotations

import argparse
import functools
import os
import tempfile
import time
from collections import Counter
from pathlib import Path

from hypernodes import DiskCache, HyperNodesEngine, Pipeline, node, stateful

TEXTS = [f"sample {number} of {kind}" for kind in ("news", "sport", "science") for number in range(8)]


class Classifier:
    def __init__(self, labels: tuple[str, ...], log: str) -> None:
        time.sleep(0.25)
        self.labels = labels
        with Path(log).open("a", encoding="utf-8") as notes:
            notes.write(f"loaded {os.getpid()}\n")

    def classify(self, text: str) -> str:
        return next(label for label in self.labels if label in text)


@node(output_name="classifier")
def load(labels: tuple[str, ...], log: str) -> Classifier:
    return Classifier(labels, log)


@node(output_name="label")
def classify(classifier: Classifier, text: str) -> str:
    return classifier.classify(text)


StatefulClassifier = stateful(Classifier)
cached_classifier = functools.cache(Classifier)


@node(output_name="label")
def classify_cached(text: str, labels: tuple[str, ...], log: str) -> str:
    return cached_classifier(labels, log).classify(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--executor", default="threaded", help="sequential, threaded, parallel, ray ...")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        run(options.executor, directory)


def run(executor: str, directory: str) -> None:
    labels = ("news", "sport", "science")
    with HyperNodesEngine(map_executor=executor) as engine:
        cache = DiskCache(Path(directory) / "cache")
        for way in ("a node of fixed inputs", "@stateful", "@stateful, from the cache", "functools.cache"):
            log = str(Path(directory) / f"{way.partition(',')[0]}.log")
            inputs = {"text": TEXTS, "labels": labels, "log": log}
            nodes = [load, classify] if way.startswith("a node") else [classify_cached]
            if "stateful" in way:
                nodes = [node(StatefulClassifier(labels, log).classify, output_name="label")]
                inputs = {"text": TEXTS}
            pipeline = Pipeline(nodes, engine=engine, cache=cache if "stateful" in way else None)
            before = loads(log)
            counted = Counter(pipeline.map(inputs, map_over="text", output_name="label")["label"])
            print(f"{way}: {dict(counted)}, loaded {loads(log) - before} times")


def loads(log: str) -> int:
    path = Path(log)
    return path.read_text(encoding="utf-8").count("loaded") if path.exists() else 0


if __name__ == "__main__":
    main()
