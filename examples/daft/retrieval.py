"""Search a collection by meaning: a model as a fixed input of a Daft query.

    python examples/daft/retrieval.py [--runner native|ray] [--question "parse a date"]

The collection is the documentation of some modules of Python's standard library. Every passage is a row; the
model goes to each worker once. What has been embedded is found in the cache, whichever engine has put it
there.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cloudpickle
import daft
import numpy as np

from hypernodes import DaftEngine, DiskCache, Pipeline, node

SEARCH = Path(__file__).parents[1] / "semantic_search"
sys.path.insert(0, str(SEARCH))
import model as embedding  # noqa: E402
import pipelines  # noqa: E402

MODULES = ("datetime", "json", "pathlib", "random", "shutil", "statistics", "textwrap", "time", "zipfile")


@node(output_name="score")
def compare(vector: embedding.Vector, query: embedding.Vector) -> float:
    return float(np.dot(vector, query))


passages = Pipeline([pipelines.clean, pipelines.embed], name="passages")
scores = Pipeline([compare], name="scores")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runner", choices=["native", "ray"], default="native")
    parser.add_argument("--question", default="parse a date")
    parser.add_argument("--cache", type=Path, default=Path(".cache", "retrieval"))
    options = parser.parse_args()

    # Workers on other hosts have no copy of this example's modules.
    for module in (embedding, pipelines):
        cloudpickle.register_pickle_by_value(module)
    engine = DaftEngine(runner=options.runner)
    model = embedding.Embedder(SEARCH / "tokenizer.json")

    # The collection is a data frame whose columns are inputs; the model is bound, so that all rows share it.
    entries = [(name, doc) for module in MODULES for name, doc in pipelines.documented(module)]
    collection = daft.from_pydict({"name": [name for name, _ in entries], "doc": [doc for _, doc in entries]})
    embedder = passages.bind(model=model).with_engine(engine).with_cache(DiskCache(options.cache))
    vectors = embedder.map(collection, output_name="vector")["vector"]

    query = pipelines.embed(options.question, model)
    found = scores.with_engine(engine).map({"vector": vectors, "query": query}, "vector")["score"]
    print(f"{options.question!r}, in {len(entries)} passages:")
    best = sorted(zip(found, (name for name, _ in entries), strict=True), reverse=True)[:3]
    for score, name in best:
        print(f"  {score:.2f}  {name}")


if __name__ == "__main__":
    main()
