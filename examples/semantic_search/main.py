"""Search the documentation of Python's own standard library by meaning."""

from __future__ import annotations

import argparse
import platform
import sys
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

from model import Embedder
from pipelines import semantic_search

from hypernodes import DiskCache, HyperNodesEngine, PipelineCallback, ProgressCallback

EXECUTORS = ["sequential", "threaded", "parallel", "ray", "async"]
HERE = Path(__file__).resolve().parent
CACHE = HERE.parents[1] / ".cache" / "semantic_search"
WELL_KNOWN = """
    argparse base64 bisect builtins calendar collections concurrent.futures contextlib csv dataclasses
    datetime difflib email.message enum fnmatch fractions functools glob gzip hashlib heapq html http.client
    itertools json logging math os os.path pathlib pickle random re secrets shutil socket sqlite3 statistics
    string subprocess tempfile textwrap threading time timeit traceback urllib.parse urllib.request uuid
    zipfile
""".split()  # noqa: SIM905
SKIPPED = {
    *("antigravity", "this", "turtle", "turtledemo", "idlelib", "tkinter"),  # they open windows, or print
    *("nt", "ntpath", "posix", "posixpath"),  # os and os.path have it all
    *("distutils", "lib2to3"),  # gone from newer releases
}
QUESTIONS = [
    "parse a date",
    "run a command and capture its output",
    "delete a directory and everything in it",
    "split a URL into its parts",
    "wait until a thread has finished",
]


class Counter(PipelineCallback):
    """Count the nodes that were computed, and those that came from the cache."""

    def __init__(self) -> None:
        self.computed = self.cached = 0

    def on_node_end(self, *_: Any) -> None:
        self.computed += 1

    def on_nested_pipeline_end(self, *_: Any) -> None:
        self.computed -= 1  # it ends as a node, too, but computes nothing of its own

    def on_node_cached(self, *_: Any) -> None:
        self.cached += 1


def every_module() -> list[str]:
    """Return the public modules of the standard library that this system has."""
    public = {name for name in sys.stdlib_module_names if not name.startswith("_")} - SKIPPED
    return sorted({name for name in public if find_spec(name)} | set(WELL_KNOWN))


def main() -> None:
    """Answer the questions on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executor", choices=EXECUTORS, default=EXECUTORS[0], help="where it runs")
    parser.add_argument("--all", action="store_true", help="read every module, not only the well-known ones")
    parser.add_argument(
        "--module", action="append", help="read only this; may be given again", metavar="NAME"
    )
    parser.add_argument("--question", action="append", help="may be given several times", metavar="TEXT")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where results are kept", metavar="DIR")
    parser.add_argument("--remote", help="where hosts share results: s3://bucket/prefix", metavar="URL")
    options = parser.parse_args()

    started, counter = perf_counter(), Counter()
    questions = options.question or QUESTIONS
    inputs = {
        "modules": options.module or (every_module() if options.all else WELL_KNOWN),
        "python": platform.python_version(),
        "model": Embedder(HERE / "tokenizer.json"),
        "questions": questions,
    }
    callbacks = [ProgressCallback(), counter]
    cache = DiskCache(options.cache, remote=options.remote)
    with HyperNodesEngine(map_executor=options.executor) as engine, cache:
        pipeline = semantic_search.with_engine(engine).with_cache(cache).with_callbacks(callbacks)
        found = pipeline.run(inputs, output_name="hits")["hits"]
        seconds = perf_counter() - started

    for question, hits in zip(questions, found, strict=True):
        print(f"\n{question}")
        for hit in hits:
            print(f"  {hit.score:.2f}  {hit.module:16}  {hit.name}")
    print(f"\n{counter.computed} nodes computed, {counter.cached} from the cache, {seconds:.1f} s")


if __name__ == "__main__":
    main()
